"""Block-diagonal spectrum: eigenvalues of the Hessian's diagonal blocks, by layer or stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from glob import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.curvature.engines import Mode
from sparsediag.curvature.lanczos import Which
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.diagnostics.traits import diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By = Literal["stage", "layer", "tensor"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks(Result):
    """Top eigenvalues of each diagonal block: the curvature if only its weights move.

    Attributes:
        names: The blocks that have live weights.
        eigenvalues: The wanted end of the spectrum first, (blocks, top); NaN where a block has
            fewer weights.
        residuals: |Hv - value v| / |value|, (blocks, top).
        counts: Number of live weights of each block.
        weight_norms: |w| of each block, (blocks,); value * |w|^2 does not change if a
            scale-invariant block is rescaled.
        converged: True for blocks whose pairs no check speaks against.
        products: Number of products for all blocks, certificates included; each passes through the
            whole network.
        doubts: Reasons to doubt pairs of blocks, one line each.
    """

    names: list[str]
    eigenvalues: np.ndarray
    residuals: np.ndarray
    counts: list[int]
    weight_norms: np.ndarray
    converged: list[bool]
    products: int
    doubts: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each block, with its top eigenvalue."""
        top = self.eigenvalues[:, 0]
        return table_rows(
            {
                "block": (self.names, ""),
                "live weights": (self.counts, ","),
                "eigenvalue": (top, ".5g"),
                "x |w|²": (top * self.weight_norms**2, ".3g"),
                "residual": (np.nanmax(self.residuals, axis=1), ".1e"),
                "verdict": (["converged" if ok else "NOT converged" for ok in self.converged], ""),
            }
        )

    def remarks(self) -> list[str]:
        """Return the doubts."""
        return [f"doubt: {line}" for line in self.doubts]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the top eigenvalue of each block, a row a block; hollow if not converged."""
        from sparsediag.plotting import layers, style

        top, rows = self.eigenvalues[:, 0], np.arange(len(self.names))
        ax = layers.plot_layers(self.names, {}, ax)
        colours = [style.COLOURS[0] if ok else "white" for ok in self.converged]
        ax.hlines(rows, 0, top, color=style.COLOURS[4], linewidth=2)
        ax.scatter(top, rows, c=colours, edgecolors=style.COLOURS[0], s=16, zorder=3)
        ax.set_xlabel("top eigenvalue")
        if not all(self.converged):
            ax.scatter([], [], c="white", edgecolors=style.COLOURS[0], s=16, label="not converged")
            layers.add_legend(ax)
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
    """Compute top eigenvalues of the Hessian's diagonal blocks (Sankar et al., AAAI 2021).

    Args:
        problem: The loss.
        by: "stage" (the network's own stages, else its direct children), "layer" (a module with
            weights) or "tensor".
        top: Number of eigenvalues of each block.
        which: The algebraically largest or smallest ones, or those of largest magnitude.
        tol: Relative residual |Hv - value v| / |value| at which a pair has converged.
        seed: Seed of the start vectors.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        mode: Engine of the products: a recorded "tape", double backward on a "retained" graph, or
            "compiled"; "auto" takes the one that suits the network.
        memory: GiB kept between products.
        max_matvecs: Largest number of products for each block.
        progress: Called as `progress(blocks done, all blocks)`.

    Returns:
        The eigenvalues, (blocks, top), and their residuals.

    Raises:
        ValueError: If an option is invalid.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> blocks(Problem(net, [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())).names
    ['0', '1']
    """
    if by not in ("stage", "layer", "tensor"):
        raise ValueError(unknown_name("part of a network", by, ("stage", "layer", "tensor")))
    if top < 1:
        raise ValueError(f"top={top}: need 1 eigenvalue or more")
    options: dict[str, Any] = {"which": which, "tol": tol, "seed": seed, "matrix": matrix}
    options |= {"mode": mode, "memory": memory, "max_matvecs": max_matvecs}
    live = problem.live.counts()
    groups = defaultdict[str, list[str]](list)
    for name in (n for n, count in live.items() if count):
        groups[_block_of(problem, name, by)].append(name)
    spectra, _ = [], problem.separable  # found out once for all blocks
    for members in track(list(groups.values()), progress):
        part = problem.view(params=",".join(map(escape, members)))
        spectra.append(spectrum(part, top=min(top, part.size), **options))
    doubted = defaultdict[str, list[str]](list)
    for name, s in zip(groups, spectra, strict=True):
        for line in s.doubts:
            doubted[line].append(name)
    values, residuals = np.full((2, len(groups), top), np.nan)
    for i, s in enumerate(spectra):
        values[i, : len(s.eigenvalues)] = s.eigenvalues
        residuals[i, : len(s.residuals)] = s.residuals
    return Blocks(
        names=list(groups),
        eigenvalues=values,
        residuals=residuals,
        counts=[sum(live[n] for n in members) for members in groups.values()],
        weight_norms=np.array([s.weight_norm for s in spectra]),
        converged=[s.converged for s in spectra],
        products=sum(s.products + int(s.checks["products"]) for s in spectra),
        doubts=[f"{line} ({', '.join(names)})" for line, names in doubted.items()],
        source=source(problem, by=by, top=top, **options),
    )


def _block_of(problem: Problem, name: str, by: By) -> str:
    """Return the block of a weight."""
    if by == "tensor":
        return name
    if by == "layer":
        return name.rpartition(".")[0] or name
    stages = getattr(problem.net, "stages", [])
    for i, modules in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(modules, list) and any(name.startswith(f"{module}.") for module in modules):
            return f"stage {i + 1}"
    return name.partition(".")[0]
