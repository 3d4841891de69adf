"""The optimisers against their update rules, and the learning rate against the papers' epochs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsediag.models import build
from training.optim import Optim


def _steps(optim: Optim, gradients: list[float], start: float) -> list[float]:
    """The values of a single weight, whose gradients are given."""
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, start)
    optimiser, values = optim.build(net), []
    for gradient in gradients:
        net.weight.grad = torch.full_like(net.weight, gradient)
        optimiser.step()
        values.append(net.weight.item())
    return values


def test_the_learning_rate_drops_at_epochs_90_and_135_of_180() -> None:
    rates = [Optim().rate(epoch) for epoch in range(180)]
    assert rates == pytest.approx([0.1] * 90 + [0.01] * 45 + [0.001] * 45)


def test_without_drops_the_learning_rate_stays() -> None:
    optim = Optim(lr=1e-3, lr_milestones=(), epochs=7)
    assert {optim.rate(epoch) for epoch in range(7)} == {1e-3}


@given(
    st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=4).map(tuple),
    st.integers(1, 300),
)
def test_one_factor_for_each_drop_that_has_passed(drops: tuple[float, ...], epochs: int) -> None:
    passed = [sum(round(d * epochs) <= e for d in drops) for e in range(epochs)]
    optim = Optim(lr=1.0, lr_milestones=drops, lr_gamma=0.5, epochs=epochs)
    assert [optim.rate(e) for e in range(epochs)] == [0.5**n for n in passed]


def test_sgd_is_heavy_ball_with_decay_in_the_gradient() -> None:
    lr, momentum, decayed, value, velocity = 0.1, 0.9, 0.01, 2.0, 0.0
    expected = []
    for gradient in (1.0, -0.5, 0.25):
        velocity = momentum * velocity + gradient + decayed * value
        value -= lr * velocity
        expected.append(value)
    optim = Optim(lr=lr, momentum=momentum, weight_decay=decayed)
    assert _steps(optim, [1.0, -0.5, 0.25], 2.0) == pytest.approx(expected, rel=1e-12)


def test_the_first_step_of_adam_is_the_learning_rate_against_the_sign() -> None:
    optim = Optim(name="adam", lr=0.1, weight_decay=0.5)
    assert _steps(optim, [-0.3], 2.0) == pytest.approx([1.9], rel=1e-6)  # decay turns the sign
    assert _steps(optim, [-3.0], 2.0) == pytest.approx([2.1], rel=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_every_parameter_is_in_one_group(name: str, kind: type) -> None:
    net = build("resnet20", width=4)
    optimiser = Optim(name=name).build(net)  # type: ignore[arg-type]
    assert type(optimiser) is kind
    (group,) = optimiser.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.1, 2e-4)


@pytest.mark.parametrize("drop", [0.0, 1.0, 1.5, -0.5, float("nan")])
def test_a_drop_outside_the_training_is_refused(drop: float) -> None:
    with pytest.raises(ValueError, match=r"lr_milestones: .* is no fraction"):
        Optim(lr_milestones=(0.5, drop))


@pytest.mark.parametrize("key", ["lr", "epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_what_must_be_positive(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{key} = .*: need a positive number"):
        Optim(**{key: value})  # type: ignore[arg-type]
