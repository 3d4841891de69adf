"""Rows of sd.Watch from `python -m training`: one key more, and the training is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsediag as sd
from training.__main__ import main

RUN = """
data = "digits"
model = {name = "lenet300", width = 16}
optim = {epochs = 2, batch_size = 390}
mask = {method = "random", density = 0.2}
record = {checkpoint_epochs = [1], gradient_flow = true, eigenvalue_every = 1}
"""


def train(folder: Path, *keys: str) -> Path:
    """Return the folder of the run."""
    (folder / "run.toml").write_text(RUN)
    out = folder / "-".join(["out", *keys])
    assert main([str(folder / "run.toml"), *keys, "--out", str(out), "--device", "cpu"]) == 0
    return next(out.glob("runs/*"))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_rows_of_a_training(tmp_path: Path) -> None:
    plain, watched = train(tmp_path), train(tmp_path, "--record.watch_every", "3")
    assert not (plain / "watch.jsonl").exists()
    assert (plain / "history.jsonl").read_bytes() == (watched / "history.jsonl").read_bytes()
    weights = [sd.Checkpoint.load(folder / "last.pt").weights for folder in (plain, watched)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    header, *rows = read(watched / "watch.jsonl")
    assert header["density"] == pytest.approx(0.2, abs=1e-3)
    assert [(row["step"], row["epoch"]) for row in rows if "note" not in row] == [(3, 1), (6, 2)]
    checkpoint, row = sd.Checkpoint.load(watched / "epoch-001.pt"), rows[-2]
    assert checkpoint.step == row["step"] == 3
    assert checkpoint.mask is not None
    probe = sd.data.load("digits").batches("train", images=384)
    problem = sd.Problem(checkpoint.build(), probe, mask=checkpoint.mask)
    flow, (history, _) = sd.gradflow(problem), read(watched / "history.jsonl")
    active = sd.activations(problem)
    assert row["probe_loss"] == pytest.approx(problem.value(), rel=1e-6)
    zeros = np.average(active.zeros, weights=active.units)
    assert row["probe_activations/zeros"] == pytest.approx(zeros, rel=1e-6)
    assert row["probe_gradient/flow"] == pytest.approx(flow.mean, rel=1e-6)
    assert row["probe_gradient/flow"] == pytest.approx(history["gradient_flow"], rel=1e-6)
    assert row["eigenvalue/1"] == pytest.approx(history["eigenvalue"], rel=1e-2)
    assert row["mask/density"] == checkpoint.mask.density
    assert row["mask/dead_not_zero"] == 0
    assert row.keys() >= {"loss", "lr", "gradient/live", "update/kept", "activations/dead"}
