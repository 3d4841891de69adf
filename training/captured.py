"""A training step recorded as a CUDA graph, and replayed with one launch.

A step of a small network is some 360 kernel launches, and the GPU waits for most of them. Learning
rates, strengths of ghosts and the loss are constants in a recording, so a step is recorded again
when its key changes. A smaller last batch, and a step that moves the mask or is watched, run
eagerly between replays; all tensors keep their memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

from training.metrics import Row
from training.step import Step
from training.tweaks import Objective

WARMUP_STEPS = 3  # before the first recording: then memory, momentum and cuDNN's plans exist
REPLAY_TOLERANCE = 1e-2  # largest difference of a replay, relative to the change of a step

Work = Callable[[], object]


class CapturedStep:
    """A step that is replayed if possible, and eager otherwise, with a warning that says why.

    Before the first replay, the same batch is computed both ways from the same state, and
    everything that a step writes must agree.

    Args:
        step: The step.
        record: Function from work to its replay.
    """

    def __init__(self, step: Step, record: Callable[[Work], Work] | None = None) -> None:
        self.step, self.record = step, record or cuda_graph
        self.key: Hashable = None
        self.warmup, self.checked, self.given_up = WARMUP_STEPS, False, False
        self.replay: Work | None = None
        self.static: list[Tensor] = []  # the indices that a recording reads

    @classmethod
    def on(cls, device: torch.device, step: Step, *, compiled: bool) -> CapturedStep:
        """Return the step of a training on a device; on a CPU it stays eager."""
        captured = cls(step)
        captured.given_up = device.type == "cpu"
        reason = "the network is compiled" if compiled else step.keeper.why_eager
        if reason and not captured.given_up:
            captured._give_up(reason)
        return captured

    def epoch(
        self, indices: Iterable[tuple[Tensor, ...]], loss: Objective, key: Hashable
    ) -> tuple[Row, int]:
        """Train for an epoch; return losses and accuracy, and the number of finite steps.

        Args:
            indices: The arguments of `step.load` for each batch.
            loss: The training loss.
            key: All constants of the epoch's steps; equal keys mean equal steps.
        """
        if key != self.key:
            self.key, self.replay = key, None
        self.step.keeper.net.train()
        self.step.begin(loss)
        for batch in indices:
            self(*batch)
        return self.step.end()

    def __call__(self, *indices: Tensor) -> None:
        """Train on one batch."""
        self.static = self.static or [t.clone() for t in indices]
        fits = all(s.shape == t.shape for s, t in zip(self.static, indices, strict=True))
        if self.given_up or self.warmup or not fits or not self.step.repeats:
            self.warmup = max(0, self.warmup - 1)
            self.step(*indices)
            return
        if self.replay is None:
            try:
                self.step.keeper.optimiser.zero_grad()
                self.replay = self.record(lambda: self.step.compute(*self.static))
            except Exception as error:
                self._give_up(" ".join(str(error).split())[:200])
                self.step(*indices)
                return
        torch._foreach_copy_(self.static, indices)
        if not self._agrees(self.replay):
            self.step(*indices)
            return
        self.replay()
        self.step.count(len(indices[0]))

    def _agrees(self, replay: Work) -> bool:
        """Return whether a replay computes the same as an eager step; the state is restored."""
        if self.checked:
            return True
        written = self.step.written_tensors()
        before = [t.clone() for t in written]
        self.step.compute(*self.static)
        eager = [t.clone() for t in written]
        torch._foreach_copy_(written, before)
        replay()
        differences = map(_relative_difference, written, eager, before)
        largest = float(torch.stack(list(differences)).max())
        torch._foreach_copy_(written, before)
        self.checked = largest <= REPLAY_TOLERANCE
        if not self.checked:
            self._give_up(f"a replay differs from an eager step by {largest:.1e} of its change")
        return self.checked

    def _give_up(self, reason: str) -> None:
        self.given_up, self.replay = True, None
        warnings.warn(f"steps are not replayed from a CUDA graph: {reason}", stacklevel=3)


def cuda_graph(work: Work) -> Work:
    """Record what `work` computes on the GPU, without running it; return the replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _relative_difference(replayed: Tensor, eager: Tensor, before: Tensor) -> Tensor:
    """Return the difference of two results relative to the change, beyond rounding."""
    a, b, start = (t.double() for t in (replayed, eager, before))
    return torch.as_tensor((a - b).norm() / ((b - start).norm() + 1e-6 * b.norm() + 1e-30))
