"""The sizes part of the benchmarks: every diagnostic on networks of the sizes that people use.

A row compares only what was measured within it, one after the other. Rows are kept in out/bench/
as they come, so that an interrupted call goes on with the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd
from sparsediag.curvature.operator import Curvature
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import plane
from tests.bench import nets
from tests.bench.nets import KEPT
from tests.bench.timing import Row, Rows, seconds, table

LENGTH = 128  # characters of a sequence


class CharGPT(nn.Module):
    """A language model of characters with causal attention and 10 million weights by default."""

    def __init__(self, width: int = 384, layers: int = 6) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 6, 4 * width, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.embedding, self.places = nn.Embedding(128, width), nn.Embedding(LENGTH, width)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        embedded = self.embedding(x) + self.places.weight[:length]
        return self.head(self.layers(embedded, mask=causal, is_causal=True)).mT


def text_problem(sequences: int, device: torch.device, **options: int) -> sd.Problem:
    """The GPT after some steps of Adam on this project's own documents."""
    root = Path(__file__).parents[2]
    files = [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))]
    text = "".join(file.read_text(encoding="utf-8") for file in files).encode("ascii", "replace")
    characters = torch.tensor(list(text))
    torch.manual_seed(0)
    net = CharGPT(**options).to(device)
    optimiser = torch.optim.Adam(net.parameters(), 3e-4)
    for step in range(11):  # the last of them is what is measured
        starts = torch.randint(len(characters) - LENGTH, (sequences,))
        pieces = torch.stack([characters[i : i + LENGTH + 1] for i in starts]).to(device)
        batch = pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()
        if step < 10:
            optimiser.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            optimiser.step()
    return sd.Problem(net.eval(), [batch], loss=F.cross_entropy)


def resnet50_problem(images: int, device: torch.device, size: int = 224) -> sd.Problem:
    """ResNet-50 of torchvision at its initialisation, on noise."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    batch = torch.randn(images, 3, size, size), torch.randint(0, 1000, (images,))
    return sd.Problem(resnet50().to(device).eval(), [tuple(t.to(device) for t in batch)])


@dataclass(frozen=True)
class Size:
    """A network, and how many samples it is measured on.

    Attributes:
        problem: Makes the loss of that many samples.
        samples: Their number.
        parts: What is measured.
    """

    problem: Callable[[int, torch.device], sd.Problem]
    samples: int
    parts: tuple[str, ...]


def image_problem(name: str) -> Callable[[int, torch.device], sd.Problem]:
    return lambda n, device: nets.problem_of(name, 0.1, images=n, device=device)


ALL = ("product", "spectrum", "landscape", "activations")
SIZES = {
    "ResNet-20, 10 % dense": Size(image_problem("resnet20"), 1000, ALL),
    "ResNet-18, 10 % dense": Size(image_problem("resnet18"), 256, ALL),
    "GPT, 10 million weights": Size(text_problem, 8, ALL),
    "ResNet-50 of torchvision": Size(resnet50_problem, 8, ("product", "landscape")),
}


def unit(problem: sd.Problem, what: str) -> Callable[[], object]:
    """What the time of a part is a multiple of: a bare gradient or a bare forward pass."""
    ((x, y),) = problem.batches
    net, loss = problem.net, problem.loss

    def forward() -> None:
        with torch.inference_mode():
            net(x)

    def gradient() -> None:
        weights = list(net.parameters())
        torch.autograd.grad(loss(net(x), y), weights)

    return forward if what in ("landscape", "activations") else gradient


def work(problem: sd.Problem, what: str) -> Callable[[], object]:
    """The part itself."""
    if what == "product":
        hessian = Curvature(problem)
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0))
        v = v.to(problem.device)
        return lambda: hessian(v)
    if what == "landscape":
        evaluator, place = LossEvaluator(plane(problem)), torch.tensor([0.1, 0.2]).numpy()
        return lambda: evaluator(place)
    if what == "spectrum":
        return lambda: sd.spectrum(problem, top=1)
    return lambda: sd.activations(problem)


def measure(label: str, what: str, samples: int, device: torch.device) -> Row:
    """Return the row of one part of one network."""
    problem = SIZES[label].problem(samples, device)
    part, bare = work(problem, what), unit(problem, what)
    repeats = 3 if what in ("product", "landscape") else 1
    one = seconds(bare, 3)
    time = seconds(part, repeats) if what != "spectrum" else once(part)
    name = "forward passes" if what in ("landscape", "activations") else "gradients"
    named = {"landscape": "a point of a landscape", "spectrum": "spectrum, top 1"}
    return (label, str(samples), named.get(what, what), f"{time:.2f} s", f"{time / one:.2f} {name}")


def once(part: Callable[[], object]) -> float:
    """Seconds of a single call."""
    from tests.bench.timing import clock

    start = clock()
    part()
    return clock() - start


def rows(device: torch.device, smallest: bool = False) -> Rows:
    """Measure every row, or go on where an interrupted call stopped."""
    kept = KEPT / f"sizes-{device.type}{'-smallest' * smallest}.json"
    KEPT.mkdir(parents=True, exist_ok=True)
    done: dict[str, Row] = json.loads(kept.read_text()) if kept.exists() else {}
    for label, size in SIZES.items():
        for what in size.parts:
            if f"{label} {what}" not in done:
                done[f"{label} {what}"] = measure(
                    label, what, 2 if smallest else size.samples, device
                )
                kept.write_text(json.dumps(done))
                print(*done[f"{label} {what}"], sep=" | ", flush=True)
    kept.unlink()
    return [tuple(row) for row in done.values()]


def section(device: torch.device) -> list[str]:
    return [
        f"{nets.data_name()} for ResNet-20 and ResNet-18; {LENGTH} characters a sequence for the",
        "GPT; noise of 224 x 224 pixels for ResNet-50. Against a bare gradient or a bare forward",
        "pass of the same samples, measured in the same minute; set-up is not counted.",
        "",
        *table(("net", "samples", "what", "time", "that is"), rows(device)),
    ]


if __name__ == "__main__":  # every row on two samples: a try
    rows(torch.device("cpu"), smallest=True)
