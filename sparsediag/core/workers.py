"""Worker processes that share the cores and the GPUs of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process, describe_exit


def num_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerPool(ProcessPoolExecutor):
    """Processes that share the cores of this machine, and take its GPUs in turn.

    A worker ends when the process that started it is gone.

    Args:
        jobs: Number of processes.
        device: auto, cpu, cuda or cuda:N; with "cpu" no process touches a GPU.
        threads: Threads of torch in each process (default: its share of the cores).
        setup: Called as `setup(*arguments)` in each process before its first task.
    """

    def __init__(
        self,
        jobs: int,
        device: str = "auto",
        *,
        threads: int | None = None,
        setup: Callable[..., None] | None = None,
        arguments: tuple[Any, ...] = (),
    ) -> None:
        context = multiprocessing.get_context("spawn")
        threads = threads or max(1, num_cores() // jobs)
        ours = threads, select_device(device), context.Value("i", 0), os.getpid()
        super().__init__(jobs, context, _start_worker, (*ours, setup, arguments))
        self._started: set[BaseProcess] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task."""
        future = super().submit(fn, *args, **kwargs)
        self._started |= set((self._processes or {}).values())
        return future

    def describe_exit(self) -> str:
        """Return how the first process ended that did not end by itself."""
        return describe_exit(self._started)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with `cancel_futures`, running tasks are stopped too."""
        if cancel_futures:
            for process in self._started:
                process.terminate()
        super().shutdown(wait, cancel_futures=cancel_futures)


def _start_worker(
    threads: int,
    device: torch.device,
    counter: Any,
    parent: int,
    setup: Callable[..., None] | None,
    arguments: tuple[Any, ...],
) -> None:
    """Configure a new process."""
    configure_process()
    torch.set_num_threads(threads)
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    select_gpu(device, index)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    if setup:
        setup(*arguments)


def select_gpu(device: torch.device, index: int) -> None:
    """Make a GPU the current one: the one that `device` names, or that of a worker's index."""
    if device.type == "cuda":
        named = device.index is not None
        torch.cuda.set_device(device.index if named else index % torch.cuda.device_count())


def _exit_with(parent: int) -> None:
    """End this process once its parent has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
