"""The command `sparsediag report a.pt b.pt --out report.html`."""

from __future__ import annotations

import inspect
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sparsediag.cli.options import CHECKPOINT, LOOK, SHARED, sizes

OTHERS = Annotated[Path, Parameter(help="More of them, on the same axes.")]
OWN: dict[str, tuple[Any, Any]] = {
    "out": (Annotated[Path, Parameter(help="The page, .html.")], Path("report.html")),
    "points": (Annotated[int, Parameter(help="Points along each direction and eigenvector.")], 21),
    "top": (Annotated[int, Parameter(help="Number of eigenpairs.")], 3),
}


def command(checkpoint: Path, *others: Path, **given: Any) -> None:
    """Write a page with all diagnostics of one or several networks; it works offline."""
    from sparsediag.checkpoint import resolve
    from sparsediag.diagnostics.report.report import report
    from sparsediag.plotting import terminal

    asked = {key: given.get(key, default) for key, (_, default) in OPTIONS.items()}
    sizes(asked["images"], asked["batch"])
    look = {key: asked[key] for key in (*LOOK, *OWN)}
    if asked["model_options"] is not None:
        look["model_options"] = resolve.options(asked["model_options"])
    with terminal.progress_bar("report") as progress:
        path = report([checkpoint, *others], progress=progress, **look)
    print(dumps({"files": [str(path)]}) if asked["json"] else f"wrote {path}")


OPTIONS = OWN | {key: value for key, value in SHARED.items() if key not in ("out", "formats")}
OPTIONS["images"] = (
    Annotated[int | None, Parameter(help="Images to use; 0 for the whole split (default: 500).")],
    None,
)
_PARAMETERS = [
    inspect.Parameter("checkpoint", inspect.Parameter.POSITIONAL_ONLY, annotation=CHECKPOINT),
    inspect.Parameter("others", inspect.Parameter.VAR_POSITIONAL, annotation=OTHERS),
    *(
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for key, (hint, default) in OPTIONS.items()
    ),
]
command.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]
command.__annotations__ = {p.name: p.annotation for p in _PARAMETERS}
