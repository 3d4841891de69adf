"""Comparison: landscapes of several nets on the same axes, and numbers for how sharp each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.evaluation import full_precision
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.landscape import Landscape, landscape
from sparsediag.diagnostics.result import Result, provenance, title
from sparsediag.diagnostics.spectrum import spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RADII = 24  # distances at which the rise is measured
ANGLES = 64  # directions in the plane over which it is averaged


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Result):
    """Rise of the loss around several networks.

    Attributes:
        names: Of the nets.
        losses: Of the landscapes, (nets, ...).
        axes: Of all of them, (dims, points).
        labels: What the directions are.
        centres: Loss at each net, (nets,).
        radii: Distances from it, in the landscapes' unit, (radii,).
        rises: Mean rise of the loss at each distance, over both sides of a line or all around in a
            plane, (nets, radii).
        basins: Share of the picture where the loss is less than `level` above the net's, (nets,).
        curvature: u.Hu along the unit vectors of the directions, the mean of them; NaN if the
            landscapes have none, (nets,).
        tops: The largest eigenvalue of the Hessian, NaN where it is not known, (nets,).
        unit: Of the distances.
        level: Rise that bounds a basin.
        converged: For each net, whether its landscape and its largest eigenvalue converged.
    """

    names: list[str]
    losses: np.ndarray
    axes: np.ndarray
    labels: list[str]
    centres: np.ndarray
    radii: np.ndarray
    rises: np.ndarray
    basins: np.ndarray
    curvature: np.ndarray
    tops: np.ndarray
    unit: str
    level: float
    converged: list[bool] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each net."""
        columns = [len(self.radii) // 4 - 1, len(self.radii) // 2 - 1, len(self.radii) - 1]
        return [
            {
                "net": name,
                "loss": f"{centre:.4g}",
                **{f"rise at {self.radii[i]:.2g}": f"{rise[i]:.3g}" for i in columns},
                f"within {self.level:g}": f"{basin:.0%}",
                **({} if np.isnan(self.curvature).all() else {"curvature": f"{curvature:.3g}"}),
                "of the top": "" if np.isnan(curvature / top) else f"{curvature / top:.1%}",
            }
            for name, centre, rise, basin, curvature, top in zip(
                self.names,
                self.centres,
                self.rises,
                self.basins,
                self.curvature,
                self.tops,
                strict=True,
            )
        ]

    @property
    def provenance(self) -> str:
        """Return in a line what was measured, for each network if it differs."""
        return "; ".join(dict.fromkeys(provenance(one) for one in self.source["landscapes"]))

    @property
    def title(self) -> str:
        """Return the title of its pictures: data and samples; the legend has the names."""
        return title(self.source["landscapes"][0] | {"label": f"{len(self.names)} networks"})

    def remarks(self) -> list[str]:
        """Return what the numbers can not show."""
        lost = [n for n, r in zip(self.names, self.rises, strict=True) if not np.isfinite(r).all()]
        said = [
            f"the loss of {name} is not finite at some distances: no rise there" for name in lost
        ]
        said += [
            f"doubt: an eigenvalue of {name} did not converge: `spectrum --top 1` says why"
            for name, converged in zip(self.names, self.converged, strict=False)
            if not converged
        ]
        if np.isnan(self.tops).all():
            return said
        if np.isnan(self.curvature).all():
            return [*said, "landscape(..., curvature=True) adds the curvature along the axes"]
        return [
            *said,
            "a random plane misses the sharpest directions: `of the top` is how much of the "
            "largest eigenvalue its axes see",
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The mean rise over the distance, a curve a net."""
        from sparsediag.plotting import layers, style

        ax = ax or style.new_axes()
        for i, (name, rise) in enumerate(zip(self.names, self.rises, strict=True)):
            colour = style.COLOURS[i % len(style.COLOURS)]
            colour, label = style.COLOUR_OF.get(name, colour), style.escape_dollars(name)
            ax.plot(self.radii, rise, color=colour, label=label)
        ax.set(xlabel=f"distance ({self.unit})", ylabel="mean rise of the loss")
        layers.set_log_scale(ax, "y")
        with style.style():
            layers.add_legend(ax)
        return ax

    def panels(self) -> dict[str, Figure]:
        """Return the landscapes side by side, if they are planes."""
        from sparsediag.plotting.landscape import plot_comparison

        return {"panels": plot_comparison(self)} if len(self.axes) == 2 else {}


@full_precision()
def compare(
    landscapes: Mapping[str, Landscape],
    *,
    level: float = 0.1,
    tops: Mapping[str, float] | None = None,
) -> Comparison:
    """Numbers that several landscapes can be ranked by, where ToST's Figures 8 and 10 use the eye.

    Args:
        landscapes: By the names of their nets, on the same axes; with `curvature=True` for the
            columns of curvature.
        level: Rise of the loss that bounds a basin.
        tops: Largest eigenvalues of the Hessians, by the same names.

    Raises:
        ValueError: If there are fewer than two, their axes differ or leave the nets out, or a
            shard is not joined.

    >>> import torch
    >>> from sparsediag import Problem, landscape
    >>> batches = [(torch.eye(2), torch.ones(2, 1))]
    >>> nets = {str(i): torch.nn.Linear(2, 1) for i in range(2)}
    >>> compare(
    ...     {
    ...         name: landscape(Problem(net, batches, loss=torch.nn.MSELoss()), points=5)
    ...         for name, net in nets.items()
    ...     }
    ... ).rises.shape
    (2, 24)
    """
    first = next(iter(landscapes.values()), None)
    if first is None or len(landscapes) < 2:
        raise ValueError(f"got {len(landscapes)} landscape; need two or more to compare")
    for name, one in landscapes.items():
        same = one.axes.shape == first.axes.shape and np.allclose(one.axes, first.axes)
        if not same or one.unit != first.unit or one.labels != first.labels:
            raise ValueError(f"the landscape of '{name}' has other axes; draw all with one command")
        if not one.status.all():
            raise ValueError(f"the landscape of '{name}' is a shard; join the shards first")
    if (first.axes[:, 0] >= 0).any() or (first.axes[:, -1] <= 0).any():
        raise ValueError("the nets lie outside of their landscapes; use a larger span")
    rising = {name: _rises(one) for name, one in landscapes.items()}
    planes = list(landscapes.values())
    return Comparison(
        names=list(landscapes),
        losses=np.stack([one.loss for one in planes]),
        axes=first.axes,
        labels=first.labels,
        centres=np.array([one.centre for one in planes]),
        radii=next(iter(rising.values()))[0],
        rises=np.stack([rise for _, rise in rising.values()]),
        basins=np.array([(one.loss < one.centre + level).mean() for one in planes]),
        curvature=np.array([one.curvature.mean() for one in planes]),
        tops=np.array([(tops or {}).get(name, np.nan) for name in landscapes]),
        unit=first.unit,
        level=level,
        converged=[one.converged for one in planes],
        source={"landscapes": [one.source for one in planes], "options": {"level": level}},
    )


def compare_files(
    files: Mapping[str, Path],
    *,
    load: Callable[..., Problem],
    resume: Path,
    progress: Callable[[int, int], None],
    **options: Any,
) -> Comparison:
    """Compute and compare the landscapes of several checkpoints on the same directions and axes.

    Args:
        files: Checkpoints, by the names of their networks.
        load: Makes the problem of a checkpoint; gets the name too.
        resume: Files for unfinished work begin with this path.
        progress: Called as `progress(points, all)`.
        **options: Those of `landscape`.
    """
    landscapes, spectra = {}, {}
    problems = {name: load(Checkpoint.load(file), name) for name, file in files.items()}
    for i, (name, problem) in enumerate(problems.items()):
        landscapes[name] = landscape(
            problem,
            curvature=True,
            resume=resume.with_name(f"{resume.name}-{i}"),
            progress=partial(_report_progress, progress, i, len(files)),
            **options,
        )
        spectra[name] = spectrum(problem, top=1)
    tops = {name: float(one.eigenvalues[0]) for name, one in spectra.items()}
    comparison = compare(landscapes, tops=tops)
    converged = [landscapes[n].converged and spectra[n].converged for n in comparison.names]
    return replace(comparison, converged=converged)


def _report_progress(
    progress: Callable[[int, int], None], index: int, nets: int, done: int, total: int
) -> None:
    """Report the progress of one of several networks as that of all."""
    progress(index * total + done, nets * total)


def _rises(one: Landscape) -> tuple[np.ndarray, np.ndarray]:
    """Distances, and the mean rise at each."""
    from scipy.interpolate import RegularGridInterpolator

    reach = float(np.abs(one.axes[:, [0, -1]]).min())
    radii = np.linspace(reach / RADII, reach, RADII)
    if len(one.axes) == 1:
        loss = np.atleast_2d(one.loss)
        sides = [np.interp(sign * radii, one.axes[0], line) for line in loss for sign in (-1, 1)]
        return radii, np.mean(sides, axis=0) - one.centre
    turns = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    value = RegularGridInterpolator(tuple(one.axes), one.loss)
    return radii, np.array([value(r * around).mean() for r in radii]) - one.centre
