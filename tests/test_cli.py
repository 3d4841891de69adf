"""Every command on real files, and one line for everything that can be wrong with them."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from docstring_parser import parse
from PIL import Image
from torch import nn

import sparsediag
from sparsediag import Checkpoint, Mask, Result, cli, models, prunable
from sparsediag.cli import main
from sparsediag.diagnostics import DIAGNOSTICS

SMALL = {"width": 16, "size": 8, "channels": 1, "classes": 10}
FAST = {
    "landscape": ["--points", "3"],
    "perturbation": ["--points", "3"],
    "spectrum": ["--top", "2"],
}
COMMANDS = ["info", *DIAGNOSTICS]
every_diagnostic = pytest.mark.parametrize("name", DIAGNOSTICS)
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints: small.pt (sparse, perceptron) and conv.pt (dense, ResNet)."""
    folder = tmp_path_factory.mktemp("kept")
    torch.manual_seed(0)
    net = models.build("lenet300", **SMALL)
    mask = Mask.top({n: torch.rand_like(net.get_parameter(n)) for n in prunable(net)}, 0.2)
    mask.apply_(net)
    small = Checkpoint.of(net, mask=mask, model="lenet300", options=SMALL, data="digits")
    small.save(folder / "small.pt")
    options = {"width": 4, "channels": 1}
    net = models.build("resnet18", **options)
    Checkpoint.of(net, model="resnet18", options=options, data="digits").save(folder / "conv.pt")
    return folder


@pytest.fixture
def place(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small.pt and conv.pt in it, where nothing else may appear."""
    here = tmp_path / "here"
    shutil.copytree(kept, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return here


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def plain(text: str) -> str:
    """What a help page says, without its frames, line breaks and markup."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text.replace("`", "")).split())


def refused(place: Path, capsys: Captured, words: list[str], message: str) -> None:
    before, home = contents(place), os.listdir(place)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert contents(place) == before
    assert os.listdir(place) == home


# what works


@every_diagnostic
@pytest.mark.parametrize("file", ["small", "conv"])
def test_a_diagnostic_writes_its_result_and_prints_a_table(
    place: Path, capsys: Captured, name: str, file: str
) -> None:
    before = contents(place)
    assert main([name, f"{file}.pt", "--images", "40", *FAST.get(name, [])]) == 0
    endings = ["npz", "png", "html"] if name == "landscape" else ["npz", "png"]
    files = [f"{file}-{name}.{ending}" for ending in endings]
    new = {n: c for n, c in contents(place).items() if n not in before}
    assert sorted(new) == sorted(files)
    assert new[f"{file}-{name}.png"].startswith(b"\x89PNG")

    result = Result.load(f"{file}-{name}.npz")
    assert type(result).__name__ == name.capitalize()
    assert result.source["samples"] == 40
    out, err = capsys.readouterr()
    assert err.strip() == ""
    *table, last = [line.split() for line in out.splitlines()]
    assert last == ["wrote", *files]
    for row in result.table():
        assert " ".join(row.values()).split() in table


@every_diagnostic
def test_json_is_one_object_and_nothing_else(place: Path, capsys: Captured, name: str) -> None:
    assert main([name, "small.pt", "--json", "--images", "40", *FAST.get(name, [])]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    files = found.pop("files")
    assert found == Result.load(f"small-{name}.npz").json()
    assert all(Path(file).is_file() for file in files)
    assert files[:2] == [f"small-{name}.npz", f"small-{name}.png"]


def test_the_result_is_what_python_gives(place: Path) -> None:
    options = ["--top", "2", "--seed", "3", "--split", "test", "--batch", "20", "--images", "30"]
    assert main(["spectrum", "small.pt", *options, "--device", "cpu"]) == 0
    checkpoint = Checkpoint.load("small.pt")
    problem = checkpoint.problem(split="test", images=30, batch=20, device="cpu")
    expected, found = sparsediag.spectrum(problem, top=2, seed=3), Result.load("small-spectrum.npz")
    assert found.source == expected.source
    assert found.eigenvalues.tolist() == expected.eigenvalues.tolist()
    assert found.vectors.tolist() == expected.vectors.tolist()


@pytest.mark.parametrize(("asked", "samples"), [("0", 497), ("7", 7)])
def test_no_images_mean_all_images(place: Path, asked: str, samples: int) -> None:
    assert main(["gradflow", "small.pt", "--split", "test", "--images", asked]) == 0
    assert Result.load("small-gradflow.npz").source["samples"] == samples


def test_out_names_the_result_and_its_picture(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["gradflow", "small.pt", "--out", "new/folder/v1.2.npz"]) == 0
    new = contents(place).keys() - before.keys()
    assert new == {"new/folder/v1.2.npz", "new/folder/v1.2.png"}
    assert capsys.readouterr().out.split()[-2:] == ["new/folder/v1.2.npz", "new/folder/v1.2.png"]


def test_a_second_run_takes_the_place_of_the_first(place: Path) -> None:
    for images in ("20", "30"):
        assert main(["gradflow", "small.pt", "--images", images]) == 0
    assert Result.load("small-gradflow.npz").source["samples"] == 30


def test_info_says_what_the_file_holds(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["info", "small.pt"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["model", "lenet300"] in lines
    assert ["data", "digits"] in lines
    mask = Checkpoint.load("small.pt").mask
    assert mask is not None
    for name, alive, size in mask.table():
        assert [name, f"{alive:,}", f"{size:,}", f"{alive / size:.2%}"] in lines
    assert err == ""
    assert contents(place) == before


@pytest.mark.parametrize("file", ["small.pt", "conv.pt"])
def test_info_as_json(place: Path, capsys: Captured, file: str) -> None:
    assert main(["info", file, "--json"]) == 0
    out, err = capsys.readouterr()
    about = json.loads(out)
    assert about == json.loads(json.dumps(Checkpoint.load(file).about()))
    assert out.count("\n") == 1
    assert err == ""


def stop(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: int) -> None:
    """Let the loss be measured so many times, and then fail."""
    from sparsediag.problem import Problem

    value, calls = Problem.value, count()

    def breaking(self: Problem, at: Any = None) -> float:
        if next(calls) == after:
            raise error
        return value(self, at)

    monkeypatch.setattr(Problem, "value", breaking)


def test_a_landscape_goes_on_after_an_error(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsediag.diagnostics import landscape

    words = ["landscape", "small.pt", "--points", "3", "--images", "20"]
    assert main([*words, "--out", "whole.npz"]) == 0
    before = contents(place)
    monkeypatch.setattr(landscape, "SAVE_EVERY", -1)
    with monkeypatch.context() as patch:
        stop(patch, OSError("unplugged"), after=7)
        assert main(words) == 2
    assert capsys.readouterr().err.split() == ["unplugged"]
    assert contents(place).keys() - before.keys() == {
        next(place.glob(".small-landscape-*.unfinished.npz")).name
    }
    with monkeypatch.context() as patch:
        stop(patch, AssertionError("the first five points are known"), after=2 + 9 - 5)
        assert main(words) == 0
    assert not list(place.glob(".*.unfinished.npz"))
    one, other = (Result.load(f"{stem}.npz") for stem in ("whole", "small-landscape"))
    assert one.loss.tobytes() == other.loss.tobytes()


def test_an_interrupt_is_said_and_is_exit_code_130(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, KeyboardInterrupt(), after=3)
    before = contents(place)
    assert main(["landscape", "small.pt"]) == 130
    assert capsys.readouterr().err.split() == ["interrupted"]
    assert contents(place) == before


# help


@every_diagnostic
def test_help_explains_every_option(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([name, "--help"]) == 0
    page = plain(capsys.readouterr().out)
    diagnostic: Callable[..., Result] = getattr(sparsediag, name)
    explained = {p.arg_name: p.description for p in parse(diagnostic.__doc__ or "").params}
    for option in inspect.signature(diagnostic).parameters:
        if option in ("problem", "progress", "resume", "along"):
            assert f"--{option}" not in page
        else:
            assert f"--{option.replace('_', '-')} " in page
            assert plain(explained[option] or "-") in page
    for option, (hint, _) in cli.SHARED.items():
        assert f"--{option.replace('_', '-')} " in page
        assert typing.get_args(hint)[1].help in page
    assert DIAGNOSTICS[name] in page


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_lists_every_command(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(words) == 0
    page = plain(capsys.readouterr().out)
    for name, summary in DIAGNOSTICS.items():
        assert f"{name} {summary}" in page
    assert "info what a checkpoint holds" in page


def test_help_of_info(capsys: Captured) -> None:
    assert main(["info", "--help"]) == 0
    page = plain(capsys.readouterr().out)
    assert "--json Print one JSON object instead of a table." in page
    assert "CHECKPOINT A file that a training wrote." in page


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == sparsediag.__version__


def test_help_waits_for_no_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sparsediag", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "sparsediag" in imported
    assert imported.isdisjoint({"torch", "torchvision", "numpy", "matplotlib", "plotly", "scipy"})
    assert "Usage: sparsediag" in done.stdout


# what cannot work: one line, exit code 2, and no new file


def text(file: Path) -> None:
    file.write_text("hello there\n")


def pickled(file: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def cut(file: Path) -> None:
    file.write_bytes(Path("small.pt").read_bytes()[:-400])


def changed(**changes: Any) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        replace(Checkpoint.load("small.pt"), **changes).save(file)

    return make


def not_a_number(file: Path) -> None:
    checkpoint = Checkpoint.load("small.pt")
    bias = torch.full_like(checkpoint.weights["fc.bias"], torch.nan)
    replace(checkpoint, weights={**checkpoint.weights, "fc.bias": bias}).save(file)


def other_net(file: Path) -> None:
    net = models.build("lenet300", **{**SMALL, "width": 17})
    Checkpoint.of(net, model="lenet300", options=SMALL, data="digits").save(file)


def other_defaults(file: Path) -> None:
    net = models.build("resnet18", width=4)
    Checkpoint.of(net, model="resnet18", options={"width": 4}, data="digits").save(file)


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda file: None, "bad.pt: no such file"),
    "folder": (Path.mkdir, "bad.pt is a folder; give a file in it"),
    "text": (text, "bad.pt: not a torch checkpoint (it starts with b'hello')"),
    "empty": (Path.touch, "bad.pt: not a torch checkpoint"),
    "pickled module": (pickled, "bad.pt holds pickled Python objects"),
    "cut short": (cut, "bad.pt is damaged or cut short"),
}
BAD_NETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unknown model": (changed(model="lenet"), "unknown model 'lenet'; did you mean 'lenet300'?"),
    "unknown option": (changed(options={**SMALL, "widht": 4}), "'widht'; did you mean 'width'?"),
    "other net": (other_net, "weights do not fit lenet300: 'layers.0.fc.weight' is (17, 64)"),
    "unknown data": (changed(data="digit"), "unknown data set 'digit'; did you mean 'digits'?"),
    "no data": (changed(data=""), "names no data set; pass one with --data"),
    "diverged": (not_a_number, "the loss is nan at these weights"),
}


@pytest.mark.parametrize("command", ["info", "spectrum", "landscape"])
@pytest.mark.parametrize(("make", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_checkpoint(
    place: Path, capsys: Captured, command: str, make: Callable[[Path], Any], message: str
) -> None:
    make(place / "bad.pt")
    refused(place, capsys, [command, "bad.pt"], message)


@pytest.mark.parametrize(("make", "message"), BAD_NETS.values(), ids=BAD_NETS)
def test_a_checkpoint_that_cannot_be_used(
    place: Path, capsys: Captured, make: Callable[[Path], Any], message: str
) -> None:
    make(place / "bad.pt")
    refused(place, capsys, ["gradflow", "bad.pt"], message)


def test_a_checkpoint_whose_defaults_do_not_fit_its_data(place: Path, capsys: Captured) -> None:
    other_defaults(place / "bad.pt")
    refused(place, capsys, ["gradflow", "bad.pt"], "the net was built for 3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("landscpe small.pt", 'Unknown command "landscpe". Did you mean "landscape"?'),
        ("landscape", "parameter CHECKPOINT requires an argument"),
        ("landscape small.pt more.pt", "Unused Tokens: ['more.pt']"),
        ("landscape small.pt --pionts 3", "Unknown option: --pionts. Did you mean --points?"),
        ("landscape small.pt --points x", 'Invalid value for --points: unable to convert "x"'),
        ("landscape small.pt --points", "requires an argument"),
        ("landscape small.pt --norm filtr", 'Did you mean "filter"?'),
        ("spectrum small.pt --which larg", 'Did you mean "largest"?'),
        ("landscape small.pt --split tst", 'Did you mean "test"?'),
        ("landscape small.pt --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
        ("landscape small.pt --data folder:nowhere", "'nowhere' is not a folder"),
        ("landscape small.pt --images -1", "--images needs 0 or more"),
        ("landscape small.pt --batch 0", "--batch needs 1 or more"),
        ("landscape small.pt --device cuda", "use --device cpu"),
        ("landscape small.pt --device gpu", "device 'gpu': need auto, cpu, cuda or cuda:N"),
        ("landscape small.pt --out new/x.png", "--out new/x.png: results are written as .npz"),
        ("landscape small.pt --out x", "--out x: results are written as .npz"),
        ("info small.pt --points 3", "Unknown option: --points"),
    ],
)
def test_a_command_that_cannot_be(place: Path, capsys: Captured, words: str, message: str) -> None:
    refused(place, capsys, words.split(), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("landscape small.pt --points 1 --out new/x.npz", "points=1: need at least 2"),
        ("landscape small.pt --points -1", "points=-1: need at least 2"),
        ("landscape small.pt --dims 3", "dims=3: need 1 (a line) or 2 (a plane)"),
        ("landscape small.pt --span nan", "span=nan: need a positive number"),
        ("perturbation small.pt --points 1", "points=1: need at least 2"),
        ("spectrum small.pt --top 0", "top=0 eigenvalues asked of a problem with"),
        ("spectrum small.pt --top 9999", "top=9999 eigenvalues asked of a problem with"),
    ],
)
def test_an_option_that_the_diagnostic_refuses(
    place: Path, capsys: Captured, words: str, message: str
) -> None:
    refused(place, capsys, words.split(), message)


def test_the_current_folder_is_no_checkpoint(place: Path, capsys: Captured) -> None:
    refused(place, capsys, ["spectrum", "."], ". is a folder; give a file in it")


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_a_kind_of_device_that_is_not_here(place: Path, capsys: Captured, device: str) -> None:
    refused(place, capsys, ["gradflow", "small.pt", "--device", device], f"device '{device}'")


def test_a_data_set_that_does_not_fit(place: Path, capsys: Captured, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        file = tmp_path / "colours" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    words = ["gradflow", "small.pt", "--data", f"folder:{tmp_path / 'colours'}"]
    refused(place, capsys, words, "has channels = 3, the net was built for 1")


def test_a_result_that_cannot_be_written(place: Path, capsys: Captured) -> None:
    (place / "file").write_text("in the way")
    assert main(["gradflow", "small.pt", "--out", "file/x.npz"]) == 2
    assert "file" in capsys.readouterr().err.strip().splitlines()[-1]


def test_debug_shows_the_traceback(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(["info", "bad.pt", "--debug"])
    with pytest.raises(ValueError, match="points=1"):
        main(["landscape", "small.pt", "--points", "1", "--debug"])
