"""Checkpoints: nothing is lost in the file, and the network and its loss are the same again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sparsediag import Checkpoint, CheckpointError, Mask, models, prunable
from sparsediag.checkpoint.run_folder import epochs
from sparsediag.data import datasets
from sparsediag.models import Ghost

SMALL = {"channels": 1, "classes": 10, "size": 8, "width": 4}
NETS: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "dense perceptron": ("lenet300", {}, None),
    "sparse perceptron": ("lenet300", {}, 0.2),
    "deep perceptron": ("mlp", {"hidden": (7, 7), "skips": "identity_rms", "width": None}, 0.3),
    "dense resnet": ("resnet18", {}, None),
    "sparse resnet": ("resnet20", {"shortcut": "A"}, 0.05),
    "ghosts": ("resnet20", {"activation": "ghost", "skips": "conv1x1_bn"}, 0.1),
    "sparse vgg": ("vgg16_bn", {"activation": "mish"}, 0.1),
    "sparse mobilenet": ("mobilenet", {"skips": "identity_bn"}, 0.5),
    "nothing dead": ("lenet300", {}, 1.0),
}

KILLED = """
import os, signal, sys, torch
from sparsediag import Checkpoint

def half(payload, draft):
    draft.write(b"PK half of it")
    os.kill(os.getpid(), signal.SIGKILL)

checkpoint = Checkpoint.load(sys.argv[1])
torch.save = half
checkpoint.save(sys.argv[1])
"""


def made(name: str, **about: Any) -> tuple[nn.Module, Checkpoint]:
    """Return a network whose batch norms have seen data and whose ghosts are half faded."""
    model, options, density = NETS[name]
    options = SMALL | options
    torch.manual_seed(0)
    net = models.build(model, **options)
    for m in net.modules():
        if isinstance(m, Ghost):
            m.fade(0.37)
    net(images(40))
    mask = random_mask(net, density) if density is not None else None
    about = {"model": model, "options": options, "data": "digits", **about}
    return net.eval(), Checkpoint.of(net, mask=mask, **about)


def random_mask(net: nn.Module, density: float) -> Mask:
    """Apply a random mask to `net`."""
    mask = Mask.top({n: torch.rand_like(net.get_parameter(n)) for n in prunable(net)}, density)
    mask.apply_(net)
    return mask


def small(**changes: Any) -> Checkpoint:
    return replace(made("sparse perceptron")[1], **changes)


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert sorted(one.weights) == sorted(other.weights)
    for name, weight in one.weights.items():
        assert other.weights[name].dtype == weight.dtype
        assert torch.equal(other.weights[name], weight)
    for key in ("model", "options", "mask", "data", "run", "step", "steps", "history", "made_by"):
        assert getattr(one, key) == getattr(other, key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ckpt.pt"


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a data set of two classes of 4 x 4 coloured images."""
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for i in range(24):
        file = tmp_path / "colours" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(file)
    return f"folder:{tmp_path / 'colours'}"


# the file gives back what was saved


@pytest.mark.parametrize("name", NETS)
def test_load_and_build_give_what_was_saved(path: Path, name: str) -> None:
    net, checkpoint = made(
        name, run={"seed": 3, "optim": {"lr": 0.1}}, step=7, steps=9, history=[{"loss": 0.5}]
    )
    checkpoint.save(path)
    assert torch.load(path, weights_only=True)["format"] == 1
    loaded, rng = Checkpoint.load(path), torch.get_rng_state()
    assert_same(checkpoint, loaded)
    built = loaded.build()
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m.training for m in built.modules())
    assert torch.equal(built(images(5)), net(images(5)))


def test_double_precision_and_another_label_are_kept(path: Path) -> None:
    net, checkpoint = made("sparse resnet")
    double = Checkpoint.of(net.double(), mask=checkpoint.mask, model="mine", options={"depth": 2})
    double.save(path)
    assert double.weights["conv1.weight"].dtype == torch.float64
    assert_same(double, Checkpoint.load(path))
    assert (Checkpoint.load(path).model, double.options) == ("mine", {"depth": 2})
    built_in = replace(double, model="resnet20", options=checkpoint.options)
    assert built_in.build().conv1.weight.dtype == torch.float64


def test_what_a_training_needs_to_go_on_is_kept(path: Path) -> None:
    net = nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    resume = {"optimiser": optimiser.state_dict(), "rng": torch.get_rng_state(), "place": (1, 2)}
    Checkpoint.of(net, model="mine", options={}, resume=resume).save(path)
    back = Checkpoint.load(path).resume
    assert back is not None
    assert back["place"] == (1, 2)
    assert torch.equal(back["rng"], resume["rng"])
    momentum = back["optimiser"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, optimiser.state_dict()["state"][0]["momentum_buffer"])


@pytest.mark.parametrize("sign", [0.0, -0.0])
def test_dead_weights_are_exactly_zero_after_load(path: Path, sign: float) -> None:
    net, checkpoint = made("sparse resnet")
    mask = checkpoint.mask
    assert mask is not None
    for name, alive in mask.items():
        net.get_parameter(name).data[~alive] = sign
    Checkpoint.of(net, mask=mask, model="resnet20", options={}).save(path)
    for name, alive in mask.items():
        dead = Checkpoint.load(path).weights[name][~alive]
        assert len(dead) > 0
        assert (dead == 0).all()


@pytest.mark.parametrize("value", [1e-30, float("nan")])
def test_a_dead_weight_that_lives_is_refused(value: float) -> None:
    net, checkpoint = made("sparse perceptron")
    assert checkpoint.mask is not None
    net.fc.weight.data[~checkpoint.mask["fc.weight"]] = value
    with pytest.raises(CheckpointError, match=r"dead weights of 'fc.weight' .* mask.apply_\(net\)"):
        Checkpoint.of(net, mask=checkpoint.mask, model="lenet300", options={})


def test_a_mask_of_another_net_is_refused() -> None:
    _, checkpoint = made("sparse perceptron")
    with pytest.raises(ValueError, match="unknown weight named by the mask"):
        Checkpoint.of(nn.Linear(2, 2), mask=checkpoint.mask, model="mine", options={})


def test_a_checkpoint_and_its_nets_are_independent() -> None:
    net, checkpoint = made("dense resnet")
    before = {n: t.clone() for n, t in checkpoint.weights.items()}
    with torch.no_grad():
        for t in [*net.state_dict().values(), *checkpoint.build().state_dict().values()]:
            t.add_(1)
    assert all(torch.equal(t, before[n]) for n, t in checkpoint.weights.items())


def test_a_sparse_resnet18_takes_six_megabytes_at_most(path: Path) -> None:
    torch.manual_seed(0)
    net = models.build("resnet18", classes=100)
    about = {"model": "resnet18", "options": {"classes": 100}}
    checkpoint = Checkpoint.of(net, mask=random_mask(net, 0.1), **about)
    checkpoint.save(path)
    assert path.stat().st_size <= 6_000_000
    assert_same(checkpoint, Checkpoint.load(path))


# whole or not at all


def test_an_error_while_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(payload: Any, draft: BinaryIO) -> None:
        draft.write(b"PK half of it")
        raise OSError("disk full")

    small().save(path)
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        small(step=5).save(path)
    assert Checkpoint.load(path).step == 0
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(path: Path) -> None:
    small(step=5).save(path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


# the net again


def test_a_model_that_is_not_built_in() -> None:
    with pytest.raises(CheckpointError) as caught:
        small(model="resnet19").build()
    message = str(caught.value)
    assert "unknown model 'resnet19'; did you mean 'resnet18'?" in message
    assert message.endswith("Give it: --model file.py:make")
    assert "\n" not in message


def test_weights_that_do_not_fit() -> None:
    weights = small().weights | {"more": torch.zeros(7)}
    with pytest.raises(CheckpointError, match=r"^weights do not fit lenet300: .* no 'more'$"):
        small(weights=weights).build()


# the loss


def test_problem_is_the_loss_of_the_net_on_the_images() -> None:
    net, checkpoint = made("sparse perceptron")
    problem = checkpoint.problem(split="test", images=None, device="cpu")
    x, y = datasets.load("digits").batches("test", batch=1000)[0]
    loss = nn.functional.cross_entropy(net(x), y).item()
    assert problem.samples == 497
    assert problem.value() == pytest.approx(loss, rel=1e-6)
    assert problem.mask == checkpoint.mask
    assert checkpoint.mask is not None
    dense = sum(p.numel() for n, p in net.named_parameters() if n not in checkpoint.mask)
    assert problem.size == checkpoint.mask.alive + dense


@pytest.mark.parametrize(
    ("split", "asked", "batch", "sizes"),
    [
        ("train", 300, 128, [128, 128, 44]),
        ("train", 1000, 1000, [1000]),
        ("validation", 1000, 100, [100, 30]),
        ("test", None, 497, [497]),
    ],
)
def test_problem_takes_the_images_asked_for(
    split: str, asked: int | None, batch: int, sizes: list[int]
) -> None:
    problem = small().problem(split=split, images=asked, batch=batch, seed=3, device="cpu")
    expected = datasets.load("digits").batches(split, images=asked, batch=batch, seed=3)
    assert [len(y) for _, y in problem.batches] == sizes
    for (x, y), (ex, ey) in zip(problem.batches, expected, strict=True):
        assert torch.equal(x, ex)
        assert torch.equal(y, ey)


def test_problem_has_a_thousand_training_images_by_default() -> None:
    problem = small().problem(device="cpu")
    assert problem.samples == 1000
    assert problem.digest == small().problem(split="train", images=1000, device="cpu").digest
    assert problem.digest != small().problem(seed=1, device="cpu").digest


def fit_to(model: str, **options: Any) -> Checkpoint:
    options["width"] = 4
    net = models.build(model, **options)
    return Checkpoint.of(net, model=model, options=options, data="digits")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("lenet300", {"channels": 1, "classes": 2, "size": 4}, "channels = 3, .* built for 1"),
        ("lenet300", {"channels": 3, "classes": 10, "size": 4}, "classes = 2, .* built for 10"),
        ("lenet300", {"channels": 3, "classes": 2, "size": 8}, "size = 4, .* built for 8"),
        ("lenet300", {"channels": 3, "classes": 2}, "size = 4, .* built for 28"),
        ("resnet18", {"channels": 3, "classes": 10}, "classes = 2, .* built for 10"),
        ("resnet18", {"channels": 1, "classes": 2}, "channels = 3, .* built for 1"),
    ],
)
def test_problem_refuses_a_data_set_that_does_not_fit(
    colours: str, model: str, options: dict[str, int], message: str
) -> None:
    checkpoint = fit_to(model, **options)
    with pytest.raises(CheckpointError, match=f"has {message}.* trained on .digits."):
        checkpoint.problem(data=colours, device="cpu")


@pytest.mark.parametrize(("model", "size"), [("lenet300", 4), ("resnet18", 32)])
def test_problem_takes_another_data_set_that_fits(colours: str, model: str, size: int) -> None:
    checkpoint = fit_to(model, channels=3, classes=2, size=size)
    problem = checkpoint.problem(data=colours, images=5, device="cpu")
    assert [tuple(x.shape) for x, _ in problem.batches] == [(5, 3, 4, 4)]


def test_problem_needs_the_name_of_a_data_set() -> None:
    with pytest.raises(CheckpointError, match="names no data set; pass one with --data"):
        small(data="").problem()
    assert small(data="").problem(data="digits", images=5, device="cpu").samples == 5


# what it says of itself


def test_about_is_plain_and_complete() -> None:
    history = [
        {"epoch": 1, "val_accuracy": 0.5, "test_accuracy": 0.4, "best": True},
        {"epoch": 2, "val_accuracy": 0.3, "test_accuracy": 0.6},
    ]
    checkpoint = small(history=history, step=20, steps=40)
    about = json.loads(json.dumps(checkpoint.about()))
    assert (about["model"], about["data"]) == ("lenet300", "digits")
    assert (about["step"], about["steps"], about["epochs"]) == (20, 40, 2)
    assert (about["epoch of these weights"], about["validation accuracy"]) == (1, 0.5)
    assert (about["best epoch"], about["test accuracy at the best epoch"]) == (1, 0.4)
    assert about["numbers"] == sum(p.numel() for p in checkpoint.build().parameters())
    assert checkpoint.mask is not None
    assert about["density"] == checkpoint.mask.density
    assert [tuple(row) for row in about["layers"]] == checkpoint.mask.table()


@pytest.mark.parametrize("first", [0, 1])
def test_epochs_of_the_history_count_from_one(first: int, tmp_path: Path) -> None:
    """Files of older versions counted them from 0."""
    small(history=[{"epoch": first}, {"epoch": first + 1}]).save(tmp_path / "net.pt")
    history = Checkpoint.load(tmp_path / "net.pt").history
    assert [row["epoch"] for row in history] == [1, 2]


@pytest.mark.parametrize(
    ("step", "steps", "rows", "run", "epoch"),
    [
        (20, 60, 3, {}, 1),  # the best epoch of a finished training
        (40, 60, 2, {"optim": {"epochs": 3}}, 2),  # one on the way
        (0, 0, 2, {}, 2),
        (0, 0, 0, {}, 0),
    ],
)
def test_the_epoch_of_the_weights(
    step: int, steps: int, rows: int, run: dict[str, Any], epoch: int
) -> None:
    checkpoint = small(history=[{}] * rows, step=step, steps=steps, run=run)
    assert checkpoint.epoch == epoch
    assert epochs(Path("epoch-009.pt"), checkpoint) == (epoch or 9)


def test_about_a_dense_net_without_a_training() -> None:
    about = made("dense perceptron")[1].about()
    assert (about["density"], about["layers"], about["epochs"]) == (1.0, [], 0)
    assert about["validation accuracy"] is None
