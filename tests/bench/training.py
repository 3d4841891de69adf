"""The training part of the benchmarks: images a second, against a bare loop and a usual one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import sparsediag as sd
from sparsediag.data.datasets import Data, Images
from tests.bench.timing import Rows, clock, table
from training.captured import CapturedStep
from training.config import Run
from training.loader import epoch_indices, load_batch
from training.setup import build_net
from training.step import Step
from training.tweaks import cross_entropy

IMAGES = {"resnet20": 1280, "resnet18": 384}
BATCH = 128
ROUNDS = 5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
Epoch = Callable[[], object]


def pixels(count: int, device: torch.device) -> Data:
    """Random images of CIFAR's shape: what they show does not change the time."""
    draw = torch.Generator().manual_seed(0)
    images = Images(
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw).to(device),
        torch.randint(0, 10, (count,), generator=draw).to(device),
    )
    mean, std = (torch.tensor(m, device=device).view(3, 1, 1) for m in (MEAN, STD))
    return Data("random", 10, 3, 32, images, images, images, mean, std, 255)


def ours(name: str, data: Data, *, density: float, tweaks: list[str]) -> Epoch:
    """An epoch of the training loop, augmentation included."""
    mask = {"method": "random", "density": density} if density < 1 else {}
    run = Run.of(
        {"model": {"name": name}, "mask": mask, "tweaks": tweaks, "optim": {"batch_size": BATCH}}
    )
    device = data.train.labels.device
    net, _ = build_net(run, data, device)
    run.compute.set_memory_format(net, device)
    forward = run.compute.build_forward(net, data.normalise(data.train.pixels[:8]))
    problem = sd.Problem(net, data.batches(images=8))
    found = run.mask.start(problem, (), seed=0) if density < 1 else None
    keeper = run.mask.keeper(net, found, run.optim.build(net), steps=1, seed=0)
    loss = cross_entropy
    for tweak in run.tweaks.values():
        tweak.update(net, 0, run.optim.epochs)
        loss = tweak.loss(loss, 0, run.optim.epochs)
    step = Step(partial(load_batch, data), forward, keeper)
    captured = CapturedStep.on(device, step, compiled=False)
    return lambda: captured.epoch(epoch_indices(run, data, 0), loss, key=0)


def bare(name: str, data: Data) -> Epoch:
    """No mask, no augmentation, batches that lie ready, and no metric."""
    torch.manual_seed(0)
    net = sd.models.build(name).to(data.train.labels.device)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    x, y = data.normalise(data.train.pixels), data.train.labels
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))

    def epoch() -> None:
        net.train()
        for inputs, labels in batches:
            optimiser.zero_grad()
            F.cross_entropy(net(inputs), labels).backward()
            optimiser.step()

    return epoch


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one on the CPU, through torchvision's transforms."""

    def __init__(self, data: Data) -> None:
        self.arrays = data.train.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.arrays[i]), self.labels[i]


def usual(net: nn.Module, data: Data, batch: int = BATCH) -> Epoch:
    """A DataLoader with two workers, masks from the zeros of the weights, metrics at every step."""
    device = data.train.labels.device
    net = net.to(device)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(torch.rand_like(module.weight) < 0.1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    loader = DataLoader(Pictures(data), batch_size=batch, shuffle=True, num_workers=2)

    def epoch() -> None:
        net.train()
        total, correct = 0.0, 0
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            outputs = net(x)
            loss = F.cross_entropy(outputs, y)
            optimiser.zero_grad()
            loss.backward()
            for module in net.modules():
                if isinstance(module, nn.Conv2d) and module.weight.grad is not None:
                    module.weight.grad.mul_((module.weight.data != 0).float())
            optimiser.step()
            total += loss.item()
            correct += int((outputs.argmax(1) == y).sum().item())

    return epoch


def measure(name: str, device: torch.device) -> Rows:
    """Each kind of epoch in turn, several rounds; medians."""
    data = pixels(IMAGES[name], device)
    tweaks = ["ghost_neurons", "ghost_skips", "smoothing"]
    kinds: dict[str, Epoch] = {
        "bare loop, dense": bare(name, data),
        "dense": ours(name, data, density=1, tweaks=[]),
        "masked": ours(name, data, density=0.1, tweaks=[]),
        "masked, GSw + GSk + LS": ours(name, data, density=0.1, tweaks=tweaks),
        "DataLoader, transforms, mask from zeros": usual(sd.models.build(name), data),
    }
    times: dict[str, list[float]] = {label: [] for label in kinds}
    for _ in range(ROUNDS + 1):
        for label, epoch in kinds.items():
            start = clock()
            epoch()
            times[label].append(clock() - start)
    speeds = {label: len(data.train) / float(np.median(t[1:])) for label, t in times.items()}
    against = ("bare loop, dense", "DataLoader, transforms, mask from zeros")
    return [
        (name, label, f"{speed:.0f}", *(f"{speed / speeds[other]:.2f}" for other in against))
        for label, speed in speeds.items()
    ]


def section(device: torch.device) -> list[str]:
    rows = [row for name in IMAGES for row in measure(name, device)]
    heads = ("net", "loop", "images a second", "of the bare loop", "of the DataLoader")
    return [
        f"Images of 3 x 32 x 32 trained on a second, float32, batches of {BATCH}, SGD with",
        f"momentum; medians of {ROUNDS} epochs in turn. Ours shuffles, crops and flips on the way,",
        "and its ghosts are at full strength.",
        "",
        *table(heads, rows),
    ]
