"""Dimensions of samples and units of outputs whose layout is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsediag.diagnostics.layers.unit_axis import per_sample, unit_axis


def found(layer: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]) -> int | None:
    """The dimension of the units after a layer and what follows."""
    with unit_axis(layer) as axis:
        return axis(change(layer(x)))


CONV, LINEAR = nn.Conv2d(2, 6, 1), nn.Linear(2, 6)
IMAGES, LAST = torch.randn(3, 2, 4, 8), torch.randn(3, 4, 8, 2)


@pytest.mark.parametrize(
    ("layer", "x", "change", "axis"),
    [
        (CONV, IMAGES, torch.relu, 1),
        (nn.Conv2d(2, 4, 1), IMAGES, torch.relu, 1),  # as many channels as pixels
        (CONV, IMAGES, lambda a: a[..., :2, :3], 1),
        (CONV, IMAGES, lambda a: a.chunk(2, dim=1)[0], 1),
        (CONV, IMAGES, lambda a: torch.cat([a, a], 1)[..., ::2], 1),
        (CONV, IMAGES, lambda a: a.permute(0, 2, 3, 1), 3),
        (CONV, IMAGES, lambda a: a.flatten(2).transpose(1, 2), 2),
        (CONV, IMAGES, lambda a: a.flatten(1), 1),
        (CONV, IMAGES, lambda a: a.view(3, 2, 3, 4, 8), None),
        (LINEAR, LAST, torch.relu, 3),
        (nn.Linear(2, 4), LAST, torch.relu, 3),
        (LINEAR, LAST, lambda a: a.permute(0, 3, 1, 2), 1),
        (LINEAR, LAST, lambda a: a.chunk(2, dim=-1)[0], 3),
        (LINEAR, LAST, lambda a: a[:, 1:], 3),
        (LINEAR, LAST, lambda a: torch.zeros(3, 9, 6, 6), None),  # no part of it
        (nn.LSTM(2, 5, batch_first=True), LAST[..., 0, :], lambda a: a[0], 2),
        (nn.LayerNorm(2), LAST, torch.relu, 3),
        (nn.BatchNorm2d(2), IMAGES, torch.relu, 1),
        (nn.Conv1d(2, 4, 1), IMAGES[:, :, 0], torch.relu, 1),
        (nn.Linear(2, 4), LAST[:, 0], torch.relu, 2),
        (nn.Conv1d(2, 6, 2), IMAGES[:, :, 0], lambda a: a.transpose(1, 2), 2),
    ],
)
def test_units_are_followed_from_the_layer_before(
    layer: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor], axis: int | None
) -> None:
    assert found(layer, x, change) == axis
    assert not layer._forward_hooks


def test_units_before_any_layer() -> None:
    for net, shape, axis in [
        (nn.Linear(2, 2), (3, 4, 5), 2),
        (nn.Conv1d(2, 2, 1), (3, 4, 5), 1),
        (nn.Linear(2, 2), (3, 4, 5, 6), 1),
        (nn.Linear(2, 2), (3, 4), 1),
        (nn.Flatten(), (2, 3, 2, 2, 2), 1),
    ]:
        with unit_axis(net) as found:
            assert found(torch.zeros(shape)) == axis


def test_rows_are_samples_where_there_is_one_for_each() -> None:
    plain = per_sample(nn.Linear(2, 2), 4)
    assert [plain(torch.zeros(n, 4, 2)) for n in (4, 8, 3)] == [True, False, False]
    timed = per_sample(nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)), 4)
    assert [timed(torch.zeros(s)) for s in ((4, 2), (4, 5, 2), (4, 4, 2))] == [True, True, False]
    assert per_sample(nn.GRU(2, 2, batch_first=True), 4)(torch.zeros(4, 4, 2))
