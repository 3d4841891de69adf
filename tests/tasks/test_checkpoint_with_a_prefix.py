"""A checkpoint from a tracking tool, with its weights nested and under a prefix: one command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsediag as sd
from sparsediag.cli.app import main

NET = """
import torch


def make():
    return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(32, 8, generator=generator), torch.arange(32) % 3)]
"""
State = Mapping[str, torch.Tensor]
LAYOUTS: dict[str, Callable[[State, Any], Any]] = {
    "under state_dict": lambda state, optimizer: {"state_dict": state, "epoch": 3},
    "beside the optimizer": lambda state, optimizer: {
        "model_state_dict": state,
        "optimizer_state_dict": optimizer,
        "config": {"lr": 0.1, "_wandb": {"desc": None}},
    },
    "nested twice": lambda state, optimizer: {
        "checkpoint": {"state_dict": state, "optimizer": optimizer},
        "step": 100,
    },
}


@pytest.mark.parametrize(
    ("layout", "prefix"),
    [
        (LAYOUTS["under state_dict"], "model."),
        (LAYOUTS["beside the optimizer"], "model._orig_mod."),
        (LAYOUTS["nested twice"], "module.model."),
    ],
    ids=LAYOUTS,
)
def test_one_command_reads_it(
    layout: Callable[[State, Any], Any],
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    space: dict[str, Any] = {}
    exec(NET, space)
    net = space["make"]()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    ((x, y),) = space["batches"]()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    state = {f"{prefix}{name}": t for name, t in net.state_dict().items()}
    torch.save(layout(state, optimizer.state_dict()), "latest.pt")
    words = "spectrum latest.pt --model net.py:make --data net.py:batches --top 1 --formats"
    assert main([*words.split(), ""]) == 0
    (file,) = Path().glob("latest-spectrum*.npz")
    expected = sd.spectrum(sd.Problem(net, space["batches"]()), top=1)
    assert sd.Spectrum.load(file).eigenvalues == pytest.approx(expected.eigenvalues, rel=1e-4)
    assert "converged" in capsys.readouterr().out
