"""Problem: the loss of a network over fixed batches, as a function of its live weights.

Pruning scores and diagnostics are all functions of a Problem, so they use the same gradient. A
vector is one flat tensor in live coordinates (see `coordinates.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.core import validation
from sparsediag.core.batch_loss import BatchLoss
from sparsediag.core.batch_weights import NotAdditiveError
from sparsediag.core.batches import (
    Batch,
    call_arguments,
    is_per_sample,
    is_separable,
    materialize,
    num_samples,
    tensors_in,
    tree_map,
)
from sparsediag.core.coordinates import (
    LiveCoordinates,
    accumulate,
    placement,
    possibly_written,
)
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.evaluation import BATCH_NORMS, deterministic_eval
from sparsediag.core.fingerprint import describe_code, describe_modules, fingerprint
from sparsediag.core.first_pass import FirstPass
from sparsediag.core.losses import default_loss, map_outputs
from sparsediag.core.mask import Mask
from sparsediag.core.reduction import Reduction
from sparsediag.core.rowwise import is_chain_of_rowwise_layers
from sparsediag.core.twice_differentiable import twice_differentiable

Loss = Callable[[Any, Any], Tensor]
BatchNorm = Literal["eval", "train"]


class Problem:
    """The loss of a network on fixed batches, as a function of the weights that a mask keeps.

    The caller's network is not changed: weights, modes, buffers, `requires_grad`, `.grad` and the
    global RNG stay as they were. The weights are copied when the Problem is made. All attributes
    are read-only.

    Args:
        net: Any module; parameters without `requires_grad` are held fixed.
        batches: Pairs (inputs, targets), in a fixed order; a loader is read into memory. Inputs are
            a tensor, a tuple (positional arguments) or a dict (keyword arguments). A batch may also
            be one dict with the key `labels`, as in Hugging Face's libraries.
        loss: `loss(outputs, targets)` for a batch: a mean over its samples, its tokens or class
            weights, or a sum. Batches are weighted by what it averages over, which is measured,
            so 96 + 4 samples give the same as 100. Another loss (contrastive ones) is computed for
            all samples at once. It may read the weights of `net`, as weight decay does. By default
            the loss that the outputs carry, else the cross-entropy of their logits.
        mask: The live weights; the loss is that of the masked net even if `net` is not masked.
        batch_norm: "eval" uses the running statistics. "train" uses those of each batch (so the
            loss depends on how the samples are batched) and does not update the running ones.
        params: Which weights move, as comma-separated globs of their names ("layer3.*,fc.*";
            "matrices" for those of convolutions and linear layers); the others are held fixed.
        about: Names of the net and of the data, for the line below tables and pictures that says
            what was measured: `net`, `data`, `split`, `available`, the samples of the split, and
            `pixels`, what was done to them.

    Raises:
        ValueError: If the batches are empty or change from one reading to the next, if the net
            does not accept them, or if the loss is not one number, not finite, not repeatable, or
            cannot be computed from batches.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> problem = Problem(net, [(torch.ones(4, 1), torch.ones(4, 1))], loss=nn.MSELoss())
    >>> problem.value(), problem.gradient(), problem.hvp(torch.ones(1))
    (4.0, tensor([4.]), tensor([2.]))
    """

    def __init__(
        self,
        net: nn.Module,
        batches: Iterable[Any],
        *,
        loss: Loss = default_loss,
        mask: Mask | None = None,
        batch_norm: BatchNorm = "eval",
        params: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        validation.check_types(net, mask, loss)
        self._net = validation.unwrap(net)
        validation.check_differentiable(self._net, mask)
        self._trainable = LiveCoordinates.of(self._net, None)
        tensors = dict([*self._net.named_parameters(), *self._net.named_buffers()])
        self._names = list(tensors)
        self._build(tensors, batches, loss, mask, batch_norm, params, about)

    @torch.inference_mode(False)
    def _build(
        self,
        tensors: dict[str, Tensor],
        batches: Iterable[Any],
        loss: Loss,
        mask: Mask | None,
        batch_norm: BatchNorm,
        params: str | None,
        about: Mapping[str, Any] | None,
    ) -> None:
        """Make the problem at these weights and buffers, and check that its loss is a function."""
        if batch_norm not in ("eval", "train"):
            raise ValueError(f"batch_norm '{batch_norm}': need 'eval' or 'train'")
        validation.check_types(self._net, mask, loss)
        self._loss, self._batch_norm = loss, batch_norm
        self._about = {"net": type(self._net).__name__, **(about or {})}
        self._caller = _Caller(self._net)
        self._set_weights(tensors, mask, params)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self._batches = materialize(batches, self.device, self.weights.dtype)
            self._written = possibly_written(self._net, batch_norm=batch_norm)
            self._reduction = Reduction(self._outputs_of, self._loss_of)
            found = FirstPass(
                self, self._batches, self._trainable.shapes, self._written, self._reduction
            )
            found.run()
        self._batches, self._shares = found.batches, found.shares
        self._value: tuple[float, int] | None = (found.value, self._version)
        self._about["loss"] = found.loss_name

    def _set_weights(
        self, tensors: dict[str, Tensor], mask: Mask | None, params: str | None
    ) -> None:
        """Copy these weights and buffers, and choose the weights that move."""
        if mask is not None:
            mask.check(self._net)
        self._mask, self._params = mask, params
        like = tensors[next(iter(self._trainable.shapes))]
        self._live = self._trainable.restrict(mask, params, like)
        moving = {name: tensors[name] for name in self._live.shapes}
        validation.check_real(moving)
        self._weights = self._live.join(moving)
        self._placement = placement(moving, self._weights)
        masked: Mapping[str, Tensor] = mask or {}
        self._unmasked = {n: t.detach().clone() for n, t in tensors.items() if n in masked}
        self._frozen_state = {
            n: t.detach().masked_fill(~masked[n].to(t.device), 0)
            if n in masked
            else t.detach().clone()
            for n, t in tensors.items()
            if n not in moving
        }

    def _tensors(self, *, masked: bool) -> dict[str, Tensor]:
        """Return all weights and buffers by name; dead weights are 0 or as the net had them."""
        tensors = self._state(self._weights_at(None), self._frozen_state)
        tensors |= {} if masked else self._unmasked
        return {name: tensors[name] for name in self._names}

    def __repr__(self) -> str:
        return f"Problem({type(self.net).__name__}, {self.samples:,} samples, {self.size:,} live)"

    @property
    def net(self) -> nn.Module:
        """The network, without wrappers such as `torch.compile` or `DataParallel`."""
        return self._net

    @property
    def batches(self) -> list[Batch]:
        """Pairs (inputs, targets), in memory on the device of the weights."""
        return self._batches

    @property
    def loss(self) -> Loss:
        """The loss of outputs and targets of a batch; for its kind see `reduction`."""
        return self._loss

    @property
    def reads_weights(self) -> bool:
        """True if the loss reads the net's weights, as weight decay or a gradient penalty does."""
        return self._reduction.reads_weights

    @property
    def mask(self) -> Mask | None:
        """The live weights; None if all are alive."""
        return self._mask

    @property
    def batch_norm(self) -> BatchNorm:
        """The statistics that batch norms use: running ones ("eval") or a batch's ("train")."""
        return self._batch_norm

    @property
    def params(self) -> str | None:
        """Globs of the names of the weights that move; None for all trainable ones."""
        return self._params

    @property
    def about(self) -> dict[str, Any]:
        """Facts for provenance: net, data, split, number of samples, loss and batch norm.

        `batch_statistics` is "running", "batch", or "" for a net without batch norm.
        """
        norms = [m for m in self.net.modules() if isinstance(m, BATCH_NORMS)]
        running = self.batch_norm == "eval" and all(m.running_mean is not None for m in norms)
        statistics = ("running" if running else "batch") if norms else ""
        return {**self._about, "samples": self.samples, "batch_statistics": statistics}

    @property
    def live(self) -> LiveCoordinates:
        """The order of the live weights in a vector."""
        return self._live

    @property
    def weights(self) -> Tensor:
        """The live weights at construction, (size,)."""
        return self._weights

    @property
    def size(self) -> int:
        """Number of live weights."""
        return self.live.size

    @cached_property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(map(num_samples, self.batches))

    @property
    def device(self) -> torch.device:
        """Where the weights and the batches are."""
        return self.weights.device

    def view(
        self, *, params: str | None = None, dense: bool = False, loss: Loss | None = None
    ) -> Problem:
        """Return the problem at the same weights, on the same data, with some of it changed.

        Args:
            params: Let only these weights move, as in `Problem`.
            dense: Let the dead weights move too, from 0.
            loss: Another loss, which is checked on the data; nothing else is.
        """
        dense = dense and self.mask is not None
        problem = self if loss is None else self.replace(loss=loss)
        if not dense and params is None:
            return problem
        view = copy.copy(problem)
        vars(view).pop("digests", None)
        tensors = self._tensors(masked=dense)
        view._set_weights(tensors, None if dense else self.mask, params or self.params)
        view._value = (problem.value(), view._version) if problem._value else None
        return view

    @torch.inference_mode(False)
    def at_present(self, mask: Mask | None) -> Problem:
        """Return the problem at the weights and buffers that the net has now, without checks.

        Args:
            mask: The weights that are live now.
        """
        problem = copy.copy(self)
        problem._value = None
        for name in ("empty_rows", "digests"):  # cached: they belong to the old weights
            problem.__dict__.pop(name, None)
        tensors = dict([*self._net.named_parameters(), *self._net.named_buffers()])
        problem._set_weights(tensors, mask, self.params)
        return problem

    def on(
        self,
        batches: list[Batch],
        *,
        weights: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Problem:
        """Return the problem on other batches in memory, without checks.

        Args:
            batches: Pairs (inputs, targets) on the device of the weights.
            weights: Live weights, (size,) (default: those of this one).
            dtype: Floating-point type to convert weights, buffers, samples and the loss to.
        """

        def convert(t: Tensor) -> Tensor:
            return t if dtype is None or not t.is_floating_point() else t.to(dtype)

        problem = copy.copy(self)
        for name in ("samples", "separable", "digests"):  # cached: they belong to the old batches
            problem.__dict__.pop(name, None)
        problem._batches, problem._value = tree_map(batches, convert), None
        problem._shares = self.shares(batches)
        problem._reduction = copy.copy(self._reduction)
        problem._weights = convert(self.weights if weights is None else weights)
        problem._frozen_state = {n: convert(t) for n, t in self._frozen_state.items()}
        if dtype is not None:
            problem._placement = {n: (device, dtype) for n, (device, _) in self._placement.items()}
            if isinstance(self.loss, nn.Module):
                problem._loss = copy.deepcopy(self.loss).to(dtype)
        return problem

    def replace(self, **changes: Any) -> Problem:
        """Return a new Problem with some arguments changed.

        Its weights and buffers are those of this one, or are read from `net` if that is among them.
        """
        arguments: dict[str, Any] = {
            "batches": self.batches,
            "loss": self.loss,
            "mask": self.mask,
            "batch_norm": self.batch_norm,
            "params": self.params,
            "about": {} if {"net", "batches"} & changes.keys() else self._about,
        }
        if "net" in changes:
            return Problem(**(arguments | changes))
        problem = object.__new__(Problem)
        problem._net, problem._trainable, problem._names = self._net, self._trainable, self._names
        problem._build(self._tensors(masked=False), **(arguments | changes))
        return problem

    @torch.no_grad()
    def copy_weights_to(self, net: nn.Module) -> None:
        """Copy the weights and buffers into a copy of the net, dead weights as 0."""
        tensors = self._tensors(masked=True)
        for name, t in [*net.named_parameters(), *net.named_buffers()]:
            t.copy_(tensors[name])

    @cached_property
    def separable(self) -> bool:
        """True if the samples can be batched otherwise: the net treats each one independently.

        The loss is judged from all samples, the net from a few of them.
        """
        if self.batch_norm == "train" or not all(map(is_per_sample, self.batches)):
            return False
        reduction = self._reduction
        try:
            with self.evaluation_mode():
                reduction.measure_within(self.batches)
        except NotAdditiveError:
            return False
        if reduction.known and is_chain_of_rowwise_layers(self.net, self.batches[0][0]):
            return True
        independent = is_separable(self.batches, lambda some: self.gradient(batches=some))
        if independent is False and len(self.batches) > 1:
            reduction.doubts.append(
                "the samples of a batch depend on each other, so the numbers depend on the batches"
            )
        return bool(independent)

    @property
    def reduction(self) -> Literal["samples", "sum", "weights"]:
        """A mean over samples, a sum, or a mean over terms with other weights, such as tokens."""
        _ = self.separable  # measures the loss of a single batch
        return self._reduction.kind

    @property
    def doubts(self) -> list[str]:
        """Reasons to doubt that the loss of these batches is the loss of their samples."""
        return list(self._reduction.doubts)

    def shares(self, batches: Sequence[Batch] | None = None) -> list[float]:
        """Return the factors with which the losses of batches add up to the loss of all samples.

        Args:
            batches: The same samples, or some of them, in other batches.
        """
        if batches is None:
            return self._shares
        with self.evaluation_mode():
            return self._reduction.shares(batches)

    @cached_property
    def empty_rows(self) -> list[str]:
        """Names of the weights in which the mask leaves nothing of a row or of a column."""
        return [
            name
            for name, m in (self.mask or {}).items()
            if m.dim() > 1 and not all(m.movedim(d, 0).flatten(1).any(1).all() for d in (0, 1))
        ]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hex fingerprints of the parts that define the function."""
        net = [self.net, self.batch_norm, list(self.live.shapes), describe_modules(self.net)]
        return {
            "net": fingerprint(" ".join(map(str, net)), []),
            "weights": fingerprint("", [self.weights]),
            "buffers": fingerprint("", self._frozen_state.values()),
            "mask": self.mask.digest if self.mask else "dense",
            "data": fingerprint("", tensors_in(self.batches)),
            "loss": fingerprint(describe_code(self.loss), []),
        }

    @property
    def digest(self) -> str:
        """Hex fingerprint of all `digests`."""
        return fingerprint(" ".join(self.digests.values()), [])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the tensors of a vector by name, in the net's shapes, exactly 0 where dead."""
        return self.live.split(vector)

    def join(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the vector of named tensors; dead entries are dropped, missing names are 0."""
        return self.live.join(tensors)

    def flatten(self, parts: Sequence[Tensor] | None) -> Tensor:
        """Return the vector of tensors that are in the order of `live.shapes`."""
        return self.join(dict(zip(self.live.shapes, parts or (), strict=True)))

    def outputs(self, at: Tensor | None = None) -> list[Any]:
        """Return the outputs for each batch, with the live weights at `at` (default: `weights`)."""
        weights = self._weights_at(at)
        with self.evaluation_mode():
            return [map_outputs(self.forward(weights, x), Tensor.detach) for x, _ in self.batches]

    def value(self, at: Tensor | None = None) -> float:
        """Return the loss of all samples, summed in float64."""
        if at is None and self._value and self._value[1] == self._version:
            return self._value[0]
        with self.evaluation_mode():
            weights = self._weights_at(at)
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for (x, y), share in zip(self.batches, self.shares(), strict=True):
                if share:
                    loss = self.reduce_loss(self.forward(weights, x), y, weights)
                    total += loss.detach().double() * share
        return float(total)

    def gradient(self, at: Tensor | None = None, *, batches: list[Batch] | None = None) -> Tensor:
        """Return the gradient of the loss of all samples (of other `batches`), (size,)."""
        total, chosen = None, self.batches if batches is None else batches
        shares = self.shares(batches)
        with self.evaluation_mode():
            weights = self._weights_at(at).values()
            for batch, share in zip(chosen, shares, strict=True):
                if share:
                    leaves = [t.detach().requires_grad_() for t in weights]
                    total = accumulate(total, self.batch_loss(batch).gradient(leaves), share)
        return self.flatten(total)

    def hvp(self, vector: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Return the Hessian times `vector` (default: the gradient).

        For many products, `Curvature` is faster.
        """
        total = None
        vector = self.gradient(at) if vector is None and len(self.batches) > 1 else vector
        with (
            validation.explain_errors("the loss cannot be differentiated twice"),
            self.evaluation_mode(),
            twice_differentiable(),
        ):
            weights = list(self._weights_at(at).values())
            for batch, share in zip(self.batches, self.shares(), strict=True):
                if share:
                    hessian = DoubleBackward(self.batch_loss(batch), weights)
                    v = hessian.gradient if vector is None else list(self.split(vector).values())
                    total = accumulate(total, hessian.product(v), share)
                    del hessian, v  # frees the graph
        return self.flatten(total)

    def batch_loss(self, batch: Batch) -> BatchLoss:
        """Return the loss of one batch as a function of the weights, within `evaluation_mode`."""
        x, y = batch

        def by_name(weights: Sequence[Tensor]) -> dict[str, Tensor]:
            return dict(zip(self.live.shapes, weights, strict=True))

        return BatchLoss(
            lambda weights: self.forward(by_name(weights), x),
            lambda outputs, *weights: self.reduce_loss(outputs, y, *map(by_name, weights)),
            num_samples(batch),
            self.reads_weights,
            self._reduction.summed,
            bool(self.empty_rows),
        )

    def reduce_loss(
        self,
        outputs: Any,
        targets: Any,
        weights: dict[str, Tensor] | None = None,
        *,
        frozen: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the loss of one batch's outputs as a scalar tensor.

        A loss that reads the net's weights, or calls the net, finds these weights in it.
        """
        if self.reads_weights and weights is not None:
            loss = self._call(self.loss, weights, frozen, outputs, targets)
        else:
            loss = self.loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
            kind = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            kind = "a complex number" if isinstance(loss, Tensor) and loss.is_complex() else kind
            raise ValueError(f"the loss returned {kind}; need one number, a mean or a sum")
        return loss.squeeze()

    def forward(
        self, weights: dict[str, Tensor], x: Any, *, frozen: dict[str, Tensor] | None = None
    ) -> Any:
        """Return the net's outputs for the inputs of a batch, differentiable in `weights`.

        Call it within `evaluation_mode`. `frozen` replaces the result of `frozen_state`.
        """
        x = tree_map(x, Tensor.clone)  # a net may write into its input
        args, kwargs = call_arguments(x)
        return self._call(self.net, weights, frozen, *args, **kwargs)

    def _call(
        self,
        function: Callable[..., Any],
        weights: dict[str, Tensor],
        frozen: dict[str, Tensor] | None,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return what a function gives while the net holds these weights."""
        state = {f"net.{name}": t for name, t in self._state(weights, frozen).items()}
        return functional_call(self._caller, state, (function, *args), kwargs)

    def _state(
        self, weights: dict[str, Tensor], frozen: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, each on its device and in its dtype."""
        placed = {name: weights[name].to(*to) for name, to in self._placement.items()}
        return {**weights, **placed, **(self.frozen_state() if frozen is None else frozen)}

    def frozen_state(self, *, copy: bool = False) -> dict[str, Tensor]:
        """Return the buffers and the (masked) frozen weights, by name.

        Tensors that a forward pass may write into are copies, and all are with `copy`; do not write
        into the others.
        """
        state = self._frozen_state.items()
        return {n: t.clone() if copy or n in self._written else t for n, t in state}

    def evaluation_mode(self) -> AbstractContextManager[None]:
        """Put the net into the modes that `batch_norm` asks for, and restore them at the end."""
        return deterministic_eval(self.net, batch_norm=self.batch_norm)

    def _outputs_of(self, x: Any) -> Any:
        return self.forward(self.split(self.weights), x)

    def _loss_of(self, outputs: Any, targets: Any) -> Tensor:
        return self.reduce_loss(outputs, targets, self.split(self.weights))

    @property
    def _version(self) -> int:
        """A number that grows when weights or samples are written into."""
        return self._weights._version + sum(t._version for t in tensors_in(self._batches))

    def _weights_at(self, at: Tensor | None) -> dict[str, Tensor]:
        return self.split(self.weights if at is None else at)


class _Caller(nn.Module):
    """Call a function, of the network or one that reads it, while `functional_call` holds it.

    `functional_call` refuses a TorchScript module itself, but not one inside another.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)
