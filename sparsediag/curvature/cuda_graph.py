"""Record a function of one tensor as a CUDA graph, and replay it with one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

WARMUP = 2  # calls before recording: libraries set themselves up in the first
Recording = tuple[Callable[[], object], Tensor, int]  # its replay, its result, bytes held
Record = Callable[[Callable[[], Tensor]], Recording]


class GraphReplay:
    """Compute a function, `replay(function, x)`, and replay it after a few calls.

    A recording that fails, takes too much memory or gives another result is dropped.

    Args:
        room: Bytes that the recording may hold.
        record: Records some work; None to never record.

    Attributes:
        nbytes: Memory that the recording holds.
        status: "replayed", or the reason why it is not.
    """

    def __init__(self, room: float, record: Record | None) -> None:
        self.room, self.record = room, record
        self.calls = self.nbytes = 0
        self.status = "called too few times" if room > 0 else "no memory for a CUDA graph"
        self.status = self.status if record else "not on a GPU"

    def __call__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return function(x); the function has to be the same at every call."""
        if self.status == "replayed":
            return self._replay(x)
        y, self.calls = function(x), self.calls + 1
        if self.record and self.room > 0 and self.calls == WARMUP:
            try:
                problem = self._capture(self.record, function, x, y)
            except RuntimeError as error:
                problem = " ".join(str(error).split())[:200]
            self.status = f"no CUDA graph: {problem}" if problem else "replayed"
            if problem:
                self.nbytes = 0
                vars(self).pop("_graph", None)
        return y

    def _capture(
        self, record: Record, function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
    ) -> str:
        """Record the function at another point than `x`; return what is wrong with its result."""
        static = -x.detach()
        replay, output, self.nbytes = record(lambda: function(static))
        self._graph = static, replay, output
        off, size = float((self._replay(x) - y).norm()), float(y.norm())
        if not off <= 10 * torch.finfo(y.dtype).eps ** 0.75 * size:
            return f"its result is off by {off / size if size else off:.1e}"
        return f"it holds {self.nbytes / 2**30:.1f} GiB" if self.nbytes > self.room else ""

    def _replay(self, x: Tensor) -> Tensor:
        static, replay, output = self._graph
        static.copy_(x.detach())
        replay()
        return output.clone()


def capture(work: Callable[[], Tensor]) -> Recording:
    """Record some work on the current stream."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        reserved_before = torch.cuda.memory_reserved()
        output = work()
        reserved = torch.cuda.memory_reserved() - reserved_before
    return graph.replay, output, reserved


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream of a GPU that can be recorded, as the default one cannot; else None."""
    try:
        return torch.cuda.Stream(device) if device.type == "cuda" else None
    except RuntimeError:
        return None


@contextmanager
def use_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block on a stream, after the work before the block and before the work after it.

    Gradients are computed on the stream of their forward pass, so both have to be in the block.
    """
    if stream is None:
        yield
        return
    outer = torch.cuda.current_stream(stream.device)
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)
