"""Chunks: as many samples as fill a CPU, as fit on a GPU."""

from __future__ import annotations

import cases
import pytest
import torch

from sparsediag.core.batches import Batch, num_samples, select_samples
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.curvature.chunks import chunk_size, probe_batch

IMAGES = [(torch.zeros(128, 3, 32, 32), torch.zeros(128)) for _ in range(20)]


def _held(samples: Batch) -> float:
    """Bytes of weights, and a thousand a sample."""
    return 7e6 + 1000 * num_samples(samples)


@pytest.mark.parametrize(
    ("kind", "room", "size"),
    [
        ("cpu", 3e5, 128),
        ("cpu", 1e12, 128),
        ("cuda", 1e12, 1024),  # enough to fill it
        ("cuda", 3e5, 300),
        ("cuda", 1e4, 128),  # the caller's batches fit
    ],
)
def test_images_of_32_pixels(kind: str, room: float, size: int) -> None:
    assert chunk_size(IMAGES, kind, room, _held) == size


def test_small_batches_are_joined() -> None:
    some = [(torch.zeros(3, 4), torch.zeros(3)) for _ in range(9)]
    assert chunk_size(some, "cpu", 1, _held) == 24
    assert chunk_size(some, "cuda", 20e3, _held) == 20
    single = [(torch.zeros(1, 4), torch.zeros(1))]
    assert chunk_size(single, "cuda", 1e12, _held) > 1


def test_tokens_go_by_batches_on_a_gpu() -> None:
    words = [(torch.zeros(5, 100, dtype=torch.long), torch.zeros(5))] * 3
    assert chunk_size(words, "cuda", 1e12, _held) == 5


def test_few_samples() -> None:
    assert (
        num_samples(probe_batch(IMAGES))
        == num_samples(probe_batch([select_samples(b, slice(1)) for b in IMAGES]))
        == 4
    )
    assert num_samples(probe_batch([select_samples(IMAGES[0], slice(2))])) == 2


def test_bytes_a_sample_of_a_net_are_those_of_many() -> None:
    problem = cases.residual_net()
    weights = list(problem.split(problem.weights).values())
    ((x, y),) = cases.classes((64,), (1, 6, 6), 3)

    def held(samples: Batch) -> float:
        return DoubleBackward(problem.batch_loss(samples), weights).nbytes

    a_sample = (held((x[:4], y[:4])) - held((x[:2], y[:2]))) / 2
    more = held((x, y)) - held((x[:32], y[:32]))
    assert more == pytest.approx(32 * a_sample, rel=0.05)
