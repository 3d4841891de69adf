"""Gradients and activations of training steps: read in time, and from hooks that end."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from watched import Transformer, cnn, half, images, tokens

import sparsediag as sd


def test_the_window() -> None:
    """Of 100 steps the last two count, and validation does not; hooks exist in the window only."""
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    net.register_parameter("weight", nn.Parameter(torch.ones(1)))
    with sd.Watch(net, every=100, metrics="activations", modules="0", file=None) as watch:
        for step in range(100):
            assert bool(net._forward_pre_hooks) == (step >= 98)
            net(
                torch.full((4, 2), step - 98.0)
            )  # 0 in the first step of the window, 1 in the second
            assert not net[1]._forward_hooks
            net.eval()
            net(torch.zeros(4, 2))
            with torch.no_grad():
                net.train()(torch.zeros(4, 2))
            row = watch.step()
    assert not net._forward_pre_hooks
    assert row
    assert [row["activations/zeros"], row["activations/dead"]] == [0.5, 0.0]
    assert row["activations/zeros/0"] == 0.5


def test_a_pass_that_fails_leaves_no_hook_and_its_own_error() -> None:
    net = Transformer()
    with sd.Watch(net, every=1, metrics="activations", file=None) as watch:
        hooks = [len(m._forward_hooks) for m in net.modules()]
        with pytest.raises(IndexError, match="index out of range"):
            net(torch.full((2, 3), 12))
        assert [len(m._forward_hooks) for m in net.modules()] == hooks
        assert torch.overrides._get_current_function_mode_stack() == []
        F.cross_entropy(net(tokens(0)[0]), tokens(0)[1]).backward()
        row = watch.step()
    assert row
    assert row["activations/zeros"] == 0.0 or row["activations/zeros"] > 0.1
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_copies_of_the_net_are_not_watched_and_hooks_end_with_the_watch() -> None:
    net = cnn()
    watch = sd.Watch(net, every=1, metrics="activations,gradient", file=None)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for other in copies:
        other(images(0)[0]).sum().backward()
    assert watch.step() == {"step": 1, "watch_seconds": pytest.approx(0, abs=1)}
    del watch
    assert not net._forward_pre_hooks


def test_gradients_that_the_loop_sets_to_zero() -> None:
    """With `optimizer` they are read before the step, of each of several optimizers."""
    norms = {}
    for given in (False, True):
        torch.manual_seed(0)
        net = cnn()
        net[0].bias.requires_grad_(False)
        parts = [
            torch.optim.Adam(net[0].parameters()),
            torch.optim.SGD([*net[1].parameters(), *net[4].parameters()], lr=0.1, momentum=0.9),
        ]
        options = {"optimizer": parts} if given else {}
        with sd.Watch(net, every=1, metrics="gradient,update", file=None, **options) as watch:
            F.cross_entropy(net(images(0)[0]), images(0)[1]).backward()
            expected = net[0].weight.grad.norm().item()
            for part in parts:
                part.step()
                if given:
                    part.zero_grad(set_to_none=False)
            row = watch.step()
        assert row
        norms[given] = row["gradient/live"]
        assert norms[given] == pytest.approx(expected)
        assert [key for key in row if "lr" in key] == (["lr/0", "lr/1"] if given else [])
    assert norms[False] == norms[True]


def test_a_gradient_that_is_gone_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    net = cnn()
    with sd.Watch(net, every=1, metrics="gradient,update", file=None) as watch:
        rows = [watch.step() for _ in range(3)]
    assert all(row and "gradient/live" not in row for row in rows)
    assert [line for line in caplog.messages if "optimizer=" in line] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler(fused: bool) -> None:
    """Gradients are unscaled, and a step that the scaler skips moves nothing."""
    torch.manual_seed(0)
    net, scaler = cnn(), torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    with sd.Watch(net, optimizer=optimizer, every=1, file=None) as watch:
        loss = F.cross_entropy(net(images(0)[0]), images(0)[1])
        expected = torch.autograd.grad(loss, net[0].weight, retain_graph=True)[0].norm().item()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        row = watch.step(loss)
        assert row
        assert row["gradient/live"] == pytest.approx(expected)
        assert row["update/kept"] > 0
        scaler.scale(net(images(0)[0]).sum() * torch.inf).backward()
        scaler.step(optimizer)
        skipped = watch.step()
        assert skipped
        assert skipped["update/kept"] == 0
    assert not net._forward_pre_hooks


def test_an_optimizer_hook_counts_the_steps() -> None:
    net = cnn()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rows: list[dict[str, Any]] = []
    watch = sd.Watch(
        net, optimizer=optimizer, every=2, metrics="gradient", file=None, log=rows.append
    )
    optimizer.register_step_post_hook(watch)
    for step in range(4):
        optimizer.zero_grad()
        F.cross_entropy(net(images(step)[0]), images(step)[1]).backward()
        optimizer.step()
    assert [row["step"] for row in rows] == [2, 4]


@pytest.mark.parametrize("passed", ["compiled", "plain", "later"])
def test_a_compiled_net(passed: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    net = cnn()
    compiled: Any = net if passed == "later" else torch.compile(net, backend="eager")
    given: Any = compiled if passed == "compiled" else net
    mask = half(net)
    mask.apply_(net)
    with sd.Watch(given, mask=mask, probe=[images(9)], every=1, file=None) as watch:
        if passed == "later":
            net.compile(backend="eager")  # in place
            watch.steps = 0
        F.cross_entropy(compiled(images(0)[0]), images(0)[1]).backward()
        with torch.no_grad():
            net[0].weight -= 0.1 * net[0].weight.grad
        mask.apply_(net)
        with torch.compiler.set_stance("fail_on_recompile"):  # nor is anything compiled again
            row = watch.step()
    assert row
    problem = sd.Problem(net, [images(9)], mask=mask)
    assert row["probe_activations/zeros"] == sd.activations(problem).zeros[0]
    assert row["update/kept"] > 0
    assert row["gradient/live"] > 0
    assert any(line.startswith("watch: activations") for line in caplog.messages)


def test_the_learning_rate_is_that_of_the_step() -> None:
    """A scheduler has moved on when the watch counts the step."""
    torch.manual_seed(0)
    net = cnn()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    options: dict[str, Any] = {"metrics": "critical_sharpness", "probe": [images(9)], "file": None}
    with sd.Watch(net, optimizer=optimizer, every=1, **options) as watch:
        for rate in (0.5, 0.05):
            optimizer.zero_grad()
            F.cross_entropy(net(images(0)[0]), images(0)[1]).backward()
            optimizer.step()
            scheduler.step()
            row = watch.step()
            assert row
            assert row["lr"] == pytest.approx(rate)
            assert row["critical_sharpness"] == pytest.approx(2 / (rate * row["critical_step"]))


def test_a_pass_that_is_computed_again_counts_once() -> None:
    """Activation checkpointing computes a part again in the backward pass."""
    rows = []
    for again in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.ReLU()), nn.ReLU())
        if again:
            net[0].forward = partial(checkpoint, net[0].forward, use_reentrant=False)
        with sd.Watch(net, every=1, metrics="activations,noise", file=None) as watch:
            for step in range(2):
                net.zero_grad()
                net(images(step)[0]).square().mean().backward()
                row = watch.step()
        rows.append({k: v for k, v in (row or {}).items() if k != "watch_seconds"})
    assert rows[0] == rows[1]
    assert "noise/scale_not_converged" in rows[0]  # in samples, which are counted once


def test_an_optimizer_that_computes_several_gradients(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    net = nn.Linear(36, 3)
    optimizer, norms = torch.optim.LBFGS(net.parameters(), max_iter=3), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images(0)[0].flatten(1)), images(0)[1])
        loss.backward()
        norms.append(net.weight.grad.norm().item())
        return loss

    options: dict[str, Any] = {"metrics": "gradient,noise", "file": None}
    with sd.Watch(net, optimizer=optimizer, every=1, **options) as watch:
        rows = [watch.step(optimizer.step(closure)) for _ in range(2)]
    assert rows[-1]
    assert rows[-1]["gradient/live"] == pytest.approx(norms[-1])
    assert not any("noise" in key for key in rows[-1])
    assert [line for line in caplog.messages if "LBFGS" in line] == caplog.messages


def test_steps_without_gradients_leave_no_trace_in_the_noise_scale() -> None:
    """A gradient scaler skips steps; no number of theirs is kept."""
    net = nn.Linear(4, 1, bias=False)
    rows: list[dict[str, Any]] = []
    draw = torch.Generator().manual_seed(0)
    with sd.Watch(net, metrics="gradient,noise", every=1, file=None, log=rows.append) as watch:
        for step in range(9):
            net.zero_grad()
            net(1 + torch.randn(32, 4, generator=draw)).mean().backward()
            net.weight.grad *= torch.nan if step == 2 else 1
            watch.step()
    scales = [row.get("noise/scale", row.get("noise/scale_not_converged")) for row in rows]
    assert [step for step, scale in enumerate(scales) if scale is None] == [0, 2, 3]
    assert all(scale < 10 for scale in scales if scale is not None)
