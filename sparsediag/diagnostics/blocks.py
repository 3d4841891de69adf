"""Blocks: the spectra of the Hessian's diagonal blocks, layer by layer or stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.curvature.engines import Mode
from sparsediag.curvature.lanczos import Which
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.diagnostics.traits import diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By = Literal["stage", "layer", "tensor"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks(Result):
    """Top eigenvalues of each block, the other weights held fixed.

    Attributes:
        names: Of the blocks that have live weights.
        eigenvalues: Best first, (blocks, top); nan where a block has fewer weights.
        residuals: |Hv - value v| / |value|, (blocks, top).
        counts: Live weights of each block.
        weight_norms: |w| of each; value times its square survives a change of scale.
        converged: Whether nothing speaks against a block's pairs.
        products: Of all blocks, those of the certificates included; one passes through the whole
            net.
    """

    names: list[str]
    eigenvalues: np.ndarray
    residuals: np.ndarray
    counts: list[int]
    weight_norms: np.ndarray
    converged: list[bool]
    products: int

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each block."""
        return [
            {
                "block": name,
                "live": f"{count:,}",
                "eigenvalue": f"{values[0]:.5g}",
                "x |w|²": f"{values[0] * norm**2:.3g}",
                "residual": f"{np.nanmax(residuals):.1e}",
                "verdict": "converged" if ok else "NOT converged",
            }
            for name, count, values, residuals, norm, ok in zip(
                self.names,
                self.counts,
                self.eigenvalues,
                self.residuals,
                self.weight_norms,
                self.converged,
                strict=True,
            )
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The top eigenvalue of each block."""
        from sparsediag.plotting import style

        if ax is None:
            with style.style():
                ax = style.new_figure(height=0.8 + 0.16 * len(self.names)).add_subplot()
        place = np.arange(len(self.names))
        colours = [style.COLOURS[0] if ok else "white" for ok in self.converged]
        ax.hlines(place, 0, self.eigenvalues[:, 0], color=style.COLOURS[4], linewidth=2)
        ax.scatter(
            self.eigenvalues[:, 0], place, c=colours, edgecolors=style.COLOURS[0], s=16, zorder=3
        )
        ax.set(xlabel="top eigenvalue", yticks=place)
        ax.set_yticklabels(map(style.escape_dollars, self.names))
        ax.invert_yaxis()
        return ax


@diagnostic()
def blocks(
    problem: Problem,
    *,
    by: By = "layer",
    top: int = 1,
    which: Which = "largest",
    tol: float = 1e-3,
    seed: int = 0,
    matrix: Matrix = "hessian",
    mode: Mode = "auto",
    memory: float | None = None,
    max_matvecs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Blocks:
    """Top eigenvalues of the Hessian's block for every layer or stage (Sankar et al., AAAI 2021).

    Args:
        problem: The loss.
        by: "stage" (as the net names its own, else its direct children), "layer" (a module with
            weights) or "tensor".
        top: Number of eigenvalues of each.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair has converged.
        seed: Seed of the start vectors.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        mode: How products are made; see `Curvature`.
        memory: GiB kept between products.
        max_matvecs: Stop after so many in each block.
        progress: Called as `progress(blocks, all)`.

    Raises:
        ValueError: If `by` is unknown.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> blocks(Problem(net, [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())).names
    ['0', '1']
    """
    options = {k: v for k, v in dict(locals()).items() if k not in ("problem", "progress")}
    if by not in ("stage", "layer", "tensor"):
        raise ValueError(unknown_name("part of a net", by, ("stage", "layer", "tensor")))
    if top < 1:
        raise ValueError(f"top={top}: need 1 eigenvalue or more")
    live = problem.live.counts()
    groups: dict[str, list[str]] = {}
    for name in (n for n, count in live.items() if count):
        groups.setdefault(_group(problem, name, by), []).append(name)
    values, residuals = np.full((2, len(groups), top), np.nan)
    norms, converged, products = [], [], 0
    for i, members in enumerate(groups.values()):
        part = problem.view(params=",".join(map(escape, members)))
        found = spectrum(
            part,
            top=min(top, part.size),
            which=which,
            tol=tol,
            seed=seed,
            matrix=matrix,
            mode=mode,
            memory=memory,
            max_matvecs=max_matvecs,
        )
        values[i, : len(found.eigenvalues)] = found.eigenvalues
        residuals[i, : len(found.residuals)] = found.residuals
        norms.append(found.weight_norm)
        converged.append(found.converged)
        products += found.products + int(found.checks["products"])
        if progress:
            progress(i + 1, len(groups))
    return Blocks(
        names=list(groups),
        eigenvalues=values,
        residuals=residuals,
        counts=[sum(live[n] for n in members) for members in groups.values()],
        weight_norms=np.array(norms),
        converged=converged,
        products=products,
        source=source(problem, **options),
    )


def _group(problem: Problem, name: str, by: By) -> str:
    """The block that a weight belongs to."""
    if by == "tensor":
        return name
    if by == "layer":
        return name.rpartition(".")[0] or name
    stages = getattr(problem.net, "stages", [])
    for i, modules in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(modules, list) and any(name.startswith(f"{module}.") for module in modules):
            return f"stage {i + 1}"
    return name.partition(".")[0]
