"""Captured: replayed where a recording gives the same, and computed where it does not."""

from __future__ import annotations

from collections.abc import Callable

import cases
import pytest
import torch
from torch import Tensor

from sparsediag import Curvature
from sparsediag.curvature.cuda_graph import WARMUP, GraphReplay, Recording


def _record(work: Callable[[], Tensor]) -> Recording:
    """Do as a CUDA graph does: the same work again, on the same input, into the same output."""
    output = work()
    return lambda: output.copy_(work()), output, 100


def _frozen(work: Callable[[], Tensor]) -> Recording:
    """Record what does not see its input."""
    return lambda: None, work(), 100


def _failing(work: Callable[[], Tensor]) -> Recording:
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def _full(work: Callable[[], Tensor]) -> Recording:
    raise torch.OutOfMemoryError("no room for the pool")


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _points(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return list(torch.randn(count, 5, generator=g, dtype=torch.float64))


def test_a_recording_is_replayed() -> None:
    replay = GraphReplay(100, _record)
    points = _points(WARMUP + 3)
    came = [replay(_double, x) for x in points[:WARMUP]]
    assert replay.status == "replayed"
    assert replay.nbytes == 100
    came += [replay(_double, x) for x in points[WARMUP:]]
    assert all(torch.equal(y, 2 * x) for x, y in zip(points, came, strict=True))  # none overwritten


@pytest.mark.parametrize(
    ("record", "room", "note"),
    [
        (_frozen, 100, "off by"),
        (_failing, 100, "operation not permitted when stream is capturing"),
        (_full, 100, "no room for the pool"),
        (_record, 99, "GiB"),
        (_record, 0, "no memory"),
        (None, 100, "not on a GPU"),
    ],
    ids=["frozen", "failing", "full", "too large", "no room", "none"],
)
def test_what_cannot_be_replayed_is_computed(
    record: Callable | None, room: float, note: str
) -> None:
    replay = GraphReplay(room, record)
    for x in _points(WARMUP + 2):
        assert torch.equal(replay(_double, x), 2 * x)
    assert note in replay.status
    assert replay.nbytes == 0


def test_a_function_that_is_called_once_is_not_recorded() -> None:
    replay = GraphReplay(100, _failing)
    replay(_double, torch.ones(5))
    assert "too few" in replay.status


@pytest.mark.parametrize("norm", ["none", "filter"])
@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "fisher"])
@pytest.mark.parametrize("mode", ["tape", "retained"])
@pytest.mark.parametrize("memory", [0, 1])
def test_products_replayed(memory: float, mode: str, matrix: str, norm: str) -> None:
    problem = cases.masked_cnn()
    options = {"mode": mode, "matrix": matrix, "norm": norm, "memory": memory, "chunk": 4}
    computed, replayed = (Curvature(problem, **options) for _ in range(2))
    replayed._replay = GraphReplay(1e9, _record)
    for seed in range(WARMUP + 2):
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(replayed(v), computed(v), rtol=0, atol=1e-12)
    assert replayed.replay_status == "replayed"
    assert computed.replay_status == "not on a GPU"
    assert replayed.nbytes == computed.nbytes + 100


@pytest.mark.parametrize("memory", [0, 1])
def test_no_recording_outlives_its_chunks(memory: float) -> None:
    problem = cases.tanh_mlp()
    v = problem.weights
    expected = problem.hvp(v)
    curvature = Curvature(problem, mode="tape", memory=memory, chunk=8)

    def record(work: Callable[[], Tensor]) -> Recording:
        output, good = work(), [True]

        def replay() -> None:
            if not good:
                output.zero_()
                raise torch.OutOfMemoryError("no room for the product")
            good.pop()
            output.copy_(work())

        return replay, output, 100

    curvature._replay = GraphReplay(1e9, record)
    for _ in range(WARMUP):
        curvature(v)
    assert curvature.replay_status == "replayed"
    for _ in range(2):
        torch.testing.assert_close(curvature(v), expected, rtol=0, atol=1e-12)
    assert curvature.replay_status != "replayed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "fisher"])
@pytest.mark.parametrize("mode", ["tape", "retained"])
@pytest.mark.parametrize("name", ["residual_net", "masked_cnn", "tanh_mlp"])
def test_products_replayed_on_a_gpu(name: str, mode: str, matrix: str) -> None:
    here = cases.CASES[name]()
    batches = [(x.cuda(), y.cuda()) for x, y in here.batches]
    mask = here.mask and here.mask.to("cuda")
    expected = Curvature(here, mode=mode, matrix=matrix)
    there = type(here)(here.net.cuda(), batches, mask=mask)
    came = Curvature(there, mode=mode, matrix=matrix)
    for seed in range(WARMUP + 2):
        v = torch.randn(here.size, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(came(v.cuda()).cpu(), expected(v), rtol=0, atol=1e-10)
    assert came.replay_status == "replayed"
