"""Progress where there is no terminal: a line by time, whether steps are done or not."""

from __future__ import annotations

import time

import pytest

from sparsediag.plotting import terminal


def test_lines_say_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_A_LINE", 0.02)
    with terminal.progress_bar("report") as progress:
        time.sleep(0.05)
        progress(3, 12)
        time.sleep(0.05)
    ended = capsys.readouterr()
    first, *_, last = ended.err.splitlines()
    assert first == "report: 0:00:00 elapsed"
    assert last.startswith("report: 3 of 12 done, 0:00:00 elapsed")
    time.sleep(0.05)
    assert capsys.readouterr().err == ended.out == ""


def test_a_short_task_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress_bar("trace") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_a_table_is_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"layer": "fc", "loss": 0.5}]
    expected = terminal.format_table("net", rows)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert terminal.format_table("net", rows) == expected
    assert expected.splitlines()[-1].split() == ["fc", "0.5"]


def test_steps_that_are_done_are_whole_numbers() -> None:
    with terminal.progress_bars(quiet=True) as bars:
        bars.add_task("figures", total=70)
        (task,) = bars.tasks
        for done, text in ((69.4333, "69 of 70 done"), (69.99999999, "70 of 70 done")):
            bars.update(task.id, completed=done)
            assert terminal._counts(task).startswith(text)
