"""Evaluate many points of a plane in this process or in several."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sparsediag.core.workers import WorkerPool
from sparsediag.surfaces.evaluate import LossEvaluator

Values = tuple[float, float]
Compute = Callable[[np.ndarray], Iterable[Values]]
_evaluator: LossEvaluator  # of a worker process


@contextmanager
def parallel_evaluator(evaluator: LossEvaluator, jobs: int = 1) -> Iterator[Compute]:
    """A function from points, (n, dims), to their losses and accuracies, in order.

    Args:
        evaluator: Computes the points with one process; others make one like it.
        jobs: Processes; each takes its share of the threads, and they take the GPUs in turn.

    Raises:
        ValueError: If the network or the loss cannot be sent to another process, or one died.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: need 1 process or more")
    if jobs == 1:
        yield lambda points: map(evaluator, points)
        return
    plane = replace(evaluator.plane, stops=(), names=())
    options = {"statistics": evaluator.statistics, "precision": evaluator.precision}
    try:
        packed = pickle.dumps((plane, options))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the network or its loss cannot be sent to {jobs} processes: {error}"
        ) from None
    device, threads = plane.problem.device.type, max(1, torch.get_num_threads() // jobs)
    with WorkerPool(jobs, device, threads=threads, setup=_setup, arguments=(packed,)) as pool:
        try:
            yield lambda points: pool.map(_evaluate, points)
        except BrokenProcessPool:
            raise ValueError(
                f"one of {jobs} processes died: {pool.describe_exit()}. A script needs "
                "`if __name__ == '__main__':`, and a network must be one that it can import; "
                "try jobs=1"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _setup(packed: bytes) -> None:
    """Make the evaluator of this worker process, on its GPU if there is one."""
    global _evaluator
    plane, options = pickle.loads(packed)
    problem: Any = plane.problem
    if problem.device.type == "cuda":
        problem.copy_weights_to(problem.net)  # this process has a net of its own
        device = torch.device("cuda", torch.cuda.current_device())
        mask = problem.mask and problem.mask.to(device)
        problem = problem.replace(net=problem.net.to(device), mask=mask)
        plane = replace(plane, problem=problem, directions=plane.directions.to(device))
    _evaluator = LossEvaluator(plane, **options)


def _evaluate(point: np.ndarray) -> Values:
    return _evaluator(point)
