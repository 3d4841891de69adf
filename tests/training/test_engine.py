"""What runs the tasks of a work."""

import os
import signal
import sys
from pathlib import Path

import pytest

from training.engine import ENGINES
from training.work import Work


@pytest.mark.parametrize(("engine", "jobs"), [("local", 1), *((name, 2) for name in ENGINES)])
def test_every_engine_keeps_the_order_and_brings_errors_back(
    engine: str, jobs: int, tmp_path: Path
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    a, b, c = (tmp_path / name for name in "abc")
    tasks = {"c": (os.rename, (b, c)), "b": (os.rename, (a, b)), "a": (Path.touch, (a,))}
    tasks |= {"bad": (int, ("no number",)), "after bad": (Path.touch, (a,))}
    work = Work(tasks, {"c": {"b"}, "b": {"a"}, "after bad": {"bad"}})
    told: list[str] = []
    errors = work.do(jobs=jobs, engine=engine, done=told.append)
    assert list(tmp_path.iterdir()) == [c]
    assert sorted(told) == ["a", "b", "bad", "c"]
    assert list(errors) == ["bad"]
    assert isinstance(errors["bad"], ValueError)
    assert "no number" in str(errors["bad"])


def test_a_single_task_needs_no_other_process() -> None:
    seen: list[int] = []
    assert not Work({"a": (lambda: seen.append(os.getpid()), ())}, {}).do(jobs=4, done=str)
    assert seen == [os.getpid()]


def test_an_interruption_ends_the_work_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    work = Work({"a": (interrupt, ()), "b": (Path.touch, (tmp_path / "b",))}, {})
    with pytest.raises(KeyboardInterrupt):
        work.do(jobs=1, done=str)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install 'sparsediag"):
        ENGINES["ray"](2)


@pytest.mark.parametrize(
    ("by", "told"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "memory ran out")], ids=str
)
def test_a_crash_is_told_apart_from_a_lack_of_memory(by: signal.Signals, told: str) -> None:
    work = Work({"a": (signal.raise_signal, (by,)), "b": (os.getpid, ())}, {"b": {"a"}})
    with pytest.raises(ValueError, match=told):
        work.do(jobs=2, done=str)
