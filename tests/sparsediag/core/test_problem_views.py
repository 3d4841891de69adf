"""Views and copies of a problem: its weights and buffers, whatever became of the net since.

Expected values are plain PyTorch on a copy of the net that was never trained, in float64.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, blocks, landscape, spectrum
from sparsediag.surfaces.interpolation import common_coordinates

CHANGES: dict[str, Callable[[Problem], Problem]] = {
    "nothing": lambda p: p,
    "all weights": lambda p: p.view(params="*"),
    "some weights": lambda p: p.view(params="*.bias"),
    "other weights": lambda p: p.view(params="*.bias").view(params="matrices"),
    "dense": lambda p: p.view(dense=True),
    "dense, some": lambda p: p.view(dense=True, params="matrices"),
    "another loss": lambda p: p.view(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "replaced loss": lambda p: p.replace(loss=F.multi_margin_loss),
    "replaced mask": lambda p: p.replace(mask=cases.coins(p.net, 0.7, seed=9)),
    "no mask": lambda p: p.view(params="matrices").replace(mask=None),
    "fewer samples": lambda p: p.replace(batches=p.batches[:1]),
    "common coordinates": lambda p: common_coordinates([p, p.replace(mask=None)])[0],
    "pickled": lambda p: pickle.loads(pickle.dumps(p)),
}


def train(net: nn.Module) -> None:
    """Move every weight and buffer, and freeze one weight."""
    with torch.no_grad():
        for t in [*net.parameters(), *net.buffers()]:
            t.add_(1 if t.dtype == torch.long else 0.1 + 0.3 * t)
    next(net.parameters()).requires_grad_(False)


@pytest.mark.parametrize("name", ["masked_mlp", "masked_cnn", "frozen_parameter"])
@pytest.mark.parametrize("change", CHANGES)
def test_training_the_net_changes_nothing(change: str, name: str) -> None:
    problem = cases.CASES[name]()
    kept = copy.deepcopy(problem.net)
    before = CHANGES[change](problem)
    train(problem.net)
    after = CHANGES[change](problem)
    if change in ("dense", "dense, some", "common coordinates") and problem.mask:
        problem.mask.apply_(kept)
    plain = Problem(
        kept, after.batches, loss=after.loss, mask=after.mask, params=after.params
    )  # holds its arguments for plain PyTorch
    loss, _ = cases.plain_loss(plain)
    places = plain.live.shapes
    assert after.value() == pytest.approx(loss.item(), abs=1e-13)
    assert list(after.live.shapes) == list(places)
    dense = plain.replace(params=None)
    expected = dense.split(cases.dense_gradient(dense))
    for n, g in after.split(after.gradient()).items():
        torch.testing.assert_close(g, expected[n], rtol=0, atol=1e-13)
    assert after.digest == before.digest == plain.digest
    assert torch.equal(after.weights, before.weights)


def test_diagnostics_agree_on_the_weights_after_more_training() -> None:
    problem = cases.masked_cnn()
    train(problem.net)
    whole, named = spectrum(problem, top=1), spectrum(problem, top=1, params="*")
    assert named.eigenvalues == pytest.approx(whole.eigenvalues, rel=1e-12)
    top = torch.linalg.eigvalsh(cases.hessian_of("masked_cnn"))[-1].item()
    assert named.eigenvalues[0] == pytest.approx(top, rel=1e-6)
    found = blocks(problem, by="tensor", top=1)
    for name, value in zip(found.names, found.eigenvalues[:, 0], strict=True):
        part = problem.split(torch.arange(problem.size) + 1)[name]
        rows = part[part > 0] - 1
        exact = torch.linalg.eigvalsh(cases.hessian_of("masked_cnn")[rows][:, rows])
        assert abs(value) == pytest.approx(exact.abs().max().item(), rel=1e-6)
    one, two = (landscape(p, points=3) for p in (problem, cases.masked_cnn()))
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-12)


def test_a_view_does_not_pass_over_the_data() -> None:
    problem, passes = cases.masked_cnn(), []
    problem.net.register_forward_hook(lambda *_: passes.append(1))
    problem.view(params="0.*"), problem.view(dense=True), problem.view(params="*", dense=True)
    assert not passes
    smooth = problem.view(loss=nn.CrossEntropyLoss(label_smoothing=0.1), dense=True, params="0.*")
    assert 0 < len(passes) <= 5  # a new loss is checked, once
    assert smooth.mask is None


def test_a_view_of_other_weights_finds_those_that_the_loss_reads() -> None:
    net = cases._net(cases._mlp)
    batches = cases.classes((8,), (4,), 3)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y) + net[4].weight.square().sum()

    first = Problem(net, batches, loss=loss, params="0.*")
    at = net[4].weight.detach().clone()
    value, gradient = first.value(), first.view(params="4.weight").gradient()
    train(net)
    plain = Problem(net, batches, params="4.weight")
    free = first.view(loss=F.cross_entropy, params="4.weight")
    assert plain.size == free.size == at.numel()
    torch.testing.assert_close(gradient - free.gradient(), 2 * at.flatten(), rtol=0, atol=1e-12)
    decay = at.square().sum().item()
    assert value - free.value() == pytest.approx(decay, rel=1e-12)
    assert first.value() == value


def test_weights_are_copied_into_another_net() -> None:
    problem = cases.masked_cnn()
    kept, other = copy.deepcopy(problem.net), copy.deepcopy(problem.net)
    problem.mask.apply_(kept)
    train(problem.net), train(other)
    problem.copy_weights_to(other)
    assert all(torch.equal(t, kept.state_dict()[n]) for n, t in other.state_dict().items())
