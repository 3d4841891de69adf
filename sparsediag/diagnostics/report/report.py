"""The HTML report: every diagnostic of one or several networks on one page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.atomic import atomic_write
from sparsediag.diagnostics.report.measure import Progress, measure
from sparsediag.diagnostics.report.nets import Given, gather
from sparsediag.diagnostics.report.page import page
from sparsediag.diagnostics.report.watched import split_sources


def report(
    nets: Given,
    *,
    out: str | Path = "report.html",
    points: int = 21,
    top: int = 3,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> Path:
    """Write a page with all diagnostics of networks and the rows of a Watch; return its path.

    Finished results are stored in a hidden folder beside `out` until the page is written, so that
    a report that was killed continues there. A diagnostic that fails leaves the reason on the page.

    Args:
        nets: A checkpoint's file, several, or files, checkpoints or problems by name. A file may
            be one of `Watch`, or the folder of a training: its best checkpoint and `watch.jsonl`.
        out: The page, .html.
        points: Grid points along each direction of a landscape, and along each eigenvector.
        top: Number of eigenpairs.
        progress: Called as `progress(passes, all)`.
        note: Called with a line for each diagnostic that failed or did not converge.
        options: Keywords of `Checkpoint.problem`: split, images, data, model, loss and so on.

    Raises:
        ValueError: If `out` is no .html file, a network comes twice, or none gives a problem.

    >>> import tempfile
    >>> import torch
    >>> from sparsediag import Problem
    >>> problem = Problem(torch.nn.Linear(3, 2), [(torch.eye(3), torch.tensor([0, 1, 0]))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report({"linear": problem}, out=f"{folder}/net.html", points=3, top=1).name
    'net.html'
    """
    out = Path(out)
    if out.suffix != ".html":
        raise ValueError(f"--out {out}: a report is written as .html; use that ending")
    if points < 3 or top < 1:
        raise ValueError(f"points={points}, top={top}: need 3 points and 1 eigenpair or more")
    nets, recording = split_sources(nets)
    load = partial(Checkpoint.problem, **options)
    gathered = gather(nets, load) if nets or recording is None else {}
    folder = out.with_name(f".{out.stem}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    measured = measure(gathered, points=points, top=top, folder=folder, progress=progress)
    with atomic_write(out) as draft:
        draft.write_text(page(replace(measured, recording=recording)), encoding="utf-8")
    shutil.rmtree(folder)
    if note:
        for line in measured.failures():
            note(line)
    return out
