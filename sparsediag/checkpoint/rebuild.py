"""Rebuild the network of a checkpoint, and the samples that its loss is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sparsediag import models
from sparsediag.checkpoint import resolve
from sparsediag.checkpoint.strip_pruning import plain
from sparsediag.checkpoint.user_code import one_line
from sparsediag.core import validation
from sparsediag.core.errors import CheckpointError
from sparsediag.core.problem import Problem


def builtin_net(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Return a built-in network with random weights; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        try:
            return models.build(name, **options)
        except TypeError as error:
            raise CheckpointError(f"{name} cannot be built: {error}") from None


def custom_net(
    model: resolve.Model, options: Mapping[str, Any] | None, recorded: Mapping[str, Any]
) -> nn.Module:
    """Return a copy of a network of the user, without hooks and parametrisations that mask.

    Args:
        model: See `resolve.net`, as for `options` and `recorded`.
        options: Keywords for it.
        recorded: Keywords that the checkpoint records.

    Raises:
        ValueError: If there is no such network, it has lazy layers, or it cannot be copied.
    """
    name, net = resolve.label(model), resolve.net(model, options, recorded=recorded)
    for n, t in (*net.named_parameters(), *net.named_buffers()):
        if is_lazy(t):
            raise ValueError(f"'{n}' of {name} has no shape yet; give the layer its input size")
    try:
        return plain(net)[0]
    except (ValueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # it holds a lock or a generator, which cannot be copied
        again = resolve.net(model, options, recorded=recorded)
        if {*map(id, net.modules())} & {*map(id, again.modules())}:
            message = f"{name} cannot be copied: {one_line(error)}; give what makes it"
            raise ValueError(message) from error
        validation.check_differentiable(again)
        return again


def problem(net: nn.Module, batches: Iterable[Any], **options: Any) -> Problem:
    """Return the problem, or raise a ValueError of one line where a loader of the user fails."""
    try:
        return Problem(net, batches, **options)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        message = f"the batches cannot be used: {one_line(error)}; --debug shows where"
        raise ValueError(message) from error
