"""The collapses of the ablation: what the project's own diagnostics see in the nets that fell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import sparsediag as sd
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.activations import activations
from sparsediag.diagnostics.gradflow import gradflow
from tests.bench.ablation import DENSITIES, MASKS, SEEDS, TWEAKS, runs
from tests.bench.accuracy import OUT, accuracy, train
from tests.bench.timing import Rows, table
from training.config import Run

FALLEN = 60.0  # percent: every other run of the table ends well above
BATCH = 128  # as in the trainings
Fallen = tuple[str, str, str, Run]


def fallen() -> Iterator[Fallen]:
    """The runs of the ablation that end below, with their tweaks, mask and sparsity."""
    for tweaks in TWEAKS:
        for mask in MASKS:
            for density in DENSITIES:
                for run in runs(mask, density, tweaks):
                    trained = (OUT / "runs" / run.id / "finished").exists()
                    if trained and accuracy(run) < FALLEN:
                        yield tweaks, mask, f"{1 - density:.0%}", run


def examine(run: Run, device: torch.device) -> tuple[float, ...]:
    """Training accuracy by running and by batch statistics, in percent; in per cent of channels
    and outputs those that are constant and 0; the gradient flow.
    """  # noqa: D205
    kept = Checkpoint.load(OUT / "runs" / run.id / "last.pt")
    batches = sd.data.load(run.data, device=device).batches("train", batch=BATCH)
    running, batch = (
        Problem(kept.build(device), batches, mask=kept.mask, batch_norm=mode)  # type: ignore[arg-type]
        for mode in ("eval", "train")
    )
    live = activations(batch)
    return (
        _accuracy(running),
        _accuracy(batch),
        100 * _constant(batch),
        100 * float(live.zeros.mean()),
        gradflow(batch).mean,
    )


def _accuracy(problem: Problem) -> float:
    right = sum(
        int((outputs.argmax(1) == y).sum())
        for outputs, (_, y) in zip(problem.outputs(), problem.batches, strict=True)
    )
    return 100 * right / problem.samples


def _constant(problem: Problem) -> float:
    """Share of the channels before batch norms whose variance over a batch is below its eps."""
    norms = [m for m in problem.net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    seen: list[torch.Tensor] = []

    def note(norm: torch.nn.BatchNorm2d, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(args[0].var((0, 2, 3)) < norm.eps)

    hooks = [m.register_forward_pre_hook(note) for m in norms]
    problem.outputs()
    for hook in hooks:
        hook.remove()
    return float(torch.cat(seen).double().mean())


def section(device: torch.device) -> list[str]:
    wanted = [run for m in MASKS for d in DENSITIES for t in TWEAKS for run in runs(m, d, t)]
    train(wanted, device)
    groups: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
    for *cell, run in fallen():
        groups.setdefault(tuple(map(str, cell)), []).append(examine(run, device))
    heads = (
        *("tweaks", "mask", "sparsity", "fallen", "train accuracy", "by batch statistics"),
        *("constant channels", "zeros", "gradient flow"),
    )
    rows: Rows = []
    for cell, found in groups.items():
        means = np.mean(found, axis=0)
        shown = [*(f"{m:.0f} %" for m in means[:4]), f"{means[4]:.2g}"]
        rows.append((*cell, f"{len(found)} of {len(SEEDS)}", *shown))
    return [
        f"The runs of the ablation that end below {FALLEN:.0f} % on the test images: means over",
        "them of what is seen in their last checkpoints on the training images. Where the accuracy",
        "is high by the statistics of each batch and at chance by the running ones, the weights",
        "have learned and batch norm's running statistics are what fails: a channel that is nearly",
        "constant is divided by sqrt(eps), so the smallest lag of its running mean behind the",
        "weights is multiplied by 316. Where both are low, the net itself is dead.",
        "",
        *table(heads, rows),
    ]
