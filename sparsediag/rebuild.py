"""Rebuild: the net of a checkpoint with its weights in it, and the samples it is judged on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sparsediag import data as datasets
from sparsediag import fit, models, words
from sparsediag.errors import CheckpointError, unknown
from sparsediag.mask import Mask
from sparsediag.problem import Problem
from sparsediag.unhook import plain

if TYPE_CHECKING:
    from sparsediag.checkpoint import Checkpoint


def net(
    kept: Checkpoint,
    model: words.Model | None,
    options: Mapping[str, Any] | None,
    mask: str | Path | None = None,
) -> tuple[nn.Module, Mask | None, str]:
    """The net in evaluation mode, the mask that is asked for, and a line about where it is from.

    Args:
        kept: The weights, and the options of a net that is built in.
        model: What makes a net of one's own; see `words.net`.
        options: Keywords for it.
        mask: As in `fit.fill`.

    Raises:
        ValueError: If there is no such net or mask, or the weights do not fit it.
    """
    if model is not None:
        name = words.called(model)
        made, _ = plain(words.net(model, options, recorded=kept.options))
    elif options is not None:
        raise ValueError("options of a model came without one; give --model too")
    elif kept.model not in models.MODELS:
        names = ", ".join([*kept.weights][:3])
        bare = f"{len(kept.weights)} tensors ({names}, ...) came without what computes with them."
        known = unknown("model", kept.model, models.MODELS)
        raise CheckpointError(f"{known if kept.model else bare} Give it: --model file.py:make")
    else:
        name = kept.model
        with torch.random.fork_rng(devices=[]):
            try:
                made = models.build(name, **kept.options)
            except TypeError as error:
                raise CheckpointError(f"{name} cannot be built: {error}") from None
    alive, line = fit.fill(made, kept.weights, kept.mask, asked=mask, name=name)
    return made.eval(), alive, line or kept.made_by.get("mask", "")


def batches(
    kept: Checkpoint,
    net: nn.Module,
    data: str | Callable[..., Any] | Iterable[Any] | None,
    model: words.Model | None,
    *,
    seed: int,
    **asked: Any,
) -> Iterable[Any]:
    """Samples of a data set, by default that of the training, or batches of one's own.

    Args:
        kept: Of the net.
        net: Where it is, and how exact, the images will be too.
        data: A name, or see `words.batches`.
        model: What made the net; None for one that is built in, which says what images it takes.
        seed: Of the sample.
        **asked: split, images and batch.

    Raises:
        ValueError: If there is no such data set, or it does not fit the net.
    """
    name = kept.data if data is None else data
    if name == "":
        raise CheckpointError("the checkpoint names no data set; pass one with --data")
    if words.own(name):
        return words.batches(name, **asked)
    weight = next(net.parameters())
    loaded = datasets.load(str(name), device=weight.device)
    known = models.defaults(kept.model) if model is None else {}
    for option in [o for o in ("channels", "classes", "size") if o in known]:
        built, has = kept.options.get(option, known[option]), getattr(loaded, option)
        if built != has:
            raise CheckpointError(
                f"{name} has {option} = {has}, the net was built for {built}; "
                f"use the data set it was trained on ({kept.data or 'not recorded'})"
            )
    return [(x.to(weight.dtype), y) for x, y in loaded.batches(**asked, seed=seed)]


def problem(net: nn.Module, batches: Iterable[Any], **options: Any) -> Problem:
    """The problem, or one line where a loader of one's own fails."""
    try:
        return Problem(net, batches, **options)
    except (ValueError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the batches cannot be used: {what}; --debug shows where") from error
