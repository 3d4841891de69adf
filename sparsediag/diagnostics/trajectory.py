"""Trajectory: the top of the Hessian's spectrum through the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.run_folder import checkpoints, epochs
from sparsediag.core.evaluation import full_precision
from sparsediag.core.old_names import accept_old_names
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.spectrum import Spectrum, spectrum
from sparsediag.diagnostics.subspace import overlap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTS = ("files", "problems", "converged")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory(Result):
    """Eigenvalues, checkpoint by checkpoint, beside what the training recorded.

    Attributes:
        files: Names of the checkpoints, in order of their steps.
        problems: Fingerprint of each one's loss.
        epochs: Epochs trained at each, (n,).
        eigenvalues: Best first, (n, top).
        residuals: |Hv - value v| / |value|, recomputed, (n, top).
        converged: Whether nothing speaks against a checkpoint's pairs.
        products: Of the search at each checkpoint; each starts from the one before, but for the
            first and where interrupted work went on.
        weight_norms: |w| of the live weights, (n,).
        kept: Smallest cosine between the leading subspace and that of the checkpoint before: 1
            where it stood still, nan for the first and where interrupted work went on, (n,).
        rates: Learning rate in each epoch of the training, (epochs,).
        accuracies: Validation accuracy after each, (epochs,).
    """

    files: list[str]
    problems: list[str]
    epochs: np.ndarray
    eigenvalues: np.ndarray
    residuals: np.ndarray
    converged: list[bool]
    products: np.ndarray
    weight_norms: np.ndarray
    kept: np.ndarray
    rates: np.ndarray
    accuracies: np.ndarray

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each checkpoint."""
        return [
            {
                "checkpoint": file,
                "epochs": str(epochs),
                "eigenvalue": f"{values[0]:.5g}",
                "x |w|²": f"{values[0] * norm**2:.4g}",
                "residual": f"{residuals.max():.1e}",
                "products": str(products),
                "kept": "" if np.isnan(kept) else f"{kept:.2f}",
                "verdict": "converged" if ok else "NOT converged",
            }
            for file, epochs, values, norm, residuals, products, kept, ok in zip(
                self.files,
                self.epochs,
                self.eigenvalues,
                self.weight_norms,
                self.residuals,
                self.products,
                self.kept,
                self.converged,
                strict=True,
            )
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues over epochs, drops of the learning rate, and the accuracy."""
        from matplotlib.ticker import MaxNLocator

        from sparsediag.plotting import layers, style

        ax = ax or style.new_axes()
        eigenvalues = self.eigenvalues
        for i, values in enumerate(eigenvalues.T[1:]):
            label = "_" * (i > 0) + "further eigenvalues"
            ax.plot(self.epochs, values, color=style.COLOURS[4], lw=0.8, label=label)
        ax.plot(
            self.epochs,
            eigenvalues[:, 0],
            "o-",
            color=style.COLOURS[0],
            ms=3,
            label="top eigenvalue",
        )
        layers.set_log_scale(ax, "y")
        doubtful = ~np.array(self.converged)
        if doubtful.any():
            hollow: dict[str, Any] = {
                "mfc": "white",
                "mec": "black",
                "ms": 5,
                "label": "not converged",
            }
            ax.plot(self.epochs[doubtful], eigenvalues[doubtful, 0], "o", **hollow)
        drops = np.flatnonzero(np.diff(self.rates) < -0.3 * self.rates[:-1]) + 1
        for i, epoch in enumerate(drops):
            label = "_" * (i > 0) + "the learning rate drops"
            ax.axvline(float(epoch), color="#777777", ls=":", lw=0.8, label=label)
        ax.set(xlabel="epoch", ylabel="Hessian eigenvalue")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        with style.style():
            layers.add_legend(ax)
        if np.isfinite(self.accuracies).any():
            with style.style():
                right = ax.twinx()
            epochs = np.arange(1, len(self.accuracies) + 1)
            right.plot(epochs, 100 * self.accuracies, color=style.COLOURS[1], lw=0.8)
            right.set_ylabel("validation accuracy (%)", color=style.COLOURS[1])
            right.grid(False)
            right.spines["right"].set_visible(True)
        return ax


@accept_old_names
@full_precision()
def trajectory(
    run: str | Path,
    *,
    load: Callable[[Checkpoint], Problem] = Checkpoint.problem,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Trajectory:
    """The spectrum of every checkpoint in a folder, each started from the one before.

    Of a training it is ToST's Figure 9a.

    Args:
        run: Folder that a training wrote.
        load: Makes a checkpoint's problem: the same images for all.
        resume: File that keeps what is done. If it holds the same work unfinished, it goes on.
        progress: Called as `progress(checkpoints, all)`.
        **options: Those of `spectrum`.

    Raises:
        ValueError: If the folder holds no checkpoint, or a density is asked for.

    >>> import tempfile
    >>> from sparsediag import models
    >>> about = {"model": "lenet300", "options": {"size": 8, "width": 4}, "data": "digits"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epoch in (1, 2):
    ...         ckpt = Checkpoint.of(models.build("lenet300", size=8, width=4), **about, step=epoch)
    ...         ckpt.save(f"{folder}/epoch-{epoch}.pt")
    ...     trajectory(folder, top=1, tol=0.1).eigenvalues.shape
    (2, 1)
    """
    if options.get("density"):
        raise ValueError("a folder has one spectrum for each checkpoint; density needs one file")
    files = checkpoints(Path(run))
    rows: list[dict[str, Any]] = []
    done = _unfinished(resume, options)
    previous: Spectrum | None = None
    for i, file in enumerate(files):
        checkpoint = Checkpoint.load(file)
        problem = load(checkpoint)
        row = done.get(problem.digest)
        if row is None:
            pairs = spectrum(problem, start=previous, **options)
            row = {
                "eigenvalues": pairs.eigenvalues,
                "residuals": pairs.residuals,
                "converged": pairs.converged,
                "products": pairs.products,
                "weight_norms": pairs.weight_norm,
                "kept": float(overlap(previous, pairs).min()) if previous else np.nan,
            }
            previous = pairs
        row = row | {
            "files": file.name,
            "problems": problem.digest,
            "epochs": epochs(file, checkpoint),
        }
        rows.append(row)
        columns: dict[str, Any] = {key: [r[key] for r in rows] for key in row}
        columns |= {key: np.array(v) for key, v in columns.items() if key not in LISTS}
        result = Trajectory(
            **columns,
            rates=np.array([r.get("lr", np.nan) for r in checkpoint.history], dtype=float),
            accuracies=np.array(
                [r.get("val_accuracy", np.nan) for r in checkpoint.history], dtype=float
            ),
            source=source(problem, **options),
        )
        if resume is not None:
            result.save(resume)
        if progress:
            progress(i + 1, len(files))
    return result


def _unfinished(resume: Path | None, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return rows of an earlier call with the same options, by the fingerprint of their loss."""
    if resume is None or not resume.exists():
        return {}
    saved = Trajectory.load(resume)
    if saved.source["options"] != options:
        raise ValueError(f"{resume} holds an unfinished trajectory with other options; remove it")
    columns = ("eigenvalues", "residuals", "converged", "products", "weight_norms", "kept")
    return {
        digest: {key: getattr(saved, key)[i] for key in columns}
        for i, digest in enumerate(saved.problems)
    }
