"""Course: activations, gradient flow or signal of every layer, through the epochs of a training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.run_folder import checkpoints, epochs
from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import full_precision
from sparsediag.core.old_names import accept_old_names
from sparsediag.core.problem import Problem
from sparsediag.diagnostics import DIAGNOSTICS, load_diagnostic
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.traits import History, traits_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Course(Result):
    """A diagnostic of every checkpoint of a run, layer by layer.

    Attributes:
        diagnostic: Which one: activations, gradflow or signal.
        files: Names of the checkpoints, in order of their steps.
        epochs: Epochs trained at each, (checkpoints,).
        names: The layers.
        measures: Fields of the diagnostic's result.
        values: Those fields, (measures, checkpoints, layers); nan where there is none.
    """

    diagnostic: str
    files: list[str]
    epochs: np.ndarray
    names: list[str]
    measures: list[str]
    values: np.ndarray

    def of(self, measure: str) -> np.ndarray:
        """Return the values of one measure, (checkpoints, layers).

        Raises:
            ValueError: If there is no such measure.
        """
        if measure not in self.measures:
            raise ValueError(unknown_name("measure", measure, self.measures))
        values: np.ndarray = self.values[self.measures.index(measure)]
        return values

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each checkpoint, with the means over the layers."""
        labels = history_of(self.diagnostic).fields
        means = {labels[m]: _mean(self.of(m)) for m in self.measures if _there(self.of(m))}
        return [
            {"checkpoint": file, "epochs": str(epochs)}
            | {head: "" if np.isnan(mean[i]) else f"{mean[i]:.4g}" for head, mean in means.items()}
            for i, (file, epochs) in enumerate(zip(self.files, self.epochs, strict=True))
        ]

    def plot(self, ax: Axes | None = None, *, measure: str | None = None) -> Axes:
        """Plot a measure of all layers over the epochs; on a new figure, with means above it."""
        from sparsediag.plotting import layers, style

        measure, history = measure or self.measures[0], history_of(self.diagnostic)
        values = self.of(measure)
        if ax is None:
            means = [m for m in self.measures[:3] if _there(self.of(m))]
            groups = [means] if history.ylabel else [[m] for m in means]
            heights = [1.5 if history.ylabel else 0.8] * len(groups)
            rows = layers.rows_height(self.names)
            with style.style():
                fig = style.new_figure(height=0.5 + sum(heights) + 0.4 * len(groups) + rows)
                *above, ax = fig.subplots(len(groups) + 1, height_ratios=(*heights, rows))
            for panel, group in zip(above, groups, strict=True):
                self._lines(panel, group, history)
            for panel in above[:-1]:
                panel.set_xlabel("")
        columns = [str(epoch) for epoch in self.epochs]
        layers.heatmap(ax, self.names, columns, values, label=history.fields[measure])
        ax.set_xlabel("epoch")
        return ax

    def lines(self, ax: Axes | None = None) -> Axes:
        """Plot means over the layers, over the epochs."""
        from sparsediag.plotting import style

        measures = [m for m in self.measures[:3] if _there(self.of(m))]
        return self._lines(ax or style.new_axes(), measures, history_of(self.diagnostic))

    def _lines(self, ax: Axes, measures: list[str], history: History) -> Axes:
        from matplotlib.ticker import MaxNLocator

        from sparsediag.plotting import layers, style

        for measure in measures:
            label, colour = history.fields[measure], style.COLOURS[self.measures.index(measure)]
            ax.plot(self.epochs, _mean(self.of(measure)), "o-", ms=3, color=colour, label=label)
        if history.log:
            layers.set_log_scale(ax, "y")
        ax.set(xlabel="epoch", ylabel=f"mean {history.ylabel}")
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if len(measures) > 1:
            layers.add_legend(ax, 3)
        else:
            ax.set_ylabel("\n".join(f"mean {label.removeprefix('mean ')}".rsplit(" ", 1)))
        return ax


@accept_old_names
@full_precision()
def course(
    run: str | Path,
    diagnostic: str,
    *,
    load: Callable[[Checkpoint], Problem] = Checkpoint.problem,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Course:
    """Compute a diagnostic of every checkpoint in a folder, such as the flow in ToST's Figure 9b.

    For "gradflow" the mask of each checkpoint is the `previous_mask` of the next: where masks move,
    what has regrown since is shown.

    Args:
        run: Folder that a training wrote.
        diagnostic: "activations", "gradflow" or "signal".
        load: Makes a checkpoint's problem: the same images for all.
        progress: Called as `progress(checkpoints, all)`.
        **options: Those of the diagnostic.

    Raises:
        ValueError: If the folder holds no checkpoint, their order cannot be told, or an option
            cannot be.

    >>> import tempfile
    >>> from sparsediag import models
    >>> about = {"model": "lenet300", "options": {"size": 8, "width": 4}, "data": "digits"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epoch in (1, 2):
    ...         ckpt = Checkpoint.of(models.build("lenet300", size=8, width=4), **about, step=epoch)
    ...         ckpt.save(f"{folder}/epoch-{epoch}.pt")
    ...     course(folder, "gradflow").of("flow").shape
    (2, 3)
    """
    history = history_of(diagnostic)
    function = load_diagnostic(diagnostic)
    if "previous_mask" in options:
        raise ValueError("in a run the previous mask is known; leave out previous_mask")
    compares_masks = "previous_mask" in inspect.signature(function).parameters
    files = checkpoints(Path(run))
    results, trained, previous_mask = [], [], None
    for i, file in enumerate(files):
        checkpoint = Checkpoint.load(file)
        problem = load(checkpoint)
        earlier: dict[str, Any] = (
            {"previous_mask": previous_mask} if previous_mask and compares_masks else {}
        )
        results.append(function(problem, **earlier, **options))
        trained.append(epochs(file, checkpoint))
        previous_mask = problem.mask
        if progress:
            progress(i + 1, len(files))
    names = list(dict.fromkeys(name for result in results for name in result.names))
    measures = list(history.fields)
    values = np.full((len(measures), len(files), len(names)), np.nan)
    for i, result in enumerate(results):
        places = [names.index(name) for name in result.names]
        values[:, i, places] = [getattr(result, measure) for measure in measures]
    return Course(
        diagnostic=diagnostic,
        files=[file.name for file in files],
        epochs=np.array(trained),
        names=names,
        measures=measures,
        values=values,
        source=source(problem, **options),
    )


def history_of(diagnostic: str) -> History:
    """Return the curves that a diagnostic has through a run.

    Raises:
        ValueError: If there is no such diagnostic, or it has none.
    """
    histories = {name: traits_of(load_diagnostic(name)).history for name in DIAGNOSTICS}
    known = [name for name, history in histories.items() if history]
    history = histories.get(diagnostic)
    if not history:
        raise ValueError(unknown_name("diagnostic of a run", diagnostic, known))
    return history


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the layers that have a value, (checkpoints,); nan if none has."""
    known = np.isfinite(values)
    total, number = np.where(known, values, 0).sum(1), known.sum(1)
    means: np.ndarray = total / np.where(number, number, np.nan)
    return means


def _there(values: np.ndarray) -> bool:
    """Return whether there is anything to show."""
    return bool((np.isfinite(values) & (values != 0)).any())
