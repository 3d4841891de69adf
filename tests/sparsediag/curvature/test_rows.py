"""Rows in blocks behave as one matrix, and their sums are those of double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsediag.curvature import rows
from sparsediag.curvature.rows import Rows, _batched_row_products, row_products


@pytest.mark.parametrize("size", [1000, 2**15, 3_000_001])
@pytest.mark.parametrize("add", [row_products, _batched_row_products])
def test_long_dot_products_are_added_up_in_double_precision(add: object, size: int) -> None:
    """Ones and a tenth: a float32 sum of three million products is off in its fourth digit."""
    assert callable(add)
    draw = torch.Generator().manual_seed(0)
    a, b = (1 + torch.rand(n, size, generator=draw) / 10 for n in (2, 3))
    exact = a.double() @ b.double().T
    assert (add(a, b) / exact - 1).abs().max() < 1e-6
    assert add(a, b).dtype == torch.float64


@pytest.fixture(params=[1, 3, 10_000])
def filled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Rows, Tensor]:
    """Return 20 rows of 70,000 numbers in blocks of 8 and more, and the same as one tensor."""
    monkeypatch.setattr(rows, "BLOCK", 70_000 * request.param)
    monkeypatch.setattr(rows, "COLUMNS", 9_999)
    matrix = torch.randn(20, 70_000, generator=torch.Generator().manual_seed(0))
    found = Rows(matrix[0])
    for some in matrix.split(7):
        found.append(some)
    return found, matrix


def test_blocks_are_one_matrix(filled: tuple[Rows, Tensor]) -> None:
    found, matrix = filled
    draw = torch.Generator().manual_seed(1)
    a, parts = torch.randn(2, 70_000, generator=draw), torch.randn(2, 20, generator=draw).double()
    assert len(found) == 20
    assert torch.equal(found.tensor, matrix)
    torch.testing.assert_close(found.dots(a), a.double() @ matrix.double().T, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.combine(parts.float()), parts.float() @ matrix)
    rest, again = a - parts.float() @ matrix, a.clone()
    dots = found.subtract_and_dot(parts, again)
    torch.testing.assert_close(again, rest, rtol=0, atol=1e-4)
    torch.testing.assert_close(dots, found.dots(rest), rtol=0, atol=1e-1)


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_combinations_take_the_place_of_rows(filled: tuple[Rows, Tensor], count: int) -> None:
    found, matrix = filled
    mix = torch.randn(count, 20, generator=torch.Generator().manual_seed(2))
    found.replace(mix)
    assert len(found) == count
    torch.testing.assert_close(found.tensor, mix @ matrix, rtol=0, atol=1e-4)
    found.append(matrix[:9])
    assert torch.equal(found.tensor[count:], matrix[:9])


def test_no_rows_give_nothing() -> None:
    found, a = Rows(torch.zeros(5)), torch.ones(2, 5)
    assert found.tensor.shape == (0, 5)
    assert found.dots(a).shape == found.subtract_and_dot(torch.zeros(2, 0), a).shape == (2, 0)
    assert torch.equal(a, torch.ones(2, 5))
