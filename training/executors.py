"""Executors of tasks: processes on this machine, or a Ray cluster."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import torch

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process
from sparsediag.core.workers import WorkerPool, num_cores
from sparsediag.diagnostics.plugins import FILES
from training.plugins import load_plugins

JOBS_PER_GPU = 4  # each process has a CUDA context of its own, some 0.5 GB


def max_jobs(device: str = "auto") -> int:
    """Return how many tasks to run at a time: one per core, at most `JOBS_PER_GPU` per GPU."""
    where = select_device(device)
    if where.type == "cpu":
        return num_cores()
    gpus = torch.cuda.device_count() if where.index is None else 1
    return min(num_cores(), JOBS_PER_GPU * gpus)


class InProcess(Executor):
    """Run tasks in this process, one at a time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a task; the future holds its result or its error."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def local(jobs: int, device: str = "auto") -> Executor:
    """Return an executor that runs `jobs` tasks at a time on this machine."""
    if jobs == 1:
        return InProcess()
    configure_process()  # the processes inherit its environment variables
    return WorkerPool(jobs, device, setup=load_plugins, arguments=([*FILES],))


class Ray(Executor):
    """Tasks on the Ray cluster that RAY_ADDRESS names, or on one that starts here.

    All its machines need this code, the files of plug-ins, and the folder that is written to.

    Args:
        jobs: Tasks at a time, over the whole cluster; each takes its share of cores and GPUs.
        device: With "cpu" they take no GPU.

    Raises:
        ValueError: If ray is not installed.
    """

    def __init__(self, jobs: int, device: str = "auto") -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise ValueError("engine 'ray' needs ray: pip install 'sparsediag[ray]'") from None
        ray.init(ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
        cluster = ray.cluster_resources()
        share: dict[str, float] = {"num_cpus": max(1, int(cluster.get("CPU", 1)) // jobs)}
        if device != "cpu" and (gpus := cluster.get("GPU", 0)):
            share["num_gpus"] = min(1.0, gpus / jobs)
        self._task = ray.remote(**share)(_result_or_error)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task; the future holds its result or its error, as it was raised."""
        future: Future[Any] = Future()

        def forward_result(done: Future[Any]) -> None:
            lost = done.exception()
            value, error = (None, lost) if lost else done.result()
            if error:
                future.set_exception(error)
            else:
                future.set_result(value)

        task = pickle.dumps((fn, args, kwargs))
        self._task.remote([*FILES], task).future().add_done_callback(forward_result)
        return future


def _result_or_error(plugins: list[str], task: bytes) -> tuple[Any, Exception | None]:
    try:
        load_plugins(plugins)  # before their classes are unpickled
        fn, args, kwargs = pickle.loads(task)
        return fn(*args, **kwargs), None
    except Exception as error:
        return None, error


ENGINES: dict[str, Callable[[int, str], Executor]] = {"local": local, "ray": Ray}
