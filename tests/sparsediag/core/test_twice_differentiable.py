"""Second derivatives of what torch cannot differentiate twice, or does wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, spectrum
from sparsediag.core.twice_differentiable import twice_differentiable

WORDS = torch.randint(9, (6, 4), generator=torch.Generator().manual_seed(0))
ROWS = cases.classes((6,), (5,), 3)[0][0]
SHARES = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)).double()


class Bag(nn.EmbeddingBag):
    def forward(self, words: Tensor) -> Tensor:
        shares = SHARES[: len(words)] if self.mode == "sum" else None
        return super().forward(words, per_sample_weights=shares)


def _normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(5, 6))


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "hard sigmoid": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Hardsigmoid(), nn.Tanh()), ROWS),
    "in place": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Hardsigmoid(True), nn.Tanh()), ROWS),
    "weight norm": (lambda: nn.Sequential(_normed(), nn.Tanh()), ROWS),
    "sparse embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 2, sparse=True), nn.Flatten(), nn.Linear(8, 6)),
        WORDS,
    ),
    "bag of means": (lambda: nn.Sequential(Bag(9, 6), nn.Tanh()), WORDS),
    "bag of sums": (lambda: nn.Sequential(Bag(9, 6, mode="sum", sparse=True), nn.Tanh()), WORDS),
}


@pytest.mark.parametrize("name", NETS)
def test_products_are_the_differences_of_gradients(name: str) -> None:
    build, x = NETS[name]
    net = cases._net(lambda: nn.Sequential(build(), nn.Linear(6, 3)))
    problem = Problem(net, [(x, torch.arange(6) % 3)])
    w, h = problem.weights, 1e-5
    differences = torch.stack(
        [
            (problem.gradient(w + h * e) - problem.gradient(w - h * e)) / (2 * h)
            for e in torch.eye(problem.size).double()
        ]
    )
    hessian = torch.stack([problem.hvp(e) for e in torch.eye(problem.size).double()])
    torch.testing.assert_close(hessian, differences, rtol=0, atol=1e-8)
    found = spectrum(problem, top=1, tol=1e-6)
    assert found.converged
    value = float(torch.linalg.eigvalsh(hessian)[-1])
    assert found.eigenvalues[0] == pytest.approx(value, rel=1e-8)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="not in torch 2.10")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_in_chunks_has_the_products_of_the_loss_in_one_piece(reduction: str) -> None:
    """Its backward multiplies a gradient that was kept, a constant to a second backward."""

    class Head(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            options = nn.LinearCrossEntropyOptions(batch_chunk_size=4, allow_retain_graph=True)
            loss = F.linear_cross_entropy(
                x, self.weight, torch.arange(6) % 3, reduction=reduction, options=options
            )
            return loss.mean()

    head = cases._net(lambda: Head(5, 3, bias=False))
    products = [
        Problem(net, [(ROWS, torch.arange(6) % 3)], loss=loss).hvp(torch.ones(15).double())
        for net, loss in (
            (head, lambda z, y: z),
            (cases._net(lambda: nn.Linear(5, 3, bias=False)), F.cross_entropy),
        )
    ]
    torch.testing.assert_close(*products, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norms_are_torchs(dim: int) -> None:
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = draw(3, 4, 2)
    g = torch.norm_except_dim(draw(3, 4, 2), 2, dim)
    with twice_differentiable():
        came = torch._weight_norm(v, g, dim)
    torch.testing.assert_close(came, torch._weight_norm(v, g, dim))


def test_a_bag_with_offsets_is_left_to_torch() -> None:
    words, starts = torch.arange(5), torch.tensor([0, 2])
    with twice_differentiable():
        came = F.embedding_bag(words, torch.eye(9), starts)
    assert torch.equal(came, F.embedding_bag(words, torch.eye(9), starts))


def test_a_bag_that_cannot_be_is_refused() -> None:
    net = nn.Sequential(nn.EmbeddingBag(9, 6, mode="max"), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"cannot be differentiated twice: .*embedding_bag"):
        spectrum(Problem(net, [(WORDS, torch.arange(6) % 3)]), top=1)


def test_reading_a_spectral_norm_leaves_it_alone() -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3)))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    problem = Problem(net.double(), [(ROWS, torch.arange(6) % 3)])
    assert spectrum(problem, top=1).converged
    assert all(torch.equal(t, before[n].double()) for n, t in net.state_dict().items())
