"""The rounds of iterative magnitude pruning: their ladder, their sharing, their masks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsediag import Checkpoint
from training.config import Run
from training.loop import fit
from training.masks.dense import Dense
from training.masks.lottery import Lottery


def ladder(run: Run) -> list[Run]:
    """The run and all that it needs, back to the dense one."""
    runs = [run]
    while before := runs[-1].mask.before():
        runs += map(runs[-1].prerequisite, before)
    return runs


@pytest.mark.parametrize("k", range(1, 18))
def test_the_ladder_goes_down_by_a_fifth(k: int) -> None:
    run = replace(Run(), mask=Lottery(density=0.8**k))
    densities = [r.mask.density for r in ladder(run)]
    assert densities == pytest.approx([0.8**i for i in range(k, -1, -1)])
    assert isinstance(ladder(run)[-1].mask, Dense)


@pytest.mark.parametrize(
    ("density", "rounds", "cut"),
    [
        (0.25, 6, 0.0463),
        (0.2, 7, 0.0463),
        (0.15, 8, 0.106),
        (0.1, 10, 0.0687),
        (0.05, 13, 0.0905),
        (0.02, 17, 0.1118),
    ],
)
def test_other_densities_take_a_smaller_last_cut(density: float, rounds: int, cut: float) -> None:
    (before,) = map(Run().prerequisite, Lottery(density=density).before())
    assert Lottery(density=density).rounds == rounds
    assert 1 - density / before.mask.density == pytest.approx(cut, abs=1e-4)


def test_densities_share_their_rounds() -> None:
    ids = [{r.id for r in ladder(replace(Run(), mask=Lottery(density=d)))} for d in (0.1, 0.05)]
    assert len(ids[0] & ids[1]) == 11


def test_masks_are_nested_and_survivors_start_where_they_began(tmp_path: Path) -> None:
    table = {
        "data": "digits",
        "model": {"name": "lenet300", "width": 8},
        "mask": {"method": "lottery", "density": 0.5},
        "optim": {"epochs": 1},
    }
    run = Run.of(table)
    fit(run, out=tmp_path, device="cpu")
    masks = []
    for one in ladder(run)[:-1]:
        kept = Checkpoint.load(tmp_path / "runs" / one.id / "last.pt")
        assert kept.mask is not None
        assert kept.mask.alive == round(one.mask.density * kept.mask.size)
        masks.append(kept.mask)
    assert len(masks) == 4
    for small, large in itertools.pairwise(masks):
        assert all((large[name] | ~alive).all() for name, alive in small.items())


def test_the_largest_survivors_stay() -> None:
    from sparsediag import Mask, Problem

    net = torch.nn.Linear(4, 1, bias=False)
    problem = Problem(net, [(torch.ones(1, 4), torch.ones(1, 1))], loss=torch.nn.MSELoss())
    net.weight.data = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    alive = Mask({"weight": torch.tensor([[True, False, True, True]])})
    alive.apply_(net)
    before = Checkpoint.of(net, mask=alive, model="line", options={})
    mask = Lottery(density=0.5).start(problem, [before], seed=0)
    assert mask["weight"].tolist() == [[False, False, True, True]]
    assert Lottery(density=0.75).start(problem, [before], seed=0) == alive


def test_a_cut_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="prune_rate = 1: need a share between 0 and 1"):
        Lottery(density=0.1, prune_rate=1)


def test_runs_with_one_ticket_differ_in_the_order_of_the_data_alone(
    tmp_path: Path, starts: list[dict[str, torch.Tensor]]
) -> None:
    table = {
        "data": "digits",
        "model": {"name": "lenet300", "width": 8},
        "mask": {"method": "lottery", "density": 0.5},
        "optim": {"epochs": 1},
    }
    own, shared = Run.of(table), Run.of(table | {"seed": 1, "mask_seed": 0})
    assert own.before() == shared.before()
    kept = [Checkpoint.load(fit(run, out=tmp_path)) for run in (own, shared)]
    first, second = starts[-2:]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert kept[0].mask == kept[1].mask
    assert not torch.equal(kept[0].weights["fc.weight"], kept[1].weights["fc.weight"])


def test_a_density_is_the_same_computed_or_typed() -> None:
    assert Lottery(density=0.8**11) == Lottery(density=0.08589934592)
