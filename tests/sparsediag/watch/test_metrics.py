"""The numbers of Watch are those of the diagnostics at the same step."""

from __future__ import annotations

import copy
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watched import cnn, images

import sparsediag as sd


class Setting:
    """A masked net in float64 after two steps, with a row for each, and what it was before."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.net = cnn().double()
        scores = [{"0.weight": torch.rand(4, 1, 3, 3)} for _ in range(2)]
        masks = [sd.Mask.top(score, 0.5) for score in scores]
        self.previous, self.mask = masks
        self.rows: list[dict[str, Any]] = []
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.probe = [(x.double(), y) for x, y in [images(99, 16)]]
        self.batches = [(x.double(), y) for x, y in map(images, range(2))]
        options = {
            "optimizer": self.optimizer,
            "probe": self.probe,
            "log": self.rows.append,
        } | options
        present = self.previous
        watch = sd.Watch(self.net, mask=lambda: present, every=1, file=None, **options)
        self.gradients = []
        with watch:
            for present, (x, y) in zip((self.previous, self.mask), self.batches, strict=True):
                present.apply_(self.net)
                self.before = copy.deepcopy(self.net)
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.net(x), y)
                loss.backward()
                self.gradients.append(torch.cat([p.grad.flatten() for p in self.net.parameters()]))
                self.optimizer.step()
                present.apply_(self.net)
                watch.step(loss)
        self.row = self.rows[-1]

    def problem(self, net: nn.Module, batches: Any, **options: Any) -> sd.Problem:
        return sd.Problem(net, batches, mask=self.mask, **options)

    def entries(self, prefix: str) -> dict[str, float]:
        return {k.removeprefix(prefix): v for k, v in self.row.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(modules="1,2", top=2)


def close(one: dict[str, float], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(one.values()), [float(two[k]) for k in one], rtol=1e-10)


def flows(result: sd.Gradflow) -> dict[str, float]:
    groups = {"live": result.flow, "dead": result.dead_flow, "regrown": result.regrown_flow}
    norms = {name: float(np.linalg.norm(flow)) for name, flow in groups.items()}
    return norms | {"flow": result.mean}


def shares(problem: sd.Problem) -> dict[str, float]:
    overall, chosen = sd.activations(problem), sd.activations(problem, modules="1,2")
    row = {"zeros": overall.zeros[0], "dead": overall.dead[0]}
    for i, name in enumerate(chosen.names):
        row |= {f"zeros/{name}": chosen.zeros[i], f"dead/{name}": chosen.dead[i]}
    return row


def test_numbers_of_the_training_step(setting: Setting) -> None:
    """They are those of the diagnostics on the step's batch, at the weights before the step."""
    before = setting.problem(setting.before, setting.batches[-1:], batch_norm="train")
    assert setting.row["loss"] == pytest.approx(before.value(), rel=1e-12)
    assert setting.row["lr"] == 0.1
    close(setting.entries("activations/"), shares(before))
    close(setting.entries("gradient/"), flows(sd.gradflow(before, previous_mask=setting.previous)))


def test_numbers_of_the_mask(setting: Setting) -> None:
    now, before = setting.mask["0.weight"], setting.previous["0.weight"]
    shared = int((now & before).sum()) / 18
    ratios = {}
    for name, group in (("kept", now & before), ("regrown", now & ~before)):
        nets = setting.before, setting.net
        old, new = (net.get_parameter("0.weight").detach()[group] for net in nets)
        ratios[name] = float((new - old).norm() / new.norm())
    close(setting.entries("update/"), ratios)
    expected = {"density": 0.5, "turnover": 1 - shared, "survival": shared, "dead_not_zero": 0}
    close(setting.entries("mask/"), expected)


def test_numbers_on_the_probe(setting: Setting) -> None:
    """They are those of the diagnostics on a problem that is made of the net afterwards."""
    problem = setting.problem(setting.net, setting.probe)
    assert setting.row["probe_loss"] == pytest.approx(problem.value(), rel=1e-12)
    close(setting.entries("probe_activations/"), shares(problem))
    flow = flows(sd.gradflow(problem, previous_mask=setting.previous))
    close(setting.entries("probe_gradient/"), flow)
    offline = sd.spectrum(problem, top=2, tol=1e-6).eigenvalues
    row = setting.entries("eigenvalue/")
    assert row.keys() == {"1", "1_residual", "2", "2_residual"}
    assert [row["1"], row["2"]] == pytest.approx(offline.tolist(), rel=1e-3)
    assert 1e-6 < row["1_residual"] < 1e-2
    u = problem.weights - setting.problem(setting.before, setting.probe).weights
    curvature = float(u @ sd.Curvature(problem)(u) / (u @ u))
    assert setting.row["update_curvature"] == pytest.approx(curvature, rel=1e-6)
    start, step = problem.weights - u, setting.row["critical_step"]
    lower, upper = (
        problem.value(start + f * step * u) - problem.value(start) for f in (0.97, 1.03)
    )
    assert lower < 0 < upper
    assert setting.row["critical_sharpness"] == pytest.approx(2 / (0.1 * step))


def test_the_gradient_noise_scale(setting: Setting) -> None:
    g, h = setting.gradients
    spread, product = float((g - h).square().sum()) / 2, float(g @ h)
    expected = 8 * spread / product if product > 0 else np.inf
    assert setting.row["noise/scale_not_converged"] == pytest.approx(expected)  # from one pair


def test_the_noise_scale_of_known_gradients_converges() -> None:
    """The gradient is w + noise of variance 1 / 32 in each of 4 directions, and |w|^2 = 4."""
    net = nn.Linear(4, 1, bias=False)
    rows: list[dict[str, Any]] = []
    draw = torch.Generator().manual_seed(0)
    with sd.Watch(net, metrics="noise", every=2, file=None, log=rows.append) as watch:
        for _ in range(100):
            x = 1 + torch.randn(32, 4, generator=draw)
            net.zero_grad()
            net(x).mean().backward()
            watch.step()
    assert "noise/scale_not_converged" in rows[0]
    assert rows[-1]["noise/scale"] == pytest.approx(4 / 4, rel=0.3)


def test_the_critical_sharpness_of_a_quadratic_is_its_curvature() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1, bias=False)
    batches = [(torch.randn(16, 3), torch.randn(16, 1))]
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    names = "update_curvature,critical_sharpness"
    options: dict[str, Any] = {"probe": batches, "loss": F.mse_loss, "metrics": names}
    with sd.Watch(net, optimizer=optimizer, every=1, file=None, **options) as watch:
        F.mse_loss(net(batches[0][0]), batches[0][1]).backward()
        optimizer.step()
        row = watch.step()
    assert row
    assert row["critical_sharpness"] == pytest.approx(row["update_curvature"], rel=0.03)


def test_complex_weights() -> None:
    """Norms and the noise scale count real and imaginary parts."""
    torch.manual_seed(0)
    net = nn.Linear(36, 2, bias=False, dtype=torch.complex64)
    rows, gradients = [], []
    with sd.Watch(net, metrics="gradient,noise", every=1, file=None) as watch:
        for step in range(2):
            net.zero_grad()
            (net(images(step)[0].flatten(1).cfloat()) - 1j).abs().square().mean().backward()
            gradients.append(torch.view_as_real(net.weight.grad).flatten().double())
            rows.append(watch.step())
    g, h = gradients
    assert rows[-1]
    assert rows[-1]["gradient/live"] == pytest.approx(float(h.norm()))
    spread, product = float((g - h).square().sum()) / 2, float(g @ h)
    assert rows[-1]["noise/scale_not_converged"] == pytest.approx(8 * spread / product)


@pytest.mark.parametrize("moves", ["before", "after"])
@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_of_a_step_that_moves_the_mask(moves: str, masked: bool) -> None:
    """The mask of the gradient is the one that set its dead entries to 0, if one did."""
    torch.manual_seed(0)
    net, (x, y) = nn.Linear(36, 3, bias=False), images(0)
    old, new = (sd.Mask.top({"weight": torch.rand(3, 36)}, 0.5) for _ in range(2))
    present = old
    with sd.Watch(net, mask=lambda: present, metrics="gradient", every=1, file=None) as watch:
        during = new if moves == "before" else old
        F.cross_entropy(net(x.flatten(1)), y).backward()
        gradient = net.weight.grad.clone()
        if masked:
            net.weight.grad *= during["weight"]
        present = new
        row = watch.step()
    assert row
    live = during if masked else new
    assert row["gradient/live"] == pytest.approx(float(gradient[live["weight"]].norm()))
    dead = {} if masked else {"gradient/dead": float(gradient[~new["weight"]].norm())}
    assert {k: v for k, v in row.items() if k == "gradient/dead"} == pytest.approx(dead)


def test_a_mask_that_comes_later(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Linear(4, 2)
    masks = chain([None] * 3, repeat(sd.Mask({"weight": torch.eye(2, 4) > 0})))
    with sd.Watch(net, mask=lambda: next(masks), metrics="mask", every=1, file=None) as watch:
        rows = [watch.step() for _ in range(2)]
    assert rows[0]
    assert rows[1]
    assert "mask/density" not in rows[0]
    assert [rows[1][f"mask/{name}"] for name in ("density", "turnover", "survival")] == [0.25, 0, 1]
    assert rows[1]["mask/dead_not_zero"] == 6
    assert any("no mask" in line for line in caplog.messages)
