"""Executors of tasks: processes on this machine, or a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process, describe_exit

JOBS_PER_GPU = 4  # each process has a CUDA context of its own, some 0.5 GB


def num_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def max_jobs(device: str = "auto") -> int:
    """Return how many tasks to run at a time: one per core, at most `JOBS_PER_GPU` per GPU."""
    where = select_device(device)
    if where.type == "cpu":
        return num_cores()
    gpus = torch.cuda.device_count() if where.index is None else 1
    return min(num_cores(), JOBS_PER_GPU * gpus)


class LocalProcesses(ProcessPoolExecutor):
    """Processes that share the cores of this machine, and its GPUs in turn.

    Args:
        jobs: Number of processes.
        device: auto, cpu, cuda or cuda:N; on a CPU no process touches a GPU.
    """

    def __init__(self, jobs: int, device: str = "auto") -> None:
        configure_process()  # processes inherit it
        where = select_device(device)
        context = multiprocessing.get_context("spawn")
        turn = context.Value("i", 0)
        super().__init__(jobs, context, _start_worker, (jobs, os.getpid(), turn, where))
        self._started: set[BaseProcess] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task."""
        future = super().submit(fn, *args, **kwargs)
        self._started |= set((self._processes or {}).values())
        return future

    def describe_exit(self) -> str:
        """Return the cause of death of the first process that died."""
        return describe_exit(self._started)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop running tasks too if `cancel_futures`: they resume from their files next time."""
        super().shutdown(wait and not cancel_futures, cancel_futures=cancel_futures)
        if cancel_futures:
            for process in self._started:
                process.terminate()


def _start_worker(jobs: int, parent: int, turn: Any, device: torch.device) -> None:
    """Set up a process for its share of the cores; it ends when its parent has ended."""
    configure_process()
    torch.set_num_threads(max(1, num_cores() // jobs))
    with turn.get_lock():
        place, turn.value = turn.value, turn.value + 1
    _select_gpu(device, place)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _select_gpu(device: torch.device, place: int) -> None:
    """Make a GPU the current one of this process: the named one, or the next in turn."""
    if device.type == "cuda":
        named = device.index is not None
        torch.cuda.set_device(device.index if named else place % torch.cuda.device_count())


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
    return LocalProcesses(jobs, device) if jobs > 1 else InProcess()


class Ray(Executor):
    """Tasks on the Ray cluster that RAY_ADDRESS names, or on one that starts here.

    All its machines need this code, and the folder that is written to.

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

        self._task.remote(fn, args, kwargs).future().add_done_callback(forward_result)
        return future


def _result_or_error(
    fn: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[Any, Exception | None]:
    try:
        return fn(*args, **kwargs), None
    except Exception as error:
        return None, error


ENGINES: dict[str, Callable[[int, str], Executor]] = {"local": local, "ray": Ray}
