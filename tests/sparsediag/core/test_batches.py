"""Batches: kept in memory, and refused where a second reading would give others."""

from __future__ import annotations

from collections.abc import Iterator

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sparsediag.core.batches import Batch, materialize, rechunk

CPU = torch.device("cpu")
DATA = TensorDataset(torch.arange(40.0).view(20, 2), torch.arange(20))


class Noisy(Dataset):
    """An augmentation: the same sample, each time with other noise."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.rand(3), i


class Readings:
    """A loader whose readings differ as the test wants."""

    def __init__(self, *readings: list[Batch]) -> None:
        self.readings = list(readings)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.readings.pop(0))


def _same(one: list[Batch], two: list[Batch]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(torch.equal(a, b) for p, q in pairs for a, b in zip(p, q, strict=True))


def test_a_list_is_kept_in_its_order() -> None:
    batches = cases.classes((3, 1, 2), (4,), 3)
    assert _same(materialize(batches, CPU), batches)
    assert _same(materialize(tuple(batches), CPU), batches)


@pytest.mark.parametrize("size", [1, 7, 20])
def test_a_loader_in_fixed_order_is_read_into_memory(size: int) -> None:
    kept = materialize(DataLoader(DATA, batch_size=size), CPU)
    assert _same(kept, list(zip(*(t.split(size) for t in DATA.tensors), strict=True)))


@pytest.mark.parametrize("size", [1, 6, 20])
def test_a_loader_that_shuffles_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"the loader shuffles \(.*pass shuffle=False"):
        materialize(DataLoader(DATA, batch_size=size, shuffle=True), CPU)


def test_a_loader_that_augments_is_refused() -> None:
    with pytest.raises(ValueError, match="it shuffles or augments"):
        materialize(DataLoader(Noisy(), batch_size=4), CPU)


def test_new_targets_for_the_same_inputs_are_refused() -> None:
    x = torch.ones(2, 1)
    loader = Readings([(x, torch.tensor([0, 1]))], [(x, torch.tensor([1, 0]))])
    with pytest.raises(ValueError, match="two readings of the loader gave different batches"):
        materialize(loader, CPU)


@pytest.mark.parametrize("counts", [(3,), (3, 2, 1), (2, 3)])
def test_another_split_of_the_samples_is_refused(counts: tuple[int, ...]) -> None:
    loader = Readings(cases.classes((3, 2), (4,), 3), cases.classes(counts, (4,), 3))
    with pytest.raises(ValueError, match="two readings of the loader gave different batches"):
        materialize(loader, CPU)


def test_a_one_shot_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="read only once; give a list or a loader"):
        materialize((batch for batch in cases.classes((3, 2), (4,), 3)), CPU)


@pytest.mark.parametrize("nothing", [[], (), iter(()), DataLoader(DATA, 50, drop_last=True)])
def test_no_batch_is_refused(nothing: object) -> None:
    with pytest.raises(ValueError, match="got no batches; need at least one pair"):
        materialize(nothing, CPU)  # type: ignore[arg-type]


# chunks


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 12))
def test_chunks_are_the_same_samples_in_the_same_order(counts: list[int], samples: int) -> None:
    batches = cases.regression(tuple(counts), (3,), 2)
    chunks = rechunk(batches, samples)
    assert all(1 <= len(x) == len(y) <= samples for x, y in chunks)
    for one, two in zip(zip(*batches, strict=True), zip(*chunks, strict=True), strict=True):
        assert torch.equal(torch.cat(one), torch.cat(two))


@pytest.mark.parametrize(
    ("counts", "samples", "expected"),
    [
        ((2, 3, 9), 5, [5, 5, 4]),
        ((4, 4, 4), 5, [4, 4, 4]),
        ((1, 1, 1, 1), 2, [2, 2]),
        ((7,), 3, [3, 3, 1]),
        ((7, 2), 3, [3, 3, 3]),
        ((3,), 3, [3]),
        ((3, 4), 100, [7]),
    ],
)
def test_small_batches_are_joined_and_large_ones_split(
    counts: tuple[int, ...], samples: int, expected: list[int]
) -> None:
    chunks = rechunk(cases.classes(counts, (4,), 3), samples)
    assert [len(y) for _, y in chunks] == expected


def test_chunking_leaves_the_batches_alone() -> None:
    batches = cases.classes((3, 1, 2), (4,), 3)
    before = [(x.clone(), y.clone()) for x, y in batches]
    rechunk(batches, 2)
    assert _same(batches, before)
