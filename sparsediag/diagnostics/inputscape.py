"""Inputscape: the loss of single images on planes through their pixels (ToST, Fig 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.checkpoint import resolve
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.batch_loss import BatchLoss
from sparsediag.core.batches import Batch, rechunk
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.errors import unknown_name
from sparsediag.core.memory_format import MemoryFormat
from sparsediag.core.problem import Problem
from sparsediag.core.rng import stream
from sparsediag.core.twice_differentiable import twice_differentiable
from sparsediag.curvature.lanczos import eigenpairs
from sparsediag.data import datasets
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.traits import Traits, diagnostic
from sparsediag.surfaces import directions
from sparsediag.surfaces.evaluate import CHUNK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

LABELS = {
    "gradient": ["gradient sign (1/255)", "random signs (1/255)"],
    "random": ["random signs (1/255)", "orthogonal signs (1/255)"],
    "eigenvectors": ["eigenvector 1 (1/255)", "eigenvector 2 (1/255)"],
}
FOUND = 0.01  # residual, and asymmetry of the matrix, up to which eigenvectors count as found


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputscape(Result):
    """The loss of each image at the points of a grid around it.

    Attributes:
        loss: At most `clamp`, (images, points, points); `loss[k, i, j]` is at `axes[0, i]`,
            `axes[1, j]`. NaN where the net overflows.
        axes: Steps along both directions, in 1/255 of a pixel's full scale, (2, points).
        labels: Names of the two axes.
        clamp: The highest loss that is told apart.
        centre: The loss of each image itself, not clamped, (images,).
        gradients: Norm of the gradient of that loss in the pixels, full scale 1, (images,).
        slopes: Sum of the sizes of the same gradient, (images,): over 255, the first-order rise
            of the loss from 0 to 1 along the gradient's sign.
        eigenvalues: Of the Hessian in the pixels, full scale 1, (images, 2), NaN where rounding
            hides them; (0, 2) where the axes are no eigenvectors.
    """

    loss: np.ndarray
    axes: np.ndarray
    labels: list[str]
    clamp: float
    centre: np.ndarray
    gradients: np.ndarray
    slopes: np.ndarray
    eigenvalues: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the images, (points, points)."""
        return np.asarray(self.loss.mean(axis=0))

    def table(self) -> list[dict[str, Any]]:
        """Return what the planes have in common, as means over the images."""
        rise = self.loss.mean(axis=(1, 2)) - np.minimum(self.centre, self.clamp)
        reached = (self.loss >= self.clamp).any(axis=(1, 2))
        return [
            {"": "clean loss", "mean": f"{self.centre.mean():.4g}"},
            {"": "mean rise", "mean": f"{rise.mean():.4g}"},
            {"": "highest - lowest", "mean": f"{np.ptp(self.loss, axis=(1, 2)).mean():.4g}"},
            {"": "gradient norm", "mean": f"{self.gradients.mean():.4g}"},
            {"": "images that reach the clamp", "mean": f"{reached.mean():.0%}"},
        ]

    def remarks(self) -> list[str]:
        """Return what the means do not show, in lines for a terminal."""
        n, asked = len(self.loss), self.source["options"]["count"]
        cut = (self.loss >= self.clamp).mean(axis=(1, 2)) > 0.5
        found = {
            f"are at the clamp ({self.clamp:g}) over more than half of the plane": cut,
            "have no gradient, so its sign does not move them": self.gradients == 0,
            "have eigenvectors that rounding hides": np.isnan(self.eigenvalues).any(axis=1),
        }
        fewer = [f"{n} images: {asked} were asked, the problem has no more"] if n < asked else []
        return fewer + [f"{k.sum()} of {n} images {what}" for what, k in found.items() if k.any()]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Filled contours of the mean over the images, with the images as a cross."""
        from sparsediag.plotting import style

        ax = ax or style.new_axes()
        style.plot_contours(ax, self.axes[0], self.axes[1], self.mean)
        ax.plot(0, 0, "+", color="white", ms=8)
        ax.set(xlabel=self.labels[0], ylabel=self.labels[1])
        return ax

    def surface(self) -> Figure:
        """The mean over the images as a surface to turn around (plotly)."""
        from sparsediag.plotting import style

        return style.plot_surface_3d(self.axes, self.mean, self.labels)


def pixel_std(checkpoint: Checkpoint, *, data: str | None = None, **_: Any) -> Tensor | None:
    """Return what the pixels of the data set were divided by; None for custom batches."""
    name = data or checkpoint.data
    return None if resolve.is_custom_data(name) else datasets.load(name).std


@diagnostic(Traits(from_checkpoint={"std": pixel_std}))
def inputscape(
    problem: Problem,
    *,
    axes: Literal["gradient", "random", "eigenvectors"] = "gradient",
    count: int = 64,
    points: int = 41,
    span: float = 16.0,
    clamp: float = 8.0,
    std: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Inputscape:
    """The loss of each image at `image + a u + b v`, a and b in [-span, span] / 255 (ToST, Fig 10).

    Args:
        problem: The net, its loss and the images.
        axes: "gradient": u is the sign of the gradient of the image's loss, v random signs, the
            same for every image and net. "random": both are such signs, v made orthogonal to u.
            "eigenvectors": the top two of the Hessian of the image's loss in its pixels, as long as
            such signs, uphill along +u and +v. In a net of ReLUs, linear in the pixels piece by
            piece, the softmax alone bends the loss, and not where the net is sure of a class.
        count: The first so many images of the problem.
        points: Grid points along each direction; an odd number has the image as its centre.
        span: How far to go each way, in 1/255 of the full scale of a pixel.
        clamp: Losses above this count as this.
        std: What the inputs were divided by, (C, 1, 1), in shares of full scale; None for 1.
        seed: Seed of the random signs, and of the eigensolver.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If options cannot be, the inputs are no floating-point images of one shape, or
            the loss is no mean over images that do not see each other.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> problem = Problem(net, [(torch.ones(5, 1, 2, 2), torch.arange(5) % 3)])
    >>> inputscape(problem, points=3).loss.shape
    (5, 3, 3)
    """
    options = {k: v for k, v in dict(locals()).items() if k not in ("problem", "std", "progress")}
    axis = directions.grid_axis(points, span)
    if axes not in LABELS:
        raise ValueError(unknown_name("axes", axes, LABELS))
    if count < 1 or not clamp > 0:
        raise ValueError(f"count={count}, clamp={clamp}: need 1 image or more, a positive clamp")
    looked = _Images(problem, count, std)
    x, shape = looked.x, looked.x.shape[1:]
    drawn = torch.randint(2, (2, shape.numel()), generator=stream("inputscape", seed))
    signs = (2 * drawn - 1).to(x)
    u, v = (directions.orthogonalise(signs) if axes == "random" else signs).view(2, 1, *shape)
    loss, values = np.empty((len(x), points, points)), np.zeros((0, 2))
    with problem.evaluation_mode():
        centre, gradient = looked.losses(x), looked.gradient()
        if axes == "gradient":
            u = gradient.sign()
        if axes == "eigenvectors":
            pairs = [looked.eigenpairs(k, slope, seed) for k, slope in enumerate(gradient)]
            values = np.stack([found for found, _ in pairs])
            u, v = torch.stack([vectors for _, vectors in pairs], dim=1) * shape.numel() ** 0.5
        u, v = u / looked.scale / 255, v / looked.scale / 255
        for n, (i, j) in enumerate(product(range(points), repeat=2)):
            loss[:, i, j] = looked.losses(x + float(axis[i]) * u + float(axis[j]) * v)
            if progress:
                progress(n + 1, points**2)
    flat = gradient.flatten(1).double()
    return Inputscape(
        loss=np.minimum(loss, clamp),
        axes=np.stack([axis, axis]),
        labels=[*LABELS[axes]],
        clamp=clamp,
        centre=centre,
        gradients=flat.norm(dim=1).cpu().numpy(),
        slopes=flat.abs().sum(dim=1).cpu().numpy(),
        eigenvalues=values,
        source=source(problem, **options, std=None if std is None else std.flatten().tolist()),
    )


class _Images:
    """The first images of a problem, each with its own loss; for use in the problem's modes."""

    def __init__(self, problem: Problem, count: int, std: Tensor | None) -> None:
        if not problem.separable:
            raise ValueError(
                f"batch_norm='{problem.batch_norm}': images see each other, or the loss is no mean "
                "over them; need 'eval', and a mean"
            )
        kept = rechunk(list(problem.batches), 1)[:count]
        shapes = {tuple(getattr(x, "shape", ())[1:]) for x, _ in kept}
        x, y = kept[0]
        kind, plain = getattr(x, "dtype", type(x).__name__), isinstance(y, Tensor)
        if len(shapes) > 1 or not plain or not getattr(x, "is_floating_point", bool)():
            raise ValueError(f"{kind} {sorted(shapes)}; need floating-point images of one shape")
        self.x, self.y = (torch.cat(part).detach() for part in zip(*kept, strict=True))
        shape, need = self.x.shape[1:], (*self.x.shape[1:-2], 1, 1)
        if std is not None and not (std.shape == need and bool((std > 0).all())):
            raise ValueError(f"std has shape {tuple(std.shape)}; need positive numbers, {need}")
        self.scale = self.x.new_ones(()) if std is None else std.to(self.x)
        self.problem, self.layout = problem, MemoryFormat.of(problem)
        self.weights = {
            n: self.layout.convert(w) for n, w in problem.split(problem.weights).items()
        }
        self.chunk = max(1, CHUNK.get(problem.device.type, 2**18) // shape.numel())

    def chunks(self, x: Tensor) -> Iterable[Batch]:
        return zip(x.split(self.chunk), self.y.split(self.chunk), strict=True)

    def each(self, x: Tensor, y: Tensor) -> Tensor:
        outputs = self.problem.forward(self.weights, self.layout.convert(x))
        shape = tuple(getattr(outputs, "shape", ()))
        if shape[:1] != (len(y),):
            raise ValueError(f"outputs {shape} for {len(y)} images; need a tensor, a row for each")
        rows = zip(outputs.split(1), y.split(1), strict=True)
        return torch.stack([self.problem.reduce_loss(*row) for row in rows])

    def losses(self, x: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([self.each(*chunk) for chunk in self.chunks(x)]).double().cpu().numpy()

    def gradient(self) -> Tensor:
        slopes: list[Tensor] = []
        for x, y in self.chunks(self.x):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                slopes += torch.autograd.grad(self.each(leaf, y).sum(), leaf)
        return torch.cat(slopes) / self.scale

    def eigenpairs(self, k: int, slope: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        x, y = self.x[k : k + 1], self.y[k : k + 1]
        with twice_differentiable():
            hessian = DoubleBackward(
                BatchLoss(lambda images: self.each(images[0], y), torch.sum, 1), [x]
            )

            def matvec(v: Tensor) -> Tensor:
                return hessian.product([v.view_as(x) / self.scale])[0].div(self.scale).reshape(-1)

            pairs = eigenpairs(matvec, x.reshape(-1), top=2, seed=seed)
        values, vectors = pairs.values, pairs.vectors
        rest = pairs.products - torch.from_numpy(values).to(x)[:, None] * vectors
        error = np.maximum(rest.norm(dim=1).cpu().numpy(), pairs.asymmetry * np.abs(values).max())
        known = np.where(error <= FOUND * np.abs(values).max(), values, np.nan)
        uphill = torch.where((vectors @ slope.reshape(-1))[:, None] < 0, -vectors, vectors)
        return known, uphill.view(2, *x.shape[1:])
