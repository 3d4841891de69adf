"""A function of one tensor, recorded as a CUDA graph and replayed in one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

WARM = 2  # calls before it is recorded: libraries set themselves up in the first
Recorded = tuple[Callable[[], object], Tensor, int]  # what replays, its result, bytes held
Record = Callable[[Callable[[], Tensor]], Recorded]


class GraphReplay:
    """Compute a function, `captured(function, x)`; after a few calls, replay it.

    A recording that fails, takes too much memory or gives another result is dropped.

    Args:
        room: Bytes that the recording may hold.
        record: Do some work once, and return what does it again; None to never record.

    Attributes:
        nbytes: Memory that the recording holds.
        note: "replayed", or the reason why it is not.
    """

    def __init__(self, room: float, record: Record | None) -> None:
        self.room, self.record = room, record
        self.calls = self.nbytes = 0
        self.note = "called too few times" if room > 0 else "no memory for a CUDA graph"
        self.note = self.note if record else "not on a GPU"

    def __call__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return function(x); the function has to be the same at every call."""
        if self.note == "replayed":
            return self._again(x)
        y, self.calls = function(x), self.calls + 1
        if self.record and self.room > 0 and self.calls == WARM:
            try:
                wrong = self._capture(self.record, function, x, y)
            except RuntimeError as error:
                wrong = " ".join(str(error).split())[:200]
            self.note = f"no CUDA graph: {wrong}" if wrong else "replayed"
            if wrong:
                self.nbytes = 0
                vars(self).pop("_graph", None)
        return y

    def _capture(
        self, record: Record, function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
    ) -> str:
        """Record the function at another place than `x`; return what is wrong with it there."""
        place = -x.detach()
        replay, output, self.nbytes = record(lambda: function(place))
        self._graph = place, replay, output
        off, size = float((self._again(x) - y).norm()), float(y.norm())
        if not off <= 10 * torch.finfo(y.dtype).eps ** 0.75 * size:
            return f"its result is off by {off / size if size else off:.1e}"
        return f"it holds {self.nbytes / 2**30:.1f} GiB" if self.nbytes > self.room else ""

    def _again(self, x: Tensor) -> Tensor:
        place, replay, output = self._graph
        place.copy_(x.detach())
        replay()
        return output.clone()


def capture(work: Callable[[], Tensor]) -> Recorded:
    """Record some work on the current stream."""
    kept = torch.cuda.CUDAGraph()
    with torch.cuda.graph(kept, stream=torch.cuda.current_stream()):
        before = torch.cuda.memory_reserved()
        output = work()
        held = torch.cuda.memory_reserved() - before
    return kept.replay, output, held


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream of a GPU that can be recorded, which the default one cannot; else None."""
    try:
        return torch.cuda.Stream(device) if device.type == "cuda" else None
    except RuntimeError:
        return None


@contextmanager
def use_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work on a stream, after what was asked for before the block and before what comes next.

    Gradients are computed on the stream of their forward pass, so both have to be in here.
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
