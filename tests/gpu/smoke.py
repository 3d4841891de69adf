"""Eight nets: value, gradient and products on the device against float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import sparsediag as sd
from sparsediag.models import Ghost
from tests.gpu.settings import Measurements, Row, Settings, check

BOUNDS = {"value": 1e-5, "gradient": 1e-3, "tape": 1e-3, "retained": 1e-3}  # relative errors
TOKENS, LENGTH, CLASSES = 50, 12, 10


class Transformer(nn.Module):
    """Two layers of attention over tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.layers(self.embed(tokens)).mean(1))


class Recurrent(nn.Module):
    """An LSTM over tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.lstm(self.embed(tokens))[0][:, -1])


def nets(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    narrow = {"width": 8} if settings.dry else {}
    ghosts = {"activation": "ghost", "skips": "average"}
    return {
        "mlp": lambda: sd.models.build("mlp", channels=3, size=32, **narrow),
        "resnet20": lambda: sd.models.build("resnet20", **narrow),
        "resnet18": lambda: sd.models.build("resnet18", **narrow),
        "vgg16_bn": lambda: sd.models.build("vgg16_bn", **narrow),
        "mobilenet": lambda: sd.models.build("mobilenet", **narrow),
        "resnet20 with ghosts": lambda: sd.models.build("resnet20", **ghosts, **narrow),
        "transformer": lambda: Transformer(settings.size(64, 8)),
        "embedding and LSTM": lambda: Recurrent(settings.size(64, 8)),
    }


def measurements(settings: Settings) -> Measurements:
    for name, make in nets(settings).items():
        yield name, lambda make=make: against_float64(make, settings)


def against_float64(make: Callable[[], nn.Module], settings: Settings) -> Row:
    """Return the relative errors, and check each against its bound."""
    torch.manual_seed(0)
    net, samples = make(), settings.size(32, 4)
    tokens = hasattr(net, "embed")
    x: Tensor = (
        torch.randint(TOKENS, (samples, LENGTH)) if tokens else torch.randn(samples, 3, 32, 32)
    )
    y = torch.randint(CLASSES, (samples,))
    for module in net.modules():
        if isinstance(module, Ghost):
            module.fade(0.5)
    _settle(net, x)
    exact = sd.Problem(copy.deepcopy(net).double(), [(x if tokens else x.double(), y)])
    here = [(x.to(settings.device), y.to(settings.device))]
    problem = sd.Problem(net.to(settings.device), here)
    v = torch.randn(exact.size, generator=torch.Generator().manual_seed(1))
    value, product = exact.value(), exact.hvp(v.double())
    row: Row = {
        "value": abs(problem.value() - value) / abs(value),
        "gradient": _off(problem.gradient(), exact.gradient()),
    }
    for mode in ("tape", "retained"):
        try:
            hessian = sd.Curvature(problem, mode=mode)
        except ValueError as refusal:
            if f"mode '{mode}' cannot do this network" not in str(refusal) or mode == "retained":
                raise
            row[mode] = "refused"
            continue
        row[mode] = _off(hessian(v.to(settings.device)), product)
    bad = {k: not isinstance(v, float) or v <= BOUNDS[k] for k, v in row.items()}
    return check(row, **{f"{k}_within_{BOUNDS[k]:.0e}": good for k, good in bad.items()})


def _settle(net: nn.Module, x: Any) -> None:
    """Give batch norms the statistics of these inputs."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        net.train()(x)
    net.eval()


def _off(came: Tensor, expected: Tensor) -> float:
    came, expected = came.cpu().double(), expected.cpu().double()
    return float((came - expected).norm() / expected.norm())
