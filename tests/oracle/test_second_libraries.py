"""Products and eigenvalues against other people's: curvlinops, scipy, and PyHessian on its own."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from torch import nn

from sparsediag import Curvature, Problem, spectrum, trace
from sparsediag.core.losses import default_loss

LOSSES = {F.mse_loss: nn.MSELoss(), default_loss: nn.CrossEntropyLoss()}
# curvlinops wants every parameter in the graph, and knows no mask
DENSE = [name for name in cases.CASES if name not in (*cases.MASKED, "unused_parameter")]

dense_cases = pytest.mark.parametrize("name", DENSE)
# from within torch, when curvlinops first asks for forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def _curvlinops(problem: Problem) -> Any:
    curvlinops = pytest.importorskip("curvlinops")
    weights = [p for p in problem.net.parameters() if p.requires_grad]
    return curvlinops.HessianLinearOperator(
        problem.net, LOSSES[problem.loss], weights, problem.batches
    )


@dense_cases
def test_products_are_those_of_curvlinops(name: str) -> None:
    problem = cases.CASES[name]()
    hessian = _curvlinops(problem)
    for seed in range(3):
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(problem.hvp(v), hessian @ v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear_regression", "tanh_mlp", "residual_net", "tied_weights"])
def test_eigenvalues_are_those_of_scipy_on_curvlinops(name: str) -> None:
    problem = cases.CASES[name]()
    hessian = _curvlinops(problem).to_scipy()
    found = spectrum(problem, top=5, tol=1e-9, max_matvecs=400)
    start = np.ones(problem.size)
    theirs = eigsh(hessian, 5, which="LA", v0=start, return_eigenvectors=False)
    np.testing.assert_allclose(found.eigenvalues, sorted(theirs)[::-1], rtol=0, atol=1e-10)


@dense_cases
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_pyhessian_on_the_net_itself_finds_our_eigenvalues(name: str) -> None:
    pyhessian = pytest.importorskip("pyhessian")
    problem = cases.CASES[name]()
    ours = spectrum(problem, top=3, which="magnitude", tol=1e-9, max_matvecs=400)
    judge = pyhessian.hessian(
        problem.net, LOSSES[problem.loss], dataloader=problem.batches, cuda=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, _ = judge.eigenvalues(maxIter=1000, tol=1e-7, top_n=3)
    np.testing.assert_allclose(ours.eigenvalues, theirs, rtol=1e-4)


@pytest.mark.parametrize("mode", ["tape", "retained"])
@pytest.mark.parametrize(
    ("matrix", "theirs"), [("gauss-newton", "GGNLinearOperator"), ("fisher", "EFLinearOperator")]
)
@dense_cases
def test_the_relatives_of_the_hessian_are_those_of_curvlinops(
    name: str, matrix: Any, theirs: str, mode: Any
) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    problem = cases.CASES[name]()
    if matrix == "fisher" and problem.loss is F.mse_loss:
        pytest.skip("theirs is that of the sum over outputs, divided by their number")
    weights = [p for p in problem.net.parameters() if p.requires_grad]
    operator = getattr(curvlinops, theirs)
    expected = operator(problem.net, LOSSES[problem.loss], weights, problem.batches)
    ours = Curvature(problem, matrix=matrix, mode=mode)
    for seed in range(2):
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(ours(v), expected @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax_regression", "tanh_mlp", "tied_weights"])
def test_both_ends_are_those_of_scipy_on_curvlinops(name: str) -> None:
    problem = cases.CASES[name]()
    hessian, start = _curvlinops(problem).to_scipy(), np.ones(problem.size)
    for which, theirs in (("smallest", "SA"), ("magnitude", "LM")):
        found = spectrum(problem, top=3, which=which, tol=1e-9, block_size=2)
        values = eigsh(hessian, 3, which=theirs, v0=start, return_eigenvectors=False)
        np.testing.assert_allclose(sorted(found.eigenvalues), sorted(values), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["softmax_regression", "tanh_mlp"])
def test_the_trace_is_that_of_curvlinops_products(name: str) -> None:
    problem = cases.CASES[name]()
    hessian, eye = _curvlinops(problem), torch.eye(problem.size).double()
    theirs = sum(float(e @ (hessian @ e)) for e in eye)
    ours = trace(problem, sketch=problem.size, max_matvecs=10 + 2 * problem.size)
    assert ours.trace == pytest.approx(theirs, rel=1e-10)
