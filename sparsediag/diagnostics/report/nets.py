"""Nets: what a report is about: checkpoints, and the problem that each of them makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.labels import short_labels
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable

Load = Callable[..., Problem]
Given = str | Path | Sequence[str | Path] | Mapping[str, Checkpoint | Problem]


@dataclass(frozen=True, eq=False)
class Net:
    """A net of a report.

    Attributes:
        checkpoint: What its file holds, or a problem's own net.
        problem: Its loss over the samples, or None.
        reason: Why there is no problem.
        file: Where it was read from; empty for what was in memory.
        notes: Where its mask comes from, if it was searched for, and what was left out.
    """

    checkpoint: Checkpoint
    problem: Problem | None
    reason: str = ""
    file: str = ""
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> Checkpoint:
        """Return the network whose mask is counted, with its mask or a full one."""
        if self.problem is None:
            return self.checkpoint
        kept, net = self.checkpoint, self.problem.view(dense=True).net  # dead weights are 0
        shapes = {name: net.get_parameter(name).shape for name in prunable(net)}
        every = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        if not (self.problem.mask or every):
            raise ValueError("the net has no convolution or linear layer that a mask could cover")
        mask = self.problem.mask or Mask(every)
        return Checkpoint.of(net, mask=mask, model=kept.model, options=kept.options)


def gather(given: Given, load: Load) -> dict[str, Net]:
    """Nets by name, from files, or from checkpoints or problems by name.

    Args:
        given: One file, several, or what is in memory.
        load: Makes a checkpoint's problem, and tells `note` what it made of the file.

    Raises:
        ValueError: If none or one of them twice came, or no problem can be made of any.
    """
    if isinstance(given, Mapping):
        found = {name: _of(kept, load) for name, kept in given.items()}
    else:
        files = [Path(f) for f in ([given] if isinstance(given, str | Path) else given)]
        whole = [file.resolve() for file in files]
        for i, file in enumerate(whole):
            if file in whole[:i]:
                raise ValueError(f"{files[i]} came twice; give different checkpoints")
        called = short_labels(files) if files else []
        found = {
            name: _of(Checkpoint.load(file), load, str(file))
            for name, file in zip(called, files, strict=True)
        }
    if not found:
        raise ValueError("no net came; a report needs one or more")
    if not any(net.problem for net in found.values()):
        raise ValueError(next(iter(found.values())).reason)
    return found


def _of(kept: Checkpoint | Problem, load: Load, file: str = "") -> Net:
    if isinstance(kept, Problem):
        name = type(kept.net).__name__
        return Net(Checkpoint(model=name, options={}, weights={}), kept)
    notes: list[str] = []
    try:
        return Net(kept, load(kept, note=notes.append), "", file, tuple(notes))
    except ValueError as error:
        return Net(kept, None, str(error), file)
