"""Parallel: the same values from one process and from two, and what cannot be sent."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import cases
import numpy as np
import pytest
import torch.nn.functional as F

from sparsediag import Problem
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.parallel import parallel_evaluator
from sparsediag.surfaces.plane import plane

POINTS = np.random.default_rng(0).normal(size=(7, 2))


def _local_loss() -> Problem:
    """A problem whose loss cannot be sent to another process."""
    return cases.tanh_mlp().replace(loss=lambda z, y: F.cross_entropy(z, y))


def test_values_come_as_they_are_computed() -> None:
    evaluator = LossEvaluator(plane(cases.tanh_mlp()))
    expected, seen = [evaluator(point) for point in POINTS], list[int]()
    evaluator.problem.net.register_forward_pre_hook(lambda *_: seen.append(1))
    with parallel_evaluator(evaluator) as compute:
        values = iter(compute(POINTS))
        assert next(values) == expected[0]
        assert len(seen) == 1
        assert [*values] == expected[1:]


def test_two_processes_give_the_same_bytes_and_end_when_stopped() -> None:
    evaluator = LossEvaluator(plane(cases.masked_cnn()), statistics="estimate")
    found = []
    for jobs in (1, 2):
        with pytest.raises(KeyboardInterrupt), parallel_evaluator(evaluator, jobs) as compute:
            found.append([np.array([*compute(p)]).tobytes() for p in (POINTS, POINTS[:3])])
            for _ in compute(POINTS):
                raise KeyboardInterrupt
    assert len(found) == 2
    assert found[0] == found[1]
    assert multiprocessing.active_children() == []


def test_a_loss_that_cannot_be_sent_is_refused() -> None:
    evaluator = LossEvaluator(plane(_local_loss()))
    with (
        pytest.raises(ValueError, match=r"loss cannot be sent to 2 processes: .*"),
        parallel_evaluator(evaluator, 2),
    ):
        pass
    with parallel_evaluator(evaluator, 1) as compute:
        assert len([*compute(POINTS)]) == len(POINTS)


def test_the_networks_of_the_plane_are_not_sent() -> None:
    on = replace(plane(cases.tanh_mlp()), stops=[_local_loss()], names=["one"])
    with parallel_evaluator(LossEvaluator(on), 2):
        pass


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_process_is_refused(jobs: int) -> None:
    with (
        pytest.raises(ValueError, match=f"jobs={jobs}"),
        parallel_evaluator(LossEvaluator(plane(cases.tanh_mlp())), jobs),
    ):
        pass
