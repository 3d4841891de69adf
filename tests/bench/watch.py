"""The watch part of the benchmarks: the overhead of each metric of `Watch`."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag.watch.watch import METRICS, TRAINING
from tests.bench.timing import Rows, clock, table

EVERY = (1, 10, 100)
ROUNDS = 3
WORDS = 256


class GPT(nn.Module):
    """A small language model: 4 layers, 128 wide, dropout 0.1."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            128, 4, 512, dropout=0.1, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.embedding = nn.Embedding(WORDS, 128)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.head(self.layers(self.embedding(x), mask=causal, is_causal=True)).mT


def settings(device: torch.device) -> dict[str, tuple[nn.Module, tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    images = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    tokens = torch.randint(0, WORDS, (16, 65))
    nets = {
        "resnet20": (sd.models.build("resnet20"), images),
        "GPT": (GPT(), (tokens[:, :-1], tokens[:, 1:])),
    }
    return {k: (net.to(device), (x.to(device), y.to(device))) for k, (net, (x, y)) in nets.items()}


def overhead(step: Callable[[], object], make: Callable[[int], sd.Watch], every: int) -> float:
    """Return the share that a watch adds to the time of the steps up to a row.

    Only the last steps before a row do something, so that only these are run, next to bare ones.
    """
    steps, extra, bare = min(every, 3), [], []
    for _ in range(ROUNDS):
        watch = make(every)
        watch.steps = every - steps
        times: list[list[float]] = [[], []]
        for _ in range(steps):
            for watched in (False, True):
                start = clock()
                step()
                if watched:
                    watch.step()
                times[watched].append(clock() - start)
        watch.close()
        extra.append(sum(times[True]) - sum(times[False]))
        bare.append(sum(times[False]) / steps)
    return statistics.median(extra) / (every * statistics.median(bare))


def measure(name: str, net: nn.Module, batch: tuple[Tensor, Tensor]) -> Rows:
    x, y = batch
    weights = {n: net.get_parameter(n).detach().abs() for n in sd.prunable_weights(net)}
    mask = sd.Mask.top(weights, 0.1)
    mask.apply_(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    probe = [(x[:32], y[:32])]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    rows = []
    for label, metrics in {"all on the step": [*TRAINING], **{m: [m] for m in METRICS}}.items():

        def make(every: int, metrics: list[str] = metrics) -> sd.Watch:
            options = {"mask": mask, "optimizer": optimizer, "probe": probe, "file": None}
            return sd.Watch(net, metrics=metrics, every=every, **options)

        step()
        shares = [overhead(step, make, every) for every in EVERY]
        rows.append((name, label, *(f"{share:.1%}" for share in shares)))
    return rows


def section(device: torch.device) -> list[str]:
    rows = [row for name, case in settings(device).items() for row in measure(name, *case)]
    return [
        "Time that `Watch` adds to a training, as a share of it, for rows every 1, 10 and 100",
        "steps: ResNet-20 on 64 images, GPT (4 layers, 128 wide) on 16 x 64 tokens, a probe of 32",
        f"samples, 10 % density; medians of {ROUNDS} rounds.",
        "",
        *table(("net", "metric", *(f"every {n}" for n in EVERY)), rows),
    ]
