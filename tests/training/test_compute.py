"""How a training step is computed does not change what it comes to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsediag import models
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import ConfigError
from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from training.compute import Compute
from training.config import Run
from training.keeper import MaskedOptimizer
from training.loop import fit

CPU = torch.device("cpu")
TABLE: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "resnet18", "width": 8},
    "mask": {"method": "random", "density": 0.1},
    "optim": {"epochs": 2, "batch_size": 390, "lr": 0.01},
}


def _net(name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, width=8 if name == "resnet18" else 4).train()


def _gradient(compute: Compute, name: str) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the gradient of their sum of squares."""
    net, x = _net(name), torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    compute.set_memory_format(net, CPU)
    outputs = compute.build_forward(net, x)(x)
    return outputs, list(torch.autograd.grad(outputs.square().sum(), list(net.parameters())))


@pytest.mark.parametrize(
    ("compute", "name", "rough"),
    [
        (Compute(layout="channels_last"), "resnet18", 1e-4),
        (Compute(precision="bf16"), "vgg16", 0.1),
    ],
    ids=["channels_last", "bf16"],
)
def test_outputs_and_gradients_are_those_of_float32(
    compute: Compute, name: str, rough: float
) -> None:
    (expected, slopes), (came, theirs) = _gradient(Compute(), name), _gradient(compute, name)
    assert came.dtype == torch.float32
    assert 0 < (came - expected).norm() <= rough * expected.norm()
    for a, b in zip(theirs, slopes, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 3 * rough * b.norm() + 1e-5


def test_a_narrow_network_stays_contiguous_on_a_cpu() -> None:
    """A strided 1x1 convolution of few channels crashes with channels last; see test_layout."""
    net, compute = models.build("resnet18", width=4), Compute(layout="channels_last")
    with pytest.warns(UserWarning, match="stays contiguous"):
        compute.set_memory_format(net, CPU)
    assert all(w.is_contiguous() for w in net.parameters())
    seen = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    compute.build_forward(net, x)(x)
    assert seen == [True]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_float32_means_float32_and_tf32_is_asked_for(precision: Any) -> None:
    get = torch._C._get_fp32_precision_getter
    operations = [("cuda", op) for op in ("matmul", "conv", "rnn")]
    before = [get(*o) for o in operations]
    with Compute(precision=precision).arithmetic():
        assert {get(*o) for o in operations} == {"ieee" if precision == "float32" else "tf32"}
        assert {get("mkldnn", op) for op in ("matmul", "conv", "rnn")} == {"ieee"}
        assert torch.backends.cudnn.allow_tf32 == (precision != "float32")
    assert [get(*o) for o in operations] == before


def test_a_compiled_net_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda net: lambda x: net(x) * 1.01)
    with pytest.raises(ConfigError, match=r"^compute.compile: the compiled net's outputs are off"):
        Compute(compile=True).build_forward(_net(), torch.randn(2, 3, 8, 8))


def test_a_compiled_net_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # tracing is what a net can break; code generation takes half a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    table = TABLE | {"model": {"name": "lenet300", "width": 20}, "compute": {"compile": True}}
    history = Checkpoint.load(fit(Run.of(table), out=tmp_path, device="cpu")).history
    eager = Run.of({key: value for key, value in table.items() if key != "compute"})
    expected = Checkpoint.load(fit(eager, out=tmp_path, device="cpu")).history
    assert [row["train_loss"] for row in history] == pytest.approx(
        [row["train_loss"] for row in expected], rel=1e-4
    )


def test_the_mask_lies_in_memory_as_the_weights_do() -> None:
    net = _net()
    Compute(layout="channels_last").set_memory_format(net, CPU)
    mask = Mask.top({n: torch.rand(net.get_parameter(n).shape) for n in prunable(net)}, 0.5)
    keeper = MaskedOptimizer(net, mask, torch.optim.SGD(net.parameters(), lr=0.1))
    for weight, alive in zip(keeper.weights, keeper.held.alive, strict=True):
        assert alive.stride() == weight.stride()
