"""Tasks that wait for one another, spread over processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any

from sparsediag.core.workers import WorkerPool
from training.executors import ENGINES

Task = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class TaskGraph:
    """Named tasks (function and arguments), and for each the names of the tasks it waits for."""

    tasks: dict[str, Task]
    dependencies: dict[str, set[str]]

    def run(
        self,
        *,
        jobs: int,
        on_done: Callable[[str], None],
        engine: str = "local",
        device: str = "auto",
        seconds: float = math.inf,
    ) -> dict[str, BaseException]:
        """Run all tasks, `jobs` at a time, and return the errors by name.

        A task that waits for a failed one is left out, and is not among the errors.

        Args:
            jobs: Tasks at a time.
            on_done: Called with the name of each task that has ended.
            engine: Key of `training.executors.ENGINES`.
            device: Where they compute: auto, cpu, cuda or cuda:N.
            seconds: Time after which no further task starts; those that run are finished.

        Raises:
            ValueError: If a process died, with the signal that ended it.
        """
        end = time.monotonic() + seconds
        waiting, errors = dict(self.tasks), dict[str, BaseException]()
        finished: set[str] = set()
        running: dict[Future[Any], str] = {}
        if not waiting:
            return errors
        with ENGINES[engine](min(jobs, len(waiting)), device) as pool:
            try:
                while True:
                    ready = [n for n in waiting if self.dependencies.get(n, set()) <= finished]
                    num_free = jobs - len(running) if time.monotonic() < end else 0
                    for name in ready[:num_free]:
                        function, args = waiting.pop(name)
                        running[pool.submit(function, *args)] = name
                    if not running:
                        return errors
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name, error = running.pop(future), future.exception()
                        if isinstance(error, BrokenExecutor):
                            raise error
                        if error:
                            errors[name] = error
                        else:
                            finished.add(name)
                        on_done(name)
            except BrokenExecutor as error:
                cause = pool.describe_exit() if isinstance(pool, WorkerPool) else str(error)
                raise ValueError(f"one of {jobs} processes died: {cause}") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
