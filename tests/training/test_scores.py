"""Scores of pruning at initialisation, against closed forms, brute force and what they promise."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag import Mask, Problem, prunable
from training.masks import METHODS, grasp, snip, synflow
from training.masks.random import Random
from training.masks.shares import best, counts, erk, uniform
from training.masks.synflow import Synflow

DENSITIES = (0.5, 0.1, 0.05, 0.02, 0.01)
SCORED: dict[str, dict[str, Any]] = {
    "random": {},
    "random layer": {"scope": "layer"},
    "random erk": {"scope": "erk"},
    "snip": {},
    "grasp": {},
    "synflow": {"steps": 20},
}
every_method = pytest.mark.parametrize("name", SCORED)


def mlp(*widths: int, bias: bool = False, seed: int = 0) -> nn.Sequential:
    """Linear layers in float64 with ReLU between them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return sd.models.build("resnet20", classes=10, channels=1)


def digits(net: nn.Module, per_class: int = 2) -> Problem:
    sample = sd.data.load("digits").balanced(per_class)
    return Problem(net, sample, batch_norm="train")


def start(name: str, problem: Problem, density: float, seed: int = 0) -> Mask:
    method = METHODS[name.split()[0]](density=density, **SCORED[name])
    mask = method.start(problem, [], seed=seed)
    assert mask is not None
    return mask


@every_method
@pytest.mark.parametrize("density", DENSITIES)
def test_as_many_weights_as_asked_stay(name: str, density: float) -> None:
    problem = digits(resnet())
    mask = start(name, problem, density)
    assert set(mask) == set(prunable(problem.net))
    assert mask.alive == round(density * mask.size)


@every_method
def test_a_mask_depends_on_weights_data_and_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    one = start(name, digits(resnet()), 0.1)
    torch.manual_seed(2)
    same = start(name, digits(resnet()), 0.1)
    assert one == same
    other = start(name, digits(resnet()), 0.1, seed=1)
    assert (one == other) == (not name.startswith("random"))


@every_method
def test_the_net_and_the_rng_are_left_alone(name: str) -> None:
    net = resnet().train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    problem, rng = digits(net), torch.get_rng_state()
    start(name, problem, 0.1)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


# shares of the layers


def test_erk_of_the_perceptron_of_the_pipeline_paper() -> None:
    widths = [784, 100, 100, 100, 100, 100, 10]
    shapes = {str(i): torch.Size(s) for i, s in enumerate(zip(widths[1:], widths, strict=False))}
    shares = erk(shapes, 0.1)
    expected = [0.07504, 0.13311, 0.13311, 0.13311, 0.13311, 0.73211]
    assert list(shares.values()) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(
    ("density", "dense", "some"),
    [
        (
            0.1,
            {"conv1", "fc", "layer2.0.shortcut", "layer3.0.shortcut"},
            {"layer1.0.conv1": 0.4611, "layer4.1.conv2": 0.05537},
        ),
        (0.05, {"conv1", "layer2.0.shortcut"}, {"fc": 0.7235}),
        (0.02, {"conv1"}, {}),
    ],
)
def test_erk_of_resnet_18(density: float, dense: set[str], some: dict[str, float]) -> None:
    net = sd.models.build("resnet18", classes=100)
    shapes = {n: p.shape for n, p in net.named_parameters() if p.dim() > 1}
    shares = erk(shapes, density)

    def of(layer: str) -> float:
        (found,) = (d for n, d in shares.items() if n.startswith(layer))
        return found

    full = {n for n, d in shares.items() if d == 1}
    assert len(full) == len(dense)
    assert all(of(layer) == 1 for layer in dense)
    for layer, share in some.items():
        assert of(layer) == pytest.approx(share, abs=5e-5)
    total = sum(d * shapes[n].numel() for n, d in shares.items())
    assert total == pytest.approx(density * sum(s.numel() for s in shapes.values()))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("rule", [uniform, erk])
def test_counts_add_up(rule: Any, density: float) -> None:
    shapes = {str(i): torch.Size((7, i + 3)) for i in range(9)}
    kept = counts(shapes, rule(shapes, density))
    assert sum(kept.values()) == round(density * sum(s.numel() for s in shapes.values()))
    assert all(0 <= k <= shapes[n].numel() for n, k in kept.items())


def test_every_layer_keeps_its_best() -> None:
    scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([[0.5, 0.5]])}
    mask = best(scores, {"a": 2, "b": 1})
    assert mask["a"].tolist() == [True, False, True]
    assert mask["b"].tolist() == [[True, False]]


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scope 'layr'; did you mean 'layer'"):
        Random(density=0.1, scope="layr")  # type: ignore[arg-type]


# SNIP


def regression(net: nn.Module, inputs: int, outputs: int) -> Problem:
    draw = torch.Generator().manual_seed(3)
    x, y = (torch.randn(6, n, generator=draw, dtype=torch.float64) for n in (inputs, outputs))
    return Problem(net, [(x, y)], loss=F.mse_loss)


def test_snip_of_a_linear_layer_has_a_closed_form() -> None:
    net = nn.Linear(4, 3, bias=False).double()
    problem = regression(net, 4, 3)
    ((x, y),) = problem.batches
    errors = x @ net.weight.T - y
    expected = (net.weight * (2 / errors.numel() * errors.T @ x)).abs()
    torch.testing.assert_close(snip.scores(problem)["weight"], expected.detach())


def with_mask(problem: Problem, masks: dict[str, Tensor]) -> float:
    """The loss with every weight times its entry of the mask."""
    weights = problem.split(problem.weights)
    return problem.value(problem.join({n: w * masks.get(n, 1) for n, w in weights.items()}))


def test_snip_is_the_change_of_the_loss_with_each_entry_of_the_mask() -> None:
    problem = regression(mlp(3, 4, 2), 3, 2)
    step, found, brute = 1e-6, snip.scores(problem), dict[str, Tensor]()
    for name, score in found.items():
        brute[name] = torch.empty_like(score)
        for i in range(score.numel()):
            masks = [torch.ones(score.numel(), dtype=torch.float64) for _ in range(2)]
            masks[0][i] += step
            masks[1][i] -= step
            up, down = (with_mask(problem, {name: m.view(score.shape)}) for m in masks)
            brute[name].view(-1)[i] = abs(up - down) / (2 * step)
        torch.testing.assert_close(score, brute[name], atol=1e-8, rtol=1e-5)
    for density in (0.2, 0.5, 0.8):
        assert Mask.top(found, density) == Mask.top(brute, density)


def test_snip_ranks_alike_whatever_the_scale_of_the_loss() -> None:
    net = mlp(3, 5, 2)
    plain = regression(net, 3, 2)
    scaled = Problem(net, plain.batches, loss=lambda a, b: 7 * F.mse_loss(a, b))
    assert Mask.top(snip.scores(plain), 0.3) == Mask.top(snip.scores(scaled), 0.3)


# GraSP


class Quadratic(nn.Module):
    """Its output is 1/2 w A w, whatever comes in."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(len(a), 1, bias=False).double()
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        w = self.fc.weight.squeeze(0)
        return (0.5 * w @ self.a @ w).expand(len(x), 1)


def test_grasp_of_a_quadratic_is_w_times_a_squared_w() -> None:
    draw = torch.Generator().manual_seed(0)
    half = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    a, x = half + half.T, torch.ones(2, 1, dtype=torch.float64)
    net = Quadratic(a)
    problem = Problem(net, [(x, x)], loss=lambda outputs, _: outputs.mean())
    w = net.fc.weight.detach().squeeze(0)
    score = grasp.scores(problem, temperature=1.0)["fc.weight"].squeeze(0)
    torch.testing.assert_close(score, w * (a @ a @ w))
    cooler = grasp.scores(problem, temperature=2.0)["fc.weight"].squeeze(0)
    torch.testing.assert_close(cooler, score / 4)


def test_grasp_agrees_with_the_dense_hessian() -> None:
    problem = regression(mlp(3, 4, 2), 3, 2)
    eye = torch.eye(problem.size, dtype=torch.float64)
    hessian = torch.stack([problem.hvp(e) for e in eye])
    brute = problem.split(problem.weights * (hessian @ problem.gradient()))
    found = grasp.scores(problem, temperature=1.0)
    for name, score in found.items():
        torch.testing.assert_close(score, brute[name])
    for density in (0.2, 0.5, 0.8):
        assert Mask.top(found, density) == Mask.top(brute, density)


def test_grasp_scores_are_half_the_change_of_the_flow() -> None:
    problem = regression(mlp(3, 4, 2), 3, 2)
    step, w = 1e-6, problem.weights
    found = problem.join(grasp.scores(problem, temperature=1.0))

    def flow(at: Tensor) -> float:
        return float(problem.gradient(at).square().sum())

    for i in range(problem.size):
        away = torch.zeros_like(w)
        away[i] = step * w[i]
        change = (flow(w + away) - flow(w - away)) / (2 * step)
        assert float(found[i]) == pytest.approx(change / 2, rel=1e-5, abs=1e-9)


# SynFlow


def test_synflow_is_the_strength_of_the_paths_through_a_weight() -> None:
    net = mlp(3, 4, 2)
    first, second = net[0].weight.abs(), net[2].weight.abs()
    found = synflow.scores(net, torch.Size([3]))
    torch.testing.assert_close(found["0.weight"], (first * second.sum(0)[:, None]).detach())
    torch.testing.assert_close(found["2.weight"], (second * first.sum(1)[None]).detach())


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    found = synflow.scores(mlp(5, 8, 7, 6, 3), torch.Size([5]))
    sums = [float(score.sum()) for score in found.values()]
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-12)
    assert all((score >= 0).all() for score in found.values())


def test_synflow_of_a_masked_net_is_that_of_the_net_with_zeros() -> None:
    net = mlp(4, 6, 3)
    mask = Mask.top({n: torch.rand_like(p) for n, p in net.named_parameters()}, 0.4)
    masked = synflow.scores(net, torch.Size([4]), mask)
    mask.apply_(net)
    plain = synflow.scores(net, torch.Size([4]))
    for name, alive in mask.items():
        torch.testing.assert_close(masked[name][alive], plain[name][alive])
        assert (masked[name][~alive] == -1).all()


@pytest.mark.parametrize("density", [0.1, 0.02, 0.01])
def test_a_hundred_steps_empty_no_layer_of_a_chain(density: float) -> None:
    torch.manual_seed(0)
    problem = digits(sd.models.build("vgg16", classes=10, channels=1, width=8))
    many = Synflow(density=density).start(problem, [], seed=0)
    assert all(alive for _, alive, _ in many.table())


def test_branches_of_a_residual_net_may_go_but_paths_remain() -> None:
    problem = digits(resnet())
    many = Synflow(density=0.01).start(problem, [], seed=0)
    left = synflow.scores(problem.net, torch.Size([1, 8, 8]), many)
    assert float(left["conv1.weight"].clamp(min=0).sum()) > 0


def test_one_step_empties_layers_where_a_hundred_do_not() -> None:
    torch.manual_seed(0)
    problem = digits(sd.models.build("vgg16", classes=10, channels=1, width=8))
    one, many = (Synflow(density=0.005, steps=s).start(problem, [], seed=0) for s in (1, 100))
    assert min(alive for _, alive, _ in one.table()) == 0
    assert min(alive for _, alive, _ in many.table()) > 0


# data for scoring


def test_the_sample_is_balanced_shuffled_and_fixed() -> None:
    data = sd.data.load("digits")
    ((x, y),) = data.balanced(5)
    assert torch.bincount(y).tolist() == [5] * 10
    assert y.tolist() != sorted(y.tolist())
    ((again, _),) = data.balanced(5)
    assert torch.equal(x, again)
    ((other, _),) = data.balanced(5, seed=1)
    assert not torch.equal(x, other)
    with pytest.raises(ValueError, match="per_class = 1000: class 0 of digits has"):
        data.balanced(1000)
