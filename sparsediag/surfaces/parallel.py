"""Evaluate many places of a plane in this process or in several."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from sparsediag.core.process import describe_exit
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import Plane

Values = tuple[float, float]
Compute = Callable[[np.ndarray], Iterable[Values]]
_sweep: LossEvaluator  # of a worker process


@contextmanager
def computing(plane: Plane, *, jobs: int = 1, **options: Any) -> Iterator[Compute]:
    """A function from places, (n, dims), to their losses and accuracies, in order, as they come.

    Args:
        plane: Where the places lie.
        jobs: Processes; each takes its share of the processor's threads, and GPUs are dealt out in
            turn.
        **options: Those of `LossEvaluator`.

    Raises:
        ValueError: If the net or the loss cannot be sent to another process.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: need 1 process or more")
    if jobs == 1:
        sweep = LossEvaluator(plane, **options)
        yield lambda places: map(sweep, places)
        return
    try:
        packed = pickle.dumps((replace(plane, stops=(), names=()), options))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the net or its loss cannot be sent to {jobs} processes: {error}"
        ) from None
    context = multiprocessing.get_context("spawn")
    threads, turn = max(1, torch.get_num_threads() // jobs), context.Value("i", 0)
    with ProcessPoolExecutor(jobs, context, _start, (packed, threads, turn)) as pool:
        started: set[BaseProcess] = set()

        def compute(places: np.ndarray) -> Iterable[Values]:
            values = pool.map(_at, places)
            started.update((pool._processes or {}).values())
            return values

        try:
            yield compute
        except BrokenProcessPool:
            raise ValueError(
                f"one of {jobs} processes died: {describe_exit(started)}. A script needs "
                "`if __name__ == '__main__':`, and a net must be one that it can import; try jobs=1"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start(packed: bytes, threads: int, turn: Any) -> None:
    global _sweep
    torch.set_num_threads(threads)
    plane, options = pickle.loads(packed)
    with turn.get_lock():
        mine, turn.value = turn.value, turn.value + 1
    if plane.problem.device.type == "cuda":
        device = torch.device("cuda", mine % torch.cuda.device_count())
        problem, net = plane.problem, copy.deepcopy(plane.problem.net)
        for name, weight in problem.split(problem.weights).items():
            net.get_parameter(name).data.copy_(weight)
        mask = problem.mask and problem.mask.to(device)
        moved = problem.replace(net=net.to(device), mask=mask)
        plane = replace(plane, problem=moved, directions=plane.directions.to(device))
    _sweep = LossEvaluator(plane, **options)


def _at(place: np.ndarray) -> Values:
    return _sweep(place)
