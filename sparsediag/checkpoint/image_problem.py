"""The problem of a network on the images of a data set, and what to know about the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsediag.checkpoint import DEFAULTS
from sparsediag.core import losses
from sparsediag.core.errors import CheckpointError
from sparsediag.core.problem import Problem
from sparsediag.data import datasets
from sparsediag.data.datasets import Data
from sparsediag.data.folders import SPLITS


def load_data(
    name: str,
    run: Mapping[str, Any],
    *,
    size: int | None = None,
    normalise: datasets.Normalise | None = None,
    device: torch.device | str = "cpu",
) -> Data:
    """Load a data set, with the pixels that a training had unless others are asked for.

    Args:
        name: As `data.load` takes it.
        run: The description of the training, empty if it is not known.
        size: See `data.load`; None for that of the training.
        normalise: Likewise.
        device: Device of the images.

    Raises:
        ValueError: If there is no such data set.
    """
    if name == "":
        raise CheckpointError(
            "the checkpoint names no data set; pass one with --data: a name such as cifar10, "
            "folder:PATH or file.py:batches"
        )
    if size is None and name.startswith("folder:"):
        size = run.get("size")
    normalise = normalise or run.get("normalise", "own")
    return datasets.load(name, device=device, size=size, normalise=normalise)


def check_data(data: Data, built_for: Mapping[str, Any], *, trained_on: str) -> None:
    """Raise CheckpointError if a data set does not fit a built-in network.

    Args:
        data: The data set.
        built_for: Options of the network, whose data set must have the same; else empty.
        trained_on: The data set that the checkpoint records.
    """
    for option in [o for o in ("channels", "classes", "size") if o in built_for]:
        if built_for[option] != (has := getattr(data, option)):
            raise CheckpointError(
                f"{data.name} has {option} = {has}, the net was built for {built_for[option]}; "
                f"use the data set it was trained on ({trained_on or 'not recorded'})"
            )


def image_problem(
    net: nn.Module,
    data: Data,
    asked: Mapping[str, Any],
    *,
    seed: int,
    names: Mapping[str, str],
    note: Callable[[str], None],
    **options: Any,
) -> Problem:
    """Return the problem of a network on a sample of a data set.

    Grey images are given in three channels to a network that takes no others.

    Args:
        net: The network, on the device of the data set.
        data: The data set.
        asked: split, images (0 for all) and batch; None where it was not asked for.
        seed: Seed of the sample.
        names: Names of the network: net and label.
        note: Called with what the user should know about how they fit.
        options: Other arguments of `Problem`.

    Raises:
        ValueError: If they do not fit together; the message says what the data set has.
    """
    sample: dict[str, Any] = dict(DEFAULTS)
    sample |= {key: value for key, value in asked.items() if value is not None}
    sample["images"] = sample["images"] or None
    dtype = next(net.parameters()).dtype
    batches = [(x.to(dtype), y) for x, y in data.batches(**sample, seed=seed)]
    options["about"] = {
        **names,
        "data": data.name,
        "split": SPLITS[sample["split"]],
        "available": len(data.split(sample["split"])),
        "pixels": _describe_pixels(data),
    }
    try:
        problem = _problem(net, batches, data, options)
    except ValueError as error:
        if data.channels > 1 or "channels" not in str(error):
            raise
        batches = [(x.expand(-1, 3, -1, -1), y) for x, y in batches]
        problem = _problem(net, batches, data, options)
        note(f"pixels: those of {data.name} are grey; the net got them in three channels")
    with problem.evaluation_mode(), torch.no_grad():
        z = losses.logits(problem.forward(problem.split(problem.weights), batches[0][0][:2]))
    scores = options["loss"] is losses.default_loss and isinstance(z, Tensor) and z.dim() == 2
    if scores and z.shape[1] > data.classes:
        note(
            f"classes: the net has {z.shape[1]} outputs, {data.name} has {data.classes} classes, "
            "numbered from 0 by name; if the net numbers them otherwise, give batches with its "
            "numbers: --data file.py:batches"
        )
    return problem


def _describe_pixels(data: Data) -> str:
    """Return size and normalisation, of which there is a choice, in words; "" without one."""
    size = f"{data.size} x {data.size}" if data.name.startswith("folder:") else ""
    how = f"normalised: {data.normalisation}" if data.normalisation != "own" else ""
    return ", ".join(filter(None, (size, how)))


def _problem(
    net: nn.Module, batches: list[tuple[Tensor, Tensor]], data: Data, options: dict[str, Any]
) -> Problem:
    """Return the problem; an error says what the data set has."""
    try:
        return Problem(net, batches, **options)
    except ValueError as error:
        resize = "; --size resizes them" if data.name.startswith("folder:") else ""
        shape = f"{data.channels} x {data.size} x {data.size}"
        raise ValueError(
            f"{str(error).rstrip('.')}. {data.name} has {data.classes} classes and images of "
            f"{shape}{resize}"
        ) from error


def image_notes(data: Data, split: str | None, *, guessed: bool) -> list[str]:
    """Return what to know about images that a network was perhaps not trained on.

    Args:
        data: The data set.
        split: The split that was asked for; None for train.
        guessed: Whether nobody said how the network's images are normalised.
    """
    guess = (
        f"pixels: normalised by the mean and std of {data.name}, as nothing else was asked for; "
        "torchvision's weights need --normalise imagenet"
    )
    on_split = data.notes.get(SPLITS[split or "train"], "")
    return [note for note in (guess if guessed else "", on_split) if note]
