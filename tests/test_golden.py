"""What users type stays: names, flags, keys, identities of runs and files, as they once were.

`tests/golden/` was written by `python tests/test_golden.py` from version 0.1.0, once and for all:
what it holds may gain company, but must keep its meaning.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsediag as sd
from sparsediag.cli.app import app
from sparsediag.diagnostics import DIAGNOSTICS
from training.config import RECIPES, Run
from training.masks import METHODS
from training.tweaks import TWEAKS

GOLDEN = Path(__file__).parent / "golden"
NAMES: dict[str, Any] = json.loads(text) if (text := (GOLDEN / "names.json").read_text()) else {}
NEEDED: dict[str, dict[str, Any]] = {"file": {"path": "mask.pt"}, "dense": {}}
# defaults that have changed since, each for a reason that the changelog gives
CHANGED: dict[str, dict[str, Any]] = {"trace": {"--max-products": None}}
PLAIN = (int, float, str, bool, type(None))


def flags(command: str) -> dict[str, Any]:
    """Every name of every argument of a command, with its default."""
    found = {}
    for argument in app[command].assemble_argument_collection():
        default = argument.field_info.default
        plain = default if isinstance(default, PLAIN) else str(default)
        missing = default is argument.field_info.empty
        found |= dict.fromkeys(argument.names, "required" if missing else plain)
    return found


def keys() -> dict[str, dict[str, Any]]:
    """The defaults of every key: of a run, of each method and of each tweak."""
    own = {k: v for k, v in _defaults(Run()).items() if not k.startswith(("mask.", "tweaks."))}
    return (
        {"run": own}
        | {f"mask.{n}": _defaults(kind(**NEEDED.get(n, {}))) for n, kind in METHODS.items()}
        | {f"tweaks.{n}": _defaults(kind()) for n, kind in TWEAKS.items()}
    )


def _defaults(table: Any, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for f in fields(table):
        value = getattr(table, f.name)
        if is_dataclass(value):
            found |= _defaults(value, f"{before}{f.name}.")
        elif not isinstance(value, dict):
            found[before + f.name] = list(value) if isinstance(value, tuple) else value
    return found


def _table(group: str, key: str | None = None, value: Any = None) -> dict[str, Any]:
    """A run file that has one key of a group."""
    kind, _, name = group.partition(".")
    table: dict[str, Any] = {} if key is None else {key: value}
    if kind == "mask":
        return {"mask": {"method": name, **NEEDED.get(name, {"density": 0.3}), **table}}
    if kind == "tweaks":
        return {"tweaks": {name: {"_": 0, **table}}}
    for part in reversed(key.split(".") if key else []):
        table = {part: value} if not table or key in table else {part: table}
    return table


def ids() -> dict[str, str]:
    """Identities of runs: of all recipes, and of each method and tweak."""
    recipes = {path.stem: Run.load(path.stem).id for path in sorted(RECIPES.glob("*.toml"))}
    masks = {f"mask.{name}": Run.of(_table(f"mask.{name}")).id for name in METHODS}
    return recipes | masks | {f"tweaks.{n}": Run.of({"tweaks": [n]}).id for n in TWEAKS}


def _problem() -> sd.Problem:
    checkpoint = sd.Checkpoint.load(GOLDEN / "checkpoint.pt")
    return checkpoint.problem(images=32)


def test_names_in_python() -> None:
    for name in NAMES["python"]:
        assert name in dir(sd)
        assert getattr(sd, name) is not None


@pytest.mark.parametrize("command", NAMES["flags"])
def test_flags_and_their_defaults(command: str) -> None:
    current = flags(command)
    golden = NAMES["flags"][command] | CHANGED.get(command, {})
    assert {name: current.get(name, "gone") for name in golden} == golden


@pytest.mark.parametrize("group", NAMES["keys"])
def test_keys_of_a_run_file_and_their_defaults(group: str) -> None:
    """A key at its default changes no run, and another value another run."""
    kind, _, name = group.partition(".")
    for key, default in NAMES["keys"][group].items():
        if default is None or key in ("density", "path"):
            continue
        if kind == "tweaks":
            same = Run.of({"tweaks": {name: {key: default}}}).id
            assert same == Run.of({"tweaks": [name]}).id, key
        else:
            assert Run.of(_table(group, key, default)).id == Run.of(_table(group)).id, key


def test_identities_of_runs() -> None:
    current = ids()
    assert {name: current.get(name) for name in NAMES["ids"]} == NAMES["ids"]


def test_a_checkpoint_is_read() -> None:
    checkpoint = sd.Checkpoint.load(GOLDEN / "checkpoint.pt")
    assert checkpoint.mask is not None
    assert round(checkpoint.mask.density, 3) == 0.25
    x = torch.linspace(0, 1, 128).reshape(2, 1, 8, 8)
    with torch.no_grad():
        outputs = checkpoint.build().eval()(x)
    torch.testing.assert_close(outputs, torch.tensor(NAMES["outputs"]), rtol=1e-4, atol=1e-5)


def test_a_result_is_read_and_measured_again() -> None:
    result = sd.Result.load(GOLDEN / "landscape.npz")
    assert isinstance(result, sd.Landscape)
    np.testing.assert_allclose(sd.landscape(_problem(), points=3).loss, result.loss, rtol=1e-4)


if __name__ == "__main__":
    run = {"mask.method": "random", "mask.density": 0.25, "optim.epochs": 1}
    small = {"model.name": "lenet300", "model.width": 8}
    from training.loop import fit

    best = fit(Run.load("digits", run | small), out=Path("out/golden"), device="cpu")
    sd.Checkpoint.load(best).save(GOLDEN / "checkpoint.pt")
    sd.landscape(_problem(), points=3).save(GOLDEN / "landscape.npz")
    x = torch.linspace(0, 1, 128).reshape(2, 1, 8, 8)
    net = sd.Checkpoint.load(GOLDEN / "checkpoint.pt").build().eval()
    names = {
        "python": list(sd.__all__),
        "flags": {name: flags(name) for name in ["report", "info", "join", "watch", *DIAGNOSTICS]},
        "keys": keys(),
        "ids": ids(),
        "outputs": net(x).tolist(),
    }
    (GOLDEN / "names.json").write_text(json.dumps(names, indent=1) + "\n")
