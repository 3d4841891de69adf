"""Training throughput: our loop, a bare loop, and a loop like that of the released code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag.data.datasets import Data
from tests.bench.timing import clock, seconds
from tests.bench.training import usual
from tests.gpu import sets
from tests.gpu.precision import tf32
from tests.gpu.settings import Measurements, Row, Settings
from training.config import Run
from training.loop import fit

MASKED = {"mask": {"method": "random", "density": 0.1}}
TOST = MASKED | {"tweaks": ["ghost_neurons", "ghost_skips", "smoothing"]}  # as `tost` trains
KINDS = {"dense": {}, "masked": MASKED, "masked + ToST": TOST}
Step = Callable[[Tensor, Tensor], object]


def measurements(settings: Settings) -> Measurements:
    """Yield the configurations of the bars first, then the others by importance."""
    full = [("resnet18", 512), ("resnet20", 512), ("resnet18", 128), ("resnet20", 128)]
    cells = settings.size([*full, ("resnet32", 512), ("resnet32", 128)], [("resnet6", 32)])
    for net, batch in cells:
        for kind in reversed(KINDS):
            yield from _ours(settings, net, batch, kind, "bf16")
        for way in ("graph", "eager"):
            yield from _bare(settings, net, batch, way, "bf16")
        if (net, batch) == cells[0]:
            yield f"{net}, {batch}, as released", lambda: released(settings, *cells[0])
    for precision in ("tf32", "float32"):
        for net, batch in cells[:2]:
            yield from _ours(settings, net, batch, "masked + ToST", precision)
            yield from _bare(settings, net, batch, "graph", precision)
    for net, batch in cells[:2]:
        yield from _bare(settings, net, batch, "compiled", "bf16")


def _ours(settings: Settings, net: str, batch: int, kind: str, precision: str) -> Measurements:
    yield (
        f"{net}, {batch}, {precision}, {kind}",
        lambda: ours(settings, net, batch, kind, precision),
    )


def _bare(settings: Settings, net: str, batch: int, way: str, precision: str) -> Measurements:
    yield (
        f"{net}, {batch}, {precision}, bare loop, {way}",
        lambda: bare(settings, net, batch, way, precision),
    )


def images(settings: Settings, precision: str) -> int:
    """Return the images of an epoch, a multiple of every batch size; as in CIFAR-10 for bf16."""
    return settings.size(88 if precision == "bf16" else 22, 1) * settings.size(512, 64)


def ours(settings: Settings, net: str, batch: int, kind: str, precision: str) -> Row:
    """Measure `fit`, first epoch excluded. Ghosts are active in half of the epochs."""
    epochs = 6 if "tweaks" in KINDS[kind] else settings.size(3, 2)
    table = KINDS[kind] | {
        "data": sets.pixels(images(settings, precision)),
        "model": _model(settings, net),
        "augment": "crop_flip",
        "optim": {
            "epochs": epochs,
            "batch_size": batch,
            "lr": 0.01,
        },
        "compute": {"precision": precision},
        "record": {"probe_samples": 64},
    }
    if precision == "tf32":
        settings.needs_cuda("TF32")
    run, rows = Run.of(table), list[Row]()
    shutil.rmtree(settings.out / "runs" / run.id, ignore_errors=True)
    path = fit(run, out=settings.out, device=str(settings.device), on_epoch=rows.append)
    shutil.rmtree(path.parent)
    soft = [r["images_per_second"] for r in rows[1:] if r["ghosts"]]
    hard = [r["images_per_second"] for r in rows[1:] if not r["ghosts"]]
    row = {"images/s": median(soft or hard), "epoch s": rows[-1]["seconds"]}
    row |= {"images/s without ghosts": median(hard)} if soft else {}
    return row | {"peak MB": rows[-1]["peak_memory_mb"]}


def bare(settings: Settings, net: str, batch: int, way: str, precision: str) -> Row:
    """Measure a step without mask, augmentation or metrics, on one prepared batch."""
    if way == "graph":
        settings.needs_cuda("captured graph")
    if precision == "tf32":
        settings.needs_cuda("TF32")
    data = sd.data.load(sets.pixels(images(settings, precision)), device=settings.device)
    x, y = data.batches(images=batch, batch=batch)[0]
    torch.manual_seed(0)
    model = sd.models.build(**_model(settings, net)).to(settings.device).train()
    if settings.cuda:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=settings.cuda
    )
    with tf32(precision != "float32"):
        forward = torch.compile(model, backend=settings.compiler) if way == "compiled" else model
        step = _step(forward, optimiser, precision == "bf16", settings)
        run = _captured(step, x, y) if way == "graph" else lambda: step(x, y)
        count = settings.size(30, 2)
        took = seconds(lambda: [run() for _ in range(count)], settings.size(5, 1)) / count
    return {"images/s": batch / took, "step ms": 1e3 * took}


def _step(
    forward: Callable[[Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    half: bool,
    settings: Settings,
) -> Step:
    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        with torch.autocast(settings.device.type, torch.bfloat16, half, cache_enabled=False):
            outputs = forward(x)
        F.cross_entropy(outputs.float(), y).backward()
        optimiser.step()

    return step


def _captured(step: Step, x: Tensor, y: Tensor) -> Callable[[], object]:
    """Return the step as one captured graph, after warm-up steps on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(x, y)
    return graph.replay


def released(settings: Settings, net: str, batch: int) -> Row:
    """Measure one epoch of a loop like that of the released code, on fewer images, in TF32.

    A DataLoader with two workers and torchvision's transforms, the mask from the zeros of the
    weights layer by layer at every step, and loss and accuracy read at every step.
    """
    data: Data = sd.data.load(sets.pixels(settings.size(20, 2) * batch), device=settings.device)
    torch.manual_seed(0)
    model: nn.Module = sd.models.build(**_model(settings, net))
    with tf32():
        epoch = usual(model, data, batch)
        start = clock()
        epoch()
        took = clock() - start
    return {"images/s": len(data.train) / took}


def _model(settings: Settings, net: str) -> dict[str, object]:
    return {"name": net} | settings.size({}, {"width": 8})
