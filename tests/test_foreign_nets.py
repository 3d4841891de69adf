"""Nets of other people through five diagnostics, from Python and from the command line.

What a user has to write is at most ten lines: it stands in NETS.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsediag as sd
from sparsediag.cli.app import main

IMAGES = """
def batches():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return [(x, torch.arange(2))]
"""
NETS = {
    "resnet": """
import torch, torchvision
def make():
    net = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    net.layer3, net.layer4, net.fc = (*[torch.nn.Identity()] * 2, torch.nn.Linear(128, 10))
    return net
""" + IMAGES,
    "mobilenet_v3": """
import torch, torchvision
def make():
    return torchvision.models.mobilenet_v3_small(num_classes=10, width_mult=0.25)
""" + IMAGES,
    "timm_vit": """
import timm, torch
def make():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
""" + IMAGES,
    "bert_tiny": """
import torch, transformers
def make():
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    config = transformers.BertConfig(vocab_size=99, num_labels=3, **small)
    return transformers.BertForSequenceClassification(config)
def batches():
    ids = torch.randint(99, (6, 8), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(8) < torch.tensor([[8], [5], [8], [3], [8], [8]])).long()
    return [{"input_ids": ids, "attention_mask": mask, "labels": torch.arange(6) % 3}]
""",
    "lightning": """
import torch, lightning
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(9, 8), torch.nn.Linear(8, 3)
    def forward(self, x):
        return self.b(self.a(x).relu())
make = Module
batches = [(torch.eye(9), torch.arange(9) % 3)]
""",
    "regressor": """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
def batches():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader([(a, a.sum()[None]) for a in x], batch_size=8)
loss = torch.nn.functional.mse_loss
""",
    "decoder": """
import torch, transformers
def make():
    small = dict(vocab_size=99, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**small))
def batches():
    ids = torch.randint(99, (6, 12), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": ids, "labels": ids}]
""",
    "sequential": """
import torch
def make():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Dropout2d(0.5),
        torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3600, 10))
""" + IMAGES,
}  # fmt: skip
DIAGNOSTICS: dict[str, dict[str, Any]] = {
    "spectrum": {"top": 1, "tol": 0.5, "max-products": 8},
    "activations": {},
    "gradflow": {},
    "landscape": {"points": 3, "dims": 1},
    "perturbation": {"top": 1, "points": 3, "tol": 0.5},
}
NEEDED = {"timm_vit": "timm", "bert_tiny": "transformers", "decoder": "transformers"}
NEEDED["lightning"] = "lightning"


@pytest.fixture(params=NETS)
def user(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is defined in the user's file, and beside it `net.pt`, their net's state dict."""
    pytest.importorskip(NEEDED.get(request.param, "torch"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("user.py").write_text(NETS[request.param])
    space: dict[str, Any] = {"__name__": f"{request.param}_of_user"}
    exec(compile(NETS[request.param], "user.py", "exec"), space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        space["net"] = space["make"]().train()
    torch.save(space["net"].state_dict(), "net.pt")
    return space


@pytest.mark.parametrize("name", NETS)
def test_ten_lines_are_enough(name: str) -> None:
    assert len(NETS[name].strip().splitlines()) <= 10


@pytest.mark.filterwarnings("ignore")  # from the imports of other people's packages
def test_five_diagnostics_in_python_and_on_the_command_line(
    user: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    net, batches = user["net"], user["batches"]
    before, rng = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    loss = {"loss": user["loss"]} if "loss" in user else {}
    mask = sd.Mask.top({n: net.get_parameter(n).abs() for n in sd.prunable(net)}, density=0.05)
    sd.maskfile.save(mask, "mask.pt")
    problem = sd.Problem(net, batches() if callable(batches) else batches, mask=mask, **loss)
    words = ["--model", "user.py:make", "--data", "user.py:batches", "--device", "cpu"]
    words += ["--mask", "mask.pt"]
    words += ["--loss", "user.py:loss"] if loss else []
    for name, options in DIAGNOSTICS.items():
        diagnostic: Callable[..., sd.Result] = getattr(sd, name)
        found = diagnostic(problem, **{key.replace("-", "_"): v for key, v in options.items()})
        assert found.table()
        typed = [w for key, value in options.items() for w in (f"--{key}", str(value))]
        converged = getattr(found, "converged", True)
        assert main([name, "net.pt", *words, *typed, "--json"]) == (0 if converged else 3)
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["source"]["problem"] == found.source["problem"]  # the same function
        assert list(Path().glob(f"net-{name}*.npz"))
        assert list(Path().glob(f"net-{name}*.png"))
    assert net.training
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert "user" not in sys.modules or sys.modules["user"].__file__ is None
