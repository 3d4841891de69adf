"""Losses that are more than a mean over samples of outputs and targets.

Expected values are plain PyTorch on the caller's own net, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, landscape, spectrum
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.gradflow import gradflow
from tests import cases

X, Y = cases.classes((9,), (4,), 3)[0]
Loss = Callable[[Any, Any], Tensor]


def plain() -> nn.Module:
    return cases._net(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def derivatives(net: nn.Module, loss: Loss, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of all samples at once, its gradient and its Hessian times `v`."""
    weights = [p for p in net.parameters() if p.requires_grad]
    value = loss(net(X), Y)
    parts = torch.autograd.grad(value, weights, create_graph=True)
    gradient = torch.cat([g.flatten() for g in parts])
    product = torch.autograd.grad(gradient @ v, weights)
    return value, gradient.detach(), torch.cat([h.flatten() for h in product])


def vector(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(3)).double()


def close(came: Tensor, expected: Tensor, *, rtol: float = 1e-12) -> None:
    assert (came - expected).norm() <= rtol * expected.norm()


# losses that read the weights


def weight_decay(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + sum(p.square().sum() for p in net.parameters())


def nuclear_norm(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + torch.linalg.svdvals(net[0].weight).sum()


def gradient_penalty(net: nn.Module) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.linspace(-1, 1, 8).double().view(2, 4).requires_grad_()
            (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return F.cross_entropy(z, y) + slope.square().mean()

    return loss


def consistency(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + net(X[:2] + 0.1).square().mean()


class Regularised(nn.Module):
    """A loss that holds the net as its own submodule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y) * (1 + self.net[2].weight.pow(4).sum())


READERS: list[Callable[[nn.Module], Loss]] = [
    weight_decay,
    nuclear_norm,
    gradient_penalty,
    consistency,
    Regularised,
]


@pytest.mark.parametrize("counts", [(9,), (4, 5)])
@pytest.mark.parametrize("make", READERS)
def test_a_loss_that_reads_the_weights_is_differentiated(
    make: Callable[[nn.Module], Loss], counts: tuple[int, ...]
) -> None:
    net = plain()
    loss, before = make(net), copy.deepcopy(net.state_dict())
    problem = Problem(net, list(zip(X.split(counts), Y.split(counts), strict=True)), loss=loss)
    v = vector(problem.size)
    value, gradient, product = derivatives(net, loss, v)
    assert problem.reads_weights
    assert problem.value() == pytest.approx(value.item(), rel=1e-12)
    close(problem.gradient(), gradient)
    close(problem.hvp(v), product)
    close(Curvature(problem)(v), product)
    flow = torch.tensor(gradflow(problem).flow)
    close(flow, torch.stack([problem.split(gradient)[n].norm() for n in ("0.weight", "2.weight")]))
    moved = _moved(net, v)
    expected = make(moved)(moved(X), Y).item()
    assert problem.value(problem.weights + v) == pytest.approx(expected, rel=1e-12)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("mode", ["tape", "retained"])
def test_both_engines_follow_a_weight_decay_under_a_mask(mode: Any) -> None:
    net = plain()
    mask = cases.coins(net, 0.5)
    problem = Problem(net, [(X, Y)], loss=weight_decay(net), mask=mask)
    v = vector(problem.size)
    decay = Curvature(problem, mode=mode)(v) - Curvature(
        Problem(net, [(X, Y)], mask=mask), mode=mode
    )(v)
    close(decay, 2 * v)
    alive = problem.weights.square().sum()
    without = problem.view(loss=F.cross_entropy).value()
    assert problem.value() - without == pytest.approx(alive.item(), rel=1e-12)


def test_a_landscape_follows_a_weight_decay() -> None:
    net = plain()
    problem = Problem(net, [(X[:4], Y[:4]), (X[4:], Y[4:])], loss=weight_decay(net))
    seen = landscape(problem, points=3)
    without = landscape(problem.view(loss=F.cross_entropy), points=3)
    at = problem.weights.square().sum()
    assert seen.centre == pytest.approx(without.centre + float(at), rel=1e-12)
    assert (abs(seen.loss - without.loss - float(at)) > 1e-3).sum() > 4  # it moves with the weights


def test_other_weights_and_detached_reads_are_constants() -> None:
    net, teacher = plain(), plain()
    temperature = torch.tensor(2.0, requires_grad=True)
    fixed: list[Loss] = [
        lambda z, y: F.cross_entropy(z / temperature, y),
        lambda z, y: F.cross_entropy(z, y) + F.mse_loss(z, teacher(X)),
        lambda z, y: F.cross_entropy(z, y) + net[0].weight.data.square().sum(),
    ]
    for loss in fixed:
        problem = Problem(net, [(X, Y)], loss=loss)
        v = vector(problem.size)
        _, gradient, product = derivatives(net, loss, v)
        assert not problem.reads_weights
        close(problem.gradient(), gradient)
        close(Curvature(problem)(v), product)
        moved = loss(_moved(net, v)(X), Y).item()
        assert problem.value(problem.weights + v) == pytest.approx(moved, rel=1e-12)


def _moved(net: nn.Module, v: Tensor) -> nn.Module:
    moved = copy.deepcopy(net)
    flat = torch.nn.utils.parameters_to_vector(net.parameters())
    torch.nn.utils.vector_to_parameters(flat + v, moved.parameters())
    return moved


def test_a_loss_that_holds_the_parameters_themselves_is_refused() -> None:
    net = plain()
    held, optimiser = net[0].weight, torch.optim.SGD(net.parameters(), 0.1)
    for loss in (
        lambda z, y: F.cross_entropy(z, y) + held.square().sum(),
        lambda z, y: F.cross_entropy(z, y) + optimiser.param_groups[0]["params"][0].norm(),
    ):
        with pytest.raises(ValueError, match=r"'0\.weight'.*net\.parameters\(\)"):
            Problem(net, [(X, Y)], loss=loss)


def test_gauss_newton_of_a_loss_that_reads_the_weights_is_refused() -> None:
    net = plain()
    problem = Problem(net, [(X, Y)], loss=weight_decay(net))
    with pytest.raises(ValueError, match=r"weight decay.*matrix='hessian'"):
        Curvature(problem, matrix="gauss-newton")


# losses that are no means over samples

IGNORING = Y.masked_fill(torch.arange(9) % 4 == 1, -100)
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 7.0]).double()


def contrastive(z: Tensor, y: Tensor) -> Tensor:
    z = F.normalize(z)
    return F.cross_entropy(z @ z.T / 0.5, torch.arange(len(z)))


def focal(z: Tensor, y: Tensor) -> Tensor:
    """The sum over the samples divided by the number of those of class 0, as in detection."""
    each = F.cross_entropy(z, y, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).sum() / (y == 0).sum().clamp(min=1)


MEANS: dict[str, tuple[Loss, Tensor]] = {
    "ignored": (F.cross_entropy, IGNORING),
    "another ignored": (nn.CrossEntropyLoss(ignore_index=2), Y),
    "class weights": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), Y),
    "weights and smoothing": (
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.1, ignore_index=1),
        Y,
    ),
    "negative log-likelihood": (
        lambda z, y: F.nll_loss(z.log_softmax(1), y, weight=CLASS_WEIGHTS),
        IGNORING,
    ),
    "some outputs": (lambda z, y: F.huber_loss(z[y > 0], torch.zeros_like(z[y > 0])), Y),
}
SUMS: dict[str, tuple[Loss, Tensor]] = {
    "sum": (nn.CrossEntropyLoss(reduction="sum"), Y),
    "sum over a constant": (lambda z, y: F.cross_entropy(z, y, reduction="sum") / 128, IGNORING),
}
OTHERS: dict[str, tuple[Loss, Tensor]] = {
    "contrastive": (contrastive, Y),
    "focal": (focal, Y),
    "largest": (lambda z, y: F.cross_entropy(z, y, reduction="none").amax(), Y),
    "two means": (lambda z, y: F.cross_entropy(z, y) + z.square().mean(), IGNORING),
    "variance": (lambda z, y: z.var(), Y),
}


@pytest.mark.parametrize("name", [*MEANS, *SUMS, *OTHERS])
def test_the_same_samples_in_other_batches_are_the_same_function(name: str) -> None:
    net = plain()
    loss, y = (MEANS | SUMS | OTHERS)[name]
    for counts in ((9,), (4, 5), (1, 6, 2), (3, 3, 3)):
        problem = Problem(net, list(zip(X.split(counts), y.split(counts), strict=True)), loss=loss)
        v = vector(problem.size)
        value, gradient, product = derivatives(net, lambda z, _: loss(z, y), v)
        assert problem.value() == pytest.approx(value.item(), rel=1e-12)
        close(problem.gradient(), gradient)
        close(problem.hvp(v), product)
        curvature = Curvature(problem, chunk=2)
        close(curvature(v), product, rtol=1e-11)
        assert curvature.doubts == []
        assert problem.separable == (name not in OTHERS)
        assert (problem.reduction == "sum") == (name in SUMS)


def test_a_batch_in_which_all_is_ignored_counts_for_nothing() -> None:
    y = torch.cat((torch.full((4,), -100), Y[4:]))
    net = plain()
    problem = Problem(net, list(zip(X.split((2, 2, 5)), y.split((2, 2, 5)), strict=True)))
    assert problem.shares() == [0, 0, 1]
    v = vector(problem.size)
    value, gradient, product = derivatives(net, lambda z, _: F.cross_entropy(z, y), v)
    assert problem.value() == pytest.approx(value.item(), rel=1e-14)
    close(problem.gradient(), gradient)
    close(Curvature(problem)(v), product)
    seen = landscape(problem, points=3)
    assert seen.centre == pytest.approx(value.item(), rel=1e-12)
    accuracy = (net(X)[4:].argmax(1) == Y[4:]).double().mean()
    assert seen.accuracy[1, 1] == pytest.approx(accuracy.item(), rel=1e-14)


@pytest.mark.parametrize("position", [0, 17, 63])
def test_one_ignored_target_among_many_is_noticed(position: int) -> None:
    x, y = cases.classes((64,), (4,), 3)[0]
    y[position] = -100
    net = plain()
    problem = Problem(net, [(x, y)])
    assert problem.reduction == "weights"
    v = vector(problem.size)
    close(Curvature(problem, chunk=5)(v), problem.hvp(v))


def test_a_flat_loss_does_not_hide_that_it_is_no_mean() -> None:
    net = plain()
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    batches = list(zip(X.split((4, 5)), Y.split((4, 5)), strict=True))
    problem = Problem(net, batches, loss=lambda z, _: z.mean().square())
    assert len(problem.batches) == 1
    v = vector(problem.size)
    close(problem.hvp(v), derivatives(net, lambda z, _: z.mean().square(), v)[2])


def test_a_root_of_a_mean_is_no_mean_even_if_all_batches_have_about_its_loss() -> None:
    x, y = (t.float() for t in cases.regression((300,), (4,), 3)[0])
    net, root = plain().float(), lambda z, y: F.mse_loss(z, y).sqrt()
    whole, *others = (
        Problem(net, list(zip(x.split(counts), y.split(counts), strict=True)), loss=root)
        for counts in ((300,), (100, 100, 100), (7, 193, 100))
    )
    assert [len(p.batches) for p in others] == [1, 1]
    assert [p.value() for p in others] == pytest.approx(2 * [whole.value()], rel=1e-6)
    assert not whole.separable


# tokens: outputs (samples, tokens, classes) and targets (samples, tokens)


class Tagger(nn.Module):
    """A net of tokens that computes its loss as Hugging Face's models do."""

    def __init__(self, shift: int = 0, *, carry: bool = True) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 5)
        self.shift, self.carry = shift, carry

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Any:
        z = self.head(self.embedding(ids).cumsum(1).tanh())
        if labels is None or not self.carry:
            return z
        logits = z[:, : z.shape[1] - self.shift]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, self.shift :].flatten())
        return {"loss": loss, "logits": z}


def tokens(length: int, ignored: int = -100) -> tuple[Tensor, Tensor]:
    """Six rows of tokens; of row k, the last k tokens of `length` are padding."""
    g = torch.Generator().manual_seed(5)
    ids, labels = (torch.randint(2, n, (6, length), generator=g) for n in (11, 5))
    for k in range(6):
        labels[k, length - k :] = ignored
    return ids, labels


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("padded", [True, False])
def test_padded_batches_are_weighted_by_their_tokens(shift: int, padded: bool) -> None:
    net = cases._net(lambda: Tagger(shift))
    ids, labels = tokens(8) if padded else (t[:, :3] for t in tokens(8))
    lengths = (8, 6, 4) if padded else (3, 3, 3)  # each batch is as long as its longest row
    rows = _rows(ids, labels, lengths)
    batches = [{"ids": i, "labels": j} for i, j in rows]
    z = net(ids)[:, : ids.shape[1] - shift]
    expected = F.cross_entropy(z.flatten(0, 1), labels[:, shift:].flatten())
    gradient = torch.autograd.grad(expected, list(net.parameters()))
    for some in (batches, [{"ids": ids, "labels": labels}]):
        problem = Problem(net, some)
        assert problem.value() == pytest.approx(expected.item(), rel=1e-12)
        close(problem.gradient(), torch.cat([g.flatten() for g in gradient]))
        assert problem.doubts == []


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("shift", [0, 1])
def test_batches_of_other_lengths_are_weighted_by_their_tokens(shift: int, rows: int) -> None:
    net = cases._net(lambda: Tagger(shift))
    parts = [[t[:rows, :n] for t in tokens(8)] for n in (7, 3)]
    problem = Problem(net, [{"ids": i, "labels": j} for i, j in parts])
    losses = [net(i, j)["loss"].item() for i, j in parts]
    counts = [rows * (n - shift) for n in (7, 3)]
    assert problem.value() == pytest.approx(np.average(losses, weights=counts), rel=1e-12)
    assert problem.doubts == []


@pytest.mark.parametrize("lengths", [(8, 8, 8), (8, 6, 4)])
def test_tokens_ignored_by_a_loss_of_ones_own_do_not_count(lengths: tuple[int, ...]) -> None:
    net, (ids, labels) = cases._net(lambda: Tagger(carry=False)), tokens(8, ignored=0)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z.flatten(0, 1), y.flatten(), ignore_index=0)

    problem = Problem(net, _rows(ids, labels, lengths), loss=loss)
    expected = loss(net(ids), labels).item()
    assert problem.value() == pytest.approx(expected, rel=1e-12)


def _rows(ids: Tensor, labels: Tensor, lengths: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Batches of two rows each, cut to these lengths."""
    parts = zip(ids.split(2), labels.split(2), lengths, strict=True)
    return [(i[:, :n], j[:, :n]) for i, j, n in parts]


def test_batches_that_cannot_be_joined_are_refused_if_the_loss_needs_it() -> None:
    net, (ids, labels) = cases._net(lambda: Tagger(carry=False)), tokens(8)
    rows = [(ids[:3], labels[:3]), (ids[3:, :6], labels[3:, :6])]
    with pytest.raises(ValueError, match=r"one batch.*reduction='sum'"):
        Problem(net, rows, loss=lambda z, y: z.mean().square() + z.std())


def test_a_loss_of_batches_that_cannot_be_compared_is_doubted() -> None:
    net = cases._net(lambda: Tagger(carry=False))
    rows = [(tokens(8)[0][:1, :n], torch.ones(1, n, 5).double()) for n in (7, 3)]
    problem = Problem(net, rows, loss=F.mse_loss)
    (doubt,) = problem.doubts
    assert "samples" in doubt
    assert not spectrum(problem, top=1).converged
    assert doubt in landscape(problem, points=3).doubts
    assert doubt in gradflow(problem).doubts
