"""Input-space landscape: the loss of images on planes through their pixels (ToST, Fig 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.checkpoint import resolve
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.image_problem import load_data
from sparsediag.core.batch_loss import BatchLoss
from sparsediag.core.batches import Batch, rechunk
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.errors import unknown_name
from sparsediag.core.losses import map_outputs
from sparsediag.core.memory_format import MemoryFormat
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.core.rng import stream
from sparsediag.core.twice_differentiable import twice_differentiable
from sparsediag.core.validation import explain_errors
from sparsediag.curvature.lanczos import eigenpairs
from sparsediag.curvature.probe import MAX_CHANCE
from sparsediag.data.datasets import Normalise
from sparsediag.diagnostics.result import Result, provenance, source
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
RELIABLE = 0.01  # largest relative residual, and asymmetry of the matrix, of an eigenvector


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputscape(Result):
    """The loss of each image on a grid of points around it.

    Attributes:
        loss: The loss, at most `clamp`, (images, points, points); `loss[k, i, j]` is at
            `axes[0, i]`, `axes[1, j]`. NaN where the network overflows.
        axes: Steps along both directions in 1/255 of a pixel's full scale, (2, points).
        labels: Names of the two axes.
        clamp: Larger losses are set to this.
        centre: The loss of each image itself, not clamped, (images,).
        gradients: Norm of its gradient in the pixels (full scale 1), (images,).
        slopes: Sum of the absolute values of that gradient, (images,); divided by 255, it is the
            first-order rise of the loss for one step along the gradient's sign.
        eigenvalues: Of the Hessian in the pixels (full scale 1), (images, 2); NaN where rounding
            errors hide them; (0, 2) if the axes are not eigenvectors.
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
        """Mean of the loss over the images, (points, points)."""
        return np.asarray(self.loss.mean(axis=0))

    def table(self) -> list[dict[str, Any]]:
        """Return means over the images."""
        rise = self.loss.mean(axis=(1, 2)) - np.minimum(self.centre, self.clamp)
        clamped = (self.loss >= self.clamp).any(axis=(1, 2))
        means = {
            "loss of the images": f"{self.centre.mean():.4g}",
            "mean rise on the plane": f"{rise.mean():.4g}",
            "highest - lowest loss": f"{np.ptp(self.loss, axis=(1, 2)).mean():.4g}",
            "gradient norm": f"{self.gradients.mean():.4g}",
            "images that reach the clamp": f"{clamped.mean():.0%}",
        }
        return [{"": name, "mean": value} for name, value in means.items()]

    @property
    def provenance(self) -> str:
        """Return in a line what was measured; only the first images of the problem are."""
        return provenance(self.source | {"samples": len(self.loss)})

    def remarks(self) -> list[str]:
        """Return findings about images that the means hide."""
        n, asked = len(self.loss), self.source["options"]["count"]
        groups = {
            f"are at the clamp ({self.clamp:g}) on more than half of the plane: reduce the span "
            "or raise the clamp": (self.loss >= self.clamp).mean(axis=(1, 2)) > 0.5,
            "have no gradient, so its sign does not move them: use random axes": self.gradients
            == 0,
            "have eigenvectors that rounding errors hide: use float64": np.isnan(
                self.eigenvalues
            ).any(axis=1),
        }
        lines = [f"{n} of {asked} images: the problem has no more"] if n < asked else []
        return lines + [f"{k.sum()} of {n} images {text}" for text, k in groups.items() if k.any()]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw filled contours of the mean over the images, which are at the cross."""
        from sparsediag.plotting import landscape, style

        ax = ax or style.new_plane_axes()
        style.plot_contours(ax, self.axes[0], self.axes[1], self.mean)
        with style.style():
            landscape.mark_weights(ax, "the images")
        ax.set(xlabel=self.labels[0], ylabel=self.labels[1])
        return ax

    def surface(self) -> Figure:
        """Return the mean over the images as an interactive surface (plotly)."""
        from sparsediag.plotting import interactive, style

        levels = style.loss_levels(self.mean)
        return interactive.surface_figure(self.axes, self.mean, self.labels, levels)


def pixel_std(
    checkpoint: Checkpoint,
    *,
    data: str | None = None,
    size: int | None = None,
    normalise: Normalise | None = None,
    **_: Any,
) -> Tensor | None:
    """Return what the pixels of the data set were divided by; None for custom batches."""
    name = data or checkpoint.data
    if resolve.is_custom_data(name):
        return None
    return load_data(name, checkpoint.run, size=size, normalise=normalise).std


@diagnostic(Traits(from_checkpoint={"std": pixel_std}, samples="count"))
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
    """Compute the loss of each image at `image + a u + b v`, |a|, |b| <= span / 255 (ToST, Fig 10).

    Args:
        problem: The network, its loss and the images.
        axes: "gradient": u is the sign of the gradient of the image's loss, v random signs, the
            same for every image and network. "random": both are such signs, v made orthogonal to u.
            "eigenvectors": the top two of the Hessian of the image's loss in its pixels, with the
            norm of such signs, uphill along +u and +v. A ReLU network is piecewise linear in the
            pixels, so only the softmax contributes curvature, little where a class is certain.
        count: Number of images, the first of the problem.
        points: Grid points along each direction; with an odd number the image is at the centre.
        span: Largest step in each direction, in 1/255 of a pixel's full scale.
        clamp: Larger losses are set to this.
        std: Divisor of the inputs' normalisation, (C, 1, 1), full scale 1; None for 1.
        seed: Seed of the random signs and of the eigensolver.
        progress: Called as `progress(points done, all points)`.

    Returns:
        The loss, (images, points, points).

    Raises:
        ValueError: If an option is invalid, the inputs are not floating-point images of one shape,
            or the loss is not a mean over independent images.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> problem = Problem(net, [(torch.ones(5, 1, 2, 2), torch.arange(5) % 3)])
    >>> inputscape(problem, points=3).loss.shape
    (5, 3, 3)
    """
    options = {"axes": axes, "count": count, "points": points, "span": span, "clamp": clamp}
    steps = directions.grid_axis(points, span)
    if axes not in LABELS:
        raise ValueError(unknown_name("axes", axes, LABELS))
    if count < 1 or not clamp > 0:
        raise ValueError(f"count={count}, clamp={clamp}: need 1 image or more, a positive clamp")
    images = _Images(problem, count, std)
    x, shape = images.x, images.x.shape[1:]
    bits = torch.randint(2, (2, shape.numel()), generator=stream("inputscape", seed))
    signs = (2 * bits - 1).to(x)
    u, v = (directions.orthogonalise(signs) if axes == "random" else signs).view(2, 1, *shape)
    loss, eigenvalues = np.empty((len(x), points, points)), np.zeros((0, 2))
    with problem.evaluation_mode():
        centre, gradient = images.losses(x), images.gradient()
        if axes == "gradient":
            u = gradient.sign()
        if axes == "eigenvectors":
            if x.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"axes='{axes}': the images are {x.dtype}; need float32 or float64 for second "
                    "derivatives"
                )
            pairs = [images.eigenpairs(k, slope, seed) for k, slope in enumerate(gradient)]
            eigenvalues = np.stack([values for values, _ in pairs])
            u, v = torch.stack([vectors for _, vectors in pairs], dim=1) * shape.numel() ** 0.5
        u, v = u / images.std / 255, v / images.std / 255
        for i, j in track(list(np.ndindex(points, points)), progress):
            loss[:, i, j] = images.losses(x + float(steps[i]) * u + float(steps[j]) * v)
    flat = gradient.flatten(1).double()
    return Inputscape(
        loss=np.minimum(loss, clamp),
        axes=np.stack([steps, steps]),
        labels=[*LABELS[axes]],
        clamp=clamp,
        centre=centre,
        gradients=flat.norm(dim=1).cpu().numpy(),
        slopes=flat.abs().sum(dim=1).cpu().numpy(),
        eigenvalues=eigenvalues,
        source=source(
            problem, **options, seed=seed, std=None if std is None else std.flatten().tolist()
        ),
    )


class _Images:
    """The first images of a problem and their losses, in its evaluation mode."""

    def __init__(self, problem: Problem, count: int, std: Tensor | None) -> None:
        if not problem.separable:
            raise ValueError(
                f"batch_norm='{problem.batch_norm}': the loss of an image depends on the others; "
                "need 'eval' and a loss that is a mean, or a sum, over images"
            )
        single = rechunk(list(problem.batches), 1)[:count]
        shapes = {tuple(getattr(x, "shape", ())[1:]) for x, _ in single}
        x, y = single[0]
        floating = isinstance(x, Tensor) and x.is_floating_point()
        if len(shapes) > 1 or not floating or not isinstance(y, Tensor):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ValueError(f"{kind} {sorted(shapes)}; need floating-point images of one shape")
        self.x, self.y = (torch.cat(part).detach() for part in zip(*single, strict=True))
        shape, need = self.x.shape[1:], (*self.x.shape[1:-2], 1, 1)
        if std is not None and not (std.shape == need and bool((std > 0).all())):
            raise ValueError(f"std has shape {tuple(std.shape)}; need positive numbers, {need}")
        self.std = self.x.new_ones(()) if std is None else std.to(self.x)
        self.problem, self.layout = problem, MemoryFormat.of(problem)
        self.weights = {
            n: self.layout.convert(w) for n, w in problem.split(problem.weights).items()
        }
        self.chunk = max(1, CHUNK.get(problem.device.type, 2**18) // shape.numel())

    def losses(self, x: Tensor) -> np.ndarray:
        """Return the loss of each image, with pixels `x`."""
        losses = [self._losses(*chunk).detach() for chunk in self._chunks(x)]
        return torch.cat(losses).double().cpu().numpy()

    def gradient(self) -> Tensor:
        """Return the gradient of each image's loss in its pixels."""
        slopes = [
            self._loss_of(y).gradient([x.detach().requires_grad_()])[0]
            for x, y in self._chunks(self.x)
        ]
        return torch.cat(slopes) / self.std

    def eigenpairs(self, k: int, slope: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        """Return the top two eigenpairs for image `k`; unreliable eigenvalues are NaN."""
        x, y = self.x[k : k + 1], self.y[k : k + 1]
        with twice_differentiable(), explain_errors("the loss cannot be differentiated twice"):
            hessian = DoubleBackward(self._loss_of(y), [x])

            def matvec(v: Tensor) -> Tensor:
                return hessian.product([v.view_as(x) / self.std])[0].div(self.std).reshape(-1)

            pairs = eigenpairs(matvec, x.reshape(-1), top=2, seed=seed)
        values, vectors = pairs.values, pairs.vectors
        misses = pairs.products - torch.from_numpy(values).to(x)[:, None] * vectors
        size = np.abs(values).max()
        error = np.maximum(misses.norm(dim=1).cpu().numpy(), pairs.asymmetry * size)
        uphill = torch.where((vectors @ slope.reshape(-1))[:, None] < 0, -vectors, vectors)
        sure = (error <= RELIABLE * size) & (pairs.probe.chance <= MAX_CHANCE)
        reliable = np.where(sure, values, np.nan)
        return reliable, uphill.view(2, *x.shape[1:])

    def _chunks(self, x: Tensor) -> Iterable[Batch]:
        return zip(x.split(self.chunk), self.y.split(self.chunk), strict=True)

    def _loss_of(self, y: Tensor) -> BatchLoss:
        """Return the sum of the images' losses as a function of their pixels."""
        return BatchLoss(lambda images: self._losses(images[0], y), torch.sum, 1)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        outputs = self.problem.forward(self.weights, self.layout.convert(x))
        rows = [map_outputs(outputs, partial(self._row, i, len(y))) for i in range(len(y))]
        pairs = zip(rows, y.split(1), strict=True)
        with explain_errors("the loss failed on the part of the outputs that is one image's"):
            return torch.stack([self.problem.reduce_loss(*pair, self.weights) for pair in pairs])

    @staticmethod
    def _row(i: int, images: int, output: Tensor) -> Tensor:
        """Return the part of an output that belongs to image `i`."""
        if output.shape[:1] != (images,):
            raise ValueError(
                f"outputs {tuple(output.shape)} for {images} images; need one row for each"
            )
        return output[i : i + 1]
