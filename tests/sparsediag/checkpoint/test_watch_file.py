"""Files of Watch as they are while a training runs, resumes, or fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparsediag.checkpoint.watch_file import advise_watch, is_watch_file, read_watch_file

HEADER = '{"watch": 1, "net": "MLP", "every": 5}'


def write(path: Path, *lines: str | dict[str, Any], end: str = "\n") -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + end)
    return path


def rows(*steps: int, loss: float | None = 1.0) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss} for step in steps]


def test_a_line_that_is_written_by_half_is_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "w.jsonl", HEADER, *rows(5, 10), '{"step": 15, "lo', end="")
    read = read_watch_file(file)
    assert (read.axis, read.header["net"], read.rows) == ("step", "MLP", rows(5, 10))
    assert read.notes == []


def test_a_line_that_stayed_so_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "w.jsonl", HEADER, *rows(5), '{"step": 10, "l' + HEADER, *rows(10))
    read = read_watch_file(file)
    assert read.rows == rows(5, 10)
    assert read.notes == ["left out, since they are no JSON: 1 of 4 lines"]


def test_a_resumed_training_replaces_its_later_rows(tmp_path: Path) -> None:
    before, after = rows(5, 10, 15, 20), rows(12, 17, loss=2.0)
    read = read_watch_file(write(tmp_path / "w.jsonl", HEADER, *before, HEADER, *after))
    assert read.rows == before[:2] + after
    assert read.notes == ["step 12 came again after 20: the later rows are shown"]


def test_a_new_training_in_the_same_file_replaces_the_first(tmp_path: Path) -> None:
    read = read_watch_file(write(tmp_path / "w.jsonl", HEADER, *rows(5, 10), HEADER, *rows(5)))
    assert read.rows == rows(5)


def test_other_keys_notes_and_numbers_that_are_not_finite(tmp_path: Path) -> None:
    note = {"step": 5, "note": "gradient: all gradients are 0"}
    row = {"step": 5, "loss": None, "name": "x", "done": True, "layers": [1], "my/score": 3}
    read = read_watch_file(write(tmp_path / "w.jsonl", HEADER, note, row, "[1]", '"text"'))
    assert read.rows == [{"step": 5, "loss": None, "my/score": 3}]
    assert read.notes[0] == "step 5: gradient: all gradients are 0"


def test_a_folder_of_a_training(tmp_path: Path) -> None:
    write(tmp_path / "history.jsonl", {"epoch": 1, "val_loss": 0.5, "test_loss": None})
    read = read_watch_file(tmp_path)
    assert (read.axis, read.rows) == ("epoch", [{"epoch": 1, "val_loss": 0.5}])
    write(tmp_path / "watch.jsonl", *rows(5))
    assert read_watch_file(tmp_path).path == tmp_path / "watch.jsonl"


@pytest.mark.parametrize("text", ["", "hello\n", '{"a": 1}\n', "\x00\x80", "[1, 2]\n"])
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "w.jsonl"
    file.write_bytes(text.encode("latin1"))
    assert not is_watch_file(file)
    assert advise_watch(file) == ""
    with pytest.raises(ValueError, match=r"w\.jsonl is no file of rows"):
        read_watch_file(file)


def test_a_missing_file_names_one_that_is_near(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_watch_file(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    write(tmp_path / "runs" / "one" / "watch.jsonl", *rows(5))
    with pytest.raises(FileNotFoundError, match="runs/one"):
        read_watch_file(tmp_path)
