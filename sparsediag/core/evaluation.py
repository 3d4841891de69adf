"""Put a network into evaluation mode, and compute in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn
from torch.utils import checkpoint

from sparsediag.core.prunable import pruned_in_passes

BATCH_NORMS = nn.modules.batchnorm._BatchNorm


@contextmanager
def recalibrating_batch_norm(net: nn.Module, *, share: float) -> Iterator[None]:
    """Let batch norms use each batch's statistics and update their running ones in the block.

    With `share` = the batch's share of the samples so far, they become the mean over all samples.
    """
    norms = [m for m in net.modules() if isinstance(m, BATCH_NORMS)]
    before = [(m.training, m.momentum) for m in norms]
    try:
        for m in norms:
            m.training, m.momentum = True, share
        yield
    finally:
        for m, (training, momentum) in zip(norms, before, strict=True):
            m.training, m.momentum = training, momentum


OPERATIONS = [(b, op) for b in ("cuda", "mkldnn") for op in ("matmul", "conv", "rnn")]
# an operation set to "none" inherits from its parent, so parents are read and set first
PARENTS = [("generic", "all"), ("cuda", "all"), ("mkldnn", "all")]
# read, write, and the settings for full precision and for TF32
OLDER: list[tuple[Callable[[], Any], Callable[[Any], None], tuple[Any, Any]]] = [
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, ("highest", "high")),
    (torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32, (False, True)),
]


@contextmanager
def full_precision(*, tf32: bool = False) -> Iterator[None]:
    """Compute in the precision of the tensors: no TF32, no bfloat16 products, no autocast.

    It is also a decorator. The caller's settings, in torch's older interface or its newer one
    (`fp32_precision`), are restored at the end.

    Args:
        tf32: Let a GPU use TF32 (ten bits) for the factors of float32 products.

    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", torch.bfloat16), full_precision():
    ...     (x @ x).dtype
    torch.float32
    """
    autocast = {device: torch.is_autocast_enabled(device) for device in ("cpu", "cuda")}
    older = [(set_, value, new) for get, set_, new in OLDER if (value := _read(get)) is not None]
    newer: dict[tuple[str, str], str] = {}
    try:
        for owner in PARENTS + OPERATIONS:
            newer[owner] = torch._C._get_fp32_precision_getter(*owner)
            torch._C._set_fp32_precision_setter(*owner, "none")
        for set_, _, new in older:  # a network that reads mixed settings would get an error
            set_(new[tf32])
        for owner in OPERATIONS:
            fast = tf32 and owner[0] == "cuda"
            torch._C._set_fp32_precision_setter(*owner, "tf32" if fast else "ieee")
        for device in autocast:
            torch.set_autocast_enabled(device, False)
        yield
    finally:
        for device, enabled in autocast.items():
            torch.set_autocast_enabled(device, enabled)
        for set_, value, _ in older:
            set_(value)
        for owner, precision in newer.items():
            torch._C._set_fp32_precision_setter(*owner, precision)


def _read(get: Callable[[], Any]) -> Any:
    """Return a setting of the older interface; None if it conflicts with the newer one."""
    try:
        return get()
    except RuntimeError:
        return None


@contextmanager
def deterministic_cudnn(*, enabled: bool = True) -> Iterator[None]:
    """Let cuDNN compute the same numbers each time in the block, or not be used at all.

    The attributes of `torch.backends.cudnn` cannot be set once anything has called
    `torch.backends.disable_global_flags()`, and its `flags()` fails where the older and the newer
    settings of precision are mixed; the functions below both of them always work.
    """
    before = [
        (torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled()),
        (torch._C._set_cudnn_deterministic, torch._C._get_cudnn_deterministic()),
        (torch._C._set_cudnn_benchmark, torch._C._get_cudnn_benchmark()),
    ]
    try:
        torch._C._set_cudnn_enabled(enabled and torch._C._get_cudnn_enabled())
        torch._C._set_cudnn_deterministic(True)
        torch._C._set_cudnn_benchmark(False)
        yield
    finally:
        for set_, value in before:
            set_(value)


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Let `torch.utils.checkpoint` keep what it would compute again in the backward pass.

    A second computation comes too late: `functional_call` has put the net's own weights back, so it
    gives the gradient at these. And the reentrant form has no second derivative.
    """
    before = checkpoint.CheckpointFunction, checkpoint._checkpoint_hook
    try:
        plain = SimpleNamespace(apply=lambda run, _preserve_rng, *args: run(*args))
        checkpoint.CheckpointFunction = plain  # type: ignore[misc,assignment]
        checkpoint._checkpoint_hook = nullcontext  # type: ignore[misc,assignment]
        yield
    finally:
        checkpoint.CheckpointFunction, checkpoint._checkpoint_hook = before  # type: ignore[misc]


def is_compiled(net: nn.Module) -> bool:
    """Return whether torch.compile has compiled a part of a net."""
    return any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in net.modules()
    )


@contextmanager
def deterministic_eval(
    net: nn.Module, *, batch_norm: Literal["eval", "train"] = "eval"
) -> Iterator[None]:
    """Put `net` into evaluation mode and full precision in the block; restore all at its end.

    Gradients are on, so that a net may differentiate by its inputs; weights that do not ask for a
    gradient cost nothing.

    Args:
        net: The modes of its modules change.
        batch_norm: "train" lets batch norms use the statistics of each batch.

    >>> net = nn.Dropout().train()
    >>> with deterministic_eval(net):
    ...     net.training
    False
    >>> net.training
    True
    """
    before = {m: m.training for m in net.modules()}
    pruned = [(m, weight, getattr(m, weight)) for _, m, weight in pruned_in_passes(net)]
    recurrent = any(
        isinstance(m, nn.RNNBase) for m in before
    )  # cudnn's have no gradient in evaluation mode
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        for m in before:
            m.training = batch_norm == "train" and isinstance(m, nn.modules.batchnorm._BatchNorm)
        torch.backends.mha.set_fastpath_enabled(
            False
        )  # rounds differently from the differentiable path
        with (
            # compiled code has no second derivative, and compiling again would take minutes
            torch.compiler.set_stance("force_eager") if is_compiled(net) else nullcontext(),
            deterministic_cudnn(enabled=not recurrent),
            full_precision(),
            without_checkpointing(),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for m, training in before.items():
            m.training = training
        for m, weight, masked in pruned:  # which the passes in the block have computed anew
            setattr(m, weight, masked)
