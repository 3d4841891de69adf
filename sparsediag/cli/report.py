"""The command `sparsediag report a.pt b.pt --out report.html`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from sparsediag.checkpoint.labels import file_labels
from sparsediag.cli import output
from sparsediag.cli.options import NAMES, SHARED, Options, option, problem_options, set_signature
from sparsediag.plotting import terminal

OWN: Options = {
    "out": (option("out", Path, "The page, .html."), Path("report.html")),
    "points": (option("points", int, "Points along each direction and eigenvector."), 21),
    "top": (option("top", int, "Number of eigenpairs."), 3),
}
OPTIONS = OWN | {key: value for key, value in SHARED.items() if key not in ("out", "formats")}
OPTIONS["names"] = (NAMES, None)
OTHERS = (
    "Further checkpoints, on the same axes; files of sd.Watch; folders of trainings, for their "
    "best checkpoint and their watch.jsonl."
)


def command(checkpoint: Path, *others: Path, **values: Any) -> int:
    """Write a page with all diagnostics of networks, and what sd.Watch recorded of trainings."""
    from sparsediag.diagnostics.report.report import report  # imports torch

    options: dict[str, Any] = {
        key: values.get(key, default) for key, (_, default) in OPTIONS.items()
    }
    chosen = {key: options[key] for key in OWN}
    files, names, out = [checkpoint, *others], options["names"], chosen["out"]
    nets = files if names is None else dict(zip(file_labels(files, [], names), files, strict=True))
    replaces, notes = output.check_page(out), list[str]()
    with (
        terminal.progress_bar("report", quiet=options["quiet"]) as progress,
        output.unfinished_work(out.with_name(f".{out.stem}.unfinished")),
    ):
        path = report(
            nets, progress=progress, note=notes.append, **chosen, **problem_options(options)
        )
    if options["json"]:
        extra = {"notes": notes} if notes else {}
        print(dumps({**extra, "files": [str(path)]}))
    else:
        print(*notes, *output.describe_files({path: replaces}), sep="\n")
    return output.NOT_CONVERGED if notes else 0


set_signature(command, OPTIONS, others=OTHERS)
