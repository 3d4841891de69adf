"""A run is another one if the user's code, an image folder or a mask file is another one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sparsediag.checkpoint import mask_file
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.fingerprint import file_state
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from sparsediag.data.datasets import DATASETS, Source, load
from sparsediag.models import MODELS
from training.config import Run
from training.loop import fit
from training.masks import METHODS, Method
from training.prerequisite import Prerequisite
from training.tweaks import TWEAKS, Objective, Tweak

BASE = {"data": "digits", "model": {"name": "lenet300", "width": 4}}
BASE |= {"optim": {"epochs": 1, "batch_size": 600}}


def run_of(**changes: Any) -> Run:
    return Run.of(BASE | changes)


def last(run: Run, out: Path) -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu").with_name("last.pt"))


def own_mask(power: int) -> type[Method]:
    """The largest powers of the weights, by a helper."""

    def score(w: Tensor) -> Tensor:
        return w**power

    @dataclass(frozen=True)
    class Own(Method):
        def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
            weights = problem.split(problem.weights)
            return Mask.top({n: score(weights[n]) for n in prunable(problem.net)}, self.density)

    return Own


def own_tweak(factor: int) -> type[Tweak]:
    @dataclass(frozen=True)
    class Own(Tweak):
        def loss(self, loss: Objective, epoch: int, epochs: int, state: Any = None) -> Objective:
            return lambda *given: factor * loss(*given)

    return Own


def own_net(hidden: int) -> Callable[..., nn.Module]:
    def make(*, classes: int = 10, channels: int = 1, activation: str = "relu") -> nn.Module:
        layers = (nn.Linear(64 * channels, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        return nn.Sequential(nn.Flatten(), *layers)

    return make


def own_data(shift: int) -> Source:
    def read(root: Path) -> Any:
        train, test = DATASETS["digits"].read(root)
        return replace(train, labels=(train.labels + shift) % 10), test

    return Source(read, 10, [*DATASETS["digits"].moments], scale=16)  # type: ignore[arg-type]


NAMED, DATA = {"model": {"name": "own"}}, {"data": "own"}
OWN: dict[str, tuple[dict[str, Any], Callable[[int], Any], dict[str, Any]]] = {
    "mask": (METHODS, own_mask, {"mask": {"method": "own", "density": 0.5}}),
    "tweak": (TWEAKS, own_tweak, {"tweaks": ["own"]}),
    "net": (MODELS, own_net, NAMED),
    "options of a net": (MODELS, lambda n: partial(MODELS["mlp"], width=4 * n), NAMED),
    "data": (DATASETS, own_data, DATA),
    "constants of data": (DATASETS, lambda n: DATASETS["digits"]._replace(scale=n), DATA),
}


@pytest.mark.parametrize("what", OWN)
def test_a_run_with_other_code_of_the_user_is_trained_again(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, make, changes = OWN[what]
    saved = []
    for option in (1, 2, 1):
        monkeypatch.setitem(table, "own", make(option))
        weights = last(run_of(**changes), tmp_path).weights
        saved.append(torch.cat([w.double().flatten() for w in weights.values()]))
    assert not torch.equal(saved[0], saved[1])
    assert torch.equal(saved[0], saved[2])
    assert len(list((tmp_path / "runs").iterdir())) == 2  # the first is not trained again


def test_a_run_that_needs_one_with_other_code_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Later(METHODS["magnitude"]):  # type: ignore[misc, name-defined]
        def before(self) -> tuple[Prerequisite, ...]:
            return (Prerequisite(METHODS["own"](density=0.5)),)

    monkeypatch.setitem(METHODS, "later", Later)
    ids = []
    for power in (1, 2):
        monkeypatch.setitem(METHODS, "own", own_mask(power))
        ids.append(run_of(mask={"method": "later", "density": 0.3}).id)
    assert len({*ids}) == 2


def test_a_method_without_a_name_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"Own .*training.masks.METHODS"):
        _ = replace(run_of(), mask=own_mask(1)(density=0.5)).id


# files


def folder(root: Path, shade: int = 10) -> Path:
    """Twelve grey images in two classes; bitmaps have the same size whatever they show."""
    for k in range(12):
        path = root / "ab"[k % 2] / f"{k}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), shade * (k + 1)).save(path)
    return root


CHANGES: dict[str, Callable[[Path], Any]] = {
    "another image": lambda root: Image.new("L", (8, 8), 7).save(root / "a" / "0.bmp"),
    "one image more": lambda root: shutil.copy(root / "a" / "0.bmp", root / "a" / "more.bmp"),
    "one image less": lambda root: (root / "a" / "10.bmp").unlink(),
    "another class": lambda root: (root / "a" / "0.bmp").rename(root / "b" / "0.bmp"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "home"))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_folder_with_other_images_is_another_run(
    change: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = folder(tmp_path / "pets")
    run = run_of(data=f"folder:{root}")
    before = run.id
    change(root)
    assert run.id != before  # the same object


def test_a_finished_run_is_trained_again_on_other_images_only(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    times = file_state(root / "a" / "0.bmp")
    run = run_of(data=f"folder:{root}")
    first = last(run, tmp_path)
    (root / "a" / "0.bmp").touch()  # the same content
    (root / "notes.txt").write_text("no image")
    assert last(run, tmp_path).weights.keys() == first.weights.keys()
    assert len(list((tmp_path / "runs").iterdir())) == 1
    Image.new("L", (8, 8), 250).save(root / "a" / "0.bmp")
    os.utime(root / "a" / "0.bmp", ns=(times[1], times[1]))
    second = last(run, tmp_path)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert not torch.equal(first.weights["fc.weight"], second.weights["fc.weight"])


def test_images_of_the_same_size_and_time_are_decoded_anew(tmp_path: Path) -> None:
    """As those of an archive without times are, in two folders."""
    shown = []
    for shade in (10, 20):
        root = folder(tmp_path / str(shade), shade)
        for path in root.rglob("*.bmp"):
            os.utime(path, ns=(0, 0))
        shown.append(load(f"folder:{root}").train.pixels.double().mean())
    assert shown[1] == 2 * shown[0]


def test_a_missing_folder_has_an_identity_and_a_line(tmp_path: Path) -> None:
    run = run_of(data=f"folder:{tmp_path / 'nowhere'}")
    assert run.id == run_of(data=run.data).id
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder"):
        fit(run, out=tmp_path, device="cpu")


def test_a_mask_file_with_another_mask_is_another_run(tmp_path: Path) -> None:
    path, saved = tmp_path / "mask.pt", []
    net = MODELS["lenet300"](width=4, size=8)
    run = run_of(mask=f"file:{path}")
    for density in (0.5, 0.25):
        scores = {n: net.get_parameter(n).detach() for n in prunable(net)}
        mask_file.save(Mask.top(scores, density), path)
        saved.append(last(run, tmp_path).mask)
    assert [round(mask.density, 2) for mask in saved if mask] == [0.5, 0.25]
