"""Symmetric operators with known spectra, and the judgement of eigenvalues that somebody found.

Each is drawn from a seed: its kind, size, precision, noise, and the question asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.curvature.lanczos import ORDER, Which

KINDS = (
    "outliers",
    "cluster",
    "multiple",
    "dominated",
    "rank deficient",
    "bulk",
    "orthogonal start",
    "invariant start",
    "noise",
    "noisy cluster",
)


@dataclass
class Operator:
    """A symmetric operator, and what is asked of it.

    Attributes:
        kind: One of `KINDS`.
        a: The matrix, (size, size).
        spectrum: Its eigenvalues in float64, ascending.
        which, top, tol, seed: The options of the search.
        noise: Size of the error of a product over that of the product.
        start: Vectors to start from, rows, or None.
        products: Number of products so far.
    """

    kind: str
    a: Tensor
    spectrum: np.ndarray
    which: Which
    top: int
    tol: float
    seed: int
    noise: float = 0.0
    start: Tensor | None = None
    products: int = 0
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __call__(self, v: Tensor) -> Tensor:
        """Return the matrix times `v`, with noise of its own each time."""
        self.products += 1
        product = self.a @ v
        if self.noise:
            error = torch.randn(len(v), generator=self.generator, dtype=torch.float64).to(v)
            product = product + self.noise * product.norm() / error.norm() * error
        return product

    @property
    def expected(self) -> np.ndarray:
        """The true eigenvalues that were asked for, best first."""
        order = ORDER[self.which]
        return self.spectrum[np.argsort(order(self.spectrum), kind="stable")][: self.top]

    @property
    def rounding(self) -> float:
        """What the precision itself makes uncertain."""
        size = float(np.abs(self.spectrum).max(initial=1e-300))
        return 20 * float(torch.finfo(self.a.dtype).eps) * size

    def is_right(self, values: np.ndarray) -> bool:
        """Whether these are the eigenvalues asked for, to the tolerance asked for."""
        expected, values = self._comparable(self.expected), self._comparable(values)
        return bool(
            (np.abs(values - expected) <= self.tol * np.abs(expected) + self.rounding).all()
        )

    def covered(self, values: np.ndarray, intervals: np.ndarray) -> bool:
        """Whether the i-th interval holds the i-th eigenvalue."""
        partners = self._partners(values)
        return bool(((intervals[:, 0] <= partners) & (partners <= intervals[:, 1])).all())

    def within(self, values: np.ndarray, vectors: Tensor, degrees: np.ndarray) -> bool:
        """Whether each vector is as close as this to the eigenvectors of its eigenvalue."""
        spectrum, basis = np.linalg.eigh(self.a.double().numpy())
        others = np.abs(spectrum - self._partners(values)[:, None]) > self.rounding
        shares = (vectors.double().numpy() @ basis) ** 2
        angles = np.degrees(np.arcsin(np.sqrt((shares * others).sum(1)).clip(0, 1)))
        return bool((angles <= degrees + 0.01).all())

    def _partners(self, values: np.ndarray) -> np.ndarray:
        """Return the true eigenvalue for each: by rank from its own end of the spectrum."""
        upper = values >= 0 if self.which == "magnitude" else values >= -np.inf
        if self.which == "smallest":
            upper = ~upper
        partners = np.empty(len(values))
        partners[upper] = self.spectrum[::-1][: upper.sum()]
        partners[~upper] = self.spectrum[: (~upper).sum()]
        return partners

    def _comparable(self, values: np.ndarray) -> np.ndarray:
        return np.sort(np.abs(values) if self.which == "magnitude" else values)[::-1]


def draw(seed: int, sizes: tuple[int, ...] = (20, 60, 150, 400)) -> Operator:
    """Return the operator number `seed`; the kinds take turns."""
    rng = np.random.default_rng(seed)
    kind, size = KINDS[seed % len(KINDS)], int(rng.choice(sizes))
    dtype = torch.float32 if rng.random() < 0.4 else torch.float64
    top, which = int(rng.integers(1, 11)), str(rng.choice(tuple(ORDER)))
    tol = float(rng.choice([1e-2, 1e-3, 1e-4] if dtype == torch.float32 else [1e-2, 1e-3, 1e-6]))
    noise = 0.0
    if kind == "noise":
        noise = 10 ** rng.uniform(-8, -3)
        kind_of_spectrum = str(rng.choice(["outliers", "multiple", "dominated"]))
    elif kind == "noisy cluster":
        noise, kind_of_spectrum = 10 ** rng.uniform(-8, -3), "cluster"
    elif kind in ("orthogonal start", "invariant start"):
        kind_of_spectrum = str(rng.choice(["outliers", "cluster", "multiple"]))
    else:
        kind_of_spectrum = kind
    values = SPECTRA[kind_of_spectrum](rng, size, top)
    if which == "smallest" or (which == "magnitude" and rng.random() < 0.5):
        values = -values
    if which == "magnitude":
        values = values * np.where(rng.random(size) < 0.3, -1, 1)
    values = values * 10 ** rng.uniform(-6, 6)
    values = values[np.argsort(ORDER[which](values), kind="stable")]  # type: ignore[index]
    columns = rng.normal(size=(size, size))
    start = None
    if kind == "orthogonal start":  # the search's own first direction has nothing of the best
        own = torch.randn(1, size, generator=stream("lanczos", seed))[0].double().numpy()
        columns[:, 0] -= own * (own @ columns[:, 0]) / (own @ own)
    q = np.linalg.qr(columns)[0]
    if kind == "invariant start":
        count = int(rng.integers(1, 4))
        rows = q.T[rng.choice(np.arange(1, size), count, replace=False)]
        start = torch.from_numpy(rows).to(dtype)
    a = torch.from_numpy((q * values) @ q.T)
    a = ((a + a.T) / 2).to(dtype)
    spectrum = np.sort(values) if dtype == torch.float64 else np.linalg.eigvalsh(a.double().numpy())
    generator = torch.Generator().manual_seed(seed)
    return Operator(
        kind,
        a,
        spectrum,
        which,
        top,
        tol,
        seed,
        noise,
        start,
        generator=generator,  # type: ignore[arg-type]
    )


def _bulk(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """A semicircle, an exponential decay, or what is mostly zero; within (-scale, scale)."""
    shape = rng.integers(3)
    if shape == 0:
        return scale * (2 * rng.beta(1.5, 1.5, size) - 1)
    if shape == 1:
        return scale * np.exp(-6 * rng.random(size)) * np.where(rng.random(size) < 0.3, -1, 1)
    return scale * rng.normal(size=size).clip(-3, 3) / 3 * (rng.random(size) < 0.4)


def _outliers(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    best = 1 + np.sort(rng.exponential(2, top + int(rng.integers(0, 3))))[: size - 1]
    return np.concatenate([best, _bulk(rng, size - len(best), rng.uniform(0.1, 0.8))])


def _cluster(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    """Some of the best, or all, at relative gaps of 1e-2 to 1e-7; the cluster may be cut by top."""
    values = _outliers(rng, size, top)
    count = int(rng.integers(2, 7))
    first = int(rng.integers(0, top))
    gap = 10 ** rng.uniform(-7, -2)
    base = -np.sort(-values)[min(first, size - 1)]
    values[:count] = base * (1 - gap * np.arange(count))
    return values


def _multiple(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    values = _outliers(rng, size, top)
    for base in rng.choice(values[: top + 1], int(rng.integers(1, 3))):
        count = int(rng.integers(2, 11))
        place = int(rng.integers(0, size - count))
        values[place : place + count] = base
    return values


def _dominated(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    """The wanted end is small next to the other one."""
    values, count = _outliers(rng, size, top), int(rng.integers(1, 6))
    values[-count:] = -(10 ** rng.uniform(0.5, 3)) * rng.uniform(0.5, 1, count)
    return values


def _rank_deficient(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    values = np.zeros(size)
    rank = int(rng.integers(0, min(2 * top, size)))
    values[:rank] = rng.exponential(1, rank) * np.where(rng.random(rank) < 0.3, -1, 1)
    return values


def _all_bulk(rng: np.random.Generator, size: int, top: int) -> np.ndarray:
    return _bulk(rng, size, 1.0)


SPECTRA: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "outliers": _outliers,
    "cluster": _cluster,
    "multiple": _multiple,
    "dominated": _dominated,
    "rank deficient": _rank_deficient,
    "bulk": _all_bulk,
}
