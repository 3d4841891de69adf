"""Rebuild the network of a checkpoint, and the samples that its loss is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
from sparsediag.data import datasets


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


def batches(
    net: nn.Module,
    data: str | Callable[..., Any] | Iterable[Any],
    *,
    built_for: Mapping[str, Any],
    trained_on: str,
    seed: int,
    **asked: Any,
) -> tuple[Iterable[Any], dict[str, Any]]:
    """Return samples of a data set on the device of `net`, or the batches of the user.

    The second value is what they are in words, for `about` of a Problem.

    Args:
        net: The images get its device and dtype.
        data: A name, or see `resolve.batches`.
        built_for: Options of a built-in network, whose data set must have the same; else empty.
        trained_on: The data set that the checkpoint records.
        seed: Seed of the sample.
        **asked: split, images (0 for all) and batch; None where it was not asked for.

    Raises:
        ValueError: If there is no such data set, or it does not fit the network.
    """
    if data == "":
        raise CheckpointError(
            "the checkpoint names no data set; pass one with --data: a name such as cifar10, "
            "folder:PATH or file.py:batches"
        )
    if resolve.is_custom_data(data):
        return resolve.batches(data, **asked), {"data": resolve.label(data)}
    keywords: dict[str, Any] = dict(resolve.DEFAULTS)
    keywords |= {key: value for key, value in asked.items() if value is not None}
    keywords["images"] = keywords["images"] or None
    weight = next(net.parameters())
    dataset = datasets.load(str(data), device=weight.device)
    for option in [o for o in ("channels", "classes", "size") if o in built_for]:
        if built_for[option] != (has := getattr(dataset, option)):
            raise CheckpointError(
                f"{data} has {option} = {has}, the net was built for {built_for[option]}; "
                f"use the data set it was trained on ({trained_on or 'not recorded'})"
            )
    split = keywords["split"]
    about = {"data": str(data), "split": split, "available": len(dataset.split(split))}
    return [(x.to(weight.dtype), y) for x, y in dataset.batches(**keywords, seed=seed)], about


def problem(net: nn.Module, batches: Iterable[Any], **options: Any) -> Problem:
    """Return the problem, or raise a ValueError of one line where a loader of the user fails."""
    try:
        return Problem(net, batches, **options)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        message = f"the batches cannot be used: {one_line(error)}; --debug shows where"
        raise ValueError(message) from error
