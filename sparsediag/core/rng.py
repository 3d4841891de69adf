"""Streams of random numbers, one for each purpose, independent of the global generator.

A generator seeded with only the seed of a run would repeat the numbers of the run's initial
weights, and a "random" mask would depend on the weights.
"""

from __future__ import annotations

import hashlib

import torch


def stream(purpose: str, *numbers: int) -> torch.Generator:
    """Return a CPU generator for one purpose; the same on every device and in every process.

    >>> one, two = (torch.rand(3, generator=stream("mask", 1)) for _ in range(2))
    >>> torch.equal(one, two)
    True
    """
    digest = hashlib.sha256(f"{purpose} {numbers}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
