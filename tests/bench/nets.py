"""Nets that have learnt something, for the benchmarks: trained once, kept in out/bench/."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import sparsediag as sd
from tests.bench.timing import CPU
from training.keeper import MaskedOptimizer

KEPT = Path("out/bench")
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How a net is trained, and on how many images it is measured."""

    images: int
    batch: int
    epochs: int
    measured: int


RECIPES = {"resnet20": Recipe(6000, 128, 8, 128), "resnet18": Recipe(3000, 64, 4, 16)}


def folder() -> Path | None:
    """CIFAR-10 as class folders of JPEGs, where it is found."""
    here = sd.data.home() / "cifar10-jpeg"
    return here if here.exists() else None


def data_name() -> str:
    return "CIFAR-10 (JPEG)" if folder() else "digits at 32 x 32"


def batches(images: int, batch: int, device: torch.device = CPU) -> Batches:
    """Images of 3 x 32 x 32."""
    if folder():
        loaded = sd.data.load(f"folder:{folder()}", device=device)
        return loaded.batches("train", images=images, batch=batch)
    return digits(images, batch, device)


def digits(images: int, batch: int, device: torch.device = CPU) -> Batches:
    """Digits enlarged to 32 x 32 pixels and three channels."""
    pairs = sd.data.load("digits", device=device).batches("train", images=images, batch=batch)
    return [
        (F.interpolate(x, scale_factor=4.0).expand(-1, 3, -1, -1).contiguous(), y) for x, y in pairs
    ]


def trained(
    name: str, density: float, *, more: bool = False, device: torch.device = CPU
) -> sd.Checkpoint:
    """A net under a random mask; `more` for the same one an epoch later."""
    label = f"{name}-{density:g}-{data_name()}"
    file = KEPT / f"{label}{'-more' if more else ''}.pt"
    if file.exists():
        return sd.Checkpoint.load(file)
    KEPT.mkdir(parents=True, exist_ok=True)
    before = trained(name, density, device=device) if more else None
    recipe = replace(RECIPES[name], epochs=1) if more else RECIPES[name]
    torch.manual_seed(0)
    net = sd.models.build(name)
    weights = dict(net.named_parameters())
    scores = {n: torch.rand(weights[n].shape) for n in sd.prunable(net)}
    mask = sd.Mask.top(scores, density) if density < 1 else None
    if before:
        net, mask = before.build(), before.mask
    if mask:
        mask.apply_(net)
    net = net.to(device, memory_format=torch.channels_last)
    rate = 0.01 if more else 0.1
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    loaded = batches(recipe.images, recipe.batch, device)
    steps = recipe.epochs * len(loaded)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    keeper = MaskedOptimizer(net, mask, optimiser)
    for epoch in range(recipe.epochs):
        for x, y in loaded:
            net.train()
            optimiser.zero_grad()
            loss = F.cross_entropy(net(x.contiguous(memory_format=torch.channels_last)), y)
            loss.backward()
            keeper.step()
            schedule.step()
        print(f"{label}: epoch {epoch + 1} of {recipe.epochs}, loss {loss.item():.3f}", flush=True)
    net = net.to(memory_format=torch.contiguous_format)
    kept = sd.Checkpoint.of(net, model=name, options={}, data="", mask=mask)
    kept.save(file)
    return kept


def problem_of(
    name: str,
    density: float,
    *,
    more: bool = False,
    images: int | None = None,
    device: torch.device = CPU,
) -> sd.Problem:
    """The loss of such a net on one batch of images."""
    kept = trained(name, density, more=more, device=device)
    images = images or RECIPES[name].measured
    file = KEPT / f"{images}-{data_name()}.pt"
    if not file.exists():
        torch.save(batches(images, images), file)
    pairs = torch.load(file, weights_only=True, map_location=device)
    return sd.Problem(kept.build(device), pairs, mask=kept.mask)
