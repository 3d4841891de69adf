"""Survey: every point once, in whatever parts, processes and runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from surfaces import exploding
from torch import nn

from sparsediag import CheckpointError, Problem
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.grid import (
    DONE,
    INTERPOLATED,
    MISSING,
    OVERFLOW,
    GridValues,
    evaluate_grid,
    shard_indices,
)
from sparsediag.surfaces.parallel import parallel_evaluator
from sparsediag.surfaces.plane import plane

FIELDS = ("loss", "accuracy", "status")


def _survey(problem: Problem, points: int = 5, span: float = 1.0, **options: Any) -> GridValues:
    given = {key: options.pop(key) for key in ("statistics", "precision") if key in options}
    evaluator = LossEvaluator(plane(problem), **given)
    return evaluate_grid(evaluator, evaluator.plane.grid(points, span)[1], **options)


def _single() -> Problem:
    exact = cases.tanh_mlp()
    return Problem(exact.net.float(), [(x.float(), y) for x, y in exact.batches])


def _perfect() -> Problem:
    """A loss of exactly 0 at the weights and around them."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    return Problem(net, [(torch.eye(2), torch.arange(2))])


def _same(one: GridValues, two: GridValues) -> bool:
    return all(getattr(one, f).tobytes() == getattr(two, f).tobytes() for f in FIELDS)


def _stop_at(count: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The points of the grid that are computed."""
    seen: list[bytes] = []
    call = LossEvaluator.__call__

    def note(self: LossEvaluator, point: np.ndarray, **options: Any) -> tuple[float, float]:
        if not options:  # the centre is computed with some
            seen.append(point.tobytes())
        return call(self, point, **options)

    monkeypatch.setattr(LossEvaluator, "__call__", note)
    return seen


# all points


@pytest.mark.parametrize("name", ["masked_cnn", "linear_regression"])
def test_every_point_is_a_sweep(name: str) -> None:
    on = plane(cases.CASES[name]())
    grid = on.grid(4, 1.5)[1]
    sweep = LossEvaluator(on)
    found = evaluate_grid(sweep, grid)
    for i, j in np.ndindex(4, 4):
        loss, accuracy = sweep(grid[i, j])
        assert found.loss[i, j] == loss
        assert np.array_equal(found.accuracy[i, j], accuracy, equal_nan=True)
    assert (found.status == DONE).all()
    assert found.held_out == found.rounding == 0


def test_lines_of_their_own() -> None:
    on = plane(cases.tanh_mlp(), dims=1, lines=3)
    grid = on.grid(5, 1.0)[1]
    found = evaluate_grid(LossEvaluator(on), grid)
    assert found.loss.shape == (3, 5)
    assert found.loss[2, 4] == LossEvaluator(on)(np.array([0.0, 0.0, 1.0]))[0]
    assert len(set(found.loss[:, 2])) == 1


def test_the_statistics_are_those_asked_for() -> None:
    fixed = _survey(cases.residual_net(), 3)
    anew = _survey(cases.residual_net(), 3, statistics="estimate")
    on = plane(cases.residual_net())
    assert anew.loss[1, 1] == LossEvaluator(on, statistics="estimate")(np.zeros(2))[0]
    assert (anew.loss != fixed.loss).all()


def test_a_loss_that_is_not_finite_has_its_own_status() -> None:
    found = _survey(exploding(), 5, 1e30)
    assert found.status[2, 2] == DONE
    assert (found.status == np.where(np.isfinite(found.loss), DONE, OVERFLOW)).all()
    assert (found.status == OVERFLOW).sum() > 5


@pytest.mark.parametrize("shard", [None, "2/3"])
def test_progress_reaches_the_total(shard: str | None) -> None:
    seen: list[tuple[int, int]] = []
    _survey(cases.tanh_mlp(), 4, shard=shard, progress=lambda *c: seen.append(c))
    total = 16 if shard is None else 5
    assert seen == [(i, total) for i in range(1, total + 1)]


def test_processes_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def note(evaluator: LossEvaluator, jobs: int) -> AbstractContextManager[Any]:
        asked.append(jobs)
        return parallel_evaluator(evaluator)

    monkeypatch.setattr("sparsediag.surfaces.grid.parallel_evaluator", note)
    assert _same(_survey(cases.tanh_mlp(), 3, jobs=3), _survey(cases.tanh_mlp(), 3))
    assert asked == [3, 1]


# shards


@pytest.mark.parametrize(("points", "parts"), [(5, 4), (4, 4), (3, 9), (2, 1)])
def test_shards_part_the_points_and_join_to_the_whole(points: int, parts: int) -> None:
    whole = _survey(cases.masked_cnn(), points)
    shards = [_survey(cases.masked_cnn(), points, shard=f"{i + 1}/{parts}") for i in range(parts)]
    done = np.array([s.status == DONE for s in shards])
    assert (done.sum(0) == 1).all()
    assert np.ptp(done.sum((1, 2))) <= 1
    for s, mine in zip(shards, done, strict=True):
        assert (s.status[~mine] == MISSING).all()
        assert np.isnan(s.loss[~mine]).all()
        assert np.isnan(s.accuracy[~mine]).all()
    for field in FIELDS:
        joined = np.select([*done], [getattr(s, field) for s in shards])
        assert (
            joined.astype(getattr(whole, field).dtype).tobytes() == getattr(whole, field).tobytes()
        )


@pytest.mark.parametrize(
    "shard",
    ["", "1", "/", "1/", "/4", "0/4", "5/4", "-1/4", "1/0", "0/0", "1.5/4", "a/b", "1/4/2", "²/4"],
)
def test_a_shard_that_cannot_be_is_refused(shard: str) -> None:
    with pytest.raises(ValueError, match=r"need i/n with 1 <= i <= n.*first quarter"):
        shard_indices(shard, 25)


def test_more_shards_than_points_are_refused() -> None:
    assert list(shard_indices("9/9", 9)) == [8]
    with pytest.raises(ValueError, match="shard '1/10'"):
        shard_indices("1/10", 9)


# going on


@pytest.mark.parametrize("at", [1, 7, 16])
def test_a_survey_goes_on_where_it_stopped(tmp_path: Path, at: int, calls: list[bytes]) -> None:
    whole = _survey(cases.masked_cnn(), 4)
    every = calls.copy()
    assert len(set(every)) == 16
    calls.clear()
    resume = tmp_path / "x.points"
    with pytest.raises(KeyboardInterrupt):
        _survey(cases.masked_cnn(), 4, resume=resume, progress=_stop_at(at))
    seen: list[tuple[int, int]] = []
    again = _survey(cases.masked_cnn(), 4, resume=resume, progress=lambda *c: seen.append(c))
    assert _same(again, whole)
    assert calls == every  # none of them twice
    assert seen == [(i, 16) for i in range(at + 1, 17)]


def test_an_adaptive_survey_goes_on_where_it_stopped(tmp_path: Path, calls: list[bytes]) -> None:
    options: dict[str, Any] = {"adaptive": True, "tol": 0.05}
    whole = _survey(cases.tanh_mlp(), 15, **options)
    every = calls.copy()
    calls.clear()
    resume = tmp_path / "x.points"
    with pytest.raises(KeyboardInterrupt):
        _survey(cases.tanh_mlp(), 15, resume=resume, progress=_stop_at(70), **options)
    again = _survey(cases.tanh_mlp(), 15, resume=resume, **options)
    assert _same(again, whole)
    assert calls == every


@pytest.mark.parametrize(
    ("other", "options", "changed"),
    [
        (cases.softmax_regression, {}, "net, weights, data, directions"),
        (cases.tanh_mlp, {"points": 5}, "grid"),
        (cases.tanh_mlp, {"span": 0.5}, "grid"),
        (cases.tanh_mlp, {"statistics": "estimate"}, "options"),
        (cases.tanh_mlp, {"shard": "1/2"}, "shard"),
    ],
)
def test_points_of_something_else_are_refused(
    tmp_path: Path, other: Callable[[], Problem], options: dict[str, Any], changed: str
) -> None:
    resume = tmp_path / "x.points"
    _survey(cases.tanh_mlp(), 4, resume=resume)
    before = resume.read_bytes()
    with pytest.raises(CheckpointError, match=f"unfinished work with other {changed}; remove it"):
        _survey(other(), resume=resume, **{"points": 4, **options})
    assert resume.read_bytes() == before


@pytest.mark.parametrize("options", [{"precision": "float8"}, {"statistics": "x"}, {"jobs": 0}])
def test_options_that_cannot_be_leave_no_file(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown|jobs=0"):
        _survey(cases.tanh_mlp(), 4, resume=tmp_path / "x.points", **options)
    assert list(tmp_path.iterdir()) == []


# interpolation


def test_an_adaptive_survey_computes_a_part(calls: list[bytes]) -> None:
    whole = _survey(cases.tanh_mlp(), 25)
    calls.clear()
    found = _survey(cases.tanh_mlp(), 25, adaptive=True)
    done = found.status == DONE
    assert done.sum() == len(calls) < 313
    assert (found.status[~done] == INTERPOLATED).all()
    assert found.loss[done].tobytes() == whole.loss[done].tobytes()
    assert found.accuracy[done].tobytes() == whole.accuracy[done].tobytes()
    assert np.isnan(found.accuracy[~done]).all()
    assert 0 < found.held_out <= 0.01
    assert np.abs(found.loss - whole.loss).max() <= 0.03 * np.ptp(whole.loss)


def test_an_adaptive_survey_keeps_all_that_was_computed(tmp_path: Path, calls: list[bytes]) -> None:
    whole = _survey(cases.tanh_mlp(), 15, resume=tmp_path / "x.points")
    calls.clear()
    found = _survey(cases.tanh_mlp(), 15, resume=tmp_path / "x.points", adaptive=True, tol=0.05)
    assert calls == []
    assert _same(found, whole)


def test_an_adaptive_survey_that_overflows_is_whole() -> None:
    found = _survey(exploding(), 15, 1e30, adaptive=True)
    whole = _survey(exploding(), 15, 1e30)
    assert _same(found, whole)
    assert found.held_out == 0


@pytest.mark.parametrize("how", [{"dims": 1}, {"dims": 1, "lines": 20}])
def test_adaptive_needs_a_plane(how: dict[str, Any]) -> None:
    on = plane(cases.tanh_mlp(), **how)
    with pytest.raises(ValueError, match="an adaptive grid needs a plane"):
        evaluate_grid(LossEvaluator(on), on.grid(20, 1.0)[1], adaptive=True)


def test_adaptive_needs_all_points() -> None:
    with pytest.raises(ValueError, match=r"an adaptive grid needs .* all of its points: no shard"):
        _survey(cases.tanh_mlp(), 20, adaptive=True, shard="1/2")


@pytest.mark.parametrize("tol", [0.0, 1.0, -0.1, 7.0, float("nan"), float("inf")])
def test_a_tol_that_cannot_be_is_refused(tol: float) -> None:
    with pytest.raises(ValueError, match=f"tol={tol}: need a share of the range between 0 and 1"):
        _survey(cases.tanh_mlp(), 20, adaptive=True, tol=tol)


# lower precision


@pytest.mark.parametrize("options", [{}, {"shard": "2/3"}, {"statistics": "estimate"}])
def test_the_error_of_a_lower_precision_is_measured(options: dict[str, Any]) -> None:
    exact = _survey(_single(), 4, **options)
    found = _survey(_single(), 4, precision="bfloat16", **options)
    worst = np.nanmax(np.abs(found.loss / exact.loss - 1))
    assert 1e-6 < found.rounding <= worst * (1 + 1e-9) < 0.05
    assert exact.rounding == 0


@pytest.mark.parametrize("make", [_perfect, exploding])
def test_the_error_of_a_lower_precision_is_finite(make: Callable[[], Problem]) -> None:
    found = _survey(make(), 3, 1e30 if make is exploding else 1e-3, precision="bfloat16")
    assert 0 <= found.rounding < 0.1
