"""The floor: how far from it the loss, the product and the masked step are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from tests.bench.nets import digits
from tests.bench.timing import Rows, seconds, table
from training.keeper import MaskedOptimizer

NETS = {"resnet20": 128, "resnet18": 32}  # images for each


def trained(name: str, batches: list[tuple[Tensor, Tensor]], density: float) -> sd.Problem:
    """A few steps of SGD under a random mask, so that curvature is that of a net that learns."""
    torch.manual_seed(0)
    net = sd.models.build(name).to(batches[0][0].device)
    weights = dict(net.named_parameters())
    mask = sd.Mask.top({n: torch.rand(weights[n].shape) for n in sd.prunable(net)}, density)
    mask.apply_(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(5):
        for x, y in batches:
            step(net, optimiser, MaskedOptimizer(net, mask, optimiser), x, y)
    return sd.Problem(net, batches, mask=mask)


def step(
    net: nn.Module, optimiser: torch.optim.Optimizer, keeper: MaskedOptimizer, x: Tensor, y: Tensor
) -> None:
    net.train()
    optimiser.zero_grad()
    F.cross_entropy(net(x), y).backward()
    keeper.step()


def measure(name: str, images: int, device: torch.device) -> Rows:
    batches = digits(images, images // 2, device)
    problem = trained(name, batches, 0.1)
    v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0)).to(device)

    def bare() -> None:
        problem.net.eval()
        with torch.inference_mode():
            for x, _ in batches:
                problem.net(x)

    forward, value = seconds(bare), seconds(problem.value)
    gradient, product = seconds(problem.gradient), seconds(lambda: problem.hvp(v))
    rows: Rows = [
        (f"{name}: loss at a point", f"{value:.3f} s", f"{value / forward:.2f} x a bare forward"),
        (
            f"{name}: Problem.hvp",
            f"{product:.3f} s",
            f"{product / gradient:.2f} x Problem.gradient",
        ),
    ]
    x, y = batches[0]
    optimiser = torch.optim.SGD(problem.net.parameters(), lr=1e-4, momentum=0.9)
    masked, dense = (MaskedOptimizer(problem.net, m, optimiser) for m in (problem.mask, None))
    with_mask = seconds(lambda: step(problem.net, optimiser, masked, x, y))
    without = seconds(lambda: step(problem.net, optimiser, dense, x, y))
    rows.append(
        (f"{name}: masked step", f"{with_mask:.3f} s", f"{with_mask / without:.2f} x without mask")
    )
    return rows


def section(device: torch.device) -> list[str]:
    rows = [row for name, images in NETS.items() for row in measure(name, images, device)]
    return [
        "Digits at 32 x 32 pixels (128 for ResNet-20, 32 for ResNet-18), float32, 10 % density;",
        "medians of 5 calls over two batches (a step: one of them).",
        "",
        *table(("what", "time", "against"), rows),
    ]
