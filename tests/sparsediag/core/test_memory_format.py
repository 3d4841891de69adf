"""Memory formats: only the order in memory changes, never a number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem
from sparsediag.core.memory_format import MemoryFormat, corrupts_memory, may_train_channels_last

every_case = pytest.mark.parametrize("name", cases.CASES)


def _images(net: Callable[[], nn.Module]) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Problem(net().double(), cases.classes((5,), (3, 6, 6), 3))


def _colours() -> Problem:
    return _images(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3)
        )
    )


def _last(t: Tensor) -> bool:
    return t.is_contiguous(memory_format=torch.channels_last)


@every_case
def test_views_undo_flat(name: str) -> None:
    problem = cases.CASES[name]()
    tensors, layout = problem.split(problem.weights), MemoryFormat.of(problem)
    back = layout.unflatten(layout.flatten(tensors))
    assert list(back) == list(tensors)
    assert all(torch.equal(back[n], t) for n, t in tensors.items())


@pytest.mark.parametrize("last", [False, True])
def test_flat_undoes_views(last: bool) -> None:
    layout = MemoryFormat(_colours().live.shapes, last)
    vector = torch.arange(sum(s.numel() for s in layout.shapes.values()))
    assert torch.equal(layout.flatten(layout.unflatten(vector)), vector)


@pytest.mark.parametrize("last", [False, True])
def test_views_share_the_memory(last: bool) -> None:
    problem = _colours()
    layout = MemoryFormat(problem.live.shapes, last)
    vector = layout.flatten(problem.split(problem.weights))
    views = layout.unflatten(vector)
    vector.zero_()
    assert not any(v.any() for v in views.values())
    for v in views.values():
        v.add_(1)
    assert (vector == 1).all()


def test_the_vector_is_the_memory_of_the_weights() -> None:
    problem = _colours()
    tensors, layout = problem.split(problem.weights), MemoryFormat.of(problem)
    memory = [t.as_strided((t.numel(),), (1,)) for t in layout.convert_weights(tensors)]
    assert torch.equal(layout.flatten(tensors), torch.cat(memory))
    assert not torch.equal(layout.flatten(tensors), problem.weights)


def test_channels_lie_last() -> None:
    problem = _colours()
    layout = MemoryFormat.of(problem)
    x = problem.batches[0][0]
    assert layout.channels_last
    assert not _last(x)
    assert _last(layout.convert(x))
    assert torch.equal(layout.convert(x), x)
    views = layout.unflatten(layout.flatten(problem.split(problem.weights)))
    four = [v for v in views.values() if v.dim() == 4]
    assert len(four) == 2
    assert all(_last(v) and not v.is_contiguous() for v in four)


def test_a_net_that_views_images_as_vectors_keeps_its_layout() -> None:
    problem = _images(cases.Viewing)
    layout = MemoryFormat.of(problem)
    x = problem.batches[0][0]
    assert not layout.channels_last
    assert layout.convert(x) is x
    assert torch.equal(layout.flatten(problem.split(problem.weights)), problem.weights)


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "tied_weights"])
def test_vectors_stay_as_they_are(name: str) -> None:
    problem = cases.CASES[name]()
    layout = MemoryFormat.of(problem)
    assert not layout.channels_last
    x = problem.batches[0][0]
    assert layout.convert(x) is x


@pytest.mark.parametrize("name", cases.MASKED)
def test_dead_weights_are_zero_in_the_views(name: str) -> None:
    problem = cases.CASES[name]()
    layout = MemoryFormat.of(problem)
    views = layout.unflatten(layout.flatten(problem.split(torch.ones(problem.size).double())))
    assert problem.mask is not None
    for n, alive in problem.mask.items():
        assert torch.equal(views[n], alive.double())


@every_case
def test_the_net_says_the_same_in_its_layout(name: str) -> None:
    problem = cases.CASES[name]()
    layout, weights = MemoryFormat.of(problem), problem.split(problem.weights)
    views = layout.unflatten(layout.flatten(weights))
    with torch.no_grad(), problem.evaluation_mode():
        for x, _ in problem.batches:
            came, expected = problem.forward(views, layout.convert(x)), problem.forward(weights, x)
            torch.testing.assert_close(came, expected, rtol=0, atol=1e-13)


# oneDNN's AVX2 kernel for strided 1x1 convolutions of few channels writes beyond its buffer


class Functional(nn.Module):
    """A strided 1x1 convolution that is no module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=2).mean((2, 3))


@pytest.mark.parametrize("channels", [3, 7, 8, 16])
@pytest.mark.parametrize("make", [Functional, lambda n: nn.Sequential(Functional(n))])
def test_few_channels_of_a_strided_pointwise_convolution_do_not_lie_last(
    make: Callable[[int], nn.Module], channels: int
) -> None:
    problem = Problem(make(channels), [(torch.randn(4, channels, 8, 8), torch.zeros(4).long())])
    assert MemoryFormat.of(problem).channels_last == (channels >= 8)


@pytest.mark.parametrize(
    ("conv", "safe"),
    [
        (nn.Conv2d(2, 4, 1, stride=2), False),
        (nn.Conv2d(4, 12, 1, stride=(1, 2)), False),
        (nn.Conv2d(8, 16, 1, stride=2), True),
        (nn.Conv2d(2, 4, 1), True),
        (nn.Conv2d(2, 4, 3, stride=2), True),
        (nn.Conv2d(2, 4, (1, 3), stride=2), True),
    ],
    ids=str,
)
def test_which_convolutions_corrupt_memory(conv: nn.Conv2d, safe: bool) -> None:
    assert corrupts_memory(conv.weight.shape, conv.stride) != safe
    assert may_train_channels_last(nn.Sequential(nn.ReLU(), conv)) == safe


NARROW = """
import tempfile, warnings
from pathlib import Path
import torch
import sparsediag as sd
from training.config import Run
from training.loop import fit

warnings.simplefilter("ignore", UserWarning)  # that the network stays contiguous
data = sd.data.load("digits")
problem = sd.Problem(sd.models.build("resnet18", width=2, channels=1), data.batches(images=256))
for mode in ("tape", "retained"):
    hessian = sd.Curvature(problem, mode=mode)
    for _ in range(4):
        hessian(torch.ones(problem.size))
sd.landscape(problem, points=3)
changes = {"optim.epochs": 2, "mask.method": "random", "model.width": 2}
run = Run.load("digits", changes | {"compute.layout": "channels_last"})
with tempfile.TemporaryDirectory() as out:
    fit(run, out=Path(out), device="cpu")
print("fine")
"""


def test_narrow_networks_survive_on_a_processor_with_avx2_alone() -> None:
    avx2 = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", NARROW]
    ended = subprocess.run(command, env=avx2, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "fine\n"), ended.stderr
