"""Learned masks: gates open by chance, gradients go straight through, theta M is what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag import Checkpoint, prunable
from sparsediag.models import build
from training.config import Run
from training.loop import fit
from training.masks.learned import GatedOptimizer, Learned
from training.optim import Optim
from training.setup import finished
from training.zero_init import initialise

optimisers = pytest.mark.parametrize("name", ["sgd", "adam"])


def net_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("mlp", width=12, size=8)


def gates_of(
    net: nn.Module,
    *,
    name: str = "sgd",
    lr: float = 0.1,
    decay: float = 0.0,
    binary: float = 0.0,
    l1: float = 0.0,
    seed: int = 0,
) -> GatedOptimizer:
    optimiser = Optim(name=name, lr=lr, momentum=0.0, weight_decay=decay).build(net)  # type: ignore[arg-type]
    method = Learned(lambda_binary=binary, lambda_l1=l1)
    return GatedOptimizer(net, optimiser, method=method, seed=seed)


def batch(t: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(t)
    x = torch.randn(16, 1, 8, 8, generator=chance)
    return x, torch.randint(0, 10, (16,), generator=chance)


def step(net: nn.Module, gates: GatedOptimizer, t: int = 0) -> None:
    x, y = batch(t)
    gates.sample_gates()
    gates.optimiser.zero_grad()
    F.cross_entropy(net(x), y).backward()
    gates.step()


def still(gates: GatedOptimizer) -> None:
    """A step with no task."""
    gates.sample_gates()
    gates.optimiser.zero_grad()
    gates.step()


@torch.no_grad()
def fill(gates: GatedOptimizer, value: float) -> None:
    for m in gates.probabilities.values():
        m.fill_(value)


@torch.no_grad()
def undo(gates: GatedOptimizer) -> None:
    """Put theta back after a draw."""
    for w, theta in zip(gates.gated, gates.theta, strict=True):
        w.copy_(theta)


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


# gates


@pytest.mark.parametrize("chance", [0.05, 0.5, 0.9])
def test_a_gate_is_open_as_often_as_its_chance_says(chance: float) -> None:
    gates = gates_of(net_of())
    fill(gates, chance)
    draws = 400
    opened = torch.zeros(sum(w.numel() for w in gates.gated))
    for gates.steps_taken in range(draws):
        gates.sample_gates()
        opened += flat(gates.gates)
        undo(gates)
    binary = (chance * (1 - chance) / draws) ** 0.5
    assert float(opened.mean() / draws - chance) == pytest.approx(
        0, abs=5 * binary / len(opened) ** 0.5
    )
    assert (opened / draws - chance).abs().max() < 6 * binary


def test_gates_of_0_and_1_are_certain() -> None:
    net = net_of()
    gates = gates_of(net)
    for value, share in ((0.0, 0.0), (1.0, 1.0)):
        fill(gates, value)
        gates.sample_gates()
        assert flat(gates.gates).double().mean() == share
        undo(gates)


def test_the_net_sees_open_gates_only_and_theta_is_kept() -> None:
    net = net_of()
    gates = gates_of(net)
    before = flat(gates.gated)
    gates.sample_gates()
    assert torch.equal(flat(gates.gated), before * flat(gates.gates))
    assert torch.equal(flat(gates.theta), before)
    assert flat(gates.gates).double().mean() == pytest.approx(0.5, abs=0.05)


def test_gates_follow_the_seed_and_the_step_and_nothing_else() -> None:
    def drawn(seed: int, taken: int, world: int) -> Tensor:
        torch.manual_seed(world)
        state = torch.get_rng_state()
        net = net_of()
        torch.set_rng_state(state)
        gates = gates_of(net, seed=seed)
        gates.steps_taken = taken
        gates.sample_gates()
        assert torch.equal(torch.get_rng_state(), state)
        return flat(gates.gates)

    first = drawn(0, 0, world=1)
    assert torch.equal(first, drawn(0, 0, world=2))
    assert not torch.equal(first, drawn(1, 0, world=1))
    assert not torch.equal(first, drawn(0, 1, world=1))


def test_every_step_draws_other_gates() -> None:
    net = net_of()
    gates = gates_of(net)
    step(net, gates)
    first = flat(gates.gates)
    step(net, gates, 1)
    assert not torch.equal(first, flat(gates.gates))


def test_only_what_a_mask_can_cover_has_a_gate() -> None:
    net = net_of()
    assert list(gates_of(net).probabilities) == prunable(net)


# gradients


@pytest.mark.parametrize(("binary", "l1"), [(0.0, 0.0), (0.03, 0.0), (0.0, 0.02), (0.03, 0.02)])
def test_the_gradients_are_those_of_theta_times_b_and_of_the_regulariser(
    binary: float, l1: float
) -> None:
    net, lr = net_of().double(), 0.125
    gates = gates_of(net, lr=lr, binary=binary, l1=l1)
    with torch.no_grad():
        for m in gates.probabilities.values():
            m.uniform_(0.3, 0.7)
    x, y = batch()
    names = list(gates.probabilities)
    theta = {n: net.get_parameter(n).detach().clone().requires_grad_() for n in names}
    chance = {n: m.detach().clone().requires_grad_() for n, m in gates.probabilities.items()}
    before = {n: (theta[n].detach().clone(), chance[n].detach().clone()) for n in names}
    biases = {n: p.detach().clone() for n, p in net.named_parameters() if n not in names}

    gates.sample_gates()
    gates.optimiser.zero_grad()
    F.cross_entropy(net(x.double()), y).backward()
    b = {n: o.double() for n, o in zip(names, gates.gates, strict=True)}
    gates.step()

    # b + M - M.detach() is b, with the slope of M: straight through
    through = {n: b[n] + chance[n] - chance[n].detach() for n in names}
    loss = F.cross_entropy(
        functional_call(net, {n: theta[n] * through[n] for n in names} | biases, (x.double(),)), y
    )
    regulariser = sum((binary * m * (1 - m) + l1 * m).sum() for m in chance.values())
    slopes = torch.autograd.grad(loss + regulariser, [*theta.values(), *chance.values()])
    for n, of_theta, of_m in zip(names, slopes, slopes[len(names) :], strict=False):
        moved = (
            (before[n][0] - net.get_parameter(n)) / lr,
            (before[n][1] - gates.probabilities[n]) / lr,
        )
        assert torch.allclose(moved[0], of_theta, atol=1e-12)
        assert torch.allclose(moved[1], of_m, atol=1e-12)
        assert of_m.any()
        assert not of_theta[b[n] == 0].any()


def test_a_closed_gate_stops_theta_and_not_its_chance() -> None:
    net = net_of()
    gates = gates_of(net)
    before = flat(gates.gated)
    step(net, gates)
    closed = ~flat(gates.gates).bool()
    assert torch.equal(flat(gates.gated)[closed], before[closed])
    assert (flat(gates.probabilities.values())[closed] != 0.5).any()


# the regulariser alone


@pytest.mark.parametrize(("start", "end"), [(0.62, 1.0), (0.58, 0.0), (0.5, 0.0)])
def test_chances_run_away_from_their_fixed_point(start: float, end: float) -> None:
    gates = gates_of(net_of(), binary=1.0, l1=0.2)  # still at 1/2 + 0.2 / 2 = 0.6
    fill(gates, start)
    for _ in range(40):
        still(gates)
    assert (flat(gates.probabilities.values()) == end).all()


def test_chances_rest_at_their_fixed_point() -> None:
    gates = gates_of(net_of().double(), binary=1.0, l1=0.25)
    fill(gates, 0.625)
    for _ in range(5):
        still(gates)
    assert (flat(gates.probabilities.values()) == 0.625).all()


@optimisers
def test_a_huge_size_leaves_nothing(name: str) -> None:
    net = net_of()
    gates = gates_of(net, name=name, l1=1e6)
    for t in range(10):
        step(net, gates, t)
    assert not flat(gates.probabilities.values()).any()
    with gates.inference_weights():
        assert not flat(gates.gated).any()
    assert flat(gates.gated).any()


def test_where_theta_is_0_only_the_size_moves_a_chance_at_first() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    initialise(net)
    gates = gates_of(net, lr=0.125, binary=0.5, l1=0.25)
    zero = flat(gates.gated) == 0
    assert zero.any()
    assert not zero.all()
    step(net, gates)
    chances = flat(gates.probabilities.values())
    assert (chances[zero] == 0.5 - 0.125 * 0.25).all()
    assert (chances[~zero] != 0.5 - 0.125 * 0.25).any()


@optimisers
def test_chances_stay_within_0_and_1_after_every_step(name: str) -> None:
    net = net_of()
    gates = gates_of(net, name=name, lr=0.3, binary=1.0, l1=0.1)
    for t in range(20):
        step(net, gates, t)
        chances = flat(gates.probabilities.values())
        assert ((chances >= 0) & (chances <= 1)).all()


@optimisers
def test_chances_do_not_decay(name: str) -> None:
    gates = gates_of(net_of(), name=name, lr=1e-3, decay=0.5)
    before = flat(gates.gated)
    for _ in range(3):
        still(gates)
    assert (flat(gates.probabilities.values()) == 0.5).all()
    assert (flat(gates.gated).abs() < before.abs()).double().mean() > 0.9


@optimisers
def test_open_gates_change_nothing(name: str) -> None:
    ends = []
    for gated in (True, False):
        net = net_of()
        optimiser = Optim(name=name, lr=0.01).build(net)  # type: ignore[arg-type]
        if gated:
            gates = GatedOptimizer(
                net, optimiser, method=Learned(lambda_binary=0.0, lambda_l1=0.0), seed=0
            )
            optimiser.param_groups[1]["lr"] = 0.0  # the chances stay at 1
            fill(gates, 1.0)
        for t in range(8):
            if gated:
                step(net, gates, t)
                continue
            x, y = batch(t)
            optimiser.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimiser.step()
        ends.append(net.state_dict())
    assert all(torch.equal(t, ends[1][n]) for n, t in ends[0].items())


# settled


def test_a_settled_net_is_what_is_expected_of_it() -> None:
    net = net_of()
    gates = gates_of(net)
    for t in range(3):
        step(net, gates, t)
    before = flat(gates.gated)
    chances = flat(gates.probabilities.values())
    biases = flat(p for n, p in net.named_parameters() if n.endswith("bias"))
    with gates.inference_weights():
        assert torch.equal(flat(gates.gated), before * chances)
    assert torch.equal(flat(gates.gated), before)
    with pytest.raises(KeyboardInterrupt), gates.inference_weights():
        raise KeyboardInterrupt
    assert torch.equal(flat(gates.gated), before)
    assert torch.equal(flat(gates.probabilities.values()), chances)
    assert torch.equal(flat(p for n, p in net.named_parameters() if n.endswith("bias")), biases)


def test_a_state_brings_back_the_gates() -> None:
    net = net_of()
    gates = gates_of(net, l1=0.1)
    for t in range(3):
        step(net, gates, t)
    with gates.inference_weights():
        state = gates.state_dict()
    other = gates_of(net_of(1), l1=0.1)
    other.load_state_dict(state)
    assert other.steps_taken == 3
    assert torch.equal(flat(other.gated), flat(gates.gated))
    assert torch.equal(flat(other.probabilities.values()), flat(gates.probabilities.values()))


# in the training loop


def run_of(density: float = 1.0, optim: dict[str, Any] | None = None, **options: Any) -> Run:
    return Run.of(
        {
            "data": "digits",
            "model": {"name": "mlp", "width": 12},
            "mask": {"method": "learned", "density": density, **options},
            "optim": {"epochs": 3, "batch_size": 200, "lr": 0.1} | (optim or {}),
        }
    )


def last(run: Run, out: Path) -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu").with_name("last.pt"))


@pytest.mark.parametrize(
    "options", [{"lambda_binary": -1.0}, {"lambda_l1": -1e-9}, {"lambda_l1": float("nan")}]
)
def test_a_negative_weight_of_the_regulariser_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need 0 or more"):
        Learned(**options)


def test_only_a_cut_needs_the_training_with_gates() -> None:
    whole, cut = run_of(), run_of(0.2)
    assert whole.before() == ()
    assert cut.before() == (whole,)
    assert {r.id for d in (0.1, 0.2) for r in run_of(d).before()} == {whole.id}
    soft = replace(cut, model=replace(cut.model, activation="swish"), rewind=1.0)
    assert soft.before() == (whole,)


def test_gates_are_trained_and_the_cut_takes_the_largest_theta_m(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[GatedOptimizer] = []
    begin = GatedOptimizer.__init__

    def spy(gates: GatedOptimizer, *args: Any, **options: Any) -> None:
        begin(gates, *args, **options)
        seen.append(gates)

    monkeypatch.setattr(GatedOptimizer, "__init__", spy)
    cut = last(run_of(0.5, lambda_l1=1e-3), tmp_path)
    (gates,) = seen
    whole = Checkpoint.load(tmp_path / "runs" / run_of(lambda_l1=1e-3).id / "last.pt")
    assert whole.mask is None
    names = list(gates.probabilities)
    for name, theta, m in zip(names, gates.theta, gates.probabilities.values(), strict=True):
        assert torch.equal(whole.weights[name], theta * m.detach())
        assert not (m == 0.5).all()
    assert cut.mask is not None
    assert cut.mask.alive == round(0.5 * cut.mask.size)
    size = flat(whole.weights[name] for name in names).abs()
    alive = flat(cut.mask[name] for name in names)
    assert size[alive].min() >= size[~alive].max()
    assert not any(cut.weights[name][~cut.mask[name]].any() for name in names)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_huge_size_in_a_run_leaves_exact_zeros(tmp_path: Path) -> None:
    kept = last(run_of(lambda_l1=1e6), tmp_path)
    assert kept.history[-1]["sparsity"] == 1.0
    assert not kept.weights["fc.weight"].any()
    assert kept.weights["fc.bias"].any()


@optimisers
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_an_interrupted_run_goes_on_to_the_same_end(
    name: str, density: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.SAVE_EVERY", 0.0)
    run = run_of(
        density, {"name": name, "lr": 0.01, "epochs": 4}, lambda_l1=1e-3, lambda_binary=1e-3
    )

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = last(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(run, out=tmp_path / "cut", device="cpu", on_epoch=stop)
    assert not finished(tmp_path / "cut" / "runs" / run.id)
    rows: list[dict[str, Any]] = []
    fit(run, out=tmp_path / "cut", device="cpu", on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [3, 4]
    for file in ("last.pt", "best.pt"):
        one, other = (
            Checkpoint.load(tmp_path / way / "runs" / run.id / file) for way in ("whole", "cut")
        )
        assert one.mask == other.mask
        assert one.step == other.step
        assert all(torch.equal(t, other.weights[n]) for n, t in one.weights.items())
    assert whole.resume is None


def test_gates_wake_nothing_of_the_global_chance(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    fit(run_of(optim={"epochs": 1}), out=tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
