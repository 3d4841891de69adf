"""LoRA on pruned nets: masked adapters, and merges that revive no weight."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from watched import recipe

import sparsediag as sd
from sparsediag.cli.app import main
from sparsediag.integrations.peft import mask_adapters, merge
from training.keeper import MaskedOptimizer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the imports of other packages
R, ALPHA = 2, 3
PROBE = [
    (torch.randn(16, 6, generator=torch.Generator().manual_seed(i)).double(), None) for i in (0, 1)
]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.5},
    "bias": {"lora_bias": True, "bias": "all"},
    "head in full": {"modules_to_save": ["norm"]},
}


@pytest.fixture(scope="module")
def peft() -> Any:
    """Imported by the process that runs these tests only: it takes seconds."""
    return pytest.importorskip("peft")


class Net(nn.Module):
    """A linear layer, one of GPT-2's with a square weight (in, out), and a norm."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.first, self.second = nn.Linear(6, 5), Conv1D(5, 5)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.second(torch.tanh(self.first(x))))
        return y


def pruned(net: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, sd.Mask]:
    """The net with 40 % of the weights in each layer."""
    net = net.to(dtype)
    weights = {name: net.get_parameter(name).abs() for name in sd.prunable_weights(net)}
    mask = sd.Mask.top(weights, 0.4, scope="layer")
    mask.apply_(net)
    return net, mask


def adapted(peft: Any, net: nn.Module, adapters: int = 1, **options: Any) -> Any:
    """The net with adapters of random numbers."""
    options = {"target_modules": ["first", "second"], "init_lora_weights": False} | options
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, **options)
    model = peft.get_peft_model(net, config)
    for i in range(1, adapters):
        model.add_adapter(f"more{i}", config)
    model.base_model.set_adapter([*model.peft_config])
    return model.eval()


@pytest.mark.parametrize(
    ("form", "adapters"), [*((form, 1) for form in FORMS), *((form, 2) for form in list(FORMS)[:3])]
)
def test_the_merge_of_masked_adapters_is_exact(peft: Any, form: str, adapters: int) -> None:
    torch.manual_seed(0)
    net, mask = pruned(Net())
    before = {name: net.get_parameter(name).detach().clone() for name in mask}
    model = adapted(peft, net, adapters, **FORMS[form])
    state = copy.deepcopy(model.state_dict())
    unmasked = merge(model, mask, probe=PROBE)
    mask_adapters(model, mask)
    merged = merge(copy.deepcopy(model), mask, probe=PROBE)
    assert merged.change is not None
    assert unmasked.change is not None
    assert merged.change < 1e-14 < 0.01 < unmasked.change
    assert merged.revived == mask.size - mask.alive
    assert sd.Mask.of(merged.net) == merged.mask == mask
    assert repr(merged).count(f"{merged.revived}") == 2
    scaling = ALPHA / (R**0.5 if form == "rank-stabilised" else R)
    for name, m in mask.items():
        layer = model.get_submodule(f"base_model.model.{name.removesuffix('.weight')}")
        pairs = [(layer.lora_A[key], layer.lora_B[key]) for key in layer.lora_A]
        update = scaling * sum(B.weight @ A.weight for A, B in pairs)
        update = update.T if name == "second.weight" else update  # (in, out)
        torch.testing.assert_close(merged.net.get_parameter(name), before[name] + m * update)
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_the_gradients_are_those_of_the_formula(peft: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 5, dtype=torch.float64)
    net, mask = pruned(nn.Sequential(layer))
    model = adapted(peft, net, target_modules=["0"])
    mask_adapters(model, mask)
    weights = [p for p in model.parameters() if p.requires_grad]
    A, B = weights
    found = torch.autograd.grad(model(PROBE[0][0]).square().sum(), weights)
    W = layer.weight + mask["0.weight"] * (ALPHA / R * B @ A)
    expected = torch.autograd.grad((PROBE[0][0] @ W.T + layer.bias).square().sum(), weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, ["'base_model.model.first'", "DoraLinearVariant"]),
        ({"target_modules": ["conv"]}, ["'base_model.model.conv'", "Conv2d"]),
        ({"init_lora_weights": "pissa"}, ["first.weight", "PiSSA"]),
        ({"target_parameters": ["first.weight"], "target_modules": []}, ["ParamWrapper"]),
        ({"target_modules": ["embed"]}, ["target_modules"]),
    ],
)
def test_what_cannot_be_masked_is_refused(
    peft: Any, options: dict[str, Any], words: list[str]
) -> None:
    torch.manual_seed(0)
    net, mask = pruned(Net(), torch.float32)
    net.conv, net.embed = nn.Conv2d(1, 2, 3), nn.Embedding(3, 2)
    mask = sd.Mask({**mask, "conv.weight": torch.ones(2, 1, 3, 3, dtype=torch.bool)})
    model = adapted(peft, net, **options)
    with pytest.raises(ValueError, match=r".") as error:
        mask_adapters(model, mask)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
    assert not any(m._forward_hooks for m in model.modules())
    if "use_dora" in options:  # PEFT's own merge, under the mask
        probe = [(x.float(), y) for x, y in PROBE]
        merged, plain = merge(model, mask, probe=probe), copy.deepcopy(model).merge_and_unload()
        assert all(
            torch.equal(merged.net.get_parameter(n), plain.get_parameter(n) * m)
            for n, m in mask.items()
        )
        assert (merged.change or 0) > 0.01


def test_a_network_without_adapters_is_refused() -> None:
    net, mask = pruned(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"Sequential.*peft\.PeftModel"):
        merge(net, mask)


def test_layers_that_are_trained_in_full_are_kept_sparse_by_the_optimizer(peft: Any) -> None:
    torch.manual_seed(0)
    net, mask = pruned(Net())
    model = adapted(peft, net, target_modules=["first"], modules_to_save=["second"])
    mask_adapters(model, mask)
    trained = [p for p in model.parameters() if p.requires_grad]
    masked = MaskedOptimizer(model, mask, torch.optim.Adam(trained, lr=0.1))
    rows: list[dict[str, Any]] = []
    with sd.Watch(model, mask=mask, every=2, log=rows.append, file=None) as watch:
        for _ in range(2):
            masked.optimiser.zero_grad()
            model(PROBE[0][0]).square().mean().backward()
            masked.step()
            watch.step()
    assert rows[0]["mask/dead_not_zero"] == 0
    merged = merge(model, mask, probe=PROBE)
    assert merged.change is not None
    assert merged.change < 1e-14
    assert not torch.equal(
        merged.net.get_parameter("second.weight"), net.second.original_module.weight
    )


def test_watch_of_adapters_reads_their_gradients(peft: Any) -> None:
    torch.manual_seed(0)
    net, mask = pruned(Net())
    model = adapted(peft, net)
    mask_adapters(model, mask)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    rows: list[dict[str, Any]] = []
    options: dict[str, Any] = {"mask": mask, "every": 1, "log": rows.append, "file": None}
    with sd.Watch(model, optimizer=optimizer, metrics="gradient,update,mask", **options) as watch:
        model(PROBE[0][0]).square().mean().backward()
        gradients = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        optimizer.step()
        watch.step()
    assert rows[0]["gradient/live"] == pytest.approx(float(gradients.norm()))
    assert rows[0]["update/kept"] > 0
    assert rows[0]["mask/dead_not_zero"] == 0
    assert "gradient/dead" not in rows[0]


def test_the_recipe_and_the_same_sparsity_in_the_files(
    peft: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net, mask = pruned(Net())
    sd.Checkpoint.of(net, mask=mask).save("before.pt")

    def train(model: nn.Module) -> None:
        optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
        for _ in range(2):
            optimizer.zero_grad()
            model(PROBE[0][0]).square().mean().backward()
            optimizer.step()

    space: dict[str, Any] = {"peft": peft, "sd": sd, "net": net, "mask": mask, "train": train}
    exec(recipe("mask_adapters"), space | {"targets": ["first", "second"], "batches": PROBE})
    assert "Merged: 33 of 55 weights are 0" in capsys.readouterr().out
    torch.save(sd.Checkpoint.load("after.pt").weights, "weights.pt")  # its zeros say the same
    files = ["before.pt", "after.pt", "weights.pt"]
    assert main(["info", *files, "--mask", "zeros", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    del found["census"]
    assert {one["density"] for one in found.values()} == {mask.density}
    assert len({json.dumps(one["layers"]) for one in found.values()}) == 1
