"""The command `sparsediag report a.pt b.pt --out report.html`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from sparsediag.checkpoint.labels import file_labels
from sparsediag.cli.options import NAMES, SHARED, Options, option, problem_options, set_signature
from sparsediag.diagnostics.report.report import report
from sparsediag.plotting import terminal

OWN: Options = {
    "out": (option("out", Path, "The page, .html."), Path("report.html")),
    "points": (option("points", int, "Points along each direction and eigenvector."), 21),
    "top": (option("top", int, "Number of eigenpairs."), 3),
}
OPTIONS = OWN | {key: value for key, value in SHARED.items() if key not in ("out", "formats")}
OPTIONS["names"] = (NAMES, None)
OPTIONS["images"] = (
    option("images", int | None, "Number of samples; 0 for the whole split (default: 500)."),
    None,
)


def command(checkpoint: Path, *others: Path, **values: Any) -> None:
    """Write a page with all diagnostics of one or several networks; it works offline."""
    options = {key: values.get(key, default) for key, (_, default) in OPTIONS.items()}
    chosen: dict[str, Any] = {key: options[key] for key in OWN}
    files, names = [checkpoint, *others], options["names"]
    nets = files if names is None else dict(zip(file_labels(files, [], names), files, strict=True))
    with terminal.progress_bar("report") as progress:
        path = report(nets, progress=progress, **chosen, **problem_options(options))
    print(dumps({"files": [str(path)]}) if options["json"] else f"wrote {path}")


set_signature(command, OPTIONS, others="Further checkpoints, on the same axes.")
