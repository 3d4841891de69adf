"""Labels of trainings and checkpoints: what each is, and among several what tells them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAIN = {"model": "model.name", "data": "data", "mask": "mask.method", "density": "mask.density"}
FIRST = [*MAIN, "tweaks", "seed"]  # the parts of a label, in this order
AT, TRT = {"ghost_neurons", "ghost_skips"}, {"rescale", "smoothing"}

Table = Mapping[str, Any]  # of a training: that of a checkpoint, or of its run.toml


def describe_run(run: Table) -> dict[str, Any]:
    """Return model, data, mask, density, tweaks and seed of a training, then its other keys.

    The others are dotted as on the command line, such as "optim.lr". A dense network and a mask
    from a file have no density.

    >>> describe_run({"data": "digits", "mask": {"method": "dense", "density": 1.0}, "seed": 3})
    {'data': 'digits', 'mask': 'dense', 'tweaks': 'plain', 'seed': 3}
    """
    flat = _flatten(run)
    main = {part: flat.pop(key) for part, key in MAIN.items() if key in flat}
    if main.get("mask") in ("dense", "file"):
        main.pop("density", None)
    return (
        main | {"tweaks": _join_tweaks(run.get("tweaks", {})), "seed": flat.pop("seed", 0)} | flat
    )


def run_label(run: Table) -> str:
    """Return a line that says what a training is; "" for a network that was not trained here.

    >>> run_label({"data": "digits", "mask": {"method": "snip", "density": 0.05}, "seed": 3})
    'digits snip density 0.05 seed 3'
    """
    described = describe_run(run)
    parts = [part for part in FIRST if part in described and described[part] != "plain"]
    return " ".join(_word(part, described[part]) for part in parts) if run else ""


def run_labels(runs: Sequence[Table]) -> list[str]:
    """Return for each of several trainings the parts of its description that others do not share.

    What a training records is left out: it does not change the network.

    >>> one = {"mask": {"method": "snip", "density": 0.05}, "optim": {"lr": 0.1}, "seed": 3}
    >>> run_labels([one, one | {"tweaks": {"smoothing": {}}}, one | {"optim": {"lr": 0.2}}])
    ['plain lr 0.1', 'smoothing lr 0.1', 'plain lr 0.2']
    """
    described = [describe_run({k: v for k, v in run.items() if k != "record"}) for run in runs]
    parts = differences(described)
    return [" ".join(_word(part, value) for part, value in own.items()) for own in parts]


def differences(described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of each description (see `describe_run`) that others do not share.

    >>> differences([{"mask": "snip", "seed": 0}, {"mask": "snip", "seed": 1}])
    [{'seed': 0}, {'seed': 1}]
    """
    differing: list[dict[str, Any]] = [{} for _ in described]
    for part in dict.fromkeys([*FIRST, *(key for facts in described for key in facts)]):
        owner = part.partition(".")[0] if part.startswith(("mask.", "tweaks.")) else ""
        optional = owner or part == "density"  # those that have it are compared with one another
        holders = [facts for facts in described if part in facts or not optional]
        values = {(facts.get(owner), str(facts.get(part))) for facts in holders}
        if len(values) > len({name for name, _ in values}):
            for own, facts in zip(differing, described, strict=True):
                own |= {part: facts.get(part)} if facts in holders else {}
    return differing


def file_labels(
    files: Sequence[Path], runs: Sequence[Table], names: str | None = None
) -> list[str]:
    """Return distinct labels of checkpoints.

    They are the given names; otherwise the label of the only training, or what tells several
    apart, with the name of the file where one has several; otherwise names of files or folders.

    Args:
        files: The checkpoints.
        runs: The description of each training; empty for a network that was not trained here.
        names: Names to use, separated by commas.

    Raises:
        ValueError: If there are not as many names as checkpoints, two are equal, or a checkpoint
            came twice.

    >>> file_labels([Path("a/best.pt"), Path("b/best.pt")], [{"seed": 0}, {"seed": 1}])
    ['seed 0', 'seed 1']
    >>> file_labels([Path("a/best.pt"), Path("b/best.pt")], [{}, {}])
    ['a', 'b']
    """
    if names is not None:
        given = [name.strip() for name in names.split(",")]
        if len(given) != len(files) or len(set(given)) < len(given) or "" in given:
            raise ValueError(f"--names {names}: need {len(files)} different names with commas")
        return given
    if len(files) == 1 and runs[0]:
        return [run_label(runs[0])]
    stems, folders = [f.stem for f in files], [f.resolve().parent.name for f in files]
    short = [re.sub(r"-[0-9a-f]{10}$", "", folder) for folder in folders]
    parts = run_labels(runs) if all(runs) else [""] * len(files)
    with_stem = [f"{part} {stem}".strip() for part, stem in zip(parts, stems, strict=True)]
    same_folder = len(set(folders)) == 1 or not all(runs)
    candidates = [stems] if same_folder else [parts, with_stem]
    for labels in (*candidates, short, folders, [str(f) for f in files]):
        if len(set(labels)) == len(labels) and "" not in labels:
            return labels
    raise ValueError(f"got {files[0]} twice; give different files")


def _join_tweaks(tweaks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the names of tweaks joined by +, with ToST's names for groups; "plain" for none.

    >>> ghosts = {"ghost_neurons": {"schedule": "none"}, "ghost_skips": {"schedule": "none"}}
    >>> _join_tweaks(ghosts | {"smoothing": {}})
    'at+smoothing'
    """
    rest, words = dict(tweaks), []
    fading = any(tweaks[name].get("schedule") != "none" for name in AT & tweaks.keys())
    groups = {"tost": AT | TRT} if fading else {"at": AT}
    for group, members in (groups | {"trt": TRT}).items():
        if members <= rest.keys():
            words.append(group)
            rest = {name: options for name, options in rest.items() if name not in members}
    return "+".join([*words, *rest]) or "plain"


def _flatten(table: Table, prefix: str = "") -> dict[str, Any]:
    """Return a nested table as one with dotted keys; without the values None."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def _word(part: str, value: Any) -> str:
    """Return a part of a description in words: "tost", "seed 3", "lr 0.1", "width default"."""
    key = part.removeprefix("tweaks.") if part.startswith("tweaks.") else part.split(".")[-1]
    text = (
        "default" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    )
    if part == "data":
        text = text if ":" not in text else Path(text.partition(":")[2]).name or text
    return text if key in ("model", "data", "mask", "tweaks", "name") else f"{key} {text}"
