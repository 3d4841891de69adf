"""Work: tasks that wait for one another, spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from sparsediag.process import settle

Task = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Work:
    """Named tasks, and for each the names of those that must be done before it."""

    tasks: dict[str, Task]
    after: dict[str, set[str]]

    def do(self, *, jobs: int, done: Callable[[str], None]) -> dict[str, BaseException]:
        """Do all tasks, `jobs` at a time; returns the errors by name.

        A task whose forerunner failed is left out, and is not among the errors.
        """
        waiting, errors = dict(self.tasks), dict[str, BaseException]()
        finished: set[str] = set()
        running: dict[Future[Any], str] = {}
        if not waiting:
            return errors
        with ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), _alone, (jobs, os.getpid())
        ) as pool:
            try:
                while waiting or running:
                    ready = [n for n in waiting if self.after.get(n, set()) <= finished]
                    for name in ready[: jobs - len(running)]:
                        function, args = waiting.pop(name)
                        running[pool.submit(function, *args)] = name
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name = running.pop(future)
                        if error := future.exception():
                            errors[name] = error
                        else:
                            finished.add(name)
                        done(name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return errors


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _alone(jobs: int, parent: int) -> None:
    """A worker takes its share of the cores, and ends when whoever started it is gone."""
    import torch

    settle()
    torch.set_num_threads(max(1, cores() // jobs))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
