"""Problem: the loss of a network over fixed batches, as a function of its live weights.

Pruning scores and diagnostics are all functions of a Problem, so they cannot disagree about what
"the gradient" is. A vector is one flat tensor in live coordinates (see `live.py`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.utils import _pytree as pytree

from sparsediag.core import validation
from sparsediag.core.batch_loss import Pass
from sparsediag.core.batches import (
    Batch,
    arguments,
    count,
    fixed,
    is_per_sample,
    is_separable,
    tensors,
    tree_map,
)
from sparsediag.core.coordinates import Live, accumulate, frozen_state, placement, writable
from sparsediag.core.double_backward import Retained
from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.fingerprint import content, fingerprint, forwards
from sparsediag.core.losses import loss as suggested
from sparsediag.core.mask import Mask
from sparsediag.core.twice_differentiable import twice

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """A net, the batches it is judged on, a loss, and the mask of the weights that may move.

    The caller's net is read, never changed: weights, modes, buffers, `requires_grad`, `.grad` and
    the global RNG are left as they were. The weights are those of the moment of construction.

    Args:
        net: Any module; parameters without `requires_grad` are held fixed.
        batches: Pairs (inputs, targets), in a fixed order; a loader is read into memory. Inputs are
            a tensor, a tuple (positional arguments) or a dict (keywords). A batch may be one dict
            too, as Hugging Face has them, with `labels` in it.
        loss: `loss(outputs, targets)`, the mean over the samples of a batch. Batches are weighted
            by their number of samples, so 96 + 4 samples give the same as 100. By default the loss
            that the outputs carry, else the cross-entropy of their scores.
        mask: The live weights; the loss is that of the masked net even where `net` is not masked.
        batch_norm: "eval" uses the running statistics. "train" uses those of each batch (so the
            batches, not only the samples, define the function) and leaves the running ones alone.
        params: The weights that move, as globs of their names parted by commas ("layer3.*,fc.*";
            "matrices" for those of convolutions and linear layers); the others are held fixed.

    Attributes:
        weights: The live weights, (size,).
        live: The order of the live coordinates.

    Raises:
        ValueError: If the batches are empty or change from one reading to the next, if the net
            does not take them, or if the loss is not one number, not finite, or not the same twice.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> problem = Problem(net, [(torch.ones(4, 1), torch.ones(4, 1))], loss=nn.MSELoss())
    >>> problem.value(), problem.gradient(), problem.hvp(torch.ones(1))
    (4.0, tensor([4.]), tensor([2.]))
    """

    net: nn.Module
    batches: Iterable[Any]
    loss: Loss = field(default=suggested, kw_only=True)
    mask: Mask | None = field(default=None, kw_only=True)
    batch_norm: Literal["eval", "train"] = field(default="eval", kw_only=True)
    params: str | None = field(default=None, kw_only=True)

    _batches: list[Batch] = field(init=False, repr=False)
    live: Live = field(init=False, repr=False)
    weights: Tensor = field(init=False, repr=False)
    _still: dict[str, Tensor] = field(init=False, repr=False)
    _writable: set[str] = field(init=False, repr=False)
    _kinds: dict[str, tuple[torch.device, torch.dtype]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_norm not in ("eval", "train"):
            raise ValueError(f"batch_norm '{self.batch_norm}': need 'eval' or 'train'")
        validation.check_types(self.net, self.mask, self.loss)
        object.__setattr__(self, "net", validation.unwrap(self.net))
        validation.check_differentiable(self.net)
        live = Live.of(self.net, self.mask, self.params)
        own = {n: p for n, p in self.net.named_parameters() if n in live.shapes}
        weights = live.join(own)
        devices = [weights.device] if weights.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            object.__setattr__(self, "_batches", fixed(self.batches, weights.device))
            object.__setattr__(self, "batches", self._batches)
            object.__setattr__(self, "live", live)
            object.__setattr__(self, "_still", frozen_state(self.net, live, self.mask))
            may = writable(self.net, batch_norm=self.batch_norm)
            object.__setattr__(self, "_writable", may)
            object.__setattr__(self, "weights", weights)
            object.__setattr__(self, "_kinds", placement(own, weights))
            _check(self)

    def __repr__(self) -> str:
        return f"Problem({type(self.net).__name__}, {self.samples:,} samples, {self.size:,} live)"

    @property
    def size(self) -> int:
        """Number of live weights."""
        return self.live.size

    @cached_property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(map(count, self._batches))

    @property
    def device(self) -> torch.device:
        """Where the weights and the batches are."""
        return self.weights.device

    def view(
        self, *, params: str | None = None, dense: bool = False, loss: Loss | None = None
    ) -> Problem:
        """The same weights and data with only `params` moving, the dead weights too, or a loss."""
        problem = self if loss is None else replace(self, loss=loss)
        vars(problem).update(weights=self.weights, _still=self._still)  # of the same moment
        if dense and problem.mask:
            net = copy.deepcopy(problem.net)
            problem.mask.apply_(net)
            problem = replace(problem, net=net, mask=None)
        return problem if params is None else replace(problem, params=params)

    @cached_property
    def separable(self) -> bool:
        """Return whether the loss is a mean over independent samples; some samples are tried."""
        if self.batch_norm == "train" or not all(map(is_per_sample, self._batches)):
            return False
        return is_separable(self._batches, lambda some: self.gradient(batches=some))

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hex fingerprints of what defines the function, part by part."""
        return {
            "net": fingerprint(
                f"{self.net} {self.batch_norm} {list(self.live.shapes)} {forwards(self.net)}", []
            ),
            "weights": fingerprint("", [self.weights]),
            "buffers": fingerprint("", self._still.values()),
            "mask": self.mask.digest if self.mask else "dense",
            "data": fingerprint("", tensors(self._batches)),
            "loss": fingerprint(content(self.loss), []),
        }

    @property
    def digest(self) -> str:
        """Hex fingerprint of all of them."""
        return fingerprint(" ".join(self.digests.values()), [])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Vector -> tensors by name in the net's shapes, exactly 0 where dead."""
        return self.live.split(vector)

    def join(self, tensors: dict[str, Tensor]) -> Tensor:
        """Tensors by name -> vector; dead entries are dropped, missing names count as 0."""
        return self.live.join(tensors)

    def flatten(self, parts: Sequence[Tensor] | None) -> Tensor:
        """Tensors in the order of `live.shapes` -> vector."""
        return self.join(dict(zip(self.live.shapes, parts or (), strict=True)))

    def outputs(self, at: Tensor | None = None) -> list[Any]:
        """The net's outputs for every batch, with the live weights at `at` (default: its own)."""
        weights = self._at(at)
        with self.modes(), torch.no_grad():
            return [self.forward(weights, x) for x, _ in self.batches]

    def value(self, at: Tensor | None = None) -> float:
        """Mean loss over the samples, summed in float64."""
        weights, total = self._at(at), torch.zeros((), dtype=torch.float64, device=self.device)
        with self.modes(), torch.no_grad():
            for batch in self._batches:
                x, y = batch
                total += self.reduce_loss(self.forward(weights, x), y).double() * count(batch)
        return float(total) / self.samples

    def gradient(self, at: Tensor | None = None, *, batches: list[Batch] | None = None) -> Tensor:
        """Gradient of the mean loss over the samples of its own or of other batches, (size,)."""
        total, samples, weights = None, 0, list(self._at(at).values())
        with self.modes(), torch.enable_grad():
            for batch in self._batches if batches is None else batches:
                leaves = [t.detach().requires_grad_() for t in weights]
                way = self.batch_loss(batch)
                loss = way.loss(way.outputs(leaves))
                total = accumulate(total, grad(loss, leaves, materialize_grads=True), way.samples)
                samples += way.samples
        return self.flatten(total).div_(samples)

    def hvp(self, vector: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """The Hessian times `vector` (default: the gradient); for many products see `Curvature`."""
        total, weights = None, list(self._at(at).values())
        vector = self.gradient(at) if vector is None and len(self._batches) > 1 else vector
        with self.modes(), twice():
            for batch in self._batches:
                kept = Retained(self.batch_loss(batch), weights)
                v = kept.gradient if vector is None else list(self.split(vector).values())
                total = accumulate(total, kept.product(v), count(batch) / self.samples)
                del kept, v  # the graph
        return self.flatten(total)

    def batch_loss(self, batch: Batch) -> Pass:
        """The way of one batch from weights to loss; see `modes`."""
        x, y = batch
        return Pass(
            lambda weights: self.forward(dict(zip(self.live.shapes, weights, strict=True)), x),
            lambda outputs: self.reduce_loss(outputs, y),
            count(batch),
        )

    def reduce_loss(self, outputs: Any, targets: Any) -> Tensor:
        """The loss of one batch's outputs, without dimensions."""
        loss = self.loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss returned {shape}; need one number, the mean over the batch")
        return loss.squeeze()

    def forward(
        self, weights: dict[str, Tensor], x: Any, *, still: dict[str, Tensor] | None = None
    ) -> Any:
        """The net's outputs for the inputs of a batch, differentiable in `weights`. See `modes`.

        `still` holds what does not move, buffers and frozen weights, where it is not the net's own.
        """
        # a net may write into its input: into a copy
        still = self.still() if still is None else still
        weights = {**weights, **{n: weights[n].to(*kind) for n, kind in self._kinds.items()}}
        return functional_call(
            self.net, {**weights, **still}, *arguments(tree_map(x, Tensor.clone))
        )

    def still(self) -> dict[str, Tensor]:
        """Return what does not move: buffers, and frozen weights, masked too.

        What a pass may write into is a copy; the rest is not to be written.
        """
        return {n: t.clone() if n in self._writable else t for n, t in self._still.items()}

    def _at(self, at: Tensor | None) -> dict[str, Tensor]:
        return self.split(self.weights if at is None else at)

    def modes(self) -> AbstractContextManager[None]:
        """The net in the modes that `batch_norm` asks for; the caller's are put back at the end."""
        return deterministic_eval(self.net, batch_norm=self.batch_norm)


def _check(problem: Problem) -> None:
    """A net that takes the first batch, a finite loss, and the same one at a second pass.

    Raises:
        ValueError: If one of them is not so.
    """
    ((x, y), *_), weights = problem.batches, problem.split(problem.weights)
    with problem.modes(), torch.no_grad():
        try:
            still = {name: t.clone() for name, t in problem._still.items()}
            outputs = problem.forward(weights, x, still=still)
            written = (name for name, t in still.items() if t.is_inference() or t._version)
            problem._writable.update(written)
        except Exception as error:
            raise _failed(f"the net failed on inputs {_told(x)}", error) from error
        try:
            with warnings.catch_warnings():  # shapes that broadcast give another loss
                warnings.filterwarnings("error", message="Using a target size")
                first = float(problem.reduce_loss(outputs, y))
        except Exception as error:
            about = f"outputs {_told(outputs)} and targets {_told(y)}"
            raise _failed(f"the loss failed on {about}", error) from error
        again = float(problem.reduce_loss(problem.forward(weights, x), y))
    if not math.isfinite(value := problem.value()):
        raise ValueError(
            f"the loss is {value} at these weights; need a finite loss. "
            "Did the training diverge, or are the inputs not normalised?"
        )
    if abs(first - again) > torch.finfo(problem.weights.dtype).eps ** 0.75 * max(1.0, abs(first)):
        raise ValueError(
            f"the same batch gave two different losses ({first:.6g}, {again:.6g}): something "
            "in the net is random. Need a net that is fixed in evaluation mode."
        )


def _failed(what: str, error: Exception) -> Exception:
    """Return an error with a one-line message, or the out-of-memory error itself."""
    if isinstance(error, torch.OutOfMemoryError):
        return error
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return ValueError(f"{what}: {kind}{' '.join(str(error).split())[:300]}")


def _told(tree: Any) -> str:
    """The shapes of tensors in a tuple or a dict."""
    shapes = pytree.tree_map_only(Tensor, lambda t: tuple(t.shape), tree)
    return str(shapes)[:200]
