"""The section of a report on what a Watch recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sparsediag as sd
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.page import page
from sparsediag.diagnostics.report.watched import split_sources, watched


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training with a checkpoint, and with rows of which the last has no loss."""
    net = torch.nn.Linear(2, 2)
    sd.Checkpoint.of(net, model="mine", options={}).save(tmp_path / "best.pt")
    lines = [
        '{"watch": 1, "net": "Linear"}',
        '{"step": 5, "loss": 2.5}',
        '{"step": 9, "loss": null}',
    ]
    (tmp_path / "watch.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_folder_is_its_checkpoint_and_its_rows(run: Path) -> None:
    nets, recording = split_sources(run)
    assert nets == [run / "best.pt"]
    assert recording is not None
    assert recording.files == [str(run / "watch.jsonl")]
    nets, recording = split_sources({"one": run, "two": run / "watch.jsonl"})
    assert nets == {"one": run / "best.pt"}


def test_files_are_told_apart(run: Path) -> None:
    problem = sd.Problem(torch.nn.Linear(3, 2), [(torch.eye(3), torch.tensor([0, 1, 0]))])
    assert split_sources({"net": problem}) == ({"net": problem}, None)
    assert split_sources([run / "best.pt"]) == ([run / "best.pt"], None)
    (run / "watch.jsonl").unlink()
    assert split_sources([run]) == ([run], None)  # is refused, as ever


def test_the_section_has_pictures_a_table_and_what_is_not_finite(run: Path) -> None:
    recording = sd.read_watch(run)
    html = watched(recording).html()
    assert "Loss.</b>" in html
    assert "lowest 2.5 at 5" in html  # for who cannot see it
    assert "not finite" in html
    measured = replace(Measured({}, {}, None, None, {}), recording=recording)
    whole = page(measured)
    assert '<a href="#watch">watch</a>: loss is not finite in 1 of 2 rows' in whole
    assert str(run / "watch.jsonl") in whole
