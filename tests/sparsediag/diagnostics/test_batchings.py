"""Every diagnostic and score gives the same numbers for the same samples in other batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsediag import Problem
from sparsediag.diagnostics import DIAGNOSTICS, load_diagnostic
from tests import cases
from training.masks import grasp, snip

X, Y = cases.classes((9,), (1, 4, 4), 3)[0]
LOSSES: dict[str, Callable[[nn.Module], Any]] = {
    "ignored": lambda _: nn.CrossEntropyLoss(ignore_index=1),
    "class weights": lambda _: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0]).double()),
    "sum": lambda _: nn.CrossEntropyLoss(reduction="sum"),
    "coupled": lambda _: lambda z, y: F.cross_entropy(z @ z.T, torch.arange(len(z))),
    "decay": lambda net: lambda z, y: F.cross_entropy(z, y) + net[0].weight.square().sum(),
}
MEASURES: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "spectrum": ({"top": 1}, lambda r: r.eigenvalues),
    "blocks": ({}, lambda r: r.eigenvalues),
    "trace": ({"sketch": 3, "max_matvecs": 16}, lambda r: r.trace),
    "activations": ({}, lambda r: r.rms),
    "gradflow": ({}, lambda r: r.flow),
    "signal": ({}, lambda r: r.gradient),
    "perturbation": ({"points": 3}, lambda r: [*r.loss[0], *r.quadratic[0], *r.curvature]),
    "landscape": ({"points": 3}, lambda r: [r.loss, r.loss * 0 + r.centre]),
    "inputscape": ({"points": 3}, lambda r: r.loss),
}


def net() -> nn.Module:
    return cases._net(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    )


def problem(loss: str, counts: tuple[int, ...]) -> Problem:
    made = net()
    batches = list(zip(X.split(counts), Y.split(counts), strict=True))
    return Problem(made, batches, loss=LOSSES[loss](made))


def test_every_diagnostic_is_measured_here() -> None:
    assert set(MEASURES) == set(DIAGNOSTICS)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_numbers_do_not_depend_on_the_batches(loss: str) -> None:
    whole, other = problem(loss, (9,)), problem(loss, (1, 6, 2))
    for name, (options, numbers) in MEASURES.items():
        if (name, loss) == ("inputscape", "coupled"):
            for p in (whole, other):
                with pytest.raises(ValueError, match="depends on the others"):
                    load_diagnostic(name)(p)
            continue
        expected = np.array(numbers(load_diagnostic(name)(whole, **options)))
        came = np.array(numbers(load_diagnostic(name)(other, **options)))
        np.testing.assert_allclose(came, expected, rtol=1e-6, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scores_do_not_depend_on_the_batches(loss: str) -> None:
    whole, other = problem(loss, (9,)), problem(loss, (1, 6, 2))
    for scores in (snip.scores, grasp.scores):
        expected = scores(whole)
        for name, came in scores(other).items():
            assert (came - expected[name]).norm() <= 1e-10 * expected[name].norm()
