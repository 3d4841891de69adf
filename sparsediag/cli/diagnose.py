"""Run the command of a diagnostic: load, compute, write."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.labels import file_labels
from sparsediag.checkpoint.model_folder import is_model_folder
from sparsediag.checkpoint.run_folder import checkpoints
from sparsediag.cli import output
from sparsediag.cli.options import SHARED, problem_options
from sparsediag.core.problem import Problem
from sparsediag.diagnostics import load_diagnostic
from sparsediag.diagnostics.course import course
from sparsediag.diagnostics.traits import import_sibling, traits_of
from sparsediag.plotting import terminal

Load = Callable[..., Problem]  # of a checkpoint, and its name if there are several


def run(name: str, files: list[Path], options: dict[str, Any], defaults: Mapping[str, Any]) -> int:
    """Compute a diagnostic, write its files, print its table or JSON, and return the exit code.

    Args:
        name: The diagnostic.
        files: Checkpoints, or the folder of a run.
        options: Options that were typed, the shared ones included.
        defaults: The default of every option.
    """
    shared = {key: options.pop(key, default) for key, (_, default) in SHARED.items()}
    compare, names = options.pop("compare", False), options.pop("names", None)
    problem = problem_options(shared)
    changed = {k: v for k, v in (problem | options).items() if v != defaults.get(k)}
    notes: dict[str, None] = {}  # each line once

    def load_problem(checkpoint: Checkpoint, label: str = "") -> Problem:
        prefix = f"{label}: " if label else ""
        try:
            return checkpoint.problem(**problem, note=lambda line: notes.setdefault(prefix + line))
        except ValueError as error:
            if not label:
                raise
            raise ValueError(f"{prefix}{error}") from error

    traits = traits_of(load_diagnostic(name))
    if traits.takes_run and len(files) == 1 and _is_run(files[0]):
        files = _only_checkpoint(files[0], notes) or files
    if traits.samples and shared["images"]:
        options.setdefault(traits.samples, shared["images"])
    exports = () if compare else traits.formats(len(files), **options)
    formats = output.parse_formats(shared["formats"], exports=exports)
    if shared["out"]:
        output.check(shared["out"])
    with terminal.progress_bar(name, quiet=shared["quiet"]) as progress:
        compute, out = prepare(
            name,
            files,
            load_problem,
            options,
            compare=compare,
            names=names,
            problem=problem,
            ending=output.options_in_name(changed),
        )
        out = output.check(shared["out"] or out)
        resume_file = out.with_name(f".{out.stem}.unfinished")
        accepted = inspect.signature(compute).parameters
        offered = {"resume": resume_file, "progress": progress}
        options |= {key: value for key, value in offered.items() if key in accepted}
        with output.unfinished_work(resume_file):
            result = compute(**options)
        written = output.write(result, out, formats=formats)
    for file in output.unfinished_files(resume_file):
        file.unlink()
    if shared["json"]:
        extra = {"notes": list(notes)} if notes else {}
        print(dumps({**result.json(), **extra, "files": [str(file) for file in written]}))
    else:
        terminal.print_table(name, result.table())
        print(*result.below(), *notes, *output.describe_files(written), sep="\n")
    return output.exit_code(result)


def _only_checkpoint(folder: Path, notes: dict[str, None]) -> list[Path]:
    """Return the checkpoint of a run's folder that holds no other, with a note; else nothing."""
    files = checkpoints(folder)
    if len(files) > 1:
        return []
    notes[
        f"{folder} holds one checkpoint, {files[0].name}, so this is no course of a training; a "
        "training keeps more with --record.checkpoint_epochs '[1, 5, 10]'"
    ] = None
    return files


def _is_run(path: Path) -> bool:
    return path.is_dir() and not is_model_folder(path)


def prepare(
    name: str,
    files: list[Path],
    load: Load,
    options: dict[str, Any],
    *,
    compare: bool,
    names: str | None,
    problem: dict[str, Any],
    ending: str,
) -> tuple[Callable[..., Any], Path]:
    """Return the function to call with the options, and the default result file.

    Args:
        name: The diagnostic.
        files: Checkpoints, or the folder of a run.
        load: Makes the problem of a checkpoint.
        options: Options of the diagnostic; those that are used up here are removed.
        compare: Compute several networks one by one and compare them.
        names: Names of several networks, separated by commas.
        problem: Options of `Checkpoint.problem`.
        ending: Part of the default file's name that names the options.

    Raises:
        ValueError: If the diagnostic cannot take a folder, so many networks, or an option with
            them.
    """
    function, first = load_diagnostic(name), files[0]
    traits, shard = traits_of(function), options.get("shard")
    ending += f"-{shard.replace('/', 'of')}.npz" if shard else ".npz"
    if names is not None and len(files) < 2:
        raise ValueError(f"--names {names}: need as many checkpoints as names; got {first}")
    if compare:
        if len(files) < 2 or shard:
            raise ValueError("--compare needs two checkpoints or more, and no --shard")
        files_by_label = dict(zip(_labels(files, names), files, strict=True))
        compute = partial(import_sibling(traits.compare), files_by_label, load=load)
        _, *others = files_by_label
        ending = output.options_in_name({"comparison": ",".join(others)}) + ending
        return compute, first.with_name(f"{first.stem}{ending}")
    is_run = _is_run(first)
    if is_run:
        out = first / f"{name}{ending}"
        if len(files) > 1 or not traits.takes_run:
            example = next(first.glob("best.pt"), None)
            hint = f", such as {example}" if example else ""
            raise ValueError(f"{first} is a folder; {name} needs one checkpoint of it{hint}")
        if traits.history:
            return partial(course, first, name, load=load), out
        if traits.run:
            return partial(import_sibling(traits.run), first, load=load), out
        files = checkpoints(first)
        labels = [file.stem for file in files]
    elif len(files) == 1:
        checkpoint = Checkpoint.load(first)
        extra = {k: read(checkpoint, **problem) for k, read in traits.from_checkpoint.items()}
        compute = partial(function, load(checkpoint), **extra)
        return compute, first.with_name(f"{first.stem}-{name}{ending}")
    else:
        labels = _labels(files, names)
        ending = output.options_in_name({"between": ",".join(labels[1:])}) + ending
        out = first.with_name(f"{first.stem}{ending}")
    assert traits.several
    pairs = zip(labels, files, strict=True)
    problems = {label: load(Checkpoint.load(file), label) for label, file in pairs}
    return partial(function, traits.several(problems, options, is_run)), out


def _labels(files: list[Path], names: str | None) -> list[str]:
    return file_labels(files, [Checkpoint.load(file).run for file in files], names)
