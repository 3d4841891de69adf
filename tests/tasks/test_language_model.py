"""Activations and loss landscape of a language model on a text: one command each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparsediag as sd
from sparsediag.cli.app import main

TEXT = """
import torch

TEXT = b"sparse networks are ordinary networks with many weights at zero; " * 4


def batches():
    ids = torch.tensor(list(TEXT[:128])).reshape(8, 16)
    return [{"input_ids": ids, "labels": ids}]
"""
SIZES = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 128}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the imports of other packages


@pytest.fixture
def gpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A GPT-2 with random weights, saved in the folder `gpt`, beside text.py."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    Path("text.py").write_text(TEXT)
    config = transformers.GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0)
    net: torch.nn.Module = transformers.GPT2LMHeadModel(config).eval()
    net.save_pretrained("gpt")
    return net


def test_one_command_each(gpt: torch.nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gpt", "--model", "hf:gpt", "--data", "text.py:batches", "--quiet"]
    assert main(["activations", *words]) == 0
    assert main(["landscape", *words, "--points", "3"]) == 0
    names = sd.Activations.load(next(Path().glob("gpt-activations*.npz"))).names
    assert names == [f"transformer.h.{i}.mlp.act" for i in range(2)]
    space: dict[str, object] = {}
    exec(TEXT, space)
    ids = space["batches"]()[0]["input_ids"]  # type: ignore[operator]
    with torch.no_grad():
        loss = float(gpt(input_ids=ids, labels=ids).loss)
    assert sd.Landscape.load(next(Path().glob("gpt-landscape*.npz"))).centre == pytest.approx(loss)
    assert "8 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hf:nowhere"], "hf:nowhere: need a folder with config.json"),
        (["hf:gpt", "--model-options", "n_lyer=3"], "'n_lyer'; did you mean 'n_layer'?"),
        (["hf:gpt", "--model-options", "n_layer=3"], "weights do not fit hf:gpt"),
    ],
)
@pytest.mark.usefixtures("gpt")
def test_what_does_not_fit_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["activations", "gpt", "--data", "text.py:batches", "--model", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
