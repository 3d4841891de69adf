"""Gradients and activations of training steps: read in time, and from hooks that end."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
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


@pytest.mark.parametrize("passed", ["compiled", "plain"])
def test_a_compiled_net(passed: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    net = cnn()
    compiled = torch.compile(net, backend="eager")
    given: Any = compiled if passed == "compiled" else net
    mask = half(net)
    with sd.Watch(given, mask=mask, probe=[images(9)], every=1, file=None) as watch:
        F.cross_entropy(compiled(images(0)[0]), images(0)[1]).backward()
        with torch.no_grad():
            net[0].weight -= 0.1 * net[0].weight.grad
        row = watch.step()
    assert row
    problem = sd.Problem(net, [images(9)], mask=mask)
    assert row["probe_activations/zeros"] == sd.activations(problem).zeros[0]
    assert row["update/kept"] > 0
    assert row["gradient/live"] > 0
    assert any(line.startswith("watch: activations") for line in caplog.messages)
