"""Rows of trainings as tables, curves and pictures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

import sparsediag as sd
from sparsediag.plotting import style

HEADER = {"watch": 1, "net": "MLP", "weights": 1000, "density": 0.2, "every": 10}


def write(path: Path, count: int = 40, **changes: Any) -> Path:
    """A file of a training of `count` rows in epochs of 50 steps."""
    lines: list[dict[str, Any]] = [HEADER | changes]
    for i in range(1, count + 1):
        row = {"step": 10 * i, "epoch": (10 * i - 1) // 50, "loss": 2 * math.exp(-i / 8), "lr": 0.1}
        row |= {"gradient/live": 1 + i, "gradient/dead": 2 + i, "mask/dead_not_zero": 0}
        row["noise/scale" if i > 5 else "noise/scale_not_converged"] = 100 - i
        row |= {"eigenvalue/1": 5.0 + i, "eigenvalue/1_residual": 1e-3} if i % 10 == 0 else {}
        lines.append(row)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def append(path: Path, **row: Any) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_curves_have_what_the_file_has(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl"))
    _, _, steps, values, converged = recording.curve("eigenvalue/1")
    assert (steps.tolist(), values.tolist()) == ([100, 200, 300, 400], [15, 25, 35, 45])
    assert converged.all()
    noise = recording.curve("noise/scale")
    assert (len(noise.steps), noise.converged.tolist()) == (40, [False] * 5 + [True] * 35)
    with pytest.raises(ValueError, match="'los'; did you mean 'loss'"):
        recording.curve("los")
    with pytest.raises(ValueError, match="unknown training 'x'"):
        recording.curve("loss", "x")


def test_the_table_has_the_last_value_the_change_and_a_curve(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl"))
    rows = {row.pop("metric"): row for row in recording.table(8)}
    assert "epoch" not in rows
    change = 100 * (math.exp(-4 / 8) - 1)  # tenths of 4 rows, of an exponential
    assert rows["loss"]["last"] == f"{2 * math.exp(-40 / 8):.4g}"
    assert rows["loss"]["change"] == f"{change:+.2g} %"
    assert (rows["loss"]["curve"][0], rows["loss"]["curve"][-1]) == ("█", "▁")
    assert rows["lr"] == {"last": "0.1", "change": "", "curve": "────────"}
    assert rows["noise/scale"]["curve"][0] == "·"
    below = " ".join(recording.below())
    assert "step 400 in epoch 7, 40 rows, every 10" in below
    assert "noise/scale in 5 of 40 rows" in below


def test_what_did_not_converge_or_is_not_finite_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "watch.jsonl", 5)
    last = {"step": 60, "loss": None, "noise/scale_not_converged": 7.0, "mask/dead_not_zero": 3}
    append(file, **last)
    recording = sd.read_watch(file)
    rows = {row["metric"]: row for row in recording.table()}
    assert (rows["loss"]["last"], rows["noise/scale"]["last"]) == ("not finite", "7 *")
    doubts = ["loss is not finite in 1 of 6 rows, first at step 60"]
    assert recording.doubts == [*doubts, "dead weights are not 0, first at step 60"]


def test_a_recording_is_saved_and_read(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl"))
    again = sd.Result.load(recording.save(tmp_path / "r.npz"))
    assert isinstance(again, sd.Recording)
    assert again.table() == recording.table()
    assert again.curve("loss").values.tolist() == recording.curve("loss").values.tolist()


def test_the_csv_has_the_names_of_the_file(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl"), labels=["mine"])
    recording.exports()["csv"](tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert [row["noise/scale"] for row in rows[4:6]] == ["", "94.0"]
    assert [row["noise/scale_not_converged"] for row in rows[4:6]] == ["95.0", ""]
    assert (rows[0]["training"], rows[9]["step"], rows[9]["eigenvalue/1"]) == (
        "mine",
        "100.0",
        "15.0",
    )


def test_labels_say_what_differs(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    files = [write(tmp_path / name / "watch.jsonl") for name in "ab"]
    assert sd.read_watch(*files).labels == ["a", "b"]
    write(files[1], density=0.1)
    assert sd.read_watch(*files).labels == ["density 0.2", "density 0.1"]
    for i, file in enumerate(files):
        (file.parent / "run.toml").write_text(f'seed = {i}\nmask = {{method = "snip"}}')
    assert sd.read_watch(*files).labels == ["seed 0", "seed 1"]
    (tmp_path / "b" / "run.toml").write_text('tweaks = ["tost"]')  # as a user writes it
    assert sd.read_watch(*files).labels == ["density 0.2", "density 0.1"]
    (tmp_path / "b" / "run.toml").write_text('seed = 1\nmask = {method = "snip"}')
    assert list(sd.read_watch(*files).table()[0])[:2] == ["metric", "last, seed 0"]
    with pytest.raises(ValueError, match="twice"):
        sd.read_watch(files[0], files[0])
    for names in (["one"], ["one", "one"]):
        with pytest.raises(ValueError, match="need 2 different names"):
            sd.read_watch(*files, labels=names)


def test_steps_and_epochs_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "val_loss": 0.5}\n')
    watch_file = write(tmp_path / "watch.jsonl")
    with pytest.raises(ValueError, match=r"has steps and .*history.jsonl only epochs"):
        sd.read_watch(watch_file, tmp_path / "history.jsonl")
    assert sd.read_watch(tmp_path / "history.jsonl").axis == "epoch"


def test_each_group_has_a_panel(tmp_path: Path) -> None:
    file = write(tmp_path / "watch.jsonl")
    append(file, **{"step": 410, "my/score": 3.0, "activations/zeros/conv": 0.5})
    recording = sd.read_watch(file)
    assert list(recording.panel_curves()) == [
        *("loss", "learning rate", "gradient norm", "zeros by module", "Hessian eigenvalue"),
        *("noise scale (samples)", "my"),
    ]
    assert [c.name for c in recording.panel_curves()["gradient norm"]] == ["live", "dead"]
    with pytest.raises(ValueError, match="unknown panel 'los'"):
        recording.plot(panel="los")


def test_one_training_has_a_colour_for_each_metric(tmp_path: Path) -> None:
    ax = sd.read_watch(write(tmp_path / "watch.jsonl")).plot(panel="gradient norm")
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["live", "dead"]
    assert [to_hex(line.get_color()).upper() for line in legend.get_lines()] == [*style.COLOURS[:2]]
    assert ax.get_xlabel() == "step (a line for each epoch)"
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_zorder() < 1]
    assert marks == [55, 105, 155, 205, 255, 305, 355]  # between the rows of two epochs


def test_several_trainings_have_a_colour_each(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", 20, density=0.1)]
    ax = sd.read_watch(*files).plot()
    (key,) = [one.get_legend() for one in ax.figure.axes if not one.axison]
    names = [text.get_text() for text in key.get_texts()]
    assert names == ["density 0.2", "density 0.1", "not converged"]
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert [line.get_color() for line in curves] == [*style.COLOURS[:2]]


def test_what_did_not_converge_is_hollow_and_off_the_line(tmp_path: Path) -> None:
    ax = sd.read_watch(write(tmp_path / "watch.jsonl")).plot(panel="noise scale (samples)")
    line, hollow = (one for one in ax.lines if one.get_zorder() >= 1)
    assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [0, 1, 2, 3, 4]
    assert hollow.get_ydata().tolist() == [99, 98, 97, 96, 95]
    assert (hollow.get_linestyle(), hollow.get_markerfacecolor()) == ("None", "white")


def test_a_point_between_others_that_did_not_converge_is_marked(tmp_path: Path) -> None:
    file = write(tmp_path / "watch.jsonl", 50)
    for i, name in enumerate(["", "_not_converged", "", "_not_converged", ""]):
        append(file, **{"step": 510 + i, f"noise/scale{name}": 5.0})
    line = sd.read_watch(file).plot(panel="noise scale (samples)").lines[-2]
    assert np.flatnonzero(line.get_markevery()).tolist() == [52, 54]


def test_a_gap_and_crosses_are_where_numbers_are_not_finite(tmp_path: Path) -> None:
    file = write(tmp_path / "watch.jsonl", 10)
    append(file, step=110, loss=None)
    append(file, step=120, loss=0.5)
    ax = sd.read_watch(file).plot(panel="loss")
    line, crosses = (one for one in ax.lines if one.get_zorder() >= 1)
    assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [10]
    assert (crosses.get_marker(), crosses.get_xdata().tolist()) == ("x", [110])


def test_long_runs_are_drawn_as_medians_and_ranges(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl", 1000))
    ax = recording.plot(panel="gradient norm")
    line = next(one for one in ax.lines if one.get_zorder() >= 1)
    assert line.get_ydata()[:2].tolist() == [6.5, 16.5]  # the medians of 2 ... 11 and 12 ... 21
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (2, 1001)
    assert ax.get_yscale() == "log"
    assert "every 8 epochs" in ax.get_xlabel()


def test_one_row_is_a_point(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl", 1))
    assert [row["curve"] for row in recording.table()] == [""] * len(recording.table())
    ax = recording.plot(panel="loss")
    assert [one.get_marker() for one in ax.lines] == ["."]
    assert recording.below()[0] == "step 10 in epoch 0, 1 row, every 10"


def test_no_row_has_no_picture(tmp_path: Path) -> None:
    recording = sd.read_watch(write(tmp_path / "watch.jsonl", 0))
    assert recording.table() == []
    with pytest.raises(ValueError, match="no number to draw"):
        recording.plot()
