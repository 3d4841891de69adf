"""Masks: exact densities, what is random follows the seed, and survivors go back to their start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from sparsediag.models import build
from training.config import Run
from training.loop import fit
from training.masks.base import Method
from training.masks.dense import Dense
from training.masks.magnitude import Magnitude
from training.masks.random import Random
from training.prerequisite import Prerequisite

TWEAKS = ["ghost_neurons", "ghost_skips", "smoothing"]


def _run(density: float = 0.2, method: str = "magnitude", **table: Any) -> Run:
    base = {"data": "digits", "optim": {"epochs": 2, "batch_size": 390}}
    model = {"name": "resnet20", "width": 4} | table.pop("model", {})
    return Run.of(base | table | {"model": model, "mask": {"method": method, "density": density}})


def _problem(net: nn.Module) -> Problem:
    return Problem(net, [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))])


def _net(name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    return build(name, width=4, channels=1, **({"size": 8} if name == "lenet300" else {}))


def _random(density: float, seed: int = 0) -> Mask:
    return Random(density).start(_problem(_net()), (), seed=seed)


def _last(run: Run, out: Path) -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu").with_name("last.pt"))


def _flat(tensors: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for several runs that draw their masks from one dense run."""
    return tmp_path_factory.mktemp("drawn")


# every method


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("method", [Dense, Random, Magnitude])
def test_a_density_that_cannot_be_is_refused(method: type[Method], density: float) -> None:
    with pytest.raises(ValueError, match=r"need a number in \(0, 1\].*write density = 0.1"):
        method(density)


def test_dense_makes_no_mask_and_takes_no_density() -> None:
    assert Dense().start(_problem(_net()), (), seed=0) is None
    with pytest.raises(ValueError, match=r"density 0.1 with method 'dense'; name a pruning method"):
        Dense(0.1).start(_problem(_net()), (), seed=0)


def test_only_magnitude_needs_a_run_before() -> None:
    assert Dense().before() == Random(0.1).before() == ()
    assert Magnitude(0.1).before() == (Prerequisite(),)
    assert _run().prerequisite(Prerequisite()) == _run().plain()


@pytest.mark.parametrize("density", [0.001, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["resnet18", "lenet300"])
def test_the_density_is_exact_to_one_weight(name: str, density: float) -> None:
    net = _net(name)
    trained = Checkpoint.of(net, model=name, options={})
    for method in (Random(density), Magnitude(density)):
        mask = method.start(_problem(net), (trained,), seed=0)
        assert mask is not None
        assert mask.alive == round(density * mask.size)
        assert list(mask) == prunable(net)


# random


def test_random_is_a_function_of_the_seed() -> None:
    state = torch.get_rng_state()
    mask = _random(0.1, seed=3)
    torch.manual_seed(7)
    assert _random(0.1, seed=3) == mask
    assert _random(0.1, seed=4) != mask
    torch.set_rng_state(state)


def test_random_gives_each_layer_about_the_same_density() -> None:
    for _, alive, size in _random(0.3).table():
        assert abs(alive - 0.3 * size) < 5 * (0.3 * 0.7 * size) ** 0.5


def test_random_masks_are_nested_in_density() -> None:
    sparse, dense = _random(0.05), _random(0.2)
    assert all((dense[name] | ~alive).all() for name, alive in sparse.items())


# magnitude


def test_magnitude_keeps_the_largest_weights_of_the_dense_training(tmp_path: Path) -> None:
    run = _run(0.2)
    mask = _last(run, tmp_path).mask
    dense = _last(run.plain(), tmp_path)
    assert mask is not None
    assert dense.mask is None
    alive = _flat(dict(mask), list(mask))
    size = _flat(dense.weights, list(mask)).abs()
    assert alive.sum() == round(0.2 * len(alive))
    assert size[alive].min() >= size[~alive].max()


def test_survivors_start_at_the_initialisation(
    tmp_path: Path, starts: list[dict[str, Tensor]]
) -> None:
    mask = _last(_run(0.2, seed=5), tmp_path).mask
    dense, sparse = starts
    assert mask is not None
    for name, start in dense.items():
        alive = mask.get(name, torch.ones_like(start, dtype=torch.bool))
        assert torch.equal(sparse[name], torch.where(alive, start, torch.zeros_like(start)))


def test_the_seed_makes_the_initialisation(tmp_path: Path, starts: list[dict[str, Tensor]]) -> None:
    for seed in (5, 6):
        fit(_run(1.0, "dense", seed=seed), out=tmp_path, device="cpu")
    for seed, start in zip((5, 6), starts, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = build("resnet20", width=4, channels=1)
        assert all(torch.equal(start[name], t) for name, t in net.state_dict().items())


def test_two_densities_share_one_dense_training(tmp_path: Path) -> None:
    fit(_run(0.2), out=tmp_path, device="cpu")
    dense = tmp_path / "runs" / _run().plain().id / "last.pt"
    before = dense.stat().st_mtime_ns
    rows: list[dict[str, Any]] = []
    fit(_run(0.1), out=tmp_path, device="cpu", on_epoch=rows.append)
    assert dense.stat().st_mtime_ns == before
    assert len(rows) == 2
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    "table",
    [
        {"tweaks": TWEAKS},
        {"tweaks": {"ghost_skips": {"kind": "conv1x1_bn"}}},
        {"model": {"activation": "swish"}},
        {"record": {"gradient_flow": True, "probe_samples": 32}},
    ],
    ids=["tweaks", "learned skips", "swish", "instruments"],
)
def test_masks_are_drawn_from_the_plain_net(table: dict[str, Any], drawn: Path) -> None:
    plain, other = _last(_run(), drawn), _last(_run(**table), drawn)
    assert other.mask == plain.mask
    assert len(list((drawn / "runs").glob("*-dense-*"))) == 1
    kept = [torch.equal(other.weights[name], plain.weights[name]) for name in plain.mask or ()]
    assert all(kept) == ("record" in table)


# training under a mask


def test_a_mask_of_all_weights_changes_nothing(tmp_path: Path) -> None:
    full, dense = (_last(_run(1.0, method), tmp_path) for method in ("random", "dense"))
    assert full.mask is not None
    assert dense.mask is None
    assert all(torch.equal(t, full.weights[name]) for name, t in dense.weights.items())


@pytest.mark.parametrize(
    ("density", "message"),
    [(0.0005, "no path is left"), (0.05, "the net trains on by the paths around them")],
    ids=["no path", "paths"],
)
def test_a_net_with_dead_layers_still_trains(density: float, message: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=message):
        checkpoint = _last(_run(density, "random", on_disconnected="warn"), tmp_path)
    assert checkpoint.mask is not None
    assert 0 in [alive for _, alive, _ in checkpoint.mask.table()]
    assert all(t.isfinite().all() for t in checkpoint.weights.values())


@pytest.mark.parametrize("model", ["resnet18", "resnet20", "mobilenet", "vgg16_bn"])
def test_a_random_mask_does_not_look_at_the_initial_weights(model: str) -> None:
    torch.manual_seed(3)
    net = build(model, width=16, channels=1)
    problem = Problem(net, [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))])
    mask = Random(0.05).start(problem, [], seed=3)
    weights = dict(net.named_parameters())
    kept = torch.cat([weights[name][alive] for name, alive in mask.items()])
    assert (kept < 0).double().mean() == pytest.approx(0.5, abs=4 * 0.5 / len(kept) ** 0.5)
