"""Scores of pruning at initialisation, against closed forms, brute force and what they promise."""

from __future__ import annotations

import copy
import itertools
import math
import re
from typing import Any

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag import Mask, Problem, prunable
from sparsediag.diagnostics.connectivity import paths
from training.masks import METHODS, grasp, snip
from training.masks.layer_densities import erk, round_counts, top_per_layer, uniform
from training.masks.random import Random
from training.masks.synflow import AbsoluteNet, Synflow, check

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
    sample = sd.data.load("digits").balanced_batches(per_class)
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
    kept = round_counts(shapes, rule(shapes, density))
    assert sum(kept.values()) == round(density * sum(s.numel() for s in shapes.values()))
    assert all(0 <= k <= shapes[n].numel() for n, k in kept.items())


def test_every_layer_keeps_its_best() -> None:
    scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([[0.5, 0.5]])}
    mask = top_per_layer(scores, {"a": 2, "b": 1})
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


def synflow_scores(net: nn.Module, inputs: int) -> dict[str, Tensor]:
    names = [name for name, _ in net.named_parameters()]
    return AbsoluteNet(net, torch.Size([inputs])).scores(names)


def test_synflow_is_the_strength_of_the_paths_through_a_weight() -> None:
    net = mlp(3, 4, 2)
    first, second = net[0].weight.abs(), net[2].weight.abs()
    found = synflow_scores(net, 3)
    torch.testing.assert_close(found["0.weight"], (first * second.sum(0)[:, None]).detach())
    torch.testing.assert_close(found["2.weight"], (second * first.sum(1)[None]).detach())


def test_synflow_sums_up_outputs_in_a_dict() -> None:
    net = mlp(3, 4, 2)
    parts = cases.Net(lambda net, x: {"a": net.act(x), "b": (net.act(x),)}, act=net).double()
    scores = AbsoluteNet(parts, torch.Size([3])).scores(["act.0.weight"])
    twice = 2 * synflow_scores(net, 3)["0.weight"]
    torch.testing.assert_close(scores["act.0.weight"], twice)


def test_synflow_refuses_tokens() -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    problem = Problem(
        net, [(torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long))]
    )
    with pytest.raises(ValueError, match=r"inputs are \(4, 2\); .* real numbers"):
        Synflow(density=0.5).start(problem, [], seed=0)


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    found = synflow_scores(mlp(5, 8, 7, 6, 3), 5)
    sums = [float(score.sum()) for score in found.values()]
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-12)
    assert all((score >= 0).all() for score in found.values())


def test_synflow_of_a_masked_net_is_that_of_the_net_with_zeros() -> None:
    net = mlp(4, 6, 3)
    mask = Mask.top({n: torch.rand_like(p) for n, p in net.named_parameters()}, 0.4)
    mask.apply_(net)
    found = synflow_scores(net, 4)
    for name, alive in mask.items():
        assert not found[name][~alive].any()
    whole = float(found["2.weight"].sum())
    assert float(found["0.weight"].sum()) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("end", "sums"),
    [
        (nn.Softmax(1), "sum up to 1,"),
        (nn.Tanh(), "sum up to 2,"),
        (nn.LayerNorm(2), "sum up to 2,"),
    ],
)
def test_synflow_refuses_outputs_that_no_weight_changes(end: nn.Module, sums: str) -> None:
    net = nn.Sequential(*mlp(3, 4, 2), end.double())
    net[0].weight.data.fill_(1e3)
    with pytest.raises(ValueError, match=rf"{sums} .* softmax .* logits"):
        Synflow(density=0.5).start(regression(net, 3, 2), [], seed=0)


def test_synflow_refuses_outputs_that_overflow() -> None:
    with pytest.raises(ValueError, match="sum up to inf"):
        check({"weight": torch.tensor([torch.inf, 1.0])}, torch.inf)


def test_synflow_names_layers_that_no_path_reaches() -> None:
    net = resnet()
    for name, module in net.named_modules():
        if name.endswith("bn2"):
            nn.init.zeros_(module.weight)
    with pytest.warns(UserWarning, match=r"layer1\.0\.conv1\.weight, .* \(18 of 21\) .*zero_init"):
        Synflow(density=0.5, steps=2).start(digits(net), [], seed=0)
    net = cases.Net(lambda net, x: net.fc(x), fc=nn.Linear(3, 3), idle=nn.Linear(3, 3)).double()
    with pytest.warns(UserWarning, match=r"idle\.weight \(1 of 2\)"):
        Synflow(density=0.5, steps=2).start(regression(net, 3, 3), [], seed=0)


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (
            nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
            "0.weight, 2.weight (2 of 2)",
        ),
        (nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(1)), "0.weight (1 of 1)"),
    ],
)
def test_synflow_says_where_scores_are_negative(net: nn.Module, names: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(f"negative scores in {names}")):
        Synflow(density=0.5, steps=2).start(regression(net.double(), 3, 2), [], seed=0)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_synflow_of_a_float32_net_keeps_the_mask_of_float64(size: float) -> None:
    """Whatever the sizes of its weights: the strength of four layers can leave float32's range."""
    net = mlp(6, 9, 8, 7, 3).float()
    for p in net.parameters():
        p.data *= size
    masks = []
    for n in (copy.deepcopy(net).double(), net):
        zeros = torch.zeros(1, 6, dtype=n[0].weight.dtype), torch.tensor([0])
        masks.append(Synflow(density=0.2, steps=30).start(Problem(n, [zeros]), [], seed=0))
    assert masks[0] == masks[1]


def test_synflow_of_weights_that_are_added_up() -> None:
    """Their gradients are one tensor, which no score may change for the other."""
    net = cases.Net(
        lambda net, x: F.linear(x, net.a.weight + net.b.weight),
        a=nn.Linear(3, 2),
        b=nn.Linear(3, 2),
    )
    found = AbsoluteNet(net, torch.Size([3])).scores(["a.weight", "b.weight"])
    assert torch.equal(found["a.weight"], net.a.weight.abs())
    assert torch.equal(found["b.weight"], net.b.weight.abs())


def test_synflow_with_thresholds_that_are_hard_to_guess() -> None:
    """Scores of two sizes: the step that has pruned all small ones must rank the others again."""
    net = nn.Linear(40, 5, bias=False)
    net.weight.data[:3] *= 1e-6
    mask = Synflow(density=0.3, steps=100).start(regression(net.double(), 40, 5), [], seed=0)
    assert mask == Mask.top({"weight": net.weight.abs()}, 0.3)


@pytest.mark.parametrize("density", [0.1, 0.02, 0.01])
def test_a_hundred_steps_empty_no_layer_of_a_chain(density: float) -> None:
    torch.manual_seed(0)
    problem = digits(sd.models.build("vgg16", classes=10, channels=1, width=8))
    many = Synflow(density=density).start(problem, [], seed=0)
    assert all(alive for _, alive, _ in many.table())


def test_branches_of_a_residual_net_may_go_but_paths_remain() -> None:
    problem = digits(resnet())
    many = Synflow(density=0.01).start(problem, [], seed=0)
    assert paths(problem.net, many, torch.Size([1, 8, 8])).count > 0


def test_one_step_empties_layers_where_a_hundred_do_not() -> None:
    torch.manual_seed(0)
    problem = digits(sd.models.build("vgg16", classes=10, channels=1, width=8))
    one, many = (Synflow(density=0.005, steps=s).start(problem, [], seed=0) for s in (1, 100))
    assert min(alive for _, alive, _ in one.table()) == 0
    assert min(alive for _, alive, _ in many.table()) > 0


# data for scoring


def test_the_sample_is_balanced_shuffled_and_fixed() -> None:
    data = sd.data.load("digits")
    ((x, y),) = data.balanced_batches(5)
    assert torch.bincount(y).tolist() == [5] * 10
    assert y.tolist() != sorted(y.tolist())
    ((again, _),) = data.balanced_batches(5)
    assert torch.equal(x, again)
    ((other, _),) = data.balanced_batches(5, seed=1)
    assert not torch.equal(x, other)
    with pytest.raises(ValueError, match="per_class = 1000: class 0 of digits has"):
        data.balanced_batches(1000)


# every score, against brute force that shares no code with it


SEEDS = range(4)
KEPT = (0.1, 0.3, 0.5, 0.8)


def perceptron(seed: int) -> tuple[nn.Module, torch.Size]:
    return mlp(3, 5, 4, 3, bias=True, seed=seed), torch.Size([3])


def convnet(seed: int) -> tuple[nn.Module, torch.Size]:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Conv2d(2, 2, 2), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 3)).double(), torch.Size([1, 4, 4])


def classification(net: nn.Module, size: torch.Size, seed: int) -> Problem:
    """Two batches of different sizes, whose mean is over the images."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(7, *size, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (7,), generator=draw)
    return Problem(net, [(x[:5], y[:5]), (x[5:], y[5:])])


def whole(problem: Problem) -> tuple[Tensor, Tensor]:
    """All images in one batch."""
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    return x, y


def agree(found: dict[str, Tensor], brute: dict[str, Tensor], *, rtol: float) -> None:
    """The same scores, and the same weights stay at every density."""
    assert found.keys() == brute.keys()
    largest = max(float(score.abs().max()) for score in brute.values())
    for name, score in found.items():
        torch.testing.assert_close(score, brute[name], rtol=rtol, atol=rtol * largest)
    for density in KEPT:
        mask = Mask.top(found, density)
        assert mask == Mask.top(brute, density)
        assert mask.alive == round(density * mask.size)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [perceptron, convnet])
def test_snip_agrees_with_central_differences_by_the_mask(make: Any, seed: int) -> None:
    net, size = make(seed)
    problem = classification(net, size, seed)
    (x, y), weights = whole(problem), {n: p.detach() for n, p in net.named_parameters()}

    def loss(name: str, at: int, m: float) -> float:
        mask = torch.ones_like(weights[name])
        mask.view(-1)[at] = m
        changed = weights | {name: weights[name] * mask}
        return float(F.cross_entropy(torch.func.functional_call(net, changed, (x,)), y))

    step = 1e-5
    brute = {
        name: torch.tensor(
            [
                abs(loss(name, i, 1 + step) - loss(name, i, 1 - step)) / (2 * step)
                for i in range(weights[name].numel())
            ],
            dtype=torch.float64,
        ).view_as(weights[name])
        for name in prunable(net)
    }
    agree(snip.scores(problem), brute, rtol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [perceptron, convnet])
def test_grasp_agrees_with_the_hessian_of_autograd(
    make: Any, seed: int, temperature: float
) -> None:
    net, size = make(seed)
    problem = classification(net, size, seed)
    x, y = whole(problem)
    weights = {n: p.detach() for n, p in net.named_parameters() if p.dim() > 1}  # no bias
    shapes = {n: p.shape for n, p in weights.items()}
    flat = torch.cat([p.flatten() for p in weights.values()])

    def parts(vector: Tensor) -> dict[str, Tensor]:
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(shapes.items(), pieces, strict=True)}

    def loss(vector: Tensor) -> Tensor:
        outputs = torch.func.functional_call(net, parts(vector), (x,))
        return F.cross_entropy(outputs / temperature, y)

    hessian = torch.autograd.functional.hessian(loss, flat)  # classifier included
    gradient = torch.autograd.functional.jacobian(loss, flat)
    every = parts(flat * (hessian @ gradient))
    brute = {name: every[name] for name in prunable(net)}
    agree(grasp.scores(problem, temperature=temperature), brute, rtol=1e-9)


def smooth(seed: int) -> tuple[nn.Module, torch.Size]:
    """Linear layers with biases; no score of a smooth net is exactly 0, so there are no ties."""
    torch.manual_seed(seed)
    layers = (nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3))
    return nn.Sequential(*layers).double(), torch.Size([3])


def normed(seed: int) -> tuple[nn.Module, torch.Size]:
    """Biases, norms and a classifier, none of which is pruned."""
    torch.manual_seed(seed)
    body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 4, 2), nn.Tanh())
    net = nn.Sequential(*body, nn.Flatten(), nn.Linear(16, 3)).double()
    for p in net.parameters():  # norms and biases away from 1 and 0
        p.data += 0.3 * torch.randn_like(p)
    return net, torch.Size([1, 5, 5])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [smooth, normed])
def test_grasp_keeps_the_mask_of_the_rule_of_its_authors(make: Any, seed: int) -> None:
    """Gradient and Hessian by the weights of convolutions and linear layers, nothing else."""
    net, size = make(seed)
    problem = classification(net, size, seed).replace(batch_norm="train")
    problem = problem.replace(batches=[whole(problem)])
    x, y = whole(problem)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    weights = [m.weight for m in layers.values()]
    loss = F.cross_entropy(net.train()(x) / 200, y)
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    flow = sum((g.detach() * g).sum() for g in gradient)
    products = torch.autograd.grad(flow, weights)
    scores = {
        f"{n}.weight": (m.weight * h).detach()
        for (n, m), h in zip(layers.items(), products, strict=True)
    }
    pruned = {n: scores[n] for n in prunable(net)}
    ranked = torch.cat([s.flatten() for s in pruned.values()]).sort(descending=True).values
    for density in KEPT:
        least = ranked[round(density * len(ranked)) - 1]
        mask = METHODS["grasp"](density=density).start(problem, [], seed=0)
        assert mask is not None
        assert {n: m.tolist() for n, m in mask.items()} == {
            n: (s >= least).tolist() for n, s in pruned.items()
        }


def dyadic(seed: int, *widths: int) -> nn.Sequential:
    """Weights in 64ths, so that sums over paths are exact in whatever order, and ties are ties."""
    net, draw = mlp(*widths), torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randint(-127, 128, p.shape, generator=draw).double() / 64
    return net


def listed(sizes: list[Tensor]) -> list[Tensor]:
    """Of each weight, the sum over all paths through it of the product of |w| along them."""
    found, rows = [torch.zeros_like(w) for w in sizes], [w.tolist() for w in sizes]
    widths = [sizes[0].shape[1], *(len(w) for w in sizes)]
    for nodes in itertools.product(*map(range, widths)):
        edges = [(out, into) for into, out in itertools.pairwise(nodes)]
        strength = math.prod(w[out][into] for w, (out, into) in zip(rows, edges, strict=True))
        for total, edge in zip(found, edges, strict=True):
            total[edge] += strength
    return found


def multiplied(sizes: list[Tensor]) -> list[Tensor]:
    """The same, by the strengths of what comes before a weight and of what comes after."""
    before = [torch.ones_like(sizes[0][0])]
    after = [torch.ones_like(sizes[-1][:, 0])]
    for w in sizes[:-1]:
        before.append(w @ before[-1])
    for w in sizes[:0:-1]:
        after.insert(0, after[0] @ w)
    return [a[:, None] * w * b for a, w, b in zip(after, sizes, before, strict=True)]


def cut(weights: list[Tensor], density: float, steps: int, scores: Any) -> list[Any]:
    """What SynFlow leaves, in lists: the best of those that are alive, the earlier of equals.

    In a step, int((1 - density^(s/S)) N) are pruned in all; in the end round(density N) are left.
    """
    alive = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    for step in range(1, steps + 1):
        found = scores([w.abs() * m for w, m in zip(weights, alive, strict=True)])
        pairs = zip(found, alive, strict=True)
        ranked = torch.cat([s.masked_fill(~m, -1).flatten() for s, m in pairs]).tolist()
        order = sorted(range(len(ranked)), key=lambda i: (-ranked[i], i))
        keep = torch.zeros(len(ranked), dtype=torch.bool)
        left = len(ranked) - int((1 - density ** (step / steps)) * len(ranked))
        keep[order[: round(density * len(ranked)) if step == steps else left]] = True
        pieces = keep.split([w.numel() for w in weights])
        alive = [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]
    return [m.tolist() for m in alive]


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("density", KEPT)
@pytest.mark.parametrize("seed", SEEDS)
def test_synflow_agrees_with_sums_over_all_paths(seed: int, density: float, steps: int) -> None:
    net = dyadic(seed, 3, 4, 3, 2)
    mask = Synflow(density=density, steps=steps).start(regression(net, 3, 2), [], seed=0)
    brute = cut([p.detach() for p in net.parameters()], density, steps, listed)
    assert [m.tolist() for m in mask.values()] == brute


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_synflow_agrees_with_products_of_matrices_on_a_larger_net(density: float) -> None:
    net = dyadic(0, 100, 80, 40, 10)
    mask = Synflow(density=density, steps=20).start(regression(net, 100, 10), [], seed=0)
    brute = cut([p.detach() for p in net.parameters()], density, 20, multiplied)
    assert [m.tolist() for m in mask.values()] == brute


class Blocks(nn.Module):
    """Two residual blocks with biases and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i in (0, 2):
            inner = self.norms[i](self.convs[i](x)).relu()
            x = (x + self.norms[i + 1](self.convs[i + 1](inner))).relu()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kept", [18, 70, 300])
@pytest.mark.parametrize("seed", SEEDS)
def test_synflow_keeps_the_mask_of_the_rule_of_its_authors(seed: int, kept: int) -> None:
    """A threshold in each step, at the int((1 - d^(s/S)) N)-th lowest score of all weights."""
    torch.manual_seed(seed)
    net = Blocks()
    names, steps = prunable(net), 100
    count = sum(net.get_parameter(n).numel() for n in names)
    density = (kept - 0.3) / count  # the last step of both leaves as many
    linear = copy.deepcopy(net).double().eval()
    for t in linear.state_dict().values():
        t.abs_()
    weights = [linear.get_parameter(n) for n in names]
    masks = [torch.ones_like(w) for w in weights]
    for s in range(1, steps + 1):
        linear.zero_grad()
        linear(torch.ones(1, 1, 4, 4, dtype=torch.float64)).sum().backward()
        scores = [(w.detach() * w.grad).flatten() for w in weights]
        pruned = int((1 - density ** (s / steps)) * count)
        if pruned:
            threshold = torch.cat(scores).kthvalue(pruned).values
            masks = [
                (x > threshold).view_as(w).double() for x, w in zip(scores, weights, strict=True)
            ]
        for m, w in zip(masks, weights, strict=True):
            w.data *= m
    blank = Problem(net, [(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))])
    mask = Synflow(density=density, steps=steps).start(blank, [], seed=0)
    assert mask.alive == kept
    assert [m.tolist() for m in mask.values()] == [m.bool().tolist() for m in masks]


# methods that score nothing at the start


def perceptron_of_the_pipeline(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return sd.models.build("mlp")


def blank(net: nn.Module, size: int) -> Problem:
    return Problem(net, [(torch.zeros(2, 1, size, size), torch.tensor([0, 1]))])


def trained(net: nn.Module) -> sd.Checkpoint:
    """A checkpoint of the net with other weights."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        state = {n: torch.randn_like(t) if t.dim() > 1 else t for n, t in net.state_dict().items()}
    return sd.Checkpoint(model="trained", options={}, weights=state)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", ["rigl", "set", "magnitude", "lottery", "learned"])
@pytest.mark.parametrize("make", [resnet, perceptron_of_the_pipeline])
def test_others_keep_as_many_weights_as_asked_and_the_same_twice(
    make: Any, name: str, density: float
) -> None:
    masks = []
    for seed in (1, 2):
        net = make()
        problem = blank(net, 8 if make is resnet else 28)
        torch.manual_seed(seed)
        before = () if name in ("rigl", "set") else (trained(net),)
        masks.append(METHODS[name](density=density).start(problem, before, seed=0))
    mask, again = masks
    assert mask is not None
    assert list(mask) == prunable(net)
    assert mask.alive == round(density * mask.size)
    assert mask == again
    assert mask.digest == again.digest


def test_magnitude_at_the_initialisation_empties_the_wide_layer() -> None:
    net = perceptron_of_the_pipeline()
    kept = sd.Checkpoint.of(net, model="mlp", options={})
    first = {}
    for density in (0.1, 0.25):
        mask = METHODS["magnitude"](density=density).start(blank(net, 28), (kept,), seed=0)
        assert mask is not None
        assert mask.alive == round(density * 119_400)
        (_, first[density], size), *others = mask.table()
        assert size == 78_400
        assert all(alive for _, alive, _ in others)
    assert first[0.1] == 0
    assert first[0.25] > 0


@pytest.mark.parametrize("density", [0.02, 0.001])
def test_synflow_down_to_nothing(density: float) -> None:
    problem = Problem(mlp(3, 4, 2), [(torch.ones(1, 3).double(), torch.zeros(1, dtype=torch.long))])
    assert Synflow(density=density).start(problem, [], seed=0).alive == 0
