"""Compute: the same values from one process and from two, and what cannot be sent."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import cases
import numpy as np
import pytest
import torch.nn.functional as F

from sparsediag import Problem
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.parallel import computing
from sparsediag.surfaces.plane import plane

PLACES = np.random.default_rng(0).normal(size=(7, 2))


def _apart(problem: Problem) -> Problem:
    return problem.replace(loss=lambda z, y: F.cross_entropy(z, y))


def test_one_process_sweeps_in_order() -> None:
    on = plane(cases.masked_cnn())
    with computing(on, statistics="estimate") as compute:
        came = list(compute(PLACES))
    sweep = LossEvaluator(on, statistics="estimate")
    assert came == [sweep(place) for place in PLACES]


def test_values_come_as_they_are_computed() -> None:
    on = plane(cases.tanh_mlp())
    seen: list[int] = []
    on.problem.net.register_forward_pre_hook(lambda *_: seen.append(1))
    with computing(on) as compute:
        seen.clear()
        values = iter(compute(PLACES))
        next(values)
        assert len(seen) == 1


def test_two_processes_give_the_same_bytes_and_end_when_stopped() -> None:
    on = plane(cases.masked_cnn())
    found = []
    for jobs in (1, 2):
        with (
            pytest.raises(KeyboardInterrupt),
            computing(on, jobs=jobs, statistics="estimate") as compute,
        ):
            found.append([np.array([*compute(p)]).tobytes() for p in (PLACES, PLACES[:3])])
            for _ in compute(PLACES):
                raise KeyboardInterrupt
    assert len(found) == 2
    assert found[0] == found[1]
    assert multiprocessing.active_children() == []


def test_a_loss_that_cannot_be_sent_is_refused() -> None:
    on = plane(_apart(cases.tanh_mlp()))
    with (
        pytest.raises(ValueError, match=r"the net or its loss cannot be sent to 2 processes: .*"),
        computing(on, jobs=2),
    ):
        pass
    with computing(on, jobs=1) as compute:
        assert len([*compute(PLACES)]) == len(PLACES)


def test_nets_that_the_plane_goes_by_are_not_sent() -> None:
    on = replace(plane(cases.tanh_mlp()), stops=[_apart(cases.tanh_mlp())], names=["one"])
    with computing(on, jobs=2):
        pass


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_process_is_refused(jobs: int) -> None:
    with (
        pytest.raises(ValueError, match=f"jobs={jobs}: need 1 process or more"),
        computing(plane(cases.tanh_mlp()), jobs=jobs),
    ):
        pass
