"""The number of samples that go through a network at a time in a product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sparsediag.core.batches import Batch, max_chunk, num_samples, rechunk, select_samples
from sparsediag.core.problem import Problem

# input numbers at a time, 128 and 1024 images of 3 x 32 x 32: enough to keep the processor busy
CHUNK = {"cpu": 3 * 2**17, "cuda": 3 * 2**20}
PROBE = 4  # samples on which modes are tried and their memory is measured


def probe_batch(batches: Sequence[Batch]) -> Batch:
    """Return the first samples.

    >>> batches = [(torch.zeros(3, 2), torch.zeros(3))] * 2
    >>> len(probe_batch(batches)[1])
    4
    """
    some = [select_samples(batch, slice(PROBE)) for batch in batches[:PROBE]]
    return select_samples(rechunk(some, PROBE**2)[0], slice(PROBE))


def few_samples(problem: Problem) -> Batch:
    """Return the first samples that count, or a whole batch if samples are not independent."""
    if problem.separable and problem.reduction != "weights":
        return probe_batch(problem.batches)
    first = next(b for b, share in zip(problem.batches, problem.shares(), strict=True) if share)
    if not problem.separable:
        return first
    parts = rechunk([first], PROBE)
    return next(part for part, share in zip(parts, problem.shares(parts), strict=True) if share)


def out_of_memory(device: torch.device, samples: int) -> torch.OutOfMemoryError:
    """Return the error of a device that cannot hold a pass over so many samples."""
    return torch.OutOfMemoryError(
        f"out of memory: {device} cannot hold the second derivatives of {samples} samples at a "
        "time; need smaller batches (--batch-size), less memory kept between products (memory=, "
        "--memory), or fewer weights (params=)"
    )


def chunk_size(
    batches: Sequence[Batch], kind: str, room: float, nbytes: Callable[[Batch], float]
) -> int:
    """Return the number of samples in a chunk: small batches are joined, large ones split.

    Args:
        batches: The caller's batches.
        kind: Type of the device. A CPU is busy with few samples; a GPU takes as many as fit.
        room: Bytes that a chunk may hold on a GPU; one of the caller's batches is always allowed.
        nbytes: Returns the bytes that a pass over some samples holds.
    """
    largest, fits = max(map(num_samples, batches)), max_chunk(batches, CHUNK.get(kind, 2**18))
    if kind == "cpu" or fits <= largest:
        return min(fits, 8 * largest)
    probe = probe_batch(batches)
    n = num_samples(probe)
    half = n // 2
    rest = nbytes(select_samples(probe, slice(half))) if half else 0
    per_sample = (nbytes(probe) - rest) / (n - half)
    return min(fits, max(largest, int(room / max(per_sample, 1))))
