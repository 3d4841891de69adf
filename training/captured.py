"""A step of training recorded as a CUDA graph, and replayed with one launch.

A step of a small network is some 360 launches of kernels, and the GPU waits for most of them. What
is recorded is fixed: rates, strengths of ghosts and the loss are constants in it, so a step is
recorded anew when its key changes. A smaller last batch, and a step that moves the mask, run
eagerly between replays: all tensors stay in their places.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

from training.step import Step
from training.tweaks import Objective

EAGER = 3  # steps before the first recording: memory, momentum and cuDNN's plans are there then
ROUGH = 1e-2  # of a step's change, by which replaying it may differ

Work = Callable[[], None]


class Captured:
    """A step that is replayed where it can be, and eager where not, with one line that says why.

    Before the first replay counts, the same batch is done both ways from the same state, and all
    that a step writes must agree.

    Args:
        step: The step.
        record: From work to its replay.
    """

    def __init__(self, step: Step, record: Callable[[Work], Work] | None = None) -> None:
        self.step, self.record = step, record or cuda_graph
        self.key: Hashable = None
        self.eager, self.checked, self.given_up = EAGER, False, False
        self.replay: Work | None = None
        self.static: list[Tensor] = []

    @classmethod
    def on(cls, device: torch.device, step: Step, *, compiled: bool) -> Captured:
        """Return the step of a training on a device; on a CPU it stays as it is."""
        captured = cls(step)
        captured.given_up = device.type == "cpu"
        why = "the network is compiled" if compiled else step.keeper.why_eager
        if why and not captured.given_up:
            captured._give_up(why)
        return captured

    def epoch(
        self, picks: Iterable[tuple[Tensor, ...]], loss: Objective, key: Hashable
    ) -> tuple[float, float, int]:
        """Train for an epoch; return mean loss, accuracy and the number of finite steps.

        Args:
            picks: What loads each batch.
            loss: The training loss.
            key: All constants of the epoch's steps; equal keys mean equal steps.
        """
        if key != self.key:
            self.key, self.replay = key, None
        self.step.keeper.net.train()
        self.step.begin(loss)
        for pick in picks:
            self(*pick)
        return self.step.end()

    def __call__(self, *pick: Tensor) -> None:
        """Train on one batch."""
        self.static = self.static or [t.clone() for t in pick]
        fits = all(s.shape == t.shape for s, t in zip(self.static, pick, strict=True))
        if self.given_up or self.eager or not fits or not self.step.keeper.repeats:
            self.eager = max(0, self.eager - 1)
            self.step(*pick)
            return
        if self.replay is None:
            try:
                self.step.keeper.optimiser.zero_grad()
                self.replay = self.record(lambda: self.step.compute(*self.static))
            except Exception as error:
                self._give_up(" ".join(str(error).split())[:200])
                self.step(*pick)
                return
        torch._foreach_copy_(self.static, pick)
        if not self._agrees(self.replay):
            self.step(*pick)
            return
        self.replay()
        self.step.count(len(pick[0]))

    def _agrees(self, replay: Work) -> bool:
        """Return whether a replay does what an eager step does; the state is as before."""
        if self.checked:
            return True
        written = self.step.written()
        before = [t.clone() for t in written]
        self.step.compute(*self.static)
        eager = [t.clone() for t in written]
        torch._foreach_copy_(written, before)
        replay()
        off = [_difference(*three) for three in zip(written, eager, before, strict=True)]
        worst = float(torch.stack(off).max())
        torch._foreach_copy_(written, before)
        self.checked = worst <= ROUGH
        if not self.checked:
            self._give_up(f"a replay differs from an eager step by {worst:.1e} of its change")
        return self.checked

    def _give_up(self, why: str) -> None:
        self.given_up, self.replay = True, None
        warnings.warn(f"steps are not replayed from a CUDA graph: {why}", stacklevel=3)


def cuda_graph(work: Work) -> Work:
    """Record what `work` does on the GPU, without doing it; return what does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _difference(replayed: Tensor, eager: Tensor, before: Tensor) -> Tensor:
    """Return the difference of two results as a share of the change, beyond rounding."""
    a, b, start = (t.double() for t in (replayed, eager, before))
    share: Tensor = (a - b).norm() / ((b - start).norm() + 1e-6 * b.norm() + 1e-30)
    return share
