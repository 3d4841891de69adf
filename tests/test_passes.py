"""How often each diagnostic goes over the data: upper bounds, so that no pass creeps in unseen.

The unit is one pass of all samples through the network. Checks on a few samples (of derivatives,
of the choice of a mode) are parts of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cases
import pytest
import torch
from torch import nn

import sparsediag as sd
from sparsediag.curvature.operator import Curvature

SAMPLES = 512
NETS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: cases._net(cases.Residual),
    "chain": lambda: cases._net(cases._mlp),
}
SHAPES = {"residual": (1, 6, 6), "chain": (4,)}


class Passes:
    """Passes of samples through a network, those with a gradient among them, and products."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.samples, self.with_gradient, self.products = net, 0, 0, 0

    def look(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is self.net:
            moving = torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())
            self.samples += len(inputs[0])
            self.with_gradient += len(inputs[0]) * moving

    @property
    def all(self) -> float:
        return self.samples / SAMPLES

    @property
    def gradients(self) -> float:
        return self.with_gradient / SAMPLES


@contextmanager
def counted(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    """Count passes by a hook that the network itself does not have, which could change it."""
    passes, product = Passes(net), Curvature.__call__

    def multiply(self: Curvature, vector: torch.Tensor) -> torch.Tensor:
        passes.products += 1
        return product(self, vector)

    monkeypatch.setattr(Curvature, "__call__", multiply)
    hook = nn.modules.module.register_module_forward_pre_hook(passes.look)
    try:
        yield passes
    finally:
        hook.remove()


def make(name: str, batches: int = 2) -> tuple[nn.Module, Callable[[], sd.Problem]]:
    """A network, and what makes its masked problem."""
    net = NETS[name]()
    data = cases.classes((SAMPLES // batches,) * batches, SHAPES[name], 3)
    return net, lambda: sd.Problem(net, data, mask=cases.coins(net, 0.6))


@pytest.mark.parametrize("batches", [1, 2, 8])
@pytest.mark.parametrize("name", NETS)
def test_a_problem_takes_one_pass_and_its_views_none(
    name: str, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, problem = make(name, batches)
    with counted(net, monkeypatch) as passes:
        made = problem()
        assert passes.all <= 1.05
        assert passes.gradients <= 0.05
        before = passes.samples
        views = [made.view(dense=True), made.view(params="matrices")]
        assert [view.value() for view in views] == [made.value()] * 2
        assert passes.samples == before
        assert made.separable
        assert passes.samples - before <= (0 if name == "chain" else 16)
    assert made.value() == pytest.approx(made.value(made.weights), rel=1e-14)


# passes of all kinds, of them with a gradient, products, all without making the problem
BOUNDS: dict[str, tuple[Callable[[sd.Problem], Any], float, float, int]] = {
    "activations": (lambda p: sd.activations(p), 1, 0, 0),
    "signal": (lambda p: sd.signal(p), 1.1, 1.1, 0),
    "gradflow": (lambda p: sd.gradflow(p), 1.1, 1.1, 0),
    "a line": (lambda p: sd.landscape(p, points=5, dims=1), 5 + 2, 0.1, 0),
    "a plane": (lambda p: sd.landscape(p, points=3), 9 + 2, 0.1, 0),
    "without the centre": (lambda p: sd.landscape(p, points=4), 16 + 2, 0.1, 0),
    "with curvature": (lambda p: sd.landscape(p, points=3, curvature=True), 9 + 3, 1.1, 2),
    "along the gradient": (lambda p: sd.landscape(p, points=3, axes="gradient"), 9 + 3, 1.1, 0),
    "spectrum": (lambda p: sd.spectrum(p, top=1, max_matvecs=5), 1.2, 1.2, 5 + 3),
    "dense spectrum": (
        lambda p: sd.spectrum(p, top=1, max_matvecs=5, dense=True),
        1.2,
        1.2,
        5 + 3,
    ),
    "trace": (lambda p: sd.trace(p, sketch=2, max_matvecs=14), 1.2, 1.2, 14),
    "perturbation": (
        lambda p: sd.perturbation(p, points=3, along=None, tol=0.5),
        3 + 19 + 1.2 + 1.2,  # a line, a second difference, the products' engines, a gradient
        2.2,
        15,
    ),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_a_diagnostic_takes_no_more_passes_than_it_needs(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, most, gradients, products = BOUNDS[what]
    net, problem = make("residual")
    made = problem()
    with counted(net, monkeypatch) as passes:
        run(made)
    assert passes.all <= most
    assert passes.gradients <= gradients
    assert passes.products <= products


def test_blocks_take_a_pass_for_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    net, problem = make("chain")
    made = problem()
    with counted(net, monkeypatch) as passes:
        found = sd.blocks(made, max_matvecs=5)
    assert passes.all <= 1.2 * len(found.names)
    assert passes.products <= (5 + 3) * len(found.names)


@pytest.mark.parametrize("points", [4, 5])
def test_the_first_point_of_a_landscape_comes_after_two_passes(
    points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, problem = make("residual")
    before: list[float] = []
    with counted(net, monkeypatch) as passes:
        sd.landscape(problem(), points=points, progress=lambda *_: before.append(passes.all))
    assert before[0] <= 2 + 1 + 0.1  # the point itself is one
    assert passes.all <= points**2 + 3


def test_an_eigenvector_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`perturbation` follows those of a spectrum of the same loss, as the report does."""
    net, problem = make("chain")
    made = problem()
    pairs = sd.spectrum(made, top=2)
    checked: list[Any] = []
    monkeypatch.setattr(Curvature, "check", lambda self, v: checked.append(v) or [])
    with counted(net, monkeypatch) as passes:
        sd.perturbation(made, top=2, points=3, along=pairs)
        assert not checked
        assert passes.products == 2
        sd.perturbation(made.replace(batches=made.batches[:1]), top=2, points=3, along=pairs)
        assert len(checked) == 1
