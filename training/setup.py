"""Set up a training: the network, its first weights, its mask, and the epochs that it continues."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsediag import models
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import CheckpointError, ConfigError
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.data.datasets import Data
from sparsediag.diagnostics.connectivity import paths
from training import zero_init
from training.config import Run
from training.dependencies import load_rewind_origin, load_trained
from training.loader import batch_stream
from training.metrics import Row
from training.tweaks import TrainingContext

Progress = Callable[[str, int, int], None]  # of the part of a training, and its steps: done, all


class Disconnected(ConfigError):
    """No path through the mask leads from the input to the output."""


@dataclass(frozen=True)
class Start:
    """State of a training before its first step.

    Attributes:
        net: The network on its device, with its first weights; dead ones are 0.
        options: The options that it was built with.
        mask: The live weights, or None.
        history: Rows of the epochs that the weights were already trained for.
        tweak_states: The values that the tweaks' `start` returned, by name.
        metrics: Entries for the first row of the history.
    """

    net: nn.Module
    options: dict[str, Any]
    mask: Mask | None
    history: list[Row]
    tweak_states: dict[str, Any]
    metrics: Row


def start(
    run: Run,
    data: Data,
    *,
    out: Path,
    device: torch.device,
    partial: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Start:
    """Build the network and its mask; the runs of `run.before()` must be finished.

    Args:
        run: The run.
        data: Its data set.
        out: Folder of the finished runs.
        device: Device of the network.
        partial: The last checkpoint of this run, if it was interrupted.
        progress: Called as `progress(tweak, done, all)` while a tweak starts.

    Raises:
        Disconnected: If no path through the mask is left, and the run does not allow it.
    """
    net, options = build_net(run, data, device)
    if partial:
        net.load_state_dict(partial.weights)
        mask, history = partial.mask, partial.history
    else:
        mask, history = _draw_mask(run, data, out, device), []
        if run.init != "default":
            zero_init.initialise(net, run.init)
        if run.rewind:
            origin = load_rewind_origin(run, out)
            for name in origin.weights.keys() - net.state_dict().keys():
                raise ConfigError(f"the run to rewind to has '{name}', the net has not")
            net.load_state_dict(net.state_dict() | origin.weights)  # what tweaks add stays
            history = origin.history if run.resume_schedule else []
    mask = mask and mask.to(device)
    epochs, states, metrics = run.optim.epochs, {}, Row()
    for tweak in run.tweaks.values():
        tweak.update(net, len(history), epochs)
    permanent_ghosts = any(t.options() and not t.plain_from(epochs) for t in run.tweaks.values())
    for name, tweak in run.tweaks.items():
        context = TrainingContext(
            net,
            mask,
            batch_stream(run, data, purpose=name),
            load_trained(run, tweak.before(), out),
            resumed=partial is not None,
            permanent_ghosts=permanent_ghosts,
            epoch_steps=math.ceil(len(data.train) / run.optim.batch_size),
            batch_size=run.optim.batch_size,
            progress=progress and functools.partial(progress, name),
        )
        states[name] = tweak.start(context)
        metrics |= {} if partial else tweak.metrics(context)
    if mask is not None:
        mask.apply_(net)
    return Start(net, options, mask, history, states, metrics)


def load_partial(run: Run, folder: Path) -> Checkpoint | None:
    """Load the checkpoint that an interrupted run has left in its folder, if any.

    Raises:
        CheckpointError: If it belongs to another run, or cannot be resumed.
    """
    if not (folder / "last.pt").exists():
        return None
    last = Checkpoint.load(folder / "last.pt")
    has_mask = last.mask is not None or run.mask.density == 1
    resumable = last.resume is not None or len(last.history) >= run.optim.epochs
    if Run.of(last.run).id != run.id or not has_mask or not resumable:
        raise CheckpointError(f"{folder} does not hold this run half-way; remove that folder")
    return last


def finished(folder: Path) -> bool:
    """Return whether the run in that folder has been trained to its end."""
    return (folder / "finished").exists()


def build_net(run: Run, data: Data, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a run at PyTorch's initialisation, and the options it is built with."""
    options = run.model.keywords()
    for tweak in run.tweaks.values():
        options |= tweak.options()
    options |= {"classes": data.classes, "channels": data.channels, "size": data.size}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.init_seed)
        return models.build(run.model.name, **options).to(device), options


def check_connected(run: Run, net: nn.Module, mask: Mask, data: Data) -> None:
    """Check that a path through the mask is left, and warn of layers that it empties.

    Raises:
        Disconnected: Unless the run has `on_disconnected = "warn"`.
    """
    left = paths(net, mask, torch.Size((data.channels, data.size, data.size)))
    empty = ", ".join(left.empty)
    if not left.count:
        reason = f"nothing is left of {empty}" if empty else "the live weights do not join up"
        message = (
            f"no path is left from the input to the output: {reason} at density "
            f"{mask.density:.3g}. Use a larger mask.density or another mask.method"
        )
        if run.on_disconnected == "error":
            raise Disconnected(f"{message}; on_disconnected = 'warn' trains it nevertheless")
        warnings.warn(message, stacklevel=2)
    elif empty:
        warnings.warn(
            f"the mask empties {empty}; the net trains on by the paths around them", stacklevel=2
        )


def _draw_mask(run: Run, data: Data, out: Path, device: torch.device) -> Mask | None:
    """Draw the mask from the network without tweaks, which starts with the same weights."""
    net, _ = build_net(run.plain(), data, device)
    probe = data.batches("train", images=run.record.probe_samples)
    if run.init != "default":
        zero_init.initialise(net, run.init)
        zero_init.check_trainable(Problem(net, probe))
    problem = Problem(net, probe)
    if run.mask.per_class:
        sample = data.balanced_batches(run.mask.per_class, seed=run.init_seed)
        problem = Problem(net, sample, batch_norm="train")
    trained = load_trained(run, run.mask.before(), out)
    mask = run.mask.start(problem, trained, seed=run.init_seed)
    if mask is not None:
        check_connected(run, net, mask, data)
    return mask
