"""Rebuild the network of a checkpoint, and the samples that its loss is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparsediag import models
from sparsediag.checkpoint import load_weights, resolve
from sparsediag.checkpoint.strip_pruning import plain
from sparsediag.core import validation
from sparsediag.core.errors import CheckpointError, unknown
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.data import datasets


def net(
    weights: Mapping[str, Tensor],
    own_mask: Mask | None,
    *,
    builtin: str,
    builtin_options: Mapping[str, Any],
    made_by: Mapping[str, Any],
    model: resolve.Model | None,
    options: Mapping[str, Any] | None,
    mask: str | Path | None = None,
) -> tuple[nn.Module, Mask | None, list[str]]:
    """Return the network in evaluation mode, the mask, and lines about what was found.

    Args:
        weights: The state dict.
        own_mask: The mask of the checkpoint.
        builtin: The name of a built-in network that the checkpoint records.
        builtin_options: Its options.
        made_by: What the checkpoint says about itself.
        model: What makes another network; see `resolve.net`.
        options: Keywords for it.
        mask: The mask to use instead; see `load_weights.fill`.

    Raises:
        ValueError: If there is no such net or mask, or the weights do not fit it.
    """
    if model is not None:
        name = resolve.called(model)
        made = _of_its_own(name, partial(resolve.net, model, options, recorded=builtin_options))
    elif options is not None:
        raise ValueError("options of a model came without one; give --model too")
    elif builtin not in models.MODELS:
        names = ", ".join([*weights][:3])
        bare = f"{len(weights)} tensors ({names}, ...) came without what computes with them."
        known = unknown("model", builtin, models.MODELS)
        raise CheckpointError(f"{known if builtin else bare} Give it: --model file.py:make")
    else:
        name = builtin
        with torch.random.fork_rng(devices=[]):
            try:
                made = models.build(name, **builtin_options)
            except TypeError as error:
                raise CheckpointError(f"{name} cannot be built: {error}") from None
    about = made_by
    if mask is None and "fault" in about:
        raise CheckpointError(f"{about['fault']}; to leave the mask out: --mask none")
    line = about.get("mask", "")
    alive, lines = load_weights.fill(made, weights, own_mask, asked=mask, line=line, name=name)
    if "beside" in about:
        lines.append(f"file: {about['file']}; not read: {about['beside']}")
    return made.eval(), alive, lines


def _of_its_own(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """A net that nobody else holds, without hooks and parametrisations that mask."""
    made = make()
    for n, t in (*made.named_parameters(), *made.named_buffers()):
        if is_lazy(t):
            raise ValueError(f"'{n}' of {name} has no shape yet; give the layer its input size")
    try:
        return plain(made)[0]
    except (ValueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a lock, a generator: no copy of it can be made
        again = make()
        if {*map(id, made.modules())} & {*map(id, again.modules())}:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{name} cannot be copied: {what}; give what makes it") from error
        validation.check_differentiable(again)
        return again


def batches(
    net: nn.Module,
    data: str | Callable[..., Any] | Iterable[Any],
    *,
    builtin: str,
    builtin_options: Mapping[str, Any],
    trained_on: str,
    seed: int,
    **asked: Any,
) -> Iterable[Any]:
    """Return samples of a data set, by default that of the training, or the batches given.

    Args:
        net: The images get its device and dtype.
        data: A name, or see `resolve.batches`.
        builtin: The name of a built-in network, which says what images it takes; "" for others.
        builtin_options: Its options.
        trained_on: The data set that the checkpoint records.
        seed: Of the sample.
        **asked: split, images (0 for all) and batch, each None where it was not asked for.

    Raises:
        ValueError: If there is no such data set, or it does not fit the net.
    """
    if data == "":
        raise CheckpointError("the checkpoint names no data set; pass one with --data")
    if resolve.own(data):
        return resolve.batches(data, **asked)
    given: dict[str, Any] = dict(resolve.DEFAULTS)
    given |= {key: value for key, value in asked.items() if value is not None}
    given["images"] = given["images"] or None
    weight = next(net.parameters())
    loaded = datasets.load(str(data), device=weight.device)
    known = models.defaults(builtin) if builtin else {}
    for option in [o for o in ("channels", "classes", "size") if o in known]:
        built, has = builtin_options.get(option, known[option]), getattr(loaded, option)
        if built != has:
            raise CheckpointError(
                f"{data} has {option} = {has}, the net was built for {built}; "
                f"use the data set it was trained on ({trained_on or 'not recorded'})"
            )
    return [(x.to(weight.dtype), y) for x, y in loaded.batches(**given, seed=seed)]


def problem(net: nn.Module, batches: Iterable[Any], **options: Any) -> Problem:
    """The problem, or one line where a custom loader fails."""
    try:
        return Problem(net, batches, **options)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the batches cannot be used: {what}; --debug shows where") from error
