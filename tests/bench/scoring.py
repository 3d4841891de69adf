"""The scoring part of the benchmarks: what a mask at initialisation costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

import sparsediag as sd
from tests.bench.nets import digits
from tests.bench.timing import Rows, memory, seconds, table
from training.masks.grasp import Grasp
from training.masks.snip import Snip
from training.masks.synflow import AbsoluteNet, Synflow

NETS = ("resnet20", "resnet18")
SAMPLES = 100  # 10 of each class, as the papers have it
FEW = 2  # images for the memory, so that it is not that of activations
METHODS = {
    "SNIP": (Snip(density=0.1), "a gradient by autograd"),
    "GraSP": (Grasp(density=0.1), "a gradient by autograd"),
    "SynFlow, 100 steps": (Synflow(density=0.1), "100 forward and backward passes"),
}


def calls(name: str, samples: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """The masks and what they are measured by."""
    torch.manual_seed(0)
    net = sd.models.build(name).to(device)
    (batch,) = digits(samples, samples, device)
    problem = sd.Problem(net, [batch], batch_norm="train")

    def gradient() -> None:
        net.train()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        net.zero_grad()

    def passes() -> None:
        absolute = AbsoluteNet(net, torch.Size((3, 32, 32)))
        for _ in range(100):
            absolute.visit_scores(sd.prunable(net), lambda _name, _score: None)

    found: dict[str, Callable[[], object]] = {
        "a gradient by autograd": gradient,
        "100 forward and backward passes": passes,
    }
    for label, (method, _) in METHODS.items():
        found[label] = lambda method=method: method.start(problem, (), seed=0)
    return found


def copies(name: str, label: str, device: torch.device) -> float:
    """Peak memory of a second call in a process of its own, in float32 copies of the weights."""
    command = [sys.executable, "-m", "tests.bench.scoring", name, label, str(device)]
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system
    environment = {**os.environ, **at_once}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    weights = sum(p.numel() for p in sd.models.build(name).parameters())
    return float(done.stdout) * 2**20 / (4 * weights)


def measure(name: str, device: torch.device) -> Rows:
    work, rows = calls(name, SAMPLES, device), []
    took = {label: seconds(call, 1 if "100" in label else 3) for label, call in work.items()}
    for label, (_, floor) in METHODS.items():
        ratio = f"{took[label] / took[floor]:.2f}"
        held, bare = (copies(name, what, device) for what in (label, floor))
        row = (f"{took[label]:.2f} s", ratio, floor, f"{held:.1f}", f"{bare:.1f}")
        rows.append((name, label, *row))
    return rows


def ranking(device: str, size: int = 11_000_000) -> Rows:
    """Rows of the time to find the score that a tenth of the weights reaches, way by way."""
    scores = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)
    kept = size // 10
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "kthvalue": lambda: scores.kthvalue(size - kept + 1).values,
        "sort": lambda: scores.sort().values[size - kept],
        "topk": lambda: scores.topk(kept, sorted=False).values.min(),
    }
    assert len({float(way()) for way in ways.values()}) == 1
    took = {label: seconds(lambda way=way: float(way())) for label, way in ways.items()}  # waits
    took["a mask"] = seconds(lambda: sd.Mask.top({"scores": scores}, 0.1).alive)
    return [(device, label, f"{1e3 * time:.1f} ms") for label, time in took.items()]


def section(device: torch.device) -> list[str]:
    rows = [row for name in NETS for row in measure(name, device)]
    heads = ("net", "mask", "time", "ratio", "to", "copies of the weights", "of that alone")
    return [
        f"A mask at initialisation at 10 % density, ranking included, {SAMPLES} digits at 32 x 32",
        f"pixels. Memory is the peak of a second call with {FEW} images beyond what is held before",
        "it, in float32 copies of the weights.",
        "",
        *table(heads, rows),
    ]


if __name__ == "__main__":
    place = torch.device(sys.argv[3])
    call = calls(sys.argv[1], FEW, place)[sys.argv[2]]
    call()
    print(memory(call, place))
