"""Keywords and flags by their old names do what the new ones do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cases
import pytest

import sparsediag
from sparsediag.cli.app import app, main
from sparsediag.core.old_names import RENAMED
from sparsediag.diagnostics import DIAGNOSTICS

GOLDEN = Path(__file__).parents[2] / "golden" / "checkpoint.pt"
KEYWORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "basis": ("spectrum", {"max_basis": 12}),
    "before": ("gradflow", {"previous_mask": None}),
    "block": ("spectrum", {"block_size": 2}),
    "max_products": ("trace", {"max_matvecs": 40}),
    "probes": ("spectrum", {"density": True, "num_probes": 2}),
    "steps": ("spectrum", {"density": True, "lanczos_steps": 3}),
    "vectors": ("landscape", {"points": 3, "include_1d": True}),
}


@pytest.mark.parametrize("old", KEYWORDS)
def test_an_old_keyword_is_the_new_one(old: str) -> None:
    name, options = KEYWORDS[old]
    diagnostic, problem = getattr(sparsediag, name), cases.masked_mlp()
    older = {old if key == RENAMED[old] else key: value for key, value in options.items()}
    assert diagnostic(problem, **older).source == diagnostic(problem, **options).source
    with pytest.raises(TypeError, match=rf"'{old}' .* '{RENAMED[old]}'"):
        diagnostic(problem, **(older | options))


def test_the_batch_size_of_a_checkpoint() -> None:
    load = sparsediag.Checkpoint.load(GOLDEN).problem
    older: dict[str, Any] = {"batch": 8}
    assert len(load(images=20, **older).batches) == len(load(images=20, batch_size=8).batches) == 3


def test_every_old_flag_is_beside_its_new_one() -> None:
    pairs = {
        (RENAMED[old], old)
        for command in (*DIAGNOSTICS, "report")
        for argument in app[command].assemble_argument_collection()
        if len(names := [n[2:].replace("-", "_") for n in argument.names]) > 1
        for old in names[1:]
        if old in RENAMED
    }
    assert pairs == {(new, old) for old, new in RENAMED.items()}


def test_old_and_new_flag_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spectrum", str(GOLDEN), "--steps", "3", "--lanczos-steps", "3"]) == 2
    assert re.search("--lanczos-steps .*multiple times", capsys.readouterr().err)
