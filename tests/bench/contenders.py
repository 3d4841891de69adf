"""`python -m tests.bench.contenders NAME NET DENSITY FOLDER DEVICE`: one tool, problem, process.

Writes the top five eigenvectors that the tool finds to FOLDER and prints what it took as JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import sparsediag as sd
from sparsediag.core.process import configure_process
from sparsediag.curvature.pyhessian import LiveNet
from tests.bench.nets import problem_of
from tests.bench.timing import clock, memory

TOP = 5
Found = tuple[np.ndarray, np.ndarray, int]  # values, vectors as rows, products


def net_of(problem: sd.Problem) -> nn.Module:
    """The net itself, or where it is masked one whose only parameter are the live weights."""
    return (LiveNet(problem) if problem.mask else problem.net).eval()


def ours(problem: sd.Problem) -> Found:
    s = sd.spectrum(problem, top=TOP)
    assert s.converged, s.doubts
    return s.eigenvalues, s.vectors, s.products + int(s.checks["products"])


def pyhessian(problem: sd.Problem) -> Found:
    """As its users call it on one batch: the graph of the gradient is kept."""
    from pyhessian import hessian

    (batch,) = problem.batches
    judge = hessian(net_of(problem), problem.loss, data=batch, cuda=problem.device.type == "cuda")
    counted = _count(sys.modules["pyhessian.hessian"])
    values, vectors = judge.eigenvalues(maxIter=1000, tol=1e-6, top_n=TOP)
    flat = np.stack([torch.cat([t.flatten() for t in v]).cpu().numpy() for v in vectors])
    return np.array(values), flat / np.linalg.norm(flat, axis=1, keepdims=True), counted[0]


def _count(module: Any) -> list[int]:
    product, counted = module.hessian_vector_product, [0]

    def wrapped(*args: Any) -> Any:
        counted[0] += 1
        return product(*args)

    module.hessian_vector_product = wrapped
    return counted


def eigenthings(problem: sd.Problem) -> Found:
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    operator = HessianOperator(net_of(problem), problem.batches, supervised_loss(problem.loss))
    found = lanczos(operator, k=TOP, max_iter=20, tol=1e-3, which="LA", seed=0)
    return found.eigenvalues.cpu().numpy(), found.eigenvectors.cpu().numpy(), found.iterations


def curvlinops(problem: sd.Problem) -> Found:
    from curvlinops import HessianLinearOperator

    net = net_of(problem)
    parameters = list(net.parameters())
    loss = nn.CrossEntropyLoss()
    return _arpack(HessianLinearOperator(net, loss, parameters, problem.batches).to_scipy())


def scipy_retained(problem: sd.Problem) -> Found:
    net = net_of(problem)
    weights = list(net.parameters())
    (x, y) = problem.batches[0]
    slopes = torch.autograd.grad(F.cross_entropy(net(x), y), weights, create_graph=True)
    shapes = [w.shape for w in weights]

    def product(v: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(v.astype(np.float32).ravel()).to(problem.device)
        parts = flat.split([s.numel() for s in shapes])
        along = [p.view(s) for p, s in zip(parts, shapes, strict=True)]
        hv = torch.autograd.grad(slopes, weights, along, retain_graph=True)
        return torch.cat([h.flatten() for h in hv]).cpu().numpy()

    size = sum(s.numel() for s in shapes)
    return _arpack(LinearOperator((size, size), matvec=product, dtype=np.float32))


def _arpack(operator: LinearOperator) -> Found:
    count = 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return operator.matvec(v.astype(np.float32))

    counting = LinearOperator(operator.shape, matvec=product, dtype=np.float32)
    start = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
    values, vectors = eigsh(counting, TOP, which="LA", tol=1e-3, v0=start)
    return values[::-1], vectors.T[::-1], count


CONTENDERS: dict[str, Callable[[sd.Problem], Found]] = {
    "sparsediag": ours,
    "scipy eigsh, retained graph": scipy_retained,
    "curvlinops, scipy eigsh": curvlinops,
    "hessian-eigenthings, 20 steps": eigenthings,
    "PyHessian, tol 1e-6": pyhessian,
}


def main(name: str, net: str, density: str, folder: str, device: str) -> None:
    warnings.simplefilter("ignore")
    configure_process()  # all tools gain by it
    place = torch.device(device)
    problem = problem_of(net, float(density), device=place)
    problem.net.eval()
    found: list[Found] = []
    start = clock()
    needed = memory(lambda: found.append(CONTENDERS[name](problem)), place)
    took = clock() - start
    values, vectors, products = found[0]
    np.savez(Path(folder) / f"{name}.npz", values=values, vectors=vectors)
    print(json.dumps({"products": products, "seconds": took, "memory": needed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
