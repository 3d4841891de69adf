"""The landscape part of the benchmarks: seconds a point, and how many points a picture needs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import sparsediag as sd
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.grid import INTERPOLATED
from sparsediag.surfaces.plane import plane
from tests.bench.nets import batches, data_name, trained
from tests.bench.timing import Rows, seconds, table

IMAGES = {"resnet20": 512, "resnet18": 128}
CHUNKS = (16, 32, 64, 128, 256, 512)
CHECKED = 150  # points at which an adaptive grid is compared with the loss itself
Point = Callable[[], object]


def problem_of(name: str, density: float, device: torch.device) -> sd.Problem:
    kept = trained(name, density, device=device)
    return sd.Problem(kept.build(device), batches(IMAGES[name], 128, device), mask=kept.mask)


def floors(problem: sd.Problem, chunks: Sequence[int] = CHUNKS) -> dict[str, Point]:
    """Bare forward passes over the samples, without a loss, in every layout and chunk."""
    x = torch.cat([x for x, _ in problem.batches])
    found: dict[str, Point] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        net = copy.deepcopy(problem.net).to(memory_format=layout)  # type: ignore[call-overload]
        for chunk in (c for c in chunks if c <= len(x)):
            parts = [p.contiguous(memory_format=layout) for p in x.split(chunk)]

            def forward(net: nn.Module = net, parts: list[Tensor] = parts) -> None:
                with torch.inference_mode():
                    for part in parts:
                        net(part)

            found[f"{str(layout).removeprefix('torch.')}, {chunk} at a time"] = forward
    return found


class Pixels(Dataset[tuple[Tensor, Tensor]]):
    """Images as a DataLoader meets them: on the CPU, normalised one by one when asked for."""

    def __init__(self, problem: sd.Problem) -> None:
        self.x = torch.cat([x for x, _ in problem.batches]).cpu()
        self.y = torch.cat([y for _, y in problem.batches]).cpu()
        self.mean, self.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return (self.x[i] - self.mean) / self.std, self.y[i]


def loader_loop(problem: sd.Problem) -> Point:
    """A point as the published code of Li et al. computes it: two workers, batches of 128."""
    loader = DataLoader(Pixels(problem), batch_size=128, num_workers=2)
    net, device = copy.deepcopy(problem.net).eval(), problem.device
    ways = [problem.split(d) for d in plane(problem).directions]
    centre = {n: p.detach().clone() for n, p in net.named_parameters()}

    def point() -> float:
        with torch.no_grad():
            for n, p in net.named_parameters():
                p.copy_(centre[n] + 0.1 * ways[0][n] + 0.2 * ways[1][n])
            total = 0.0
            for x, y in loader:
                total += float(F.cross_entropy(net(x.to(device)), y.to(device))) * len(y)
        return total / problem.samples

    return point


def loss_landscapes(problem: sd.Problem) -> float:
    """Seconds for a point of loss-landscapes, from a plane of 3 x 3."""
    import loss_landscapes as peer
    from loss_landscapes.metrics import Loss

    x = torch.cat([x for x, _ in problem.batches])
    y = torch.cat([y for _, y in problem.batches])
    net = copy.deepcopy(problem.net).eval()
    metric = Loss(nn.CrossEntropyLoss(), x, y)
    with warnings.catch_warnings(action="ignore"):
        took = seconds(
            lambda: peer.random_plane(net, metric, distance=1, steps=3, normalization="filter"), 3
        )
    return took / 9


def speeds(device: torch.device) -> Rows:
    rows: Rows = []
    for name in IMAGES:
        problem = problem_of(name, 0.1, device)
        bare = {what: seconds(work) for what, work in floors(problem).items()}
        best = min(bare, key=bare.__getitem__)
        problem = problem_of(name, 0.1, device)
        sweep, place = LossEvaluator(plane(problem)), np.array([0.1, 0.2])
        floor = floors(problem)[best]
        pairs = [(seconds(partial(sweep, place), 1), seconds(floor, 1)) for _ in range(7)]
        ours, least = (sorted(times)[3] for times in zip(*pairs, strict=True))
        others = {
            "loss-landscapes 3.0.6": loss_landscapes(problem),
            "DataLoader loop (Li et al.)": seconds(loader_loop(problem), 3),
        }
        rows.append((name, f"bare forward: {best}", f"{least:.3f} s", "1"))
        for tool, took in {"sparsediag": ours, **others}.items():
            rows.append((name, tool, f"{took:.3f} s", f"{took / least:.2f}"))
        for row in rows[-4:]:
            print(*row, sep=" | ", flush=True)
    return rows


def adaptive(device: torch.device) -> Rows:
    rows: Rows = []
    nets = {f"resnet20, {d:.0%}": ("resnet20", d) for d in (1.0, 0.1)}
    nets |= {f"resnet18, {d:.0%}": ("resnet18", d) for d in (1.0, 0.1)}
    for label, (name, density) in nets.items():
        kept = trained(name, density, device=device)
        problem = sd.Problem(kept.build(device), batches(64, 64, device), mask=kept.mask)
        found = sd.landscape(problem, points=51, adaptive=True)
        sweep, share = LossEvaluator(plane(problem)), (found.status != INTERPOLATED).mean()
        guessed = np.argwhere(found.status == INTERPOLATED)
        draw = np.random.default_rng(0).permutation(len(guessed))[:CHECKED]
        misses = [
            abs(sweep(np.array([found.axes[0, i], found.axes[1, j]]))[0] - found.loss[i, j])
            for i, j in guessed[draw]
        ]
        worst = max(misses, default=0.0) / np.ptp(found.loss)
        rows.append((label, f"{share:.1%}", f"{found.held_out:.2%}", f"{worst:.2%}"))
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def section(device: torch.device) -> list[str]:
    images = " and ".join(f"{n} ({name})" for name, n in IMAGES.items())
    return [
        f"A point of a landscape on {data_name()}, images: {images}, float32, 10 % density,",
        "against the fastest bare forward pass of the same samples, without a loss:",
        "",
        *table(("net", "what", "a point", "against"), speeds(device)),
        "",
        "An adaptive grid of 51 x 51 on 64 images, tolerance 1 % of the range of the loss: points",
        f"computed, largest error on points held back, and on {CHECKED} of those interpolated:",
        "",
        *table(("net", "points", "held back", "checked"), adaptive(device)),
    ]
