"""The scoring part of the benchmarks: what a mask at initialisation costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

import sparsediag as sd
from tests.bench.nets import digits
from tests.bench.timing import Rows, memory, seconds, table
from training.masks import Method
from training.masks.grasp import Grasp
from training.masks.snip import Snip
from training.masks.synflow import Flow, Synflow

NETS = ("resnet20", "resnet18")
SAMPLES = 100  # 10 of each class, as the papers have it


def measure(name: str) -> Rows:
    torch.manual_seed(0)
    net = sd.models.build(name)
    (batch,) = digits(SAMPLES, SAMPLES)
    problem = sd.Problem(net, [batch], batch_norm="train")
    copy = sum(p.numel() for p in net.parameters()) * 4 / 2**20

    def gradient() -> None:
        net.train()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        net.zero_grad()

    def passes() -> None:
        flow.scores(sd.prunable(net))

    flow = Flow(net, torch.Size((3, 32, 32)))
    floors: dict[str, tuple[str, Callable[[], None], int]] = {
        "gradient": ("a gradient by autograd", gradient, 1),
        "passes": ("100 forward and backward passes in float64", passes, 100),
    }
    took = {key: seconds(work, 3) * times for key, (_, work, times) in floors.items()}
    held = {key: memory(work) for key, (_, work, _) in floors.items()}
    rows: Rows = []
    methods: dict[str, tuple[Method, str]] = {
        "SNIP": (Snip(density=0.1), "gradient"),
        "GraSP": (Grasp(density=0.1), "gradient"),
        "SynFlow, 100 steps": (Synflow(density=0.1), "passes"),
    }
    for label, (method, floor) in methods.items():

        def start(method: Method = method) -> None:
            method.start(problem, (), seed=0)

        time = seconds(start, 1 if floor == "passes" else 3)
        more = (memory(start) - (held[floor] if floor == "gradient" else 0)) / copy
        rows.append(
            (
                name,
                label,
                f"{time:.2f} s",
                f"{time / took[floor]:.2f}",
                floors[floor][0],
                f"{more:.1f}",
            )
        )
    return rows


def section() -> list[str]:
    rows = [row for name in NETS for row in measure(name)]
    heads = ("net", "mask", "time", "ratio", "to", "copies of the weights")
    return [
        f"A mask at initialisation at 10 % density, ranking included, {SAMPLES} digits at 32 x 32",
        "pixels. Memory is the peak beyond what is held before, for SNIP and GraSP also beyond a",
        "gradient's, in float32 copies of the weights.",
        "",
        *table(heads, rows),
    ]
