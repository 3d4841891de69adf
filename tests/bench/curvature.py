"""The curvature part of the benchmarks: products, solvers against others, warm starts, memory."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import sparsediag as sd
from sparsediag.curvature.krylov import Krylov
from sparsediag.curvature.operator import Curvature
from tests.bench.contenders import CONTENDERS, TOP
from tests.bench.nets import KEPT, RECIPES, data_name, problem_of
from tests.bench.timing import Row, Rows, memory, seconds, table

NETS = [(name, density) for name in RECIPES for density in (1.0, 0.1)]

SIZES = (16, 32, 64, 128, 256)  # samples at a time
BATCH = {"resnet20": 128, "resnet18": 64}  # so that passes over the weights count for little


def gradients(problem: sd.Problem, sizes: Sequence[int] = SIZES) -> dict[str, float]:
    """Seconds of one gradient in each layout, so many samples at a time."""
    (x, y) = problem.batches[0]
    took = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        net = copy.deepcopy(problem.net).eval().to(memory_format=layout)
        for size in sizes:
            if size <= len(y):
                took[f"{str(layout).removeprefix('torch.')}, {size} at a time"] = seconds(
                    lambda size=size, net=net, layout=layout: [
                        torch.autograd.grad(
                            problem.loss(net(a.contiguous(memory_format=layout)), b),
                            list(net.parameters()),
                        )
                        for a, b in zip(x.split(size), y.split(size), strict=True)
                    ]
                )
    return took


def products(device: torch.device) -> Rows:
    rows: Rows = []
    for name in RECIPES:
        problem = problem_of(name, 1.0, images=BATCH[name], device=device)
        took = gradients(problem)
        best = min(took, key=took.__getitem__)
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0)).to(device)
        for mode in ("tape", "retained"):
            hessian = Curvature(problem, mode=mode)
            one = seconds(lambda hessian=hessian, v=v: hessian(v))
            held = f"{hessian.nbytes / 2**20:.0f} MB"
            rows.append((name, mode, f"{one:.3f} s", f"{one / took[best]:.2f}", held, best))
    return rows


def against_others(device: torch.device) -> Rows:
    """A row for each net and tool.

    Nets that an interrupted call has finished are not measured again; of the one that it was at,
    all tools are, since the machine may be slower or faster by now.
    """
    kept = KEPT / f"solvers-{device.type}.json"
    rows: dict[str, Row] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, density in NETS:
        if all(f"{name} {density} {tool}" in rows for tool in CONTENDERS):
            continue
        exact = Curvature(double(problem_of(name, density, device=device)))
        for tool in CONTENDERS:
            row = (name, f"{density:.0%}", tool, *one(tool, name, density, exact, device))
            rows[f"{name} {density} {tool}"] = row
            kept.write_text(json.dumps(rows))
            print(*row, sep=" | ", flush=True)
    kept.unlink()
    return list(rows.values())


def one(tool: str, name: str, density: float, exact: Curvature, device: torch.device) -> Row:
    """Products, time, memory, residual and error of one tool in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [tool, name, str(density), folder, str(device)]
        command = [sys.executable, "-m", "tests.bench.contenders", *asked]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines()[-1].replace("|", "/"), "", "", "", "")
        said = json.loads(done.stdout.splitlines()[-1])
        with np.load(Path(folder) / f"{tool}.npz") as file:
            residual, error = judged(file["values"], file["vectors"], exact)
    return (
        str(said["products"]),
        f"{said['seconds']:.1f} s",
        f"{said['memory']:.0f} MB",
        f"{residual:.1e}",
        f"{error:.1e}",
    )


def judged(values: np.ndarray, vectors: np.ndarray, exact: Curvature) -> tuple[float, float]:
    """Return the worst relative residual of some pairs and the worst relative error of the values.

    The error is that against the Ritz values of the vectors in float64, which are themselves off
    by the square of the residual.
    """
    found, u = (torch.tensor(a.astype(float, "C")) for a in (values, vectors))
    products = torch.stack([exact(v.to(exact.problem.device)).cpu() for v in u])
    misses = (products - found[:, None] * u).norm(dim=1) / found.abs()
    root = torch.linalg.inv(torch.linalg.cholesky(u @ u.T))
    ritz = torch.linalg.eigvalsh(root @ (u @ products.T) @ root.T).flip(0)
    return float(misses.max()), float((found.sort(descending=True).values / ritz - 1).abs().max())


def double(problem: sd.Problem) -> sd.Problem:
    """The same problem in float64."""
    pairs = [(x.double(), y) for x, y in problem.batches]
    return sd.Problem(copy.deepcopy(problem.net).double(), pairs, mask=problem.mask)


def counts(device: torch.device) -> Rows:
    """Products for one pair, and for the second checkpoint of a run."""
    rows: Rows = []
    for density in (1.0, 0.1):
        first, second = (
            problem_of("resnet20", density, more=m, device=device) for m in (False, True)
        )
        for top in (1, TOP, 10):
            before = sd.spectrum(first, top=top)
            cold, warm = sd.spectrum(second, top=top), sd.spectrum(second, top=top, start=before)
            assert all(s.converged for s in (cold, warm))
            angle = float(sd.overlap(before, cold).min())
            rows.append(
                (
                    f"resnet20, {density:.0%}",
                    str(top),
                    f"{cold.products - probed(cold)} + {probed(cold)}",
                    f"{warm.products - probed(warm)} + {probed(warm)}",
                    f"{warm.products / cold.products:.2f}",
                    f"{(warm.products - probed(warm)) / (cold.products - probed(cold)):.2f}",
                    f"{angle:.2f}",
                )
            )
            print(*rows[-1], sep=" | ", flush=True)
    return rows


def probed(s: sd.Spectrum) -> int:
    return int(s.checks["probe"])


def basis(density: float, device: torch.device) -> float:
    """MB that a process needs for 50 vectors of a ResNet-18's live weights."""
    code = f"from tests.bench.curvature import grow; grow({density}, {device.type!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def grow(density: float, kind: str) -> None:
    size = int(11_173_962 * density)
    device = torch.device(kind)
    slope = torch.linspace(0, 1, size, device=device)
    krylov = Krylov(lambda v: slope * v, slope, torch.Generator().manual_seed(0))
    krylov.grow(krylov.random(1))
    print(memory(lambda: [krylov.grow(krylov.next_directions()) for _ in range(49)], device))


def product_section(device: torch.device) -> list[str]:
    rows = products(device)
    dense, sparse = basis(1.0, device), basis(0.1, device)
    return [
        f"One product with the Hessian on {data_name()}, "
        f"{' and '.join(f'{n} images ({name})' for name, n in BATCH.items())}, float32,",
        "and its ratio to one gradient of the fastest layout; `held` is kept between products.",
        "",
        *table(("net", "mode", "product", "ratio", "held", "fastest gradient"), rows),
        "",
        f"Memory for 50 Krylov vectors of a ResNet-18: {dense:.0f} MB dense, {sparse:.0f} MB at "
        f"90 % sparsity, 1/{dense / sparse:.1f}.",
    ]


def solver_section(device: torch.device) -> list[str]:
    heads = ("net", "density", "tool", "products", "time", "memory", "worst residual", "error")
    return [
        f"Top {TOP} eigenpairs on {measured()}, set-up included, one process each, live weights",
        "only for all. Residual and error are recomputed in float64, the error against the Ritz",
        "values of the tool's own vectors; our time has the certificate.",
        "",
        *table(heads, against_others(device)),
    ]


def warm_section(device: torch.device) -> list[str]:
    heads = ("net", "top", "cold", "warm", "ratio", "ratio without probes", "smallest cosine")
    return [
        "Products to converge at 1e-3 and to probe the complement, for a checkpoint an epoch after",
        "another one, cold and started from that one's vectors:",
        "",
        *table(heads, counts(device)),
    ]


def measured() -> str:
    images = " and ".join(f"{r.measured} images ({name})" for name, r in RECIPES.items())
    return f"{data_name()}, {images}, float32"
