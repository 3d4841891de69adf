"""Networks of a report: checkpoints and the problem of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.labels import file_labels
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable

Load = Callable[..., Problem]
Given = str | Path | Sequence[str | Path] | Mapping[str, Checkpoint | Problem | str | Path]


@dataclass(frozen=True, eq=False)
class Net:
    """A network of a report.

    Attributes:
        checkpoint: Contents of its file; for a Problem, only the name of its network.
        problem: Its loss over the samples, or None.
        reason: Why there is no problem.
        file: File that it was read from; empty if it was in memory.
        notes: Origin of its mask if it had to be searched for, and tensors that were left out.
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
        net = copy.deepcopy(self.problem.net)
        self.problem.copy_weights_to(net)
        shapes = {name: net.get_parameter(name).shape for name in prunable(net)}
        every = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        if not (self.problem.mask or every):
            raise ValueError(
                "the network has no convolution or linear layer that a mask could cover"
            )
        mask = self.problem.mask or Mask(every)
        return Checkpoint.of(
            net, mask=mask, model=self.checkpoint.model, options=self.checkpoint.options
        )


def gather(sources: Given, load: Load) -> dict[str, Net]:
    """Return networks by name, from files, or from checkpoints or problems.

    Args:
        sources: A file, several files, or files, checkpoints or problems by name.
        load: Return the problem of a checkpoint; calls `note` with remarks on the file.

    Raises:
        ValueError: If there is none, one is given twice, or none gives a problem.
    """
    if isinstance(sources, Mapping):
        nets = {name: _of(one, load) for name, one in sources.items()}
    else:
        files = [Path(f) for f in ([sources] if isinstance(sources, str | Path) else sources)]
        resolved = [file.resolve() for file in files]
        for i, file in enumerate(resolved):
            if file in resolved[:i]:
                raise ValueError(f"got {files[i]} twice; give different checkpoints")
        loaded = [Checkpoint.load(file) for file in files]
        labels = file_labels(files, [one.run for one in loaded]) if files else []
        nets = {
            name: _of(checkpoint, load, str(file))
            for name, checkpoint, file in zip(labels, loaded, files, strict=True)
        }
    if not nets:
        raise ValueError("no network given; a report needs one or more")
    if not any(net.problem for net in nets.values()):
        raise ValueError(next(iter(nets.values())).reason)
    return nets


def _of(source: Checkpoint | Problem | str | Path, load: Load, file: str = "") -> Net:
    if isinstance(source, str | Path):
        return _of(Checkpoint.load(source), load, str(source))
    if isinstance(source, Problem):
        name = type(source.net).__name__
        return Net(Checkpoint(model=name, options={}, weights={}), source)
    notes: list[str] = []
    try:
        return Net(source, load(source, note=notes.append), "", file, tuple(notes))
    except ValueError as error:
        return Net(source, None, str(error), file)
