"""What runs the tasks of a work."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediag.core.device import select_device
from sparsediag.core.process import describe_exit
from sparsediag.core.workers import num_cores, select_gpu
from training import executors
from training.executors import ENGINES, max_jobs
from training.task_graph import TaskGraph


@pytest.mark.parametrize(("engine", "jobs"), [("local", 1), *((name, 2) for name in ENGINES)])
def test_every_engine_keeps_the_order_and_brings_errors_back(
    engine: str, jobs: int, tmp_path: Path
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    a, b, c = (tmp_path / name for name in "abc")
    tasks = {"c": (os.rename, (b, c)), "b": (os.rename, (a, b)), "a": (Path.touch, (a,))}
    tasks |= {"bad": (int, ("no number",)), "after bad": (Path.touch, (a,))}
    work = TaskGraph(tasks, {"c": {"b"}, "b": {"a"}, "after bad": {"bad"}})
    told: list[str] = []
    errors = work.run(jobs=jobs, engine=engine, on_done=told.append)
    assert list(tmp_path.iterdir()) == [c]
    assert sorted(told) == ["a", "b", "bad", "c"]
    assert list(errors) == ["bad"]
    assert isinstance(errors["bad"], ValueError)
    assert "no number" in str(errors["bad"])


def test_a_single_task_needs_no_other_process() -> None:
    seen: list[int] = []
    assert not TaskGraph({"a": (lambda: seen.append(os.getpid()), ())}, {}).run(jobs=4, on_done=str)
    assert seen == [os.getpid()]


def test_an_interruption_ends_the_work_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    work = TaskGraph({"a": (interrupt, ()), "b": (Path.touch, (tmp_path / "b",))}, {})
    with pytest.raises(KeyboardInterrupt):
        work.run(jobs=1, on_done=str)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install 'sparsediag"):
        ENGINES["ray"](2, "auto")


def test_a_device_that_is_not_there_starts_no_process() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA was asked for"):
            TaskGraph({"a": (str, ()), "b": (str, ())}, {}).run(jobs=2, on_done=str, device="cuda")


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let there be so many GPUs; the list of those that are made the current one."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_processes_take_gpus_in_turn_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = _gpus(monkeypatch, 2)
    for place in range(3):
        select_gpu(select_device("auto"), place)
    select_gpu(select_device("cuda:1"), 0)
    assert taken == [0, 1, 0, 1]


def test_a_process_of_the_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a GPU was touched")

    for name in ("is_available", "device_count", "current_device", "set_device", "init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    select_gpu(select_device("cpu"), 0)
    assert max_jobs("cpu") == num_cores()
    told: list[str] = []
    work = TaskGraph({"a": (str, ()), "b": (str, ())}, {})
    assert not work.run(jobs=2, device="cpu", on_done=told.append)
    assert sorted(told) == ["a", "b"]


@pytest.mark.parametrize(
    ("gpus", "device", "most"),
    [(0, "auto", 64), (1, "auto", 4), (1, "cpu", 64), (8, "cuda", 32), (8, "cuda:3", 4)],
)
def test_as_many_jobs_as_fit_the_device(
    gpus: int, device: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gpus(monkeypatch, gpus)
    for there in (64, 2):
        monkeypatch.setattr(executors, "num_cores", lambda there=there: there)
        assert max_jobs(device) == min(most, there)


def test_a_crash_of_a_process_is_told() -> None:
    work = TaskGraph(
        {"a": (signal.raise_signal, (signal.SIGSEGV,)), "b": (os.getpid, ())}, {"b": {"a"}}
    )
    with pytest.raises(ValueError, match="SIGSEGV"):
        work.run(jobs=2, on_done=str)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ((signal.raise_signal, signal.SIGABRT), "SIGABRT in compiled code"),
        ((signal.raise_signal, signal.SIGKILL), "out of memory"),
        ((os._exit, 3), "exit code 3"),
        ((str, 0), "unknown"),
    ],
    ids=["crash", "killed", "exit", "nothing"],
)
def test_a_crash_is_told_apart_from_a_lack_of_memory(end: tuple[Any, int], told: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=end[0], args=end[1:])
    process.start()
    assert told in describe_exit([process])
