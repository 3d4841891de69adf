"""Tiny problems in float64 that every numerical test runs on, and their dense Hessians.

The dense Hessian knows nothing of live coordinates: it is that of a plain copy of the net, over
all trainable weights and over all samples at once, and the rows and columns of dead weights are
struck out of it by hand.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsediag import Mask, Problem

Batches = list[tuple[Tensor, Tensor]]


class Calls(TorchDispatchMode):
    """Count the operations that run inside, by name; on a GPU each is a launch or more."""

    IDLE = ("view", "detach", "expand", "t", "unsqueeze", "squeeze", "split_with_sizes")

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names[operation._schema.name.removeprefix("aten::")] += 1
        return operation(*args, **(kwargs or {}))

    @property
    def launches(self) -> int:
        """Number of those that compute something."""
        return sum(n for name, n in self.names.items() if name not in (*self.IDLE, "promote_types"))


class Net(nn.Module):
    """A network of these modules, and of one weight of 1; `run(net, x)` is its forward pass."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.weight, self.run = nn.Parameter(torch.ones(())), run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Residual(nn.Module):
    """Two convolutions with batch norm around a shortcut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = F.relu(self.bn2(self.conv(x)) + x)
        return self.fc(x.mean((2, 3)))


class Unused(nn.Module):
    """A layer that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.idle = nn.Linear(2, 2)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Tied(nn.Module):
    """An encoder whose decoder is its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 5)
        self.decoder = nn.Linear(5, 5)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


def linear_regression() -> Problem:
    net = _net(lambda: nn.Linear(4, 3))
    return Problem(net, regression((7, 5, 1), (4,), 3), loss=F.mse_loss)


def softmax_regression() -> Problem:
    return Problem(_net(lambda: nn.Linear(5, 4)), classes((9, 3), (5,), 4))


def tanh_mlp() -> Problem:
    return Problem(_net(_mlp), classes((8, 8), (4,), 3))


def relu_cnn() -> Problem:
    return Problem(_net(_cnn), classes((5, 4, 3), (1, 6, 6), 3))


def residual_net() -> Problem:
    return Problem(_net(Residual), classes((6, 2), (1, 6, 6), 3))


def in_place_relu() -> Problem:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3)
        )

    return Problem(_net(make), classes((10, 1), (4,), 3))


def unused_parameter() -> Problem:
    return Problem(_net(Unused), classes((6, 5), (3,), 3))


def masked_mlp() -> Problem:
    net = _net(_mlp)
    return Problem(net, classes((8, 3), (4,), 3), mask=coins(net, 0.4))


def masked_cnn() -> Problem:
    net = _net(_cnn)
    mask = coins(net, 0.3)
    mask.apply_(net)
    return Problem(net, classes((7, 4), (1, 6, 6), 3), mask=mask)


def frozen_parameter() -> Problem:
    net = _net(_mlp)
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    return Problem(net, classes((6, 6), (4,), 3))


def tied_weights() -> Problem:
    return Problem(_net(Tied), regression((5, 2), (5,), 5), loss=F.mse_loss)


CASES: dict[str, Callable[[], Problem]] = {
    make.__name__: make
    for make in (
        linear_regression,
        softmax_regression,
        tanh_mlp,
        relu_cnn,
        residual_net,
        in_place_relu,
        unused_parameter,
        masked_mlp,
        masked_cnn,
        frozen_parameter,
        tied_weights,
    )
}
MASKED = ("masked_mlp", "masked_cnn")


@cache
def hessian_of(name: str) -> Tensor:
    """The dense Hessian of a case, (size, size)."""
    return dense_hessian(CASES[name]())


def dense_hessian(problem: Problem) -> Tensor:
    """The Hessian over the live weights, (size, size), by way of the one over all weights."""
    loss, weights = plain_loss(problem)
    rows = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    gradient = torch.cat([g.reshape(-1) for g in rows])
    columns = torch.autograd.grad(
        gradient,
        weights,
        grad_outputs=torch.eye(len(gradient), dtype=gradient.dtype),
        is_grads_batched=True,
        allow_unused=True,
    )
    n = len(gradient)
    hessian = torch.cat(
        [
            gradient.new_zeros(n, w.numel()) if c is None else c.reshape(n, -1)
            for w, c in zip(weights, columns, strict=True)
        ],
        dim=1,
    )
    alive = living(problem)
    return hessian[alive][:, alive]


def dense_gradient(problem: Problem) -> Tensor:
    """The gradient over the live weights, (size,), by way of the one over all weights."""
    loss, weights = plain_loss(problem)
    parts = torch.autograd.grad(loss, weights, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in parts])[living(problem)]


def plain_loss(problem: Problem) -> tuple[Tensor, list[nn.Parameter]]:
    """The loss of a masked copy of the net on all samples at once, and the copy's weights."""
    net = copy.deepcopy(problem.net).eval()
    if problem.mask:
        problem.mask.apply_(net)
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    return problem.loss(net(x), y), [p for p in net.parameters() if p.requires_grad]


def living(problem: Problem) -> Tensor:
    """Which of all trainable weights are alive, (all,) bool."""
    trained = {n: p for n, p in problem.net.named_parameters() if p.requires_grad}
    mask = problem.mask or {}
    return torch.cat(
        [mask.get(n, torch.ones_like(p, dtype=torch.bool)).flatten() for n, p in trained.items()]
    )


def orthonormal(size: int, seed: int = 0, *, first: Tensor | None = None) -> Tensor:
    """Random orthonormal columns, the first of them along `first`."""
    g = torch.Generator().manual_seed(seed)
    columns = torch.randn(size, size, generator=g, dtype=torch.float64)
    if first is not None:
        columns[:, 0] = first
    return torch.linalg.qr(columns)[0]


def symmetric(values: Any, seed: int = 0, *, first: Tensor | None = None) -> Tensor:
    """A symmetric matrix with these eigenvalues, the first of them with eigenvector `first`."""
    q = orthonormal(len(values), seed, first=first)
    a = (q * torch.as_tensor(values, dtype=torch.float64)) @ q.T
    return (a + a.T) / 2


def classes(counts: tuple[int, ...], shape: tuple[int, ...], outputs: int) -> Batches:
    """Batches of Gaussian inputs with random labels."""
    g = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, *shape, generator=g, dtype=torch.float64),
            torch.randint(outputs, (n,), generator=g),
        )
        for n in counts
    ]


def regression(counts: tuple[int, ...], shape: tuple[int, ...], outputs: int) -> Batches:
    """Batches of Gaussian inputs with Gaussian targets."""
    g = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(n, *shape, generator=g, dtype=torch.float64),
            torch.randn(n, outputs, generator=g, dtype=torch.float64),
        )
        for n in counts
    ]


def coins(net: nn.Module, density: float, seed: int = 3) -> Mask:
    """A mask of coin flips over every weight with two dimensions or more."""
    g = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    return Mask({n: torch.rand(p.shape, generator=g) < density for n, p in weights.items()})


def _net(make: Callable[[], nn.Module]) -> nn.Module:
    """A net in float64 and evaluation mode, with batch norms that have seen some data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make().double()
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_(0, 0.3)
                m.running_var.uniform_(0.5, 2)
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias, 0, 0.3)
    return net.eval()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, stride=2),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


class Viewing(nn.Module):
    """A net that views images as vectors, which only contiguous ones can be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).view(len(x), -1))
