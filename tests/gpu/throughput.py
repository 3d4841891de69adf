"""Images trained on a second: our loop, a bare one, and one as the released code has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag.data import Data
from tests.bench.timing import clock, seconds
from tests.bench.training import usual
from tests.gpu import sets
from tests.gpu.place import Measurements, Place, Row
from tests.gpu.precision import tf32
from training.config import Run
from training.loop import fit

MASKED = {"mask": {"method": "random", "density": 0.1}}
TOST = MASKED | {"tweaks": ["ghost_neurons", "ghost_skips", "smoothing"]}  # as `tost` trains
KINDS = {"dense": {}, "masked": MASKED, "masked + ToST": TOST}
Step = Callable[[Tensor, Tensor], object]


def measurements(place: Place) -> Measurements:
    """The cells of the bars first, then the rest by how much they tell."""
    full = [("resnet18", 512), ("resnet20", 512), ("resnet18", 128), ("resnet20", 128)]
    cells = place.size([*full, ("resnet32", 512), ("resnet32", 128)], [("resnet10", 32)])
    for net, batch in cells:
        for kind in reversed(KINDS):
            yield from _ours(place, net, batch, kind, "bf16")
        for way in ("graph", "eager"):
            yield from _bare(place, net, batch, way, "bf16")
        if (net, batch) == cells[0]:
            yield f"{net}, {batch}, as released", lambda: released(place, *cells[0])
    for precision in ("tf32", "float32"):
        for net, batch in cells[:2]:
            yield from _ours(place, net, batch, "masked + ToST", precision)
            yield from _bare(place, net, batch, "graph", precision)
    for net, batch in cells[:2]:
        yield from _bare(place, net, batch, "compiled", "bf16")


def _ours(place: Place, net: str, batch: int, kind: str, precision: str) -> Measurements:
    yield (
        f"{net}, {batch}, {precision}, {kind}",
        lambda: ours(place, net, batch, kind, precision),
    )


def _bare(place: Place, net: str, batch: int, way: str, precision: str) -> Measurements:
    yield (
        f"{net}, {batch}, {precision}, bare loop, {way}",
        lambda: bare(place, net, batch, way, precision),
    )


def images(place: Place, precision: str) -> int:
    """So many in an epoch, a multiple of every batch: those of CIFAR-10 where it goes fast."""
    return place.size(88 if precision == "bf16" else 22, 1) * place.size(512, 64)


def ours(place: Place, net: str, batch: int, kind: str, precision: str) -> Row:
    """Epochs of `fit`, but for the first; ghosts are there for half of them, and change in each."""
    epochs = 6 if "tweaks" in KINDS[kind] else place.size(3, 2)
    table = KINDS[kind] | {
        "data": sets.pixels(images(place, precision)),
        "model": _model(place, net),
        "augment": "crop_flip",
        "optim": {
            "epochs": epochs,
            "batch": batch,
            "lr": 0.01,
        },
        "compute": {"precision": precision},
        "record": {"images": 64},
    }
    if precision == "tf32":
        place.needs_cuda("TF32")
    run, rows = Run.of(table), list[Row]()
    shutil.rmtree(place.out / "runs" / run.id, ignore_errors=True)
    path = fit(run, out=place.out, device=str(place.device), on_epoch=rows.append)
    shutil.rmtree(path.parent)
    soft = [r["images_per_second"] for r in rows[1:] if r["ghosts"]]
    hard = [r["images_per_second"] for r in rows[1:] if not r["ghosts"]]
    row = {"images/s": median(soft or hard), "epoch s": rows[-1]["seconds"]}
    row |= {"images/s without ghosts": median(hard)} if soft else {}
    return row | {"peak MB": rows[-1]["peak_memory_mb"]}


def bare(place: Place, net: str, batch: int, way: str, precision: str) -> Row:
    """No mask, no augmentation, no metric, one batch that lies ready; fused SGD on a GPU."""
    if way == "graph":
        place.needs_cuda("captured graph")
    if precision == "tf32":
        place.needs_cuda("TF32")
    data = sd.data.load(sets.pixels(images(place, precision)), device=place.device)
    x, y = data.batches(images=batch, batch=batch)[0]
    torch.manual_seed(0)
    model = sd.models.build(**_model(place, net)).to(place.device).train()
    if place.cuda:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=place.cuda
    )
    with tf32(precision != "float32"):
        forward = torch.compile(model, backend=place.compiler) if way == "compiled" else model
        step = _step(forward, optimiser, precision == "bf16", place)
        run = _captured(step, x, y) if way == "graph" else lambda: step(x, y)
        count = place.size(30, 2)
        took = seconds(lambda: [run() for _ in range(count)], place.size(5, 1)) / count
    return {"images/s": batch / took, "step ms": 1e3 * took}


def _step(
    forward: Callable[[Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    half: bool,
    place: Place,
) -> Step:
    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        with torch.autocast(place.device.type, torch.bfloat16, half, cache_enabled=False):
            outputs = forward(x)
        F.cross_entropy(outputs.float(), y).backward()
        optimiser.step()

    return step


def _captured(step: Step, x: Tensor, y: Tensor) -> Callable[[], object]:
    """The step as one captured graph, after some that warm up on a stream of their own."""
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


def released(place: Place, net: str, batch: int) -> Row:
    """An epoch of the loop as the released code has it, on fewer images, float32 (TF32).

    A DataLoader with two workers and torchvision's transforms, the mask from the zeros of the
    weights layer by layer at every step, and loss and accuracy read at every step.
    """
    data: Data = sd.data.load(sets.pixels(place.size(20, 2) * batch), device=place.device)
    torch.manual_seed(0)
    model: nn.Module = sd.models.build(**_model(place, net))
    with tf32():
        epoch = usual(model, data, batch)
        start = clock()
        epoch()
        took = clock() - start
    return {"images/s": len(data.train) / took}


def _model(place: Place, net: str) -> dict[str, object]:
    return {"name": net} | place.size({}, {"width": 8})
