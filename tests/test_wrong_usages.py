"""Wrong usages of every command: each is one line that says what to do, exit code 2, no file."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediag import Checkpoint
from sparsediag.diagnostics.census import census
from tests.commands import Captured, refused

NET = """
import torch


def make(width=4):
    nn = torch.nn
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def batches():
    return [(torch.ones(6, 8), torch.arange(6) % 3)]
"""
OWN = "--model net.py:make --data net.py:batches"


@pytest.fixture(scope="module")
def files(kept: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.pt, conv.pt, two runs, networks of the user's own, and a result."""
    folder = tmp_path_factory.mktemp("wrong")
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    for run in ("run", "deep/runs/one"):
        shutil.copytree(trained, folder / run)
    (folder / "net.py").write_text(NET)
    space: dict[str, Any] = {}
    exec(NET, space)
    for name, width in (("own", 4), ("wide", 5)):
        torch.save(space["make"](width).state_dict(), folder / f"{name}.pt")
    census({"small": Checkpoint.load(folder / "small.pt")}).save(folder / "result.npz")
    (folder / "broken.toml").write_text("optim: {epochs: 3}")
    return folder


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one, on a machine without a GPU."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return files


WRONG = [
    ("landscpe small.pt", 'Unknown command "landscpe". Did you mean "landscape"?'),
    ("landscape", "parameter CHECKPOINT requires an argument"),
    ("gradflow small.pt more.pt", "leave out more.pt"),
    ("landscape small.pt more.pt", "more.pt: no such file"),
    ("landscape small.pt small.pt", "small.pt twice; give different files"),
    ("landscape small.pt conv.pt", "differ in their weights"),
    ("landscape small.pt --shard 5/4", "shard '5/4': need i/n with 1 <= i <= n"),
    ("landscape small.pt --adaptive --shard 1/4", "an adaptive grid needs a plane"),
    ("landscape small.pt --statistics fxed", 'Did you mean "fixed"?'),
    ("landscape small.pt --formats pgn", "unknown file format 'pgn'; did you mean 'png'"),
    (
        "landscape small.pt --dims 1 --formats vtk",
        "this result has no such export; it has: csv",
    ),
    ("spectrum small.pt --formats csv", "this result has no such export; it has: none"),
    ("inputscape small.pt --clamp 0", "clamp=0.0: need 1 image or more, a positive clamp"),
    ("landscape small.pt --pionts 3", "Unknown option: --pionts. Did you mean --points?"),
    ("landscape small.pt --points x", "Invalid value for --points: need a whole number"),
    ("landscape small.pt --points", "requires an argument"),
    ("landscape small.pt --norm filtr", 'Did you mean "filter"?'),
    ("spectrum small.pt --which larg", 'Did you mean "largest"?'),
    ("landscape small.pt --split tst", 'Did you mean "test"?'),
    ("landscape small.pt --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    ("landscape small.pt --data folder:nowhere", "'nowhere' is not a folder"),
    ("landscape small.pt --images -1", "--images needs 0 or more"),
    ("landscape small.pt --batch 0", "--batch-size needs 1 or more"),
    ("landscape small.pt --device cuda", "use --device cpu"),
    ("landscape small.pt --points 9999999999999", "there is too little memory; reduce"),
    ("landscape small.pt --device gpu", "device 'gpu': need auto, cpu, cuda or cuda:N"),
    ("landscape small.pt --out new/x.png", "--out new/x.png: results are written as .npz"),
    ("landscape small.pt --out x", "--out x: results are written as .npz"),
    ("info small.pt --points 3", "Unknown option: --points; sparsediag info --help lists"),
    ("info small.pt --out new/x.png", "--out new/x.png: results are written as .npz"),
    ("info conv.pt --out x", "--out x: results are written as .npz"),
    ("info small.pt more.pt", "more.pt: no such file"),
    ("info small.pt small.pt", "small.pt twice; give different files"),
    ("info small.pt conv.pt", "the masks do not cover the same weights: 'layers.0.fc.weight'"),
    ("spectrum small.pt --matrix hesian", 'Did you mean "hessian"?'),
    ("spectrum small.pt --solver pyhesian", 'Did you mean "pyhessian"?'),
    ("spectrum small.pt --norm filtr", 'Did you mean "filter"?'),
    ("spectrum small.pt --mode taep", 'Did you mean "tape"?'),
    ("blocks small.pt --by layers", 'Did you mean "layer"?'),
    ("trace small.pt --solver hutch", 'Did you mean "hutch++"?'),
    ("spectrum small.pt --copies", "Unknown option: --copies"),
    ("spectrum small.pt --start x.npz", "Unknown option: --start"),
    ("landscape small.pt --points 1 --out new/x.npz", "points=1: need at least 2"),
    ("landscape small.pt --points -1", "points=-1: need at least 2"),
    ("landscape small.pt --dims 3", "dims=3: need 1 (a line) or 2 (a plane)"),
    ("landscape small.pt --span nan", "span=nan: need a positive number"),
    ("perturbation small.pt --points 1", "points=1: need at least 2"),
    ("spectrum small.pt --top 0", "top=0: need 1 or more"),
    ("spectrum small.pt --top 9999", "top=9999: need 1 or more, and at most one"),
    ("spectrum small.pt --top 100000000", "top=100000000: need 1 or more"),
    ("spectrum small.pt --tol 0", "tol=0.0: need a positive relative residual"),
    ("spectrum small.pt --memory -1", "memory=-1.0: need 0 GiB or more"),
    ("spectrum small.pt --params nonsense.*", "unknown trainable weight 'nonsense.*'"),
    ("spectrum small.pt --basis 3", "max_basis=3: need 7 vectors or more for top=5"),
    ("spectrum small.pt --max-products 1", "max_matvecs=1: need at least one for each of 5"),
    ("spectrum small.pt --solver pyhessian --which smallest", "use solver='lanczos'"),
    ("blocks small.pt --top 0", "top=0: need 1 eigenvalue or more"),
    ("trace small.pt --tol 0", "tol=0.0, sketch=10: need a positive tol"),
    ("trace small.pt --max-products 3", "max_matvecs=3: need 30 or more for sketch=10"),
    ("trace small.pt --matrix fisher --solver pyhessian", "PyHessian knows the Hessian only"),
    ("trace run", "run is a folder; trace needs one checkpoint of it"),
    ("blocks run", "run is a folder; blocks needs one checkpoint of it"),
    ("spectrum run --density", "a folder has one spectrum for each checkpoint; density needs"),
    ("spectrum run --top 0", "top=0: need 1 or more"),
    ("spectrum run --out x.png", "--out x.png: results are written as .npz"),
    ("spectrum run --params nonsense.*", "unknown trainable weight 'nonsense.*'"),
    ("gradflow small.pt --device mps", "device 'mps'"),
    ("gradflow small.pt --device meta", "device 'meta'"),
    # files
    (
        "spectrum smal.pt",
        "smal.pt: no such file; need a file with the weights of a network; did you",
    ),
    (f"spectrum none.pt {OWN}", "none.pt: no such file; need a file with the weights of a network"),
    ("info none.safetensors", "none.safetensors: no such file; need a file with the weights"),
    ("spectrum result.npz", "result.npz is a result; give the checkpoint it was made from"),
    ("spectrum run/run.toml", "not a torch checkpoint (it starts with b'"),
    ("spectrum small.pt conv.pt", "spectrum takes one checkpoint; leave out conv.pt"),
    (
        "spectrum deep",
        "deep holds no checkpoint; give the folder that a training wrote, such as deep/",
    ),
    ("spectrum .", "give the folder that a training wrote, such as "),
    (
        "perturbation run",
        "run is a folder; perturbation needs one checkpoint of it, such as run/best.pt",
    ),
    ("report run", "run is a folder; give a file in it, such as run/best.pt"),
    ("join none.npz --out x.npz", "none.npz: no such file; need a .npz that a diagnostic wrote"),
    ("join small.pt --out x.npz", "small.pt is not a result; give a .npz that a diagnostic wrote"),
    ("join result.npz --out x.npz", "result.npz holds Census, expected Landscape"),
    ("join result.npz", "--out"),
    ("report small.pt --out x.npz", "--out x.npz: a report is written as .html"),
    ("report small.pt small.pt", "small.pt twice; give different checkpoints"),
    ("report small.pt --points 1", "points=1, top=3: need 3 points and 1 eigenpair or more"),
    (
        "info own.pt wide.pt",
        "there is no mask to count in own.pt, wide.pt; if exact zeros are dead",
    ),
    # options
    ("spectrum small.pt --out a.npz --out b.npz", "--out specified multiple times; give it once"),
    (
        "spectrum small.pt --top 5%",
        "Invalid value for --top: need a whole number, such as 5, got '5%'",
    ),
    ("spectrum small.pt --top 3.5", "need a whole number, such as 5, got '3.5'"),
    (
        "spectrum small.pt --tol 5%",
        "Invalid value for --tol: need a number, such as 0.05, got '5%'",
    ),
    ("spectrum small.pt --images 1e3", "Invalid value for --images: need a whole number"),
    ("landscape small.pt --params fc*", "Unknown option: --params; sparsediag landscape --help"),
    ("spectrum small.pt --params nosuch*", "Known, by level: fc.bias, fc.weight; layers.*.fc.bias"),
    (
        "activations small.pt --modules nosuch*",
        "Known, by level: fc, layers; layers.*; layers.*.act",
    ),
    (
        "signal small.pt --modules layer1.*",
        "Known, by level: fc, layers",
    ),
    (
        "spectrum small.pt --mask 0.5",
        "--mask 0.5: no such file; need zeros, none, or a file with a mask",
    ),
    ("spectrum conv.pt --mask small.pt", "small.pt does not fit the net"),
    ("gradflow conv.pt --previous-mask small.pt", "'layers.0.fc.weight'"),
    ("gradflow run --previous-mask small.pt", "in a run the previous mask is known"),
    ("landscape small.pt --compare", "--compare needs two checkpoints or more"),
    ("spectrum small.pt --loss cross", "unknown loss 'cross'. Known: binary_cross_entropy, "),
    (
        "spectrum small.pt --model-options 'width'",
        "'width' are no options; need plain values, as in",
    ),
    # a network of the user's own
    ("spectrum own.pt", "4 tensors (0.weight, 0.bias, 2.weight, ...) given without their network"),
    (
        "spectrum own.pt --model net.py:make",
        "pass one with --data: a name such as cifar10, folder:PATH",
    ),
    ("spectrum own.pt --model net.py --data digits", "unknown model 'net.py'. Known: lenet300, "),
    ("spectrum own.pt --model nett.py:make", "nett.py: no such file; need file.py:make or package"),
    ("spectrum own.pt --model net.py:mak", "unknown name in net.py: 'mak'; did you mean 'make'?"),
    ("spectrum own.pt --model net.py:make --data net.py:batch", "'batch'; did you mean 'batches'?"),
    (
        "spectrum own.pt --model torchvision:resnet19",
        "unknown torchvision model 'resnet19'; did you",
    ),
    ("spectrum own.pt --model hf:nowhere", "hf:nowhere: need a folder with config.json"),
    (f"spectrum own.pt {OWN} --loss net.py:los", "unknown name in net.py: 'los'"),
    (f"spectrum own.pt {OWN} --model-options widht=5", "net.py:make raised TypeError"),
    (
        f"spectrum own.pt {OWN} --model-options width=5",
        "'0.weight' is (4, 8) in the file, (5, 8) in",
    ),
    (
        f"landscape own.pt wide.pt {OWN}",
        "wide: weights do not fit net.py:make: '0.weight' is (5, 8)",
    ),
    (
        f"landscape own.pt wide.pt {OWN} --compare --points 2",
        "wide: weights do not fit net.py:make",
    ),
    # trainings and figures
    ("training digts", "digts: no such file; did you mean 'digits'? Recipes: digits, "),
    ("training broken.toml", "broken.toml is not TOML"),
    (
        "training digits --mask.methd snip",
        "unknown key 'mask.methd'; did you mean 'mask.method'? Known",
    ),
    ("training digits --mask.method snp", "unknown mask.method 'snp'; did you mean 'snip'?"),
    ("training digits --mask.density 5%", "mask.density = '5%': need a number, as in 0.05"),
    ("training digits --mask.density 5", "mask.density 5.0: need a number in (0, 1]"),
    ("training digits --optim.lrr 1", "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
    ("training digits --optim.lr fast", "optim.lr = 'fast': need a number"),
    ("training digits --optim.epochs 0", "optim.epochs = 0: need a positive number"),
    ("training digits --tweak tost", "unknown key 'tweak'; did you mean 'tweaks'?"),
    ("training digits --sed 1", "unknown key 'sed'; did you mean 'seed'?"),
    ("training digits --seeds many", "argument --seeds: invalid int value: 'many'"),
    ("training --seed 3 digits", "came before the run; write the run file or recipe first"),
    ("figures tost/fig99", "unknown figure 'tost/fig99'; did you mean"),
    ("figures --scale huge", "unknown scale 'huge'. Known: "),
    ("figures --jobs two", "argument --jobs: invalid int value: 'two'"),
    ("figures --item fig01", "unrecognized arguments: --item"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[words for words, _ in WRONG])
def test_one_line_says_what_to_do(words: str, message: str, here: Path, capsys: Captured) -> None:
    refused(here, capsys, shlex.split(words), message)
