"""Landscapes against closed forms, point by point; what they leave alone; how they go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from surfaces import exploding
from torch import Tensor, nn

from sparsediag import Landscape, Problem, interpolate, landscape
from sparsediag.surfaces import directions, evaluate
from sparsediag.surfaces.grid import DONE

ROOT = Path(__file__).parents[3]
every_case = pytest.mark.parametrize("name", cases.CASES)


def slope(dims: int = 2) -> Problem:
    """A loss that rises along direction 1 and is level along direction 2."""
    batches = cases.regression((2,), (6,), 1)
    like = Problem(nn.Linear(6, 1, bias=False).double(), batches, loss=nn.MSELoss())
    d1, d2 = (directions.random_direction(like, seed=seed) for seed in (0, 1))
    x = d1 - (d1 @ d2) / (d2 @ d2) * d2
    pair = (x / (x @ d1), torch.zeros(1))
    return Problem(like.net, [(pair[0][None], pair[1])], loss=lambda outputs, _: outputs.mean())


@pytest.fixture
def resume(tmp_path: Path) -> Path:
    """A file for an unfinished landscape."""
    return tmp_path / "unfinished"


# the values


@every_case
def test_the_centre_is_the_loss_itself(name: str) -> None:
    problem = cases.CASES[name]()
    found = landscape(problem, points=3, span=0.3)
    assert found.loss[1, 1] == found.centre == pytest.approx(problem.value(), rel=1e-14)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("norm", ["filter", "layer", "weight", "none"])
def test_a_quadratic_loss_has_its_closed_form_everywhere(norm: Any, dims: int) -> None:
    problem = cases.linear_regression()
    found = landscape(problem, points=6, span=1.5, norm=norm, seed=4, dims=dims)
    x, y = (torch.cat(parts).numpy() for parts in zip(*problem.batches, strict=True))
    inputs = np.hstack([x, np.ones((len(x), 1))])

    def matrix(v: Tensor) -> np.ndarray:
        parts = problem.split(v)
        return np.hstack([parts["weight"].numpy(), parts["bias"].numpy()[:, None]])

    d = [matrix(directions.random_direction(problem, norm=norm, seed=4 + i)) for i in range(dims)]
    for place in np.ndindex(found.loss.shape):
        at = matrix(problem.weights) + sum(found.axes[k, i] * d[k] for k, i in enumerate(place))
        assert found.loss[place] == pytest.approx(np.mean((inputs @ at.T - y) ** 2), abs=1e-10)


def test_the_first_index_goes_along_the_first_direction() -> None:
    problem = slope()
    found = landscape(problem, points=5, span=2.0)
    rise = np.linspace(-2, 2, 5)[:, None]
    assert found.loss - problem.value() == pytest.approx(np.tile(rise, 5), abs=1e-12)


def test_the_curve_is_the_row_of_the_surface_through_the_centre() -> None:
    problem = cases.tanh_mlp()
    surface, curve = landscape(problem, points=5), landscape(problem, points=5, dims=1)
    assert curve.loss.shape == (5,)
    assert curve.axes.shape == (1, 5)
    assert curve.gram.shape == (1, 1)
    assert curve.loss.tolist() == surface.loss[:, 2].tolist()


@pytest.mark.parametrize(("points", "span"), [(2, 1.0), (7, 0.25), (8, 3.0), (23, 0.1), (39, 0.1)])
def test_the_axes_go_from_minus_span_to_span(points: int, span: float) -> None:
    found = landscape(cases.linear_regression(), points=points, span=span)
    assert found.loss.shape == found.status.shape == (points, points)
    assert (found.status == DONE).all()
    for axis in found.axes:
        assert axis == pytest.approx(np.linspace(-span, span, points), abs=1e-15)
    assert (0 in found.axes[0]) == (points % 2 == 1)


# what it does not depend on, and leaves alone


def test_one_seed_gives_one_landscape() -> None:
    torch.manual_seed(1)
    one = landscape(cases.masked_cnn(), points=3, seed=7)
    torch.manual_seed(2)
    same = landscape(cases.masked_cnn(), points=3, seed=7)
    other = landscape(cases.masked_cnn(), points=3, seed=8)
    assert one.loss.tobytes() == same.loss.tobytes()
    assert (one.loss != other.loss).sum() == 8


@pytest.mark.parametrize("name", ["residual_net", "masked_mlp"])
def test_the_net_and_the_global_rng_are_left_alone(name: str) -> None:
    problem = cases.CASES[name]()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    weights, rng = problem.weights.clone(), torch.get_rng_state()
    landscape(problem, points=3)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(problem.weights, weights)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 3}, r"dims=3: need 1 \(a line\) or 2 \(a plane\)"),
        ({"points": 1}, "points=1: need at least 2"),
        ({"span": 0.0}, "span=0.0: need a positive number"),
        ({"span": float("inf")}, "span=inf"),
        ({"span": float("nan")}, "span=nan"),
        ({"norm": "filtr"}, "unknown norm 'filtr'; did you mean 'filter'"),
    ],
)
def test_a_grid_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        landscape(cases.linear_regression(), **options)


# going on


def test_a_landscape_that_was_killed_again_and_again_has_the_same_bytes(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
import cases
from sparsediag import landscape

torch.set_num_threads(1)
begun, out, *ends = [Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])]
for end in ends:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        def progress(done, _):
            if done == end:
                os.write(write, b".")
        landscape(cases.masked_cnn(), points=25, resume=begun, progress=progress).save(out)
        os._exit(0)
    assert os.read(read, 1) == b"."
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not out.exists()
landscape(cases.masked_cnn(), points=25, resume=begun).save(out)
"""
    out = tmp_path / "killed.npz"
    ends = np.sort(np.random.default_rng(0).integers(20, 500, 3))
    words = [tmp_path / "unfinished", out, *ends]
    subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, check=True)
    whole = landscape(cases.masked_cnn(), points=25).save(tmp_path / "whole.npz")
    assert out.read_bytes() == whole.read_bytes()


def test_shards_join_into_the_same_bytes(tmp_path: Path) -> None:
    whole = landscape(cases.masked_cnn(), points=5).save(tmp_path / "whole.npz")
    parts = [landscape(cases.masked_cnn(), points=5, shard=f"{i}/4") for i in (3, 1, 4, 2)]
    assert "points are in other shards" in parts[0].findings[-1]
    joined = Landscape.join(parts).save(tmp_path / "joined.npz")
    assert joined.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="6 points are in none of 3 shards; give them all"):
        Landscape.join(parts[1:])
    other = landscape(cases.masked_cnn(), points=5, shard="1/4", seed=1)
    with pytest.raises(ValueError, match="the shards are of different landscapes"):
        Landscape.join([*parts, other])


def test_shards_of_other_planes_do_not_join() -> None:
    nets = [cases.tanh_mlp() for _ in range(3)]
    for i, problem in enumerate(nets):
        problem.weights.add_(i)
    pairs = ([nets[0], nets[1]], [nets[0], nets[2]])
    ways = [interpolate(pair, names=["a", "b"]) for pair in pairs]
    parts = [landscape(way, points=4, shard=f"{i}/2") for i, way in enumerate(ways, 1)]
    with pytest.raises(ValueError, match="the shards are of different landscapes"):
        Landscape.join(parts)


def test_a_barrier_does_not_depend_on_where_the_points_lie() -> None:
    one, other = cases.tanh_mlp(), cases.tanh_mlp()
    other.weights.mul_(-1)
    way = interpolate([one, other])
    fine = landscape(way, points=201)
    assert fine.heights == pytest.approx(fine.losses)
    for points in (30, 41):
        assert landscape(way, points=points).barrier == pytest.approx(fine.barrier, rel=0.02)


def test_a_single_sample_is_enough_for_fixed_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))
    problem = Problem(net.eval(), [(torch.randn(1, 1, 6, 6), torch.tensor([0]))])
    assert (landscape(problem, points=3).status == DONE).all()


def test_the_order_of_the_samples_does_not_matter() -> None:
    torch.manual_seed(0)
    weight = torch.tensor([1.0, 20.0], dtype=torch.float64)
    x, y = torch.randn(40, 3).double(), torch.arange(40) // 20
    net = nn.Linear(3, 2).double()
    problem = Problem(net, [(x, y)], loss=nn.CrossEntropyLoss(weight=weight))
    assert landscape(problem, points=3, span=0.1).centre == pytest.approx(problem.value())


def test_statistics_of_sorted_samples_are_those_of_shuffled_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("sparsediag.surfaces.evaluate.MIN_SAMPLES", 8)
    monkeypatch.setitem(evaluate.CHUNK, "cpu", 8 * 16)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    y = torch.arange(64) // 32
    x = torch.randn(64, 1, 4, 4) + 3 * y[:, None, None, None]
    order = torch.randperm(64)
    found = [
        landscape(Problem(net.eval(), [pair]), points=3, statistics="estimate").centre
        for pair in ((x, y), (x[order], y[order]))
    ]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_a_finished_landscape_is_kept_for_whoever_saves_it(resume: Path) -> None:
    found = landscape(cases.linear_regression(), points=3, resume=resume)
    again = landscape(cases.linear_regression(), points=3, resume=resume, progress=never)
    assert again.loss.tobytes() == found.loss.tobytes()


def never(done: int, total: int) -> None:
    raise AssertionError(f"point {done} of {total} was computed")


# beyond the range of numbers


@pytest.mark.parametrize("dims", [1, 2])
def test_an_overflow_is_shown_and_not_fatal(tmp_path: Path, dims: int) -> None:
    from sparsediag.plotting import style

    found = landscape(exploding(), points=5, span=1e30, dims=dims)
    assert np.isfinite(found.loss).sum() < found.loss.size
    assert not np.isfinite(found.loss.flat[0])
    assert found.loss.flat[found.loss.size // 2] == found.centre
    assert found.table()[0]["loss"] == f"{found.centre:.4g}"
    style.save(found.plot().figure, tmp_path / "picture")
    assert found.surface().data
    assert np.array_equal(Landscape.load(found.save(tmp_path / "x.npz")).loss, found.loss, True)


@pytest.mark.parametrize("dims", [1, 2])
def test_an_overflow_everywhere_is_shown_and_not_fatal(dims: int) -> None:
    found = landscape(exploding(), points=4, span=1e30, dims=dims)
    assert not np.isfinite(found.loss).any()
    found.plot()
    assert found.table()[0]["loss"] == f"{found.centre:.4g}"


# tables and pictures


def test_the_table_has_the_extremes_and_where_they_are() -> None:
    found = landscape(slope(), points=5, span=2.0)
    rows = {row[""]: row for row in found.table()}
    assert rows["centre"] == {"": "centre", "loss": f"{found.centre:.4g}", "at": "0, 0"}
    assert rows["lowest"]["loss"] == f"{found.centre - 2:.4g}"
    assert rows["lowest"]["at"].split(", ")[0] == "-2"
    assert rows["highest"]["loss"] == f"{found.centre + 2:.4g}"
    assert rows["highest"]["at"].split(", ")[0] == "2"


def test_the_page_has_direction_1_along_x() -> None:
    found = landscape(cases.tanh_mlp(), points=4)
    surface, _ = found.surface().data  # plotly puts z[row, column] at y[row], x[column]
    assert pytest.approx(found.loss, rel=5e-3) == np.array(surface.text, float).T
    assert list(surface.x) == pytest.approx(found.axes[0].tolist(), rel=1e-3)
    assert list(surface.y) == pytest.approx(found.axes[1].tolist(), rel=1e-3)


def test_the_source_is_json() -> None:
    found = landscape(cases.tanh_mlp(), points=2, span=0.5, norm="layer", seed=3)
    options = json.loads(json.dumps(found.source))["options"]
    asked = {"points": 2, "span": 0.5, "dims": 2, "norm": "layer", "seed": 3}
    assert asked.items() <= options.items()
    assert options["labels"] == ["random 3", "random 4"]


def test_a_network_has_one_loss_where_batch_norm_is_measured_again() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(8, 1, 5, 5), torch.arange(8) % 3) for _ in range(2)]
    ends = [Problem(cases.Residual(), batches) for _ in range(2)]
    between = landscape(interpolate(ends), points=5)
    assert between.losses == pytest.approx(between.heights, rel=1e-5)
    assert between.centre == pytest.approx(between.losses[0], rel=1e-5)
    assert abs(between.losses[0] - ends[0].value()) > 1e-3
    assert "statistics of these samples at each point" in between.provenance
    assert "running statistics" in landscape(ends[0], points=3).provenance
