"""Operators with known spectra: how often a set of eigenvalues is wrong and nobody says so."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from scipy.stats import binomtest, t
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.curvature.certificate import certify
from sparsediag.curvature.krylov import Krylov
from sparsediag.curvature.lanczos import ORDER, eigenpairs
from sparsediag.curvature.probe import probe_complement
from sparsediag.curvature.slq import density, quadrature
from tests.bench.timing import Rows, table
from tests.operators import KINDS, Operator, draw

COUNT = 3000
ARPACK = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}
Judged = dict[str, float]  # 1 or 0 for each heading, and products


def ours(operator: Operator) -> Judged:
    options = {"which": operator.which, "tol": operator.tol}
    search = eigenpairs(
        operator,
        operator.a[0],
        top=operator.top,
        seed=operator.seed,
        start=operator.start,
        **options,
    )
    values, vectors = search.values, search.vectors
    certificate = certify(
        operator, values, vectors, search=search, each=False, seed=operator.seed, **options
    )
    converged, right = not certificate.doubts, operator.is_right(values)
    return {
        "converged": converged,
        "wrong": converged and not right,
        "value outside": converged and not operator.covered(values, certificate.intervals),
        "angle too small": converged and not operator.within(values, vectors, certificate.angles),
        "right, not converged": right and not converged,
        "products": operator.products,
    }


def scipy(operator: Operator) -> Judged:
    def matvec(v: np.ndarray) -> np.ndarray:
        return operator(torch.from_numpy(v.ravel()).to(operator.a)).numpy()

    dtype = operator.a.numpy().dtype
    return _arpack(operator, LinearOperator(operator.a.shape, matvec, dtype=dtype))


def curvlinops(operator: Operator) -> Judged:
    from curvlinops._torch_base import PyTorchLinearOperator

    class Wrapped(PyTorchLinearOperator):
        SELF_ADJOINT, device, dtype = True, operator.a.device, operator.a.dtype

        def _matmat(self, columns: list[Tensor]) -> list[Tensor]:
            return [torch.stack([operator(v) for v in columns[0].T]).T]

    shape = [(len(operator.a),)]
    return _arpack(operator, Wrapped(shape, shape).to_scipy())


def _arpack(operator: Operator, linear: LinearOperator) -> Judged:
    start = operator.start
    if start is None:
        start = torch.randn(1, len(operator.a), generator=stream("lanczos", operator.seed))
    options = {"which": ARPACK[operator.which], "tol": operator.tol, "v0": start.sum(0).numpy()}
    try:
        values = eigsh(linear, operator.top, return_eigenvectors=False, **options)
    except ArpackError:
        return {"converged": 0, "products": operator.products}
    wrong = not operator.is_right(values)
    return {"converged": 1, "wrong": wrong, "products": operator.products}


def pyhessian(operator: Operator) -> Judged | None:
    """Power iteration with its own limit of 100 products a pair; it never says "not converged"."""
    from pyhessian import hessian

    class Wrapped(hessian):
        def __init__(self) -> None:
            self.model, self.params = torch.nn.Identity(), [operator.a[0]]
            self.device, self.full_dataset = "cpu", True

        def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
            v = [x.to(operator.a) for x in v]
            product = operator(v[0])
            return float(product @ v[0]), [product]

    if operator.which != "magnitude":
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(operator.seed)
        values, _ = Wrapped().eigenvalues(tol=operator.tol, top_n=operator.top)
    wrong = not operator.is_right(np.array(values))
    return {"converged": 1, "wrong": wrong, "products": operator.products}


TOOLS: dict[str, Callable[[Operator], Judged | None]] = {
    "sparsediag": ours,
    "scipy eigsh": scipy,
    "curvlinops, scipy eigsh": curvlinops,
    "PyHessian": pyhessian,
}


def section(device: torch.device) -> list[str]:
    heads = ("operators", "tool", "asked", "converged", "wrong", "value outside")
    heads += ("angle too small", "right, not converged", "products")
    totals: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for seed in range(COUNT):
        for tool, solve in TOOLS.items():
            operator = draw(seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                judged = solve(operator)
            for kind in (operator.kind, "all"):
                if judged is not None:
                    totals[kind, tool].update({"asked": 1, **judged})
    rows = []
    for kind in (*KINDS, "all"):
        for tool in TOOLS:
            total = totals[kind, tool]
            counts = [str(int(total[head])) for head in heads[2:6]]
            more = [str(int(total[head])) for head in heads[6:8]]
            blank = tool != "sparsediag"
            counts = [*counts[:3], "" if blank else counts[3], *(["", ""] if blank else more)]
            rows.append((kind, tool, *counts, f"{total['products'] / total['asked']:.1f}"))
    return [
        f"{COUNT} symmetric matrices of 20 to 400 rows with known spectra, float32 and float64,",
        "asked for 1 to 10 eigenvalues of one end, at tolerances of 1e-2 to 1e-6: see",
        "`tests/operators.py`. Wrong: the tool returned without a doubt, and a value differs from",
        "the true one by more than the tolerance, copies counted. Value outside: the i-th interval",
        "does not hold the i-th eigenvalue. Angle too small: a vector is farther from its",
        "eigenvectors than stated. PyHessian finds the largest magnitudes only. Last column: mean",
        "number of products; ours include the certificate.",
        "",
        *table(heads, rows),
        "",
        "An eigenvalue that was left out on purpose, and the probe that looks for it: the stated",
        "bound on the chance that it is missed, how often it was, the chance of as many or more:",
        "",
        *table(("stated", "probes", "missed", "binomial test"), stated_chances()),
        "",
        "The density of these spectra at 10 points each, 8 probes of 40 steps: how often the exact",
        "value is within the 95 % interval of Student's t around the estimate: "
        f"{density_coverage(draw(seed) for seed in range(0, COUNT, 29)):.1%}.",
    ]


def stated_chances(trials: int = 1000) -> Rows:
    rows, order = Rows(), ORDER["largest"]
    for chance in (0.5, 0.2, 0.05, 0.01):
        missed = 0
        for seed in range(trials):
            rng = np.random.default_rng(seed)
            values = np.concatenate([[3.0, 1.2, rng.uniform(1.25, 2.5)], rng.uniform(-1, 1, 97)])
            a = torch.from_numpy(values)
            krylov = Krylov(lambda v, a=a: a * v, a, stream("bench", seed))
            krylov.grow(torch.eye(100).double()[:2])
            ritz = krylov.ritz(order)
            probe = probe_complement(krylov, ritz, 2, order, 1e-3, 98, max_chance=chance)
            missed += not probe.missed
        p = binomtest(missed, trials, chance, alternative="greater").pvalue
        rows.append((f"{chance:.0%}", str(trials), str(missed), f"{p:.2g}"))
    return rows


def density_coverage(operators: Iterable[Operator], probes: int = 8) -> float:
    hits: list[bool] = []
    for operator in operators:
        nodes, weights = quadrature(operator, operator.a[0], probes=probes, seed=operator.seed)
        spread = float(np.ptp(operator.spectrum))
        if not spread:
            continue
        points = np.random.default_rng(operator.seed).choice(operator.spectrum, 10)
        width = spread / 10
        mean, error = density(nodes, weights, points, width)
        kernel = np.exp(-(((points[:, None] - operator.spectrum) / width) ** 2) / 2)
        exact = kernel.mean(1) / (width * np.sqrt(2 * np.pi))
        reach = t.ppf(0.975, probes - 1) * error + 1e-3 * exact.max()
        hits += (np.abs(mean - exact) <= reach).tolist()
    return float(np.mean(hits))
