"""A folder of images of unequal size: a pruned network of torchvision on it, and a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.nn.utils import prune
from torchvision import transforms

import sparsediag as sd
from sparsediag.checkpoint import resolve
from sparsediag.cli.app import main
from sparsediag.data.datasets import _load
from training.__main__ import main as train

RESNET = ["pruned.pt", "--model", "torchvision:resnet18"]
SMALL = ["small.pt", "--model", "net.py:make", "--device", "cpu", "--formats", ""]
NET = """
from torch import nn

def make(channels=3, outputs=3):
    convolution = nn.Conv2d(channels, 2, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 64, outputs))
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pets/train`, `pets/val` and a network of torchvision that torch has pruned."""
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for k, name in enumerate(("bird", "cat", "dog")):
            for i in range(count):
                shape = (*noise.integers(33, 60, 2), 3)
                pixels = np.clip(noise.normal(60 * k + 60, 40, shape), 0, 255).astype(np.uint8)
                path = folder / "pets" / split / name / f"{name}{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).convert("L" if i == 1 else "RGB").save(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18(num_classes=3)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            prune.l1_unstructured(module, "weight", amount=0.8)
    torch.save(net.state_dict(), folder / "pruned.pt")
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "home"))
    _load.cache_clear()


def refused(capsys: Captured, *words: str) -> str:
    """Return the one line on stderr of a command that ends with exit code 2."""
    assert main([*words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@torch.no_grad()
def _top_eigenvalue() -> float:
    """Return that of the Hessian in the weights of the last layer that are alive, by torchvision.

    It is a closed form: the mean over samples of (diag(p) - p p^T) x h h^T, of softmax p and
    features h.
    """
    steps = [transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = torchvision.datasets.ImageFolder("pets/val", transforms.Compose(steps))
    net = torchvision.models.resnet18(num_classes=3)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            prune.identity(module, "weight")
    net.load_state_dict(torch.load("pruned.pt"))
    features: list[torch.Tensor] = []
    net.fc.register_forward_hook(lambda module, given, outputs: features.append(given[0]))
    p = net.eval()(torch.stack([x for x, _ in images])).softmax(1).double()
    h, alive = features[0].double(), net.fc.weight_mask.flatten().bool()
    hessian = torch.zeros(1536, 1536, dtype=torch.float64)
    for q, f in zip(p, h, strict=True):
        hessian += torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(f, f)) / len(p)
    return float(torch.linalg.eigvalsh(hessian[alive][:, alive])[-1])


def test_top_eigenvalue_of_a_pruned_network_of_torchvision(capsys: Captured) -> None:
    where = ["--data", "folder:pets", "--size", "32", "--normalise", "imagenet", "--split", "val"]
    words = ["spectrum", *RESNET, "--model-options", "num_classes=3", *where, "--top", "1"]
    only_last = ["--params", "fc.weight"]  # which keeps the test short, and has a closed form
    assert main([*words, *only_last, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["eigenvalues"] == pytest.approx([_top_eigenvalue()], rel=1e-3)
    (note,) = found["notes"]  # nothing is doubtful about the pixels
    assert "torch.nn.utils.prune" in note
    assert sd.diagnostics.result.provenance(found["source"]) == (
        "torchvision:resnet18 on folder:pets: 12 of 12 validation images "
        "(32 x 32, normalised: imagenet), cross_entropy, batch norm: running statistics"
    )


def test_another_number_of_classes(capsys: Captured) -> None:
    torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), "squeezed.pt")
    words = ["squeezed.pt", "--model", "torchvision:squeezenet1_1", "--data", "folder:pets"]
    line = refused(capsys, "gradflow", *words, "--size", "32")
    assert "(3, 512, 1, 1)" in line
    assert line.endswith("--model-options num_classes=3")


def small(channels: int = 3, outputs: int = 3) -> list[str]:
    """Save the network of net.py; return the words that name it."""
    options = {"channels": channels, "outputs": outputs}
    net = resolve.net("net.py:make", options)
    torch.save(net.state_dict(), "small.pt")
    return [*SMALL, "--model-options", f"{channels=}, {outputs=}"]


def notes(capsys: Captured, words: list[str], more: str) -> str:
    """Return the notes on the images of a command that succeeds."""
    assert main(["gradflow", *words, *more.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out).get("notes", [])
    return "\n".join(note for note in said if not note.startswith("mask:"))


def test_what_is_guessed_about_images_is_said(capsys: Captured) -> None:
    words = [*small(), "--data", "folder:pets", "--size", "8"]
    said = notes(capsys, words, "--split test")
    assert "--normalise imagenet" in said
    assert "tenth of the training images of folder:pets" in said
    assert notes(capsys, words, "--split valid --normalize none") == ""
    words = [*small(1, 10), "--data", "digits", "--normalise", "own", "--images", "9"]
    assert notes(capsys, words, "--split train") == ""
    assert "tenth of the training images of digits" in notes(capsys, words, "--split val")
    assert "grey" in notes(capsys, [*small(3, 10), *words[-6:]], "")
    assert notes(capsys, [*small(3, 10), *words[-6:-3], "imagenet"], "") == ""
    words = [*small(3, 100), "--data", "folder:pets", "--size", "8", "--normalise", "own"]
    assert "100 outputs, folder:pets has 3 classes" in notes(capsys, words, "")


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ("--data folder:pets", ["'pets/train/", "need", "--size 224", "size = 224"]),
        ("--data pets", ["'pets'", "folder:pets"]),
        ("--data folder:pts", ["'pts' is not a folder", "train/<class>"]),
        ("--data folder:pets --size 0", ["size 0"]),
        ("--data folder:pets --size 9", ["folder:pets has 3 classes", "3 x 9 x 9; --size"]),
        ("--data digits --size 8", ["size 8", "digits"]),
        ("--data folder:pets --normalise imagnet", ["imagnet", '"imagenet"']),
        ("--data folder:pets --split vall", ["vall", '"val"']),
        ("--data digits", ["outputs (128, 3)", "digits has 10 classes", "1 x 8 x 8"]),
        ("--data net.py:make --size 8", ["net.py:make", "takes no size"]),
    ],
)
def test_images_that_do_not_fit(capsys: Captured, words: str, tokens: list[str]) -> None:
    line = refused(capsys, "gradflow", *small(), *words.split())
    assert [token for token in tokens if token not in line] == []


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_of_other_channels(capsys: Captured, channels: int) -> None:
    words = [*small(channels), "--data", "folder:pets", "--size", "8"]
    line = refused(capsys, "gradflow", *words)
    assert "3 channels" in line
    assert "folder:pets has 3 classes and images of 3 x 8 x 8" in line


def test_a_training_and_its_checkpoint_have_the_same_pixels(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "run.toml").write_text(
        'data = "folder:pets"\nsize = 8\nnormalise = "imagenet"\n'
        'model = {name = "lenet300", width = 4}\nmask = {method = "magnitude", density = 0.5}\n'
        "optim = {epochs = 1, batch_size = 8}"
    )
    run = [str(tmp_path / "run.toml"), "--out", str(tmp_path), "--device", "cpu"]
    assert train(run) == 0
    best = capsys.readouterr().out.split()[-1]
    checkpoint = sd.Checkpoint.load(best)
    x = torch.cat([x for x, _ in checkpoint.problem(split="val").batches])
    pets = sd.data.load("folder:pets", size=8, normalise="imagenet")
    assert torch.equal(x, torch.cat([x for x, _ in pets.batches("val")]))
    assert len(x) == len(pets.validation) == 12
    assert main(["inputscape", best, "--count", "2", "--points", "3", "--formats", ""]) == 0
    assert "has size = 9, the net was built for 8" in refused(capsys, "signal", best, "--size", "9")
    assert train([*run, "--size", "9"]) == train([*run, "--normalize=own"]) == 0
    assert len({*(tmp_path / "runs").iterdir()}) == 6  # each with the dense training behind it
