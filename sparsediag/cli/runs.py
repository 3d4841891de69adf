"""The command `runs`: the table and the pictures of many trainings."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sparsediag.cli import output
from sparsediag.cli.options import DEBUG, JSON, QUIET
from sparsediag.plotting import terminal

if TYPE_CHECKING:
    from sparsediag.diagnostics.comparison import Comparison
    from sparsediag.diagnostics.runs import Runs

MOST_GROUPS = 6  # columns of planes that are legible on a page


def runs(
    *folders: Annotated[
        Path,
        Parameter(help="Folders that `python -m training` wrote to (its --out), or of trainings."),
    ],
    out: Annotated[
        Path | None, Parameter(help="Result file, .npz (default: runs.npz in the first folder).")
    ] = None,
    formats: Annotated[str, Parameter(help="Formats of the pictures: png, pdf, svg.")] = "png",
    landscapes: Annotated[
        bool,
        Parameter(
            help="Also compute the landscapes of all networks on common axes, and draw them in one "
            "figure with the accuracies.",
            negative="",
        ),
    ] = False,
    points: Annotated[int, Parameter(help="Points of a landscape in each direction.")] = 15,
    split: Annotated[
        Literal["train", "validation", "test"],
        Parameter(help="Part of the data set for the landscapes."),
    ] = "train",
    images: Annotated[int, Parameter(help="Samples for the landscapes; 0 for the split.")] = 1000,
    device: Annotated[str, Parameter(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    json: JSON = False,
    quiet: QUIET = False,
    debug: DEBUG = False,
) -> None:
    """Print and draw the test accuracies of trainings, and write CSV, Markdown and LaTeX."""
    from sparsediag.diagnostics.runs import runs as read_runs  # imports torch

    if not folders:
        raise ValueError("need the folder that `python -m training` wrote to, such as out")
    if images < 0 or points < 2:
        raise ValueError(f"--images {images} --points {points}: need 0 or more, and 2 or more")
    pictures = output.parse_formats(formats)
    table = read_runs(*folders)
    out = output.check(out or folders[0] / "runs.npz")
    if landscapes and (len(table.groups) > MOST_GROUPS or len(table.checkpoints()) < 2):
        raise ValueError(
            f"--landscapes compares two networks or more, in {MOST_GROUPS} rows of the table at "
            f"most, not {len(table.groups)} rows; give the folders of fewer trainings, such as "
            "out/runs/*-d0.05-*"
        )
    written = output.write(table, out, formats=[*pictures, *table.exports()])
    if not json:
        terminal.print_table("runs", table.table())
        print(*table.below(), *output.describe_files(written), sep="\n")
    if landscapes:
        problem = {"split": split, "images": images, "device": device}
        comparison, drawn = _draw_landscapes(table, out, pictures, problem, points, quiet)
        written |= drawn
        if not json:
            terminal.print_table("landscapes", comparison.table())
            print(*comparison.below(), *output.describe_files(drawn), sep="\n")
    if json:
        print(dumps({**table.json(), "files": [str(file) for file in written]}))


def _draw_landscapes(
    table: Runs,
    out: Path,
    pictures: list[str],
    problem: dict[str, Any],
    points: int,
    quiet: bool,
) -> tuple[Comparison, dict[Path, bool]]:
    """Compute the landscapes of all networks and draw them with the accuracies in one figure.

    Returns:
        How the landscapes compare; and the files, and whether each replaced an older one.
    """
    from sparsediag.diagnostics.comparison import compare_files  # imports torch
    from sparsediag.plotting import style

    usual = {"points": 15, "split": "train", "images": 1000}
    options = {"points": points, **problem}
    ending = output.options_in_name({k: v for k, v in options.items() if v != usual.get(k)})
    npz = output.check(out.with_name(f"{out.stem}-landscapes{ending}.npz"))
    unfinished = npz.with_name(f".{npz.stem}.unfinished")
    with (
        terminal.progress_bar("landscapes", quiet=quiet) as progress,
        output.unfinished_work(unfinished),
    ):
        comparison = compare_files(
            table.checkpoints(),
            load=lambda checkpoint, _: checkpoint.problem(**problem),
            resume=unfinished,
            progress=progress,
            points=points,
        )
    files = [npz, *(npz.with_suffix(f".{picture}") for picture in pictures)]
    written = {file: file.exists() for file in files}
    comparison.save(npz)
    style.save(table.plot_with(comparison), npz.with_suffix(""), formats=tuple(pictures))
    for file in output.unfinished_files(unfinished):
        file.unlink()
    return comparison, written
