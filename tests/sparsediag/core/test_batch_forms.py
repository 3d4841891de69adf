"""Batches whose samples are not rows of one tensor: lists of images, packed, nested, arrays."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from sparsediag import Problem, spectrum
from sparsediag.core.batches import is_per_sample, num_samples, rechunk
from sparsediag.core.losses import num_correct

X, Y = cases.classes((6,), (4,), 3)[0]


def images(*sizes: int) -> list[Tensor]:
    return [torch.ones(3, size, size).double() for size in sizes]


def boxes(*counts: int) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.ones(n, 4), "labels": torch.ones(n).long()} for n in counts]


SEQUENCES = [torch.arange(2.0 * n).view(n, 2).double() for n in (4, 1, 3, 2, 1)]
COUNTS: dict[str, tuple[Any, Any, int]] = {
    "images and labels": ((images(8, 8), torch.ones(2)), None, 2),
    "images and boxes": ((images(8, 8, 8, 8), boxes(1, 1, 1, 1)), None, 4),
    "sequences": ((SEQUENCES[:3],), None, 3),
    "images, boxes as targets": ((images(8, 8),), boxes(5, 0), 2),
    "a tuple of images": ((tuple(images(8, 8)), tuple(boxes(3, 4))), None, 2),
    "stacked images, boxes": (torch.ones(2, 3, 8, 8), boxes(5, 5), 2),
    "a dict of lists": ({"images": images(8, 8), "targets": boxes(3, 1)}, None, 2),
    "packed": (pack_sequence(SEQUENCES, enforce_sorted=False), None, 5),
    "packed, with classes": (pack_sequence(SEQUENCES, enforce_sorted=False), torch.ones(5), 5),
    "nested": (torch.nested.nested_tensor(SEQUENCES, layout=torch.jagged), None, 5),
    "several targets": (torch.ones(6, 4), (torch.ones(6), torch.ones(6, 2)), 6),
    "a list of targets": (torch.ones(6, 4), [torch.ones(6), torch.ones(6)], 6),
    "a graph": ((torch.ones(9, 4), torch.ones(2, 20), torch.ones(9)), torch.ones(3), 3),
    "tokens and a mask": ((torch.ones(5, 7), torch.ones(7, 7)), None, 5),
}


@pytest.mark.parametrize("name", COUNTS)
def test_samples_are_counted(name: str) -> None:
    x, y, expected = COUNTS[name]
    assert num_samples((x, y)) == expected


@pytest.mark.parametrize("name", ["images and labels", "images and boxes", "packed", "nested"])
def test_what_has_no_rows_is_neither_cut_nor_joined(name: str) -> None:
    x, y, _ = COUNTS[name]
    assert not is_per_sample((x, y))
    assert len(rechunk([(x, y), (x, y)], 100)) == 2
    assert len(rechunk([(x, y)], 1)) == 1


def test_a_count_that_is_not_clear_is_refused() -> None:
    for sizes in ((8, 8), (8, 6)):
        with pytest.raises(ValueError, match=r"may be 2 or 3; give targets"):
            num_samples(((images(*sizes),), None))
    assert num_samples(((images(8, 6),), torch.ones(2))) == 2


def test_a_graph_object_is_refused_with_the_way_out() -> None:
    class Data:
        num_graphs = 2

    with pytest.raises(ValueError, match=r"Data, and hold no tensor; .*\(x, edge_index, batch\)"):
        Problem(nn.Linear(4, 3), [(Data(), Y)])


class Detector(nn.Module):
    """A net of a list of images, which returns its loss: the mean over the images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, images: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        z = torch.stack([self.fc(image.mean((1, 2))) for image in images])[:, 0]
        return {"loss": F.mse_loss(z, labels)}


def test_lists_of_images_have_the_mean_over_all_images() -> None:
    g = torch.Generator().manual_seed(0)
    pictures = [torch.randn(3, 4, 4, generator=g).double() for _ in range(5)]
    labels = torch.arange(5).double()
    net = cases._net(Detector)
    batches = [((pictures[:4], labels[:4]), None), ((pictures[4:], labels[4:]), None)]
    problem = Problem(net, batches)
    loss = net(pictures, labels)["loss"]
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*net.parameters()])])
    assert problem.samples == 5
    assert problem.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(problem.gradient(), expected, rtol=0, atol=1e-12)


class Reader(nn.Module):
    """A net of packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(2, 4), nn.Linear(4, 3)

    def forward(self, words: PackedSequence) -> Tensor:
        states, lengths = pad_packed_sequence(self.rnn(words)[0], batch_first=True)
        return self.fc(states[torch.arange(len(lengths)), lengths - 1])


def test_a_packed_sequence_is_one_input() -> None:
    net, classes = cases._net(Reader), torch.tensor([0, 1, 2, 1, 0])
    whole = pack_sequence(SEQUENCES, enforce_sorted=False)
    parts = [pack_sequence(SEQUENCES[i], enforce_sorted=False) for i in (slice(3), slice(3, 5))]
    problem = Problem(net, list(zip(parts, classes.split([3, 2]), strict=True)))
    loss = F.cross_entropy(net(whole), classes)
    rows = torch.autograd.grad(loss, [*net.parameters()])
    expected = torch.cat([g.flatten() for g in rows])
    assert problem.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(problem.gradient(), expected, rtol=0, atol=1e-12)
    assert spectrum(problem, top=1, params="fc.bias").converged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_of_numpy_are_tensors(dtype: torch.dtype) -> None:
    net = cases._net(lambda: nn.Linear(4, 3)).to(dtype)
    arrays = [(X.numpy(), Y.numpy()), {"input": X.numpy()[::-1], "labels": Y.numpy()[::-1]}]
    problem = Problem(net, arrays[:1])
    expected = F.cross_entropy(net(X.to(dtype)), Y).item()
    assert problem.value() == pytest.approx(expected, rel=1e-6)
    assert problem.gradient().dtype == dtype
    with pytest.raises(ValueError, match="an array of a batch cannot be a tensor"):
        Problem(net, [(np.array(["a"] * 6), Y)])


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.int(),
        lambda y: y.to(torch.int8),
        lambda y: y[:, None],
        lambda y: y[:, None].short(),
        lambda y: y.numpy().astype(np.int32)[:, None],
    ],
)
def test_classes_of_any_whole_numbers(change: Any) -> None:
    net = cases._net(lambda: nn.Linear(4, 3))
    problem = Problem(net, [(X, change(Y))])
    assert problem.value() == pytest.approx(F.cross_entropy(net(X), Y).item(), rel=1e-14)
    right = (net(X).argmax(1) == Y).sum().item()
    assert num_correct(net(X), problem.batches[0][1]).item() == right


def test_classes_of_pixels_may_have_a_channel() -> None:
    net = cases._net(lambda: nn.Conv2d(1, 3, 1))
    x, y = torch.ones(2, 1, 4, 4).double(), torch.arange(32).view(2, 1, 4, 4) % 3
    expected = F.cross_entropy(net(x), y[:, 0]).item()
    assert Problem(net, [(x, y.int())]).value() == pytest.approx(expected, rel=1e-14)
