"""Masks that move while the net trains: schedule, deaths and births, and that nothing revives."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Checkpoint, Mask, prunable
from sparsediag.models import build
from training.config import Run
from training.keeper import MaskedOptimizer
from training.loop import fit
from training.masks import METHODS
from training.masks.rigl import Rigl, move_mask
from training.masks.set import Set
from training.setup import finished

both = pytest.mark.parametrize("kind", [Rigl, Set])
Step = tuple[Mask, dict[str, Tensor], dict[str, Tensor]]


def net_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("mlp", width=12, size=8)


def optimiser_of(net: nn.Module, name: str = "sgd") -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-2)
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)


def begin(
    kind: type[Rigl], optimiser: str = "sgd", **options: Any
) -> tuple[nn.Module, MaskedOptimizer]:
    """A small net under a mask that moves every second step of twenty."""
    method = kind(density=0.2, **{"update_interval": 2, "drop_fraction": 0.5, **options})
    net = net_of()
    from sparsediag import Problem

    mask = method.start(Problem(net, [(torch.zeros(1, 1, 8, 8), torch.tensor([0]))]), (), seed=0)
    return net, method.keeper(net, mask, optimiser_of(net, optimiser), steps=20, seed=0)


def step(net: nn.Module, keeper: MaskedOptimizer, t: int) -> None:
    chance = torch.Generator().manual_seed(t)
    x = torch.randn(16, 1, 8, 8, generator=chance)
    y = torch.randint(0, 10, (16,), generator=chance)
    keeper.optimiser.zero_grad()
    keeper.sample_gates()
    F.cross_entropy(net(x), y).backward()
    keeper.step()


def states(keeper: MaskedOptimizer, weight: Tensor) -> list[Tensor]:
    return [s for s in keeper.optimiser.state[weight].values() if s.shape == weight.shape]


def dead(keeper: MaskedOptimizer) -> list[Tensor]:
    """Everything that must be 0: dead weights and what the optimiser knows of them."""
    assert keeper.mask is not None
    weights = dict(keeper.net.named_parameters())
    return [
        t[~m]
        for name, m in keeper.mask.items()
        for t in (weights[name].detach(), *states(keeper, weights[name]))
    ]


# the schedule


def test_the_share_falls_from_the_fraction_to_0() -> None:
    rigl = Rigl(density=0.1, update_interval=1, drop_fraction=0.3, end=0.75)
    steps = 10**6
    assert rigl.fraction(1, steps) == pytest.approx(0.3, abs=1e-9)
    assert rigl.fraction(375_000, steps) == pytest.approx(0.15)
    assert rigl.fraction(749_999, steps) == pytest.approx(0, abs=1e-9)
    assert rigl.fraction(749_999, steps) > 0
    assert rigl.fraction(750_000, steps) == rigl.fraction(999_999, steps) == 0


@pytest.mark.parametrize("steps", [1, 7, 100, 1001])
def test_the_mask_moves_every_so_many_steps_and_not_in_the_first(steps: int) -> None:
    rigl = Rigl(density=0.1, update_interval=10, end=0.6)
    moves = [t for t in range(steps) if rigl.fraction(t, steps) > 0]
    assert moves == [t for t in range(10, steps, 10) if t < 0.6 * steps]


def test_each_move_is_that_of_rigl_torch_one_step_later() -> None:
    """Its scheduler counts the step first, then moves if interval | step < T, in place of it."""
    rigl, steps, end = Rigl(density=0.1, update_interval=10, end=0.6), 100, 60
    theirs = {}
    for t, counted in enumerate(range(1, steps + 1)):
        if counted % 10 == 0 and counted < end:
            theirs[t] = 0.3 / 2 * (1 + math.cos(math.pi * counted / end))
    ours = {t: f for t in range(steps) if (f := rigl.fraction(t, steps))}
    assert list(theirs) == [9, 19, 29, 39, 49]
    assert ours == pytest.approx({t + 1: f for t, f in theirs.items()}, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update_interval": 0}, "update_interval = 0: need 1 step or more"),
        ({"drop_fraction": 1.5}, "drop_fraction = 1.5: need a share from 0 to 1"),
        ({"end": -0.1}, "end = -0.1: need a share"),
        ({"scope": "everywhere"}, "unknown scope 'everywhere'"),
    ],
)
@both
def test_options_that_cannot_be(kind: type[Rigl], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(density=0.1, **options)


@both
def test_layers_start_with_the_shares_of_erdos_and_renyi(kind: type[Rigl]) -> None:
    _, keeper = begin(kind)
    _, uniform = begin(kind, scope="layer")
    assert keeper.mask is not None
    assert uniform.mask is not None
    assert keeper.mask.alive == uniform.mask.alive
    assert all(abs(alive - 0.2 * size) <= 1 for _, alive, size in uniform.mask.table())
    shares = [alive / size for _, alive, size in keeper.mask.table()]
    assert shares[0] < 0.2 < shares[-1]


# one move


def toy() -> tuple[Mask, dict[str, Tensor], dict[str, Tensor]]:
    mask = Mask({"w": torch.tensor([True, True, True, True, False, False, False, False])})
    weights = {"w": torch.tensor([0.4, -0.1, 0.2, -0.9, 0.0, 0.0, 0.0, 0.0])}
    scores = {"w": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 4.0, 3.0, 2.0])}
    return mask, weights, scores


def test_the_smallest_die_and_the_best_scores_come_alive() -> None:
    mask, weights, scores = toy()
    after = move_mask(mask, weights, scores, 0.5)["w"].tolist()
    assert after == [True, False, False, True, False, True, True, False]


def test_a_weight_that_would_die_and_has_the_best_score_stays() -> None:
    mask, weights, scores = toy()
    scores["w"][1] = 9.0
    after = move_mask(mask, weights, scores, 0.5)["w"].tolist()
    assert after == [True, True, False, True, False, True, False, False]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.24])
def test_less_than_one_weight_does_not_move(share: float) -> None:
    mask, weights, scores = toy()
    assert move_mask(mask, weights, scores, share) == mask


def test_a_living_weight_of_exactly_0_is_not_taken_for_dead() -> None:
    mask, weights, scores = toy()
    weights["w"][0] = 0.0
    after = move_mask(mask, weights, scores, 0.25)["w"]
    assert not after[0]
    assert after[5]
    assert int(after.sum()) == 4


def test_a_full_layer_stays_full() -> None:
    mask = Mask({"w": torch.ones(6, dtype=torch.bool)})
    weights, scores = {"w": torch.arange(6.0)}, {"w": torch.arange(6.0)}
    assert move_mask(mask, weights, scores, 0.5) == mask


# steps


@both
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_counts_stay_and_the_dead_are_0_after_every_step(kind: type[Rigl], optimiser: str) -> None:
    net, keeper = begin(kind, optimiser)
    assert keeper.mask is not None
    counts, masks = keeper.mask.table(), [keeper.mask]
    for t in range(20):
        step(net, keeper, t)
        keeper.assert_masked()
        assert keeper.mask.table() == counts
        assert not any(held.any() for held in dead(keeper))
        masks.append(keeper.mask)
    changes = [t for t, (a, b) in enumerate(itertools.pairwise(masks)) if a != b]
    assert changes[:6] == [2, 4, 6, 8, 10, 12]
    assert set(changes[6:]) <= {14}  # the last move before 0.75 x 20 may be less than a weight


@both
def test_more_and_more_weights_have_been_alive(kind: type[Rigl]) -> None:
    net, keeper = begin(kind)
    assert keeper.mask is not None
    seen = keeper.mask
    explored = [seen.alive]
    for t in range(20):
        step(net, keeper, t)
        seen = seen | keeper.mask
        explored.append(seen.alive)
    assert explored[-1] > 1.5 * explored[0]


@both
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_what_comes_alive_starts_at_0_with_a_clean_state(kind: type[Rigl], optimiser: str) -> None:
    net, keeper = begin(kind, optimiser)
    weights = dict(net.named_parameters())
    for t in range(2):
        step(net, keeper, t)
    before = keeper.mask
    step(net, keeper, 2)
    after = keeper.mask
    assert before is not None
    assert after is not None
    for name in after:
        born = after[name] & ~before[name]
        assert born.any() or after[name].all()
        for held in (weights[name].detach(), *states(keeper, weights[name])):
            assert not held[born].any()


def test_rigl_moves_in_the_place_of_a_step_and_set_beside_it() -> None:
    for kind, still in ((Rigl, True), (Set, False)):
        net, keeper = begin(kind)
        for t in range(2):
            step(net, keeper, t)
        before = {name: w.detach().clone() for name, w in net.named_parameters()}
        step(net, keeper, 2)
        assert keeper.mask is not None
        stay = {n: keeper.mask[n] & (before[n] != 0) for n in keeper.mask}
        weights = dict(net.named_parameters())
        same = [torch.equal(weights[n][m], before[n][m]) for n, m in stay.items()]
        assert all(same) == still
        assert torch.equal(weights["fc.bias"], before["fc.bias"]) == still


def test_rigl_grows_where_the_gradient_is_largest() -> None:
    net, keeper = begin(Rigl, update_interval=1)
    step(net, keeper, 0)
    before = keeper.mask
    assert before is not None
    weights = {n: w.detach().clone() for n, w in net.named_parameters()}
    chance = torch.Generator().manual_seed(5)
    x = torch.randn(16, 1, 8, 8, generator=chance)
    loss = F.cross_entropy(net(x), torch.arange(16) % 10)
    slopes = dict(
        zip(before, torch.autograd.grad(loss, [net.get_parameter(n) for n in before]), strict=True)
    )
    keeper.optimiser.zero_grad()
    F.cross_entropy(net(x), torch.arange(16) % 10).backward()
    share = keeper.method.fraction(1, 20)  # type: ignore[attr-defined]
    keeper.step()
    after = keeper.mask
    assert after is not None
    for name, m in before.items():
        count = int(share * int(m.sum()))
        alive = [(float(weights[name][i].abs()), i) for i in map(tuple, m.nonzero().tolist())]
        stay = {i for _, i in sorted(alive)[count:]}
        others = set(map(tuple, torch.ones_like(m).nonzero().tolist())) - stay
        grown = sorted(others, key=lambda i: -float(slopes[name][i].abs()))[:count]
        assert set(map(tuple, after[name].nonzero().tolist())) == stay | set(grown)


def test_set_is_a_function_of_the_seed() -> None:
    masks = []
    for _ in range(2):
        torch.manual_seed(len(masks))  # the global state has no part in it
        net, keeper = begin(Set)
        for t in range(6):
            step(net, keeper, t)
        masks.append(keeper.mask)
    assert masks[0] == masks[1]


# in the training loop

TABLE = {
    "data": "digits",
    "model": {"name": "mlp", "width": 12},
    "optim": {"epochs": 4, "batch_size": 200},
}


@pytest.mark.parametrize("method", ["rigl", "set"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_an_interrupted_run_goes_on_to_the_same_end(
    method: str, optimiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.SAVE_EVERY", 0.0)
    mask = {"method": method, "density": 0.1, "update_interval": 3, "drop_fraction": 0.5}
    optim = TABLE["optim"] | {"name": optimiser, "lr": 0.01}  # type: ignore[operator]
    run = Run.of(TABLE | {"mask": mask, "optim": optim})

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = fit(run, out=tmp_path / "whole", device="cpu").with_name("last.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(run, out=tmp_path / "cut", device="cpu", on_epoch=stop)
    cut = fit(run, out=tmp_path / "cut", device="cpu").with_name("last.pt")
    assert finished(cut.parent)
    one, other = Checkpoint.load(whole), Checkpoint.load(cut)
    assert one.mask == other.mask
    assert all(torch.equal(t, other.weights[n]) for n, t in one.weights.items())


def test_the_mask_at_the_end_is_not_that_of_the_start(tmp_path: Path) -> None:
    mask = {"method": "rigl", "density": 0.1, "update_interval": 3}
    run = Run.of(TABLE | {"mask": mask})
    fixed = replace(run, mask=METHODS["random"](density=0.1, scope="erk"))  # type: ignore[call-arg]
    masks = [
        Checkpoint.load(fit(r, out=tmp_path, device="cpu").with_name("last.pt")).mask
        for r in (run, fixed)
    ]
    assert masks[0] is not None
    assert masks[1] is not None
    assert masks[0].table() == masks[1].table()
    assert 0.1 < (masks[0] & masks[1]).alive / masks[0].alive < 0.95
    assert list(masks[0]) == prunable(net_of())
