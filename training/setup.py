"""Set up a training: network, weights, mask, and epochs that it continues."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from training.loader import batch_stream
from training.metrics import Row
from training.prerequisite import Prerequisite
from training.tweaks import TrainingContext


class Collapsed(ConfigError):
    """A mask through which nothing gets from the input to the output."""


@dataclass(frozen=True)
class Start:
    """State of a training before its first step.

    Attributes:
        net: With its first weights, the dead ones at 0, on the device.
        options: Those that it was built with.
        mask: The live weights, or None.
        history: The epochs that the weights have behind them, if the run goes on from there.
        kept: What the tweaks' `start` returned, by name.
    """

    net: nn.Module
    options: dict[str, Any]
    mask: Mask | None
    history: list[Row]
    kept: dict[str, Any]


def start(
    run: Run, data: Data, *, out: Path, device: torch.device, kept: Checkpoint | None = None
) -> Start:
    """Build the net and its mask; the runs of `run.before()` must be finished.

    Args:
        run: The run.
        data: What it trains on.
        out: Where the finished runs lie.
        device: Where the net goes.
        kept: What the run has left half-way, if it did.

    Raises:
        Collapsed: If no path through the mask is left, and the run is not told to train all
            the same.
    """
    net, options = build(run, data, device)
    if kept:
        net.load_state_dict(kept.weights)
        mask, history = kept.mask, kept.history
    else:
        mask, history = _begin(run, net, data, out)
    mask = mask and mask.to(device)
    for tweak in run.tweaks.values():
        tweak.update(net, len(history), run.optim.epochs)
    found = {}
    stay = any(t.options() and not t.over(run.optim.epochs) for t in run.tweaks.values())
    for name, tweak in run.tweaks.items():
        batches, trained = batch_stream(run, data, purpose=name), _ends(run, tweak.before(), out)
        scene = TrainingContext(net, mask, batches, trained, resumed=kept is not None, stay=stay)
        found[name] = tweak.start(scene)
    if mask is not None:
        mask.apply_(net)
    return Start(net, options, mask, history, found)


def load_partial(run: Run, folder: Path) -> Checkpoint | None:
    """Load the checkpoint that an interrupted run has left in its folder, if any.

    Raises:
        CheckpointError: If it is of another run, or cannot be gone on from.
    """
    if not (folder / "last.pt").exists():
        return None
    kept = Checkpoint.load(folder / "last.pt")
    ended = kept.resume is None
    maskless = kept.mask is None and run.mask.density < 1
    if (
        Run.of(kept.run).id != run.id
        or maskless
        or (ended and len(kept.history) < run.optim.epochs)
    ):
        raise CheckpointError(f"{folder} does not hold this run half-way; remove that folder")
    return kept


def finished(folder: Path) -> bool:
    """Return whether the run in that folder has been trained to its end."""
    return (folder / "finished").exists()


def _begin(run: Run, net: nn.Module, data: Data, out: Path) -> tuple[Mask | None, list[Row]]:
    """Set the first weights of `net`, in place, before the mask; the mask, and earlier epochs."""
    # masks are drawn from the plain net, which starts with the same weights
    plain, _ = build(run.plain(), data, next(net.parameters()).device)
    probe = data.batches("train", images=run.record.probe_samples)
    if run.init != "default":
        zero_init.initialise(net, run.init)
        zero_init.initialise(plain, run.init)
        zero_init.guard(Problem(plain, probe))
    if run.mask.per_class:
        sample = data.balanced(run.mask.per_class, seed=run.init_seed)
        judge = Problem(plain, sample, batch_norm="train")
    else:
        judge = Problem(plain, probe)
    mask = run.mask.start(judge, _ends(run, run.mask.before(), out), seed=run.init_seed)
    if mask is not None:
        check(run, plain, mask, data)
    if not run.rewind:
        return mask, []
    earlier, file = run.rewound()
    kept = Checkpoint.load(out / "runs" / earlier.id / file)
    _take(net, kept)
    return mask, kept.history if run.resume_schedule else []


def _ends(run: Run, needed: Sequence[Prerequisite], out: Path) -> list[Checkpoint]:
    """Return the last checkpoints of the runs that a run needs."""
    names = [run.prerequisite(one).id for one in needed]
    return [Checkpoint.load(out / "runs" / name / "last.pt") for name in names]


def build(run: Run, data: Data, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """The net of a run at its default initialisation, and the options that it was built with."""
    options = run.model.keywords()
    for tweak in run.tweaks.values():
        options |= tweak.options()
    options |= {"classes": data.classes, "channels": data.channels, "size": data.size}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.init_seed)
        return models.build(run.model.name, **options).to(device), options


def check(run: Run, net: nn.Module, mask: Mask, data: Data) -> None:
    """Refuse a mask that lets nothing through, and warn of layers that it empties.

    Raises:
        Collapsed: Unless the run has `on_disconnected = "warn"`.
    """
    found = paths(net, mask, torch.Size((data.channels, data.size, data.size)))
    empty = ", ".join(found.empty)
    if not found.count:
        where = f"nothing is left of {empty}" if empty else "the live weights do not join up"
        text = (
            f"no path is left from the input to the output: {where} at density {mask.density:.3g}. "
            "Use a larger mask.density or another mask.method"
        )
        if run.on_disconnected == "error":
            raise Collapsed(f"{text}; on_disconnected = 'warn' trains the rest all the same")
        warnings.warn(text, stacklevel=2)
    elif empty:
        warnings.warn(
            f"the mask empties {empty}; the net trains on by the paths around them", stacklevel=2
        )


def _take(net: nn.Module, kept: Checkpoint) -> None:
    """The weights and buffers of a checkpoint; what a tweak adds to the net stays as it is."""
    state = net.state_dict()
    for name in kept.weights.keys() - state.keys():
        raise ConfigError(f"the run to rewind to has '{name}', the net has not")
    net.load_state_dict(state | kept.weights)
