"""LoRA on a pruned network: adapters that respect its mask, and a merge that revives no weight.

A weight W under the mask m has W = m * W. LoRA adds s B A to it, which is dense, so the usual merge
W + s B A is dense too. Two functions keep the network sparse:

- `mask_adapters`, before the training: the adapter adds m * (s B A) in every pass, so the merge
  later changes nothing but rounding (Muñoz et al., SQFT, 2024).
- `merge`, after a training with or without it: m * (W + s B A) = W + m * (s B A), and a number that
  says by how much this changed the outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.batches import call_arguments, materialize
from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.losses import logits
from sparsediag.core.mask import Mask

BASE = ".base_layer."  # between the names of a layer with adapters and of its own weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Merged:
    """A pruned network that its adapters were merged into.

    Attributes:
        net: The network without adapters; its dead weights are exactly 0.
        mask: The live weights, by the names of `net`.
        revived: Number of dead weights that a merge without the mask would have revived.
        change: |outputs after the merge - outputs before it| / |outputs before it| on the probe;
            None without one.
    """

    net: nn.Module
    mask: Mask
    revived: int
    change: float | None

    def __repr__(self) -> str:
        dead = self.mask.size - self.mask.alive
        line = f"Merged: {dead:,} of {self.mask.size:,} weights are 0"
        line += f"; without the mask, {self.revived:,} of them would not be"
        if self.change is not None:
            line += f"; outputs on the probe changed by {self.change:.2g} of their size"
        return line


def mask_adapters(net: nn.Module, mask: Mask) -> None:
    """Let LoRA change live weights only: from here on, adapters add m * (s B A) in every pass.

    Call it after the adapters were added or loaded, and before the training. Each pass computes
    the product B A: one more matrix of the size of W, and about twice the time of these layers.
    Weights of `modules_to_save` have no adapter; `MaskedOptimizer` keeps them sparse.

    Args:
        net: A network with adapters of PEFT; it is changed in place.
        mask: The live weights, by their names in the network with or without adapters.

    Raises:
        ValueError: If no weight of the mask has an adapter, one has something else than plain LoRA
            on a linear layer (DoRA, a convolution), or a dead weight is not 0.

    >>> import peft
    >>> net = nn.Sequential(nn.Linear(4, 2))
    >>> mask = Mask.top({"0.weight": net[0].weight.abs()}, density=0.5)
    >>> mask.apply_(net)
    >>> config = peft.LoraConfig(r=1, target_modules=["0"], init_lora_weights=False)
    >>> adapted = peft.get_peft_model(net, config)
    >>> mask_adapters(adapted, mask)
    >>> merge(adapted, mask, probe=[(torch.ones(3, 4), None)]).change < 1e-6
    True
    """
    _check_dead_weights(net, mask)
    names = {id(p): name for name, p in net.named_parameters()}
    products: list[tuple[nn.Module, nn.Module, _MaskedProduct]] = []
    for name, weight in mask.weights_of(net).items():
        owner, base, _ = names[id(weight)].rpartition(BASE)
        if base:
            layer: Any = net.get_submodule(owner)
            _check_plain(owner, layer)
            m = mask[name].T if getattr(layer, "fan_in_fan_out", False) else mask[name]
            products += [(A, layer.lora_B[k], _MaskedProduct(m)) for k, A in layer.lora_A.items()]
    if not products:
        raise ValueError("no weight of the mask has an adapter; see target_modules of LoraConfig")
    for A, B, product in products:
        A.register_forward_hook(product.keep_input)
        B.register_forward_hook(product.multiply)


def _check_plain(name: str, layer: Any) -> None:
    """Raise ValueError if a layer computes something else with its adapters than B(A(x))."""
    adapters, variants = getattr(layer, "lora_A", {}), getattr(layer, "lora_variant", {})
    kinds = {type(part).__name__ for part in [*adapters.values(), *variants.values()]}
    if "Linear" not in type(layer).__name__ or kinds != {"Linear"} or BASE in f"{name}.":
        raise ValueError(
            f"'{name}' is a {type(layer).__name__} with adapters of {', '.join(kinds) or 'no LoRA'}"
            "; need plain LoRA on linear layers; train it as it is, and merge() will mask it"
        )


class _MaskedProduct:
    """Hooks on A and B of an adapter, after which B(A(x)) is (m * (B A)) x.

    Args:
        mask: The live weights, (out, in).
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def keep_input(self, A: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Attach x and A to the tensor A x, with which they reach B."""
        output.of_adapter = (inputs[0], A.weight)  # type: ignore[attr-defined]

    def multiply(self, B: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return (m * (B A)) x, and the bias of B if it has one."""
        x, A = inputs[0].of_adapter
        self.mask = self.mask.to(A.device)
        return F.linear(x, torch.where(self.mask, B.weight @ A, 0), B.bias)  # type: ignore[arg-type]


def merge(net: nn.Module, mask: Mask, *, probe: Iterable[Any] | None = None) -> Merged:
    """Return a copy of a pruned network with its adapters merged: m * (W + s B A).

    PEFT computes W + s B A, so any adapter that it can merge will do: several ones, scalings, DoRA,
    biases, `modules_to_save`. The outputs stay the same only if the training saw m * (s B A) too
    (`mask_adapters`); else the part of the update on dead weights is lost, and `change` says how
    much the outputs differ.

    Args:
        net: A `peft.PeftModel`; it is not changed.
        mask: The live weights, by their names in the network with or without adapters.
        probe: Batches (inputs, targets), or dicts; targets are not used.

    Raises:
        ValueError: If the network is no PeftModel that can be merged, the mask does not fit, or a
            dead weight is not 0 before the merge.
    """
    if not callable(getattr(net, "merge_and_unload", None)):
        raise ValueError(
            f"the net is {type(net).__name__!r}; need a peft.PeftModel that can be merged"
        )
    _check_dead_weights(net, mask)
    merged: nn.Module = copy.deepcopy(net).merge_and_unload(safe_merge=True)  # type: ignore[operator]
    weights = mask.weights_of(merged)
    revived = sum(int(w[~mask[n].to(w.device)].count_nonzero()) for n, w in weights.items())
    mask.apply_(merged)
    names = {id(p): name for name, p in merged.named_parameters()}
    named = Mask({names[id(w)]: mask[name] for name, w in weights.items()})
    change = None if probe is None else _relative_change(net, merged, probe)
    return Merged(net=merged, mask=named, revived=revived, change=change)


def _check_dead_weights(net: nn.Module, mask: Mask) -> None:
    """Raise ValueError if a dead weight under an adapter is not 0."""
    names = {id(p): name for name, p in net.named_parameters()}
    for name, weight in mask.weights_of(net).items():
        dead = weight[~mask[name].to(weight.device)]
        if BASE in names[id(weight)] and (moved := int(dead.count_nonzero())):
            raise ValueError(
                f"{moved:,} dead weights of '{name}' are not 0; apply the mask before adapters are "
                "added, without an initialisation that changes weights (PiSSA, OLoRA, LoftQ), and "
                "give adapters that are not merged yet"
            )


@torch.no_grad()
def _relative_change(net: nn.Module, merged: nn.Module, probe: Iterable[Any]) -> float:
    """Return |merged outputs - outputs| / |outputs| over all batches, in evaluation mode."""
    device = next(net.parameters()).device
    moved, size = 0.0, 0.0
    for x, _ in materialize(probe, device):
        args, kwargs = call_arguments(x)
        outputs = []
        for each in (net, merged):
            with deterministic_eval(each), torch.no_grad():
                outputs.append(logits(each(*args, **kwargs)).double())
        moved += float((outputs[1] - outputs[0]).square().sum())
        size += float(outputs[0].square().sum())
    return float((moved / size) ** 0.5)
