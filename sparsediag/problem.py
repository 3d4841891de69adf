"""Problem: the loss of a network over fixed batches, as a function of its live weights.

Pruning scores and diagnostics are all functions of a Problem, so they cannot disagree about what
"the gradient" is. A vector is one flat tensor in live coordinates (see `live.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparsediag.batches import Batch, fixed
from sparsediag.fingerprint import content, fingerprint
from sparsediag.live import Live
from sparsediag.mask import Mask

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """A net, the batches it is judged on, a loss, and the mask of the weights that may move.

    The caller's net is read, never changed: weights, modes, buffers, `requires_grad`, `.grad` and
    the global RNG are left as they were. The weights are those of the moment of construction.

    Args:
        net: Any module; parameters without `requires_grad` are held fixed.
        batches: Pairs (inputs, targets), in a fixed order; a loader is read once into memory.
        loss: `loss(outputs, targets)`, the mean over the samples of a batch. Batches are weighted
            by their number of samples, so 96 + 4 samples give the same as 100.
        mask: The live weights; the loss is that of the masked net even where `net` is not masked.
        batch_norm: "eval" uses the running statistics. "train" uses those of each batch (so the
            batches, not only the samples, define the function) and leaves the running ones alone.

    Attributes:
        weights: The live weights, (size,).
        live: The order of the live coordinates.

    Raises:
        ValueError: If the batches are empty or change from one reading to the next, or if the
            loss is not one number, not finite, or not the same twice.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> problem = Problem(net, [(torch.ones(4, 1), torch.ones(4, 1))], loss=F.mse_loss)
    >>> problem.value(), problem.gradient(), problem.hvp(torch.ones(1))
    (4.0, tensor([4.]), tensor([2.]))
    """

    net: nn.Module
    batches: Iterable[Batch]
    loss: Loss = field(default=F.cross_entropy, kw_only=True)
    mask: Mask | None = field(default=None, kw_only=True)
    batch_norm: Literal["eval", "train"] = field(default="eval", kw_only=True)

    _batches: list[Batch] = field(init=False, repr=False)
    live: Live = field(init=False, repr=False)
    weights: Tensor = field(init=False, repr=False)
    _still: dict[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_norm not in ("eval", "train"):
            raise ValueError(f"batch_norm '{self.batch_norm}': need 'eval' or 'train'")
        live = Live.of(self.net, self.mask)
        own = dict(self.net.named_parameters())
        weights = live.join({name: own[name] for name in live.shapes}).clone()
        devices = [weights.device] if weights.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            object.__setattr__(self, "_batches", fixed(self.batches, weights.device))
            object.__setattr__(self, "batches", self._batches)
            object.__setattr__(self, "live", live)
            object.__setattr__(self, "_still", _still(self.net, live, self.mask))
            object.__setattr__(self, "weights", weights)
            self._check()

    def _check(self) -> None:
        """A finite loss, and the same one at a second pass over the first batch."""
        value = self.value()
        if not math.isfinite(value):
            raise ValueError(
                f"the loss is {value} at these weights; need a finite loss. "
                "Did the training diverge, or are the inputs not normalised?"
            )
        first, again = (self._mean(self._batches[:1], None) for _ in range(2))
        tolerance = torch.finfo(self.weights.dtype).eps ** 0.75
        if abs(first - again) > tolerance * max(1.0, abs(first)):
            raise ValueError(
                f"the same batch gave two different losses ({first:.6g}, {again:.6g}): something "
                "in the net is random. Need a net that is fixed in evaluation mode."
            )

    @property
    def size(self) -> int:
        """Number of live weights."""
        return self.live.size

    @property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(_count(batch) for batch in self.batches)

    @property
    def device(self) -> torch.device:
        """Where the weights and the batches are."""
        return self.weights.device

    @cached_property
    def digest(self) -> str:
        """Hex fingerprint of weights, mask, data, loss and batch-norm policy."""
        about = f"{self.net} {content(self.loss)} {self.batch_norm}"
        mask = self.mask.digest if self.mask else "dense"
        state = (self.weights, *self._still.values())
        return fingerprint(about + mask, [*state, *(t for batch in self._batches for t in batch)])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Vector -> tensors by name in the net's shapes, exactly 0 where dead."""
        return self.live.split(vector)

    def join(self, tensors: dict[str, Tensor]) -> Tensor:
        """Tensors by name -> vector; dead entries are dropped, missing names count as 0."""
        return self.live.join(tensors)

    def outputs(self, at: Tensor | None = None) -> list[Any]:
        """The net's outputs for every batch, with the live weights at `at` (default: its own)."""
        weights = self._at(at)
        with self.modes(), torch.no_grad():
            return [self._forward(weights, x) for x, _ in self.batches]

    def value(self, at: Tensor | None = None) -> float:
        """Mean loss over the samples, summed in float64."""
        return self._mean(self.batches, at)

    def gradient(self, at: Tensor | None = None) -> Tensor:
        """Gradient of the mean loss, (size,)."""
        total = torch.zeros_like(self.weights)
        with self.modes(), torch.enable_grad():
            for batch in self.batches:
                weights = self._leaves(at)
                g = torch.autograd.grad(
                    self._share(weights, batch), list(weights.values()), materialize_grads=True
                )
                total += self.join(dict(zip(weights, g, strict=True)))
        return total

    def hvp(self, vector: Tensor, at: Tensor | None = None) -> Tensor:
        """Hessian of the mean loss times `vector`, exact, by a second backward pass, (size,)."""
        total = torch.zeros_like(self.weights)
        directions = list(self.split(vector).values())
        # the fused attention kernels have no second derivative
        with self.modes(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                weights = self._leaves(at)
                leaves = list(weights.values())
                g = torch.autograd.grad(
                    self._share(weights, batch), leaves, create_graph=True, materialize_grads=True
                )
                curved = [i for i, gi in enumerate(g) if gi.requires_grad]
                if not curved:
                    continue  # the loss is linear in every weight
                hv = torch.autograd.grad(
                    [g[i] for i in curved],
                    leaves,
                    grad_outputs=[directions[i] for i in curved],
                    materialize_grads=True,
                )
                total += self.join(dict(zip(weights, hv, strict=True)))
        return total

    def at_vector(self, vector: Tensor, x: Tensor) -> Any:
        """The net's output for one input, differentiable in `vector`, (size,). See `modes`."""
        return self._forward(self.split(vector), x)

    def _mean(self, batches: Iterable[Batch], at: Tensor | None) -> float:
        weights = self._at(at)
        total, samples = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with self.modes(), torch.no_grad():
            for x, y in batches:
                n = _count((x, y))
                total += self._scalar(self._forward(weights, x), y).double() * n
                samples += n
        return float(total) / samples

    def _share(self, weights: dict[str, Tensor], batch: Batch) -> Tensor:
        """What one batch adds to the mean loss."""
        x, y = batch
        return self._scalar(self._forward(weights, x), y) * (_count(batch) / self.samples)

    def _scalar(self, outputs: Any, targets: Any) -> Tensor:
        loss = self.loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss returned {shape}; need one number, the mean over the batch")
        return loss.squeeze()

    def _forward(self, weights: dict[str, Tensor], x: Tensor) -> Any:
        # a net may write into its buffers and its input: into copies
        still = {name: t.clone() for name, t in self._still.items()}
        return functional_call(self.net, {**weights, **still}, (x.clone(),))

    def _at(self, at: Tensor | None) -> dict[str, Tensor]:
        return self.split(self.weights if at is None else at)

    def _leaves(self, at: Tensor | None) -> dict[str, Tensor]:
        return {name: t.detach().requires_grad_() for name, t in self._at(at).items()}

    @contextmanager
    def modes(self) -> Iterator[None]:
        """The net in the modes that `batch_norm` asks for; the caller's are put back at the end."""
        before = {m: m.training for m in self.net.modules()}
        self.net.eval()
        if self.batch_norm == "train":
            for m in before:
                m.training = isinstance(m, nn.modules.batchnorm._BatchNorm)
        exact: AbstractContextManager[None] = nullcontext()
        if self.device.type == "cuda":  # the default, TF32, leaves ten bits to a convolution
            exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        try:
            with exact:
                yield
        finally:
            for m, training in before.items():
                m.training = training


def _count(batch: Batch) -> int:
    return len(batch[1])


def _still(net: nn.Module, live: Live, mask: Mask | None) -> dict[str, Tensor]:
    """What does not move: frozen weights, masked too, and buffers."""
    frozen = {name: p for name, p in net.named_parameters() if name not in live.shapes}
    still = {name: t.detach().clone() for name, t in [*frozen.items(), *net.named_buffers()]}
    for name, m in (mask or {}).items():
        if name in frozen:
            still[name].masked_fill_(~m.to(still[name].device), 0)
    return still
