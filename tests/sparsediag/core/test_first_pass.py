"""The checks of a new Problem, made on few samples, still find what is wrong with the whole."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem
from tests import cases

BATCHES = cases.classes((64, 64), (4,), 3)


class Rarely(nn.Module):
    """Outputs that chance changes in one sample of hundreds, by a generator of some library."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.fc, self.draw = nn.Linear(4, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        z, noise = self.fc(x), self.draw()
        return z * (1 + noise * F.one_hot(torch.tensor(50), len(x))[:, None]) if len(x) > 50 else z


class Remembering(nn.Module):
    """A state that is no buffer: the mean of the last batch, or the number of calls."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.fc, self.what, self.state = nn.Linear(4, 3), what, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x) * (1 + self.state)
        mean, once_more = z.detach().abs().mean(), self.state + 1
        self.state = mean if self.what == "mean" else once_more
        return z


class Caching(nn.Module):
    """Outputs that are added to those of the last call, if these have the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(4, 3), None

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        z = z if self.last is None or self.last.shape != z.shape else z + self.last
        self.last = z.detach()
        return z


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rarely(lambda: float(torch.rand(()))),
        lambda: Rarely(random.random),
        lambda: Rarely(lambda: float(np.random.rand())),  # noqa: NPY002
        lambda: Remembering("mean"),
        lambda: Remembering("calls"),
        Caching,
    ],
)
@pytest.mark.parametrize("batches", [BATCHES, BATCHES[:1]])
def test_a_loss_that_is_another_the_second_time_is_refused(
    make: Callable[[], nn.Module], batches: cases.Batches
) -> None:
    with pytest.raises(ValueError, match=r"two different losses \("):
        Problem(cases._net(make), batches)


def test_numbers_drawn_for_nothing_do_no_harm() -> None:
    net = cases._net(lambda: cases.Net(lambda net, x: net.fc(x) + 0 * torch.rand(()), fc=_linear()))
    assert np.isfinite(Problem(net, BATCHES).value())


def _linear() -> nn.Module:
    return nn.Linear(4, 3)


@pytest.mark.parametrize("batches", [BATCHES, BATCHES[:1]])
def test_a_net_that_takes_whole_batches_only(batches: cases.Batches) -> None:
    net = cases._net(lambda: cases.Net(lambda net, x: net.fc(x.view(64, 4)), fc=_linear()))
    problem, plain = Problem(net, batches), Problem(net.fc, batches)
    assert problem.value() == plain.value()
    assert not problem.separable


def test_the_value_follows_weights_and_samples_that_are_written_into() -> None:
    problem = Problem(cases._net(_linear), cases.classes((9,), (4,), 3))
    first, view = problem.value(), problem.view(params="weight")
    problem.weights.mul_(2)
    assert problem.value() == problem.value(problem.weights) != first
    assert view.value() == first
    problem.weights.mul_(0.5)
    problem.batches[0][0].mul_(2)
    assert problem.value() == problem.value(problem.weights) != first
    assert view.value() == view.value(view.weights) != first
