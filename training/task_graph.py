"""Tasks that wait for one another, spread over processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any

from training.executors import ENGINES, Local

Task = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Work:
    """Named tasks, and for each the names of those that must be done before it."""

    tasks: dict[str, Task]
    after: dict[str, set[str]]

    def do(
        self,
        *,
        jobs: int,
        done: Callable[[str], None],
        engine: str = "local",
        device: str = "auto",
    ) -> dict[str, BaseException]:
        """Do all tasks, `jobs` at a time; returns the errors by name.

        A task whose forerunner failed is left out, and is not among the errors.

        Args:
            jobs: Tasks at a time.
            done: Told each task that has ended.
            engine: What runs them: see `training.executors`.
            device: Where they compute: auto, cpu, cuda or cuda:N.

        Raises:
            ValueError: If a process died, with the signal that ended it.
        """
        waiting, errors = dict(self.tasks), dict[str, BaseException]()
        finished: set[str] = set()
        running: dict[Future[Any], str] = {}
        if not waiting:
            return errors
        with ENGINES[engine](min(jobs, len(waiting)), device) as pool:
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
                        error = future.exception()
                        if isinstance(error, BrokenExecutor):
                            raise error
                        if error:
                            errors[name] = error
                        else:
                            finished.add(name)
                        done(name)
            except BrokenExecutor as error:
                cause = pool.cause_of_death() if isinstance(pool, Local) else str(error)
                raise ValueError(f"one of {jobs} processes died: {cause}") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return errors
