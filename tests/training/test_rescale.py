"""Rescale: Adam by hand, finite differences in float64, and what must stay as it was."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Checkpoint, Mask, prunable
from sparsediag.data import datasets
from sparsediag.models import Ghost, GhostSkip, build
from training.config import Run
from training.loop import fit
from training.setup import Start, finished, start
from training.tweaks import TrainingContext
from training.tweaks.rescale import BETAS, EPS, Batches, Rescale, ScaleSearch

KINDS = ("norm", "loss")
NETS = ("resnet20", "mlp")
kinds = pytest.mark.parametrize("kind", KINDS)
nets = pytest.mark.parametrize("name", NETS)


class Spied(ScaleSearch):
    """Remembers the slopes."""

    def adam_step(self, kind: str, slope: Tensor) -> None:
        self.seen = [*getattr(self, "seen", []), (kind, slope)]
        super().adam_step(kind, slope)


def net_of(name: str = "resnet20", seed: int = 0, activation: str = "relu") -> nn.Module:
    torch.manual_seed(seed)
    width = 3 if name == "resnet20" else 8
    return build(name, width=width, channels=1, size=8, activation=activation)


def mask_of(net: nn.Module, density: float = 0.3, seed: int = 0) -> Mask:
    chance = torch.Generator().manual_seed(seed)
    shapes = {name: net.get_parameter(name).shape for name in prunable(net)}
    return Mask.top({n: torch.rand(s, generator=chance) for n, s in shapes.items()}, density)


def batches_of(size: int = 16, dtype: torch.dtype = torch.float32) -> Batches:
    """Digits without end, the same ones in every call."""
    parts = datasets.load("digits").batches("train", images=8 * size, batch=size)
    return chain.from_iterable(repeat([(x.to(dtype), y) for x, y in parts]))


def tweak_of(kind: str = "loss", **options: Any) -> Rescale:
    """All of whose steps are of one kind."""
    return Rescale(gamma=1e-12 if kind == "norm" else math.inf, **options)


def exact(kind: str, name: str, **options: Any) -> Spied:
    """The search in float64, in a masked net without kinks."""
    net = net_of(name, activation="swish").double()
    return Spied(tweak_of(kind, **options), net, mask_of(net))


def scene_of(net: nn.Module, mask: Mask | None) -> TrainingContext:
    return TrainingContext(net, mask, batches_of(), ())


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in net.named_parameters()}


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return next(batches_of(32, dtype))


def differences(value: Any, at: Tensor, width: float = 1e-5) -> Tensor:
    """Central differences of a function of the scales."""
    moves = width * torch.eye(len(at), dtype=at.dtype)
    return torch.stack([(value(at + e) - value(at - e)) / (2 * width) for e in moves]).detach()


# Adam


@kinds
@nets
def test_the_first_step_changes_every_scale_by_the_learning_rate(name: str, kind: str) -> None:
    scaling = exact(kind, name, lr=0.02)
    scaling.step(batches_of(dtype=torch.float64))
    ((done, slope),) = scaling.seen
    moved = 1 - scaling.scales
    assert done == kind
    torch.testing.assert_close(moved, 0.02 * slope / (slope.abs() + EPS), rtol=1e-9, atol=0)
    steep = slope.abs() > 1e-5
    assert steep.sum() > len(slope) / 2
    torch.testing.assert_close(moved[steep], 0.02 * slope[steep].sign(), rtol=1e-3, atol=0)


@kinds
def test_a_long_first_step_ends_at_the_floor_or_as_far_above(kind: str) -> None:
    net = net_of("mlp")
    scaling = Spied(tweak_of(kind, lr=2.0), net, mask_of(net))
    scaling.step(batches_of())
    ((_, slope),) = scaling.seen
    for n, s, by in zip(scaling.start, scaling.scales.tolist(), slope.tolist(), strict=True):
        least = 0 if n.endswith("bias") else 0.01
        assert s == pytest.approx(max(1 - 2 * by / (abs(by) + EPS), least), rel=1e-5)


@pytest.mark.parametrize("order", ["norm norm norm", "norm loss loss norm loss norm", "loss norm"])
def test_the_kinds_share_squares_and_have_their_own_means(order: str) -> None:
    scaling = exact("loss", "mlp", lr=0.05)
    chance = torch.Generator().manual_seed(0)
    size = len(scaling.start)
    slopes = [torch.rand(size, generator=chance).double() * 2 - 1 for _ in order.split()]
    for kind, slope in zip(order.split(), slopes, strict=True):
        scaling.adam_step(kind, slope)
    for i in range(size):
        scale, square, means, counts = 1.0, 0.0, dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0)
        for t, (kind, slope) in enumerate(zip(order.split(), slopes, strict=True), 1):
            g = float(slope[i])
            counts[kind] += 1
            means[kind] = BETAS[0] * means[kind] + (1 - BETAS[0]) * g
            square = BETAS[1] * square + (1 - BETAS[1]) * g * g
            mean = means[kind] / (1 - BETAS[0] ** counts[kind])
            scale -= 0.05 * mean / (math.sqrt(square / (1 - BETAS[1] ** t)) + EPS)
            scale = max(scale, float(scaling.min_scales[i]))
        assert float(scaling.scales[i]) == pytest.approx(scale, rel=1e-10)


def test_one_kind_alone_is_torchs_adam() -> None:
    scaling = exact("loss", "mlp")
    other = scaling.scales.clone().requires_grad_()
    optimiser = torch.optim.Adam([other], lr=0.01)
    chance = torch.Generator().manual_seed(0)
    for _ in range(20):
        other.grad = torch.randn(len(other), generator=chance).double()
        scaling.adam_step("loss", other.grad)
        optimiser.step()
    torch.testing.assert_close(scaling.scales, other.detach(), rtol=1e-10, atol=0)


def test_slopes_are_cut_at_1() -> None:
    scaling = exact("loss", "mlp", eta=1e-3)
    scaling.step(batches_of(dtype=torch.float64))
    ((_, slope),) = scaling.seen
    assert slope.abs().max() == 1


# slopes


@nets
def test_the_slope_of_the_norm_is_that_of_finite_differences(name: str) -> None:
    scaling = exact("norm", name)
    batches = list(islice(batches_of(dtype=torch.float64), 2))
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    at = scaling.scales.clone()
    expected = differences(lambda s: _norm(scaling, s, x, y), at)
    scaling.step(iter(batches))
    assert expected.abs().max() > 0.01
    ((_, slope),) = scaling.seen
    torch.testing.assert_close(slope, expected.clamp(-1, 1), rtol=1e-6, atol=1e-8)


def _norm(scaling: ScaleSearch, scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return scaling.gradient(scaling.scale_weights(scales.detach().requires_grad_()), x, y)[
        1
    ].detach()


@nets
def test_the_slope_of_the_loss_is_that_with_the_step_held_fixed(name: str) -> None:
    scaling = exact("loss", name)
    batches = list(islice(batches_of(dtype=torch.float64), 3))
    x, y = (torch.cat(parts) for parts in zip(*batches[:2], strict=True))
    again, labels = (torch.cat(parts) for parts in zip(batches[0], batches[2], strict=True))
    at = scaling.scales.clone()
    gradient, norm = scaling.gradient(scaling.scale_weights(at.requires_grad_()), x, y)

    def value(scales: Tensor) -> Tensor:
        ahead = scaling.look_ahead(scaling.scale_weights(scales), gradient, norm)
        return scaling.loss(ahead, again, labels) / scaling.tweak.eta

    expected = differences(value, at.detach())
    scaling.step(iter(batches))
    assert expected.abs().max() > 0.01
    ((_, slope),) = scaling.seen
    torch.testing.assert_close(slope, expected.clamp(-1, 1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("gamma", "kind", "drawn"), [(1e-3, "norm", 2), (1e3, "loss", 3)])
def test_the_norm_is_lowered_where_it_is_above_gamma(gamma: float, kind: str, drawn: int) -> None:
    net, taken = net_of("mlp"), []

    def counted() -> Iterator[tuple[Tensor, Tensor]]:
        for pair in batches_of():
            taken.append(pair)
            yield pair

    scaling = Spied(Rescale(gamma=gamma), net, None)
    scaling.step(counted())
    assert [done for done, _ in scaling.seen] == [kind]
    assert len(taken) == drawn


# the gradient and the step ahead


@nets
def test_the_step_ahead_has_length_eta_and_leaves_the_dead_alone(name: str) -> None:
    scaling = exact("loss", name, eta=0.3)
    weights = scaling.scale_weights(scaling.scales.requires_grad_())
    ahead = scaling.look_ahead(weights, *scaling.gradient(weights, *sample()))
    moves = {n: (ahead[n] - w).detach() for n, w in weights.items()}
    length = sum(float(m.square().sum()) for m in moves.values()) ** 0.5
    assert length == pytest.approx(0.3, rel=1e-10)
    assert scaling.mask is not None
    for n, m in scaling.mask.items():
        assert moves[n][m].any()
        assert not moves[n][~m].any()
        assert not ahead[n][~m].any()


@nets
def test_the_gradient_is_that_of_the_masked_net(name: str) -> None:
    scaling = exact("loss", name)
    x, y = sample()
    found, norm = scaling.gradient(scaling.scale_weights(scaling.scales.requires_grad_()), x, y)
    assert scaling.mask is not None
    net = copy.deepcopy(scaling.net)
    scaling.mask.apply_(net)
    F.cross_entropy(net.train()(x), y).backward()
    for n, g in found.items():
        expected = net.get_parameter(n).grad
        assert expected is not None
        expected = expected * scaling.mask[n] if n in scaling.mask else expected
        torch.testing.assert_close(g.detach(), expected, rtol=1e-9, atol=1e-12)
    assert norm.item() == pytest.approx(
        torch.cat([g.flatten() for g in found.values()]).norm().item()
    )


def test_batch_norm_makes_the_slope_along_a_convolution_0() -> None:
    scaling = exact("loss", "resnet20")
    weights = scaling.scale_weights(scaling.scales.requires_grad_())
    gradient, _ = scaling.gradient(weights, *sample())
    for name in prunable(scaling.net):
        assert gradient[name].any()
        assert abs((weights[name] * gradient[name]).sum().item()) < 1e-4


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_before_batch_norm_the_gradient_falls_as_the_weights_grow(scale: float) -> None:
    scaling = exact("loss", "resnet20")
    with torch.no_grad():
        for module in scaling.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-12
    norms = []
    for by in (1.0, scale):
        scales = torch.full_like(scaling.scales, 1.0)
        for i, name in enumerate(scaling.start):
            scales[i] = by if name in prunable(scaling.net) else 1.0
        gradient, _ = scaling.gradient(scaling.scale_weights(scales.requires_grad_()), *sample())
        norms.append([gradient[name].norm().item() for name in prunable(scaling.net)])
    assert norms[1] == pytest.approx([n / scale for n in norms[0]], rel=1e-5)


# what is scaled


@kinds
@nets
def test_a_tensor_is_its_first_value_times_a_scale_above_the_least(name: str, kind: str) -> None:
    net = net_of(name)
    mask, before = mask_of(net), weights_of(net)
    scales = tweak_of(kind, steps=6, lr=0.3).start(scene_of(net, mask))
    floors = {n: 0.0 if n.endswith("bias") else 0.01 for n in scales}
    assert all(s >= floors[n] or s == pytest.approx(floors[n]) for n, s in scales.items())
    assert any(s == pytest.approx(floors[n]) for n, s in scales.items())
    assert len(set(scales.values())) > 3
    for n, w in net.named_parameters():
        assert torch.equal(w, before[n] * scales.get(n, 1.0))
    mask.apply_(net)
    for n, s in scales.items():
        live = mask.get(n, torch.ones_like(before[n], dtype=torch.bool))
        assert not net.get_parameter(n)[~live].any()
        if s > 0:
            now, then = net.get_parameter(n)[live].double(), before[n][live].double()
            assert F.cosine_similarity(now, then, 0).item() == pytest.approx(1, abs=1e-12)


def test_tensors_of_zeros_are_left_out() -> None:
    net = net_of()
    mask = Mask({**mask_of(net), "layer1.1.conv1.weight": torch.zeros(3, 3, 3, 3) > 0})
    before = weights_of(net)
    scales = Rescale(steps=2).start(scene_of(net, mask))
    norms = [n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    left = before.keys() - scales.keys()
    assert left == {f"{n}.bias" for n in norms} | {"layer1.1.conv1.weight"}
    assert all(torch.equal(net.get_parameter(n), before[n]) for n in left)
    assert {"fc.bias", "bn1.weight", "conv1.weight"} <= scales.keys()


@pytest.mark.parametrize(
    ("epoch_steps", "limit", "plan"),
    [
        (352, 1.0, (180, 24, 0.01)),  # CIFAR-10 without the validation images, batches of 128
        (10, 1.0, (6, 16, 0.2)),  # the digits
        (10, 20.0, (123, 16, 180 / 123 / 100)),
        (10, 0.1, (1, 16, 0.2)),
        (10**5, 1.0, (180, 256, 0.01)),
        (10, 0.0, (180, 256, 0.01)),
        (0, 1.0, (180, 256, 0.01)),
    ],
)
def test_the_search_takes_no_longer_than_its_limit(
    epoch_steps: int, limit: float, plan: tuple[int, int, float]
) -> None:
    context = replace(scene_of(net_of("mlp"), None), epoch_steps=epoch_steps, batch_size=128)
    steps, images, lr = Rescale(limit=limit).plan(context)
    assert (steps, images, lr) == (plan[0], plan[1], pytest.approx(plan[2]))
    if limit and epoch_steps:
        assert steps == 1 or steps * (1 + 5 * images / 128) <= limit * epoch_steps


def test_the_history_says_how_the_scales_were_learned(tmp_path: Path) -> None:
    checkpoint = last(run_of({"rescale": {"limit": 8.0, "steps": 5}}), tmp_path)
    first, *others = checkpoint.history
    assert [first[k] for k in ("rescale_steps", "rescale_images")] == [5, 296]
    assert first["rescale_lr"] == 0.01
    assert not any("rescale_steps" in row for row in others)


def test_no_steps_change_nothing() -> None:
    net = net_of("mlp")
    before = weights_of(net)
    assert set(Rescale(steps=0).start(scene_of(net, mask_of(net))).values()) == {1.0}
    assert all(torch.equal(w, before[n]) for n, w in net.named_parameters())


@nets
def test_without_the_mask_the_scales_are_those_of_the_dense_net(name: str) -> None:
    def learned(masked: bool, density: float | None) -> dict[str, float]:
        net = net_of(name)
        mask = None if density is None else mask_of(net, density)
        return Rescale(steps=3, masked=masked).start(scene_of(net, mask))

    assert learned(False, 0.2) == learned(True, None) == learned(False, None)
    assert learned(True, 0.2) != learned(False, 0.2)
    assert learned(True, 1.0) == learned(True, None)


@pytest.mark.parametrize(("ghosts", "stay"), [(False, False), (True, False), (False, True)])
def test_the_scales_are_those_of_the_net_without_ghosts_that_fade(ghosts: bool, stay: bool) -> None:
    def found(**options: Any) -> dict[str, float]:
        torch.manual_seed(0)
        net = build("resnet20", width=3, channels=1, size=8, **options)
        for m in net.modules():
            if isinstance(m, GhostSkip):
                m.fade(0.7)
        scene = replace(scene_of(net, mask_of(net)), permanent_ghosts=stay)
        scales = Rescale(steps=3, ghosts=ghosts).start(scene)
        left = {round(m.strength, 6) for m in net.modules() if isinstance(m, Ghost)}
        assert left == ({1.0, 0.7} if options else set())
        return scales

    haunted = found(skips="average", activation="ghost")
    assert (haunted == found()) == (not ghosts and not stay)


@pytest.mark.parametrize("group", ["tost", "at+trt"])
def test_a_run_knows_whether_its_ghosts_stay(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes: list[TrainingContext] = []
    monkeypatch.setattr(Rescale, "start", lambda _, scene: scenes.append(scene))
    begin(run_of([group]), tmp_path)
    assert [scene.permanent_ghosts for scene in scenes] == [group == "at+trt"]


def test_nothing_of_the_net_changes_but_its_weights() -> None:
    net = net_of().train()
    net.get_submodule("layer2").eval()
    net.get_parameter("fc.weight").requires_grad_(False)
    net.get_parameter("fc.bias").grad = torch.arange(10.0)
    names = list(dict(net.named_modules()))
    modes = [m.training for m in net.modules()]
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    chance = torch.get_rng_state()
    Rescale(steps=4, gamma=1.0).start(scene_of(net, mask_of(net)))
    assert torch.equal(torch.get_rng_state(), chance)
    assert list(dict(net.named_modules())) == names
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())
    assert {n for n, b in buffers.items() if n.endswith("num_batches_tracked") and b == 0}
    assert [n for n, w in net.named_parameters() if not w.requires_grad] == ["fc.weight"]
    grads = {n: w.grad for n, w in net.named_parameters() if w.grad is not None}
    assert list(grads) == ["fc.bias"]
    assert torch.equal(grads["fc.bias"], torch.arange(10.0))
    assert all(w.is_leaf for w in net.parameters())


# what it is for


def test_the_loss_after_one_step_is_lower_than_without() -> None:
    gains = []
    for seed in range(3):
        net = net_of("resnet20", seed)
        mask = mask_of(net, seed=seed)
        mask.apply_(net)
        plain = copy.deepcopy(net)
        Rescale(steps=15, lr=0.02).start(TrainingContext(net, mask, batches_of(48), ()))
        gains.append(_after_a_step(plain, mask) - _after_a_step(net, mask))
    assert sum(gains) / len(gains) > 0


def _after_a_step(net: nn.Module, mask: Mask, eta: float = 0.1) -> float:
    """The loss on held-out images after a step of length eta along the masked gradient."""
    data = datasets.load("digits")
    x, y = data.batches("train", images=256, batch=256, seed=1)[0]
    weights = dict(net.train().named_parameters())
    slopes = torch.autograd.grad(F.cross_entropy(net(x), y), list(weights.values()))
    masked = [g * mask[n] if n in mask else g for n, g in zip(weights, slopes, strict=True)]
    norm = sum(float(g.square().sum()) for g in masked) ** 0.5
    with torch.no_grad():
        for w, g in zip(weights.values(), masked, strict=True):
            w.sub_(g, alpha=eta / norm)
        losses = [F.cross_entropy(net(x), y).item() for x, y in data.batches("test", batch=124)]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps = -1: need 0 or more"),
        ({"lr": 0.0}, "lr = 0.0: need a positive number"),
        ({"eta": -1.0}, "eta = -1.0: need a positive number"),
        ({"gamma": math.nan}, "gamma = nan: need a positive number"),
        ({"limit": -1.0}, "limit = -1.0: need 0 or a positive"),
        ({"min_scale": 1.0}, r"min_scale = 1.0: need a scale in \[0, 1\)"),
        ({"min_scale": -0.1}, "min_scale = -0.1: need a scale"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rescale(**options)


# in the training loop


def run_of(tweaks: Any, **table: Any) -> Run:
    model = {"name": "mlp", "width": 12}
    optim = {"epochs": 3, "batch_size": 390}
    mask = {"method": "random", "density": 0.5}
    return Run.of(
        {"data": "digits", "model": model, "optim": optim, "mask": mask, "tweaks": tweaks} | table
    )


def begin(run: Run, out: Path) -> Start:
    return start(run, datasets.load(run.data), out=out, device=torch.device("cpu"))


def last(run: Run, out: Path, **options: Any) -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu", **options).with_name("last.pt"))


def test_a_run_starts_from_the_scaled_weights(tmp_path: Path) -> None:
    plain, scaled = (begin(run_of(tweaks), tmp_path) for tweaks in ([], ["rescale"]))
    scales = scaled.tweak_states["rescale"]
    assert scaled.mask == plain.mask
    assert len(scales) == 12
    assert all(abs(s - 1) > 1e-3 for s in scales.values())
    for name, w in plain.net.named_parameters():
        assert torch.equal(scaled.net.get_parameter(name), w * scales[name])


def test_a_run_with_it_trains_and_is_the_same_twice(tmp_path: Path) -> None:
    one = last(run_of(["rescale"]), tmp_path / "one")
    torch.rand(3)
    other = last(run_of(["rescale"]), tmp_path / "other")
    plain = last(run_of([]), tmp_path / "plain")
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]
    assert all(torch.equal(t, other.weights[n]) for n, t in one.weights.items())
    assert any(not torch.equal(t, plain.weights[n]) for n, t in one.weights.items())
    assert one.mask is not None
    assert one.mask == plain.mask
    assert not any(one.weights[n][~m].any() for n, m in one.mask.items())


def test_an_interrupted_run_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.SAVE_EVERY", 0.0)
    run = run_of({"rescale": {"steps": 10}})

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = last(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        last(run, tmp_path / "cut", on_epoch=stop)
    cut = last(run, tmp_path / "cut")
    assert finished(tmp_path / "cut" / "runs" / run.id)
    assert all(torch.equal(t, cut.weights[n]) for n, t in whole.weights.items())
