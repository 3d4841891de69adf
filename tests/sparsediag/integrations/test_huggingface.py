"""The callback in Hugging Face's own Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from watched import half, recipe

from training.keeper import MaskedOptimizer

transformers = pytest.importorskip("transformers")
callback = pytest.importorskip("sparsediag.integrations.huggingface")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the Trainer: no pinned memory on a CPU


def prepare(folder: Path, **options: Any) -> tuple[nn.Module, Any, list[dict[str, Any]]]:
    """A small GPT-2, arguments of the Trainer, and samples."""
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    net = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(0, 16, (16, 8), generator=torch.Generator().manual_seed(0))
    samples = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    return net, arguments, samples


def train(folder: Path, **options: Any) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train in three lines of the user's own: import, callback, Trainer."""
    net, arguments, samples = prepare(folder)
    watched = []
    if options:
        tokens = torch.stack([sample["input_ids"] for sample in samples[:4]])
        probe = [{"input_ids": tokens, "labels": tokens}]
        watched = [callback.WatchCallback(mask=half(net), probe=probe, **options)]
    trainer = transformers.Trainer(net, arguments, train_dataset=samples, callbacks=watched)
    trainer.train()
    return net, trainer.state.log_history


def test_rows_and_the_same_weights(tmp_path: Path) -> None:
    file = tmp_path / "watch.jsonl"
    watched, history = train(tmp_path, every=2, file=file)
    plain, _ = train(tmp_path)
    assert all(map(torch.equal, watched.parameters(), plain.parameters()))
    assert not any(m._forward_pre_hooks for m in watched.modules())
    _, *lines = map(json.loads, file.read_text().splitlines())
    rows = [line for line in lines if "note" not in line]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0].keys() >= {"lr", "epoch", "gradient/live", "gradient/dead", "update/kept"}
    assert rows[0].keys() >= {"activations/zeros", "probe_loss", "eigenvalue/1"}
    assert [row["step"] for row in history if "gradient/live" in row] == [2, 4]


def test_the_recipe_that_keeps_a_net_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net, arguments, samples = prepare(tmp_path, weight_decay=0.1, learning_rate=0.1)
    mask = half(net)
    before = {name: net.get_parameter(name).detach() * m for name, m in mask.items()}
    mask.apply_(net)
    names = {"transformers": transformers, "WatchCallback": callback.WatchCallback}
    names |= {"MaskedOptimizer": MaskedOptimizer, "mask": mask}
    text = recipe("transformers.TrainerCallback").replace("every=100", "every=2")
    space: dict[str, Any] = {**names, "net": net, "arguments": arguments, "data": samples}
    exec(text, space)
    space["trainer"].train()
    assert all(bool((net.get_parameter(n)[~m] == 0).all()) for n, m in mask.items())
    assert not any(torch.equal(net.get_parameter(n), w) for n, w in before.items())
    rows = [row for row in space["trainer"].state.log_history if "mask/density" in row]
    assert [row["mask/dead_not_zero"] for row in rows] == [0, 0]
