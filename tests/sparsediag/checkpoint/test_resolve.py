"""Nets, data and losses of one's own on the command line: they work, or one line says why not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from sparsediag import Checkpoint, CheckpointError, Problem, Result, gradflow, spectrum
from sparsediag.checkpoint import resolve
from sparsediag.checkpoint.mask_file import save
from sparsediag.cli.app import main
from sparsediag.data.datasets import load

USER = """
from __future__ import annotations

import dataclasses

import torch
from inner import Layer, shift
from torch import nn

print("imported")


@dataclasses.dataclass
class Size:
    width: int = 6


class Net(nn.Module):
    def __init__(self, width: int = Size().width) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(3, width), nn.Tanh(), Layer(width, 1))

    def forward(self, x):
        return self.layers(x)


def images(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def drawn(split="train", images=20, batch=5):
    x = torch.randn(min(images or 20, 20), 3) + (split == "test")
    return [(part, part.sum(1, keepdim=True)) for part in x.split(batch)]


def fixed(batch):
    return drawn(batch=batch)


def loss(outputs, targets):
    return (outputs - targets + shift).abs().mean()


def fails():
    raise KeyError("first line\\nsecond line")


def breaks():
    print(1 / 0)


def leaves():
    raise SystemExit(3)


def reads():
    yield from [(torch.ones(2, 3), torch.ones(2, 1))]


def torn():
    yield torch.ones(2, 3), torch.ones(2, 1)
    raise KeyError("no\\nmore")


made = Net()
ready = [(torch.ones(2, 3), torch.ones(2, 1))]
number = 3
"""
WORDS = ["--model", "user.py:Net", "--data", "user.py:drawn", "--loss", "mse_loss"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: user.py, and net.pt, a regressor pruned by torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("user.py").write_text(USER)
    Path("inner.py").write_text("from torch.nn import Linear as Layer\nshift = 0.25\n")
    torch.save(net().state_dict(), "net.pt")
    plain = {n.removesuffix("_orig"): t for n, t in net().state_dict().items() if "mask" not in n}
    torch.save(plain, "plain.pt")
    yield tmp_path
    for module in ("user", "inner"):
        sys.modules.pop(module, None)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    prune.l1_unstructured(layers[0], "weight", 0.5)
    return nn.ModuleDict({"layers": layers})


def refused(capsys: Captured, line: str) -> str:
    """What is said, in one line."""
    before = sorted(os.listdir())
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *noise, told = err.splitlines()
    assert set(noise) <= {"imported"}
    assert sorted(os.listdir()) == before
    return told


# what works


@pytest.mark.usefixtures("place")
def test_a_spectrum_of_a_regressor_of_ones_own(capsys: Captured) -> None:
    path, rng = list(sys.path), torch.random.get_rng_state()
    assert main(["spectrum", "net.pt", *WORDS, "--top", "2", "--mode", "retained"]) == 0
    out = capsys.readouterr().out
    line = (
        "mask: weight_orig and weight_mask (torch.nn.utils.prune) of 1 tensor; 9 of 18 weights "
        "dead; in the file 0 of them were 0, they are held at 0 here"
    )
    *_, told, last = out.splitlines()
    (stem,) = {file.stem for file in Path().glob("net-spectrum*")}
    assert told == line
    assert last == f"wrote {stem}.npz {stem}.png"
    assert "imported" not in out
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert sys.path == path

    torch.manual_seed(0)
    x = torch.randn(20, 3)
    kept = Checkpoint.load("net.pt")
    model = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))})
    model.forward = lambda x: model["layers"](x)  # type: ignore[method-assign]
    model.load_state_dict(kept.weights)
    problem = Problem(model, [(x, x.sum(1, keepdim=True))], loss=nn.MSELoss(), mask=kept.mask)
    expected = spectrum(problem, top=2, mode="retained").eigenvalues
    assert Result.load(f"{stem}.npz").eigenvalues == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("place")
def test_json_is_one_object_whatever_the_file_prints(capsys: Captured) -> None:
    assert main(["gradflow", "net.pt", *WORDS, "--json", "--images", "10", "--batch", "4"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["source"]["samples"] == 10
    assert [line.split()[:2] for line in found["notes"]] == [["mask:", "weight_orig"]]
    assert err == "imported\n"
    assert main(["gradflow", "plain.pt", *WORDS, "--json", "--mask", "net.pt"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["notes"]
    assert line.startswith("mask: net.pt of 1 tensor; 9 of 18")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("typed", "loss"), [("user.py:loss", 0.25), ("l1_loss", 0.0), ("torch.nn:L1Loss", 0.0)]
)
def test_a_loss_by_its_name(typed: str, loss: float) -> None:
    """The net is the identity's sum, so that what is left is the shift."""
    Path("sums.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(3, 1)\n"
        "data = [(torch.eye(3), torch.ones(3, 1))]\n"
    )
    torch.save({"weight": torch.ones(1, 3), "bias": torch.zeros(1)}, "sums.pt")
    problem = Checkpoint.load("sums.pt").problem(
        model="sums.py:make", data="sums.py:data", loss=typed, device="cpu"
    )
    assert problem.value() == pytest.approx(loss)


@pytest.mark.usefixtures("place")
def test_ours_with_a_model_of_ones_own_on_a_built_in_data_set(capsys: Captured) -> None:
    sys.path.insert(0, ".")
    try:
        made = resolve.net("user.py:images", {"width": 5})
    finally:
        sys.path.remove(".")
    Checkpoint.of(made, model="mine", options={"width": 5}).save("ours.pt")
    typed = ["--model", "user.py:images", "--data", "digits", "--images", "50"]
    assert main(["gradflow", "ours.pt", *typed]) == 0
    assert "mask" not in capsys.readouterr().out
    expected = gradflow(Problem(made, load("digits").batches(images=50)))
    assert Result.load(next(Path().glob("ours-gradflow*.npz"))).flow == pytest.approx(expected.flow)
    landscape = ["inputscape", "ours.pt", *typed, "--points", "3", "--count", "4"]
    assert main(landscape) == 0
    assert Result.load(next(Path().glob("ours-inputscape*.npz"))).source["options"]["std"] == [
        pytest.approx(0.3761)
    ]


@pytest.mark.usefixtures("place")
def test_inputs_of_ones_own_have_no_spread_that_is_known() -> None:
    Path("pixels.py").write_text(
        "import torch\nfrom user import images\ndata = [(torch.ones(4, 1, 8, 8), torch.arange(4))]"
    )
    torch.save(resolve.net("user.py:images").state_dict(), "pixels.pt")
    typed = ["--model", "pixels.py:images", "--data", "pixels.py:data"]
    assert main(["inputscape", "pixels.pt", *typed, "--points", "3", "--count", "4"]) == 0
    assert Result.load(next(Path().glob("pixels-inputscape*.npz"))).source["options"]["std"] is None


@pytest.mark.usefixtures("place")
def test_info_needs_no_net(capsys: Captured) -> None:
    assert main(["info", "net.pt"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["file", "state", "dict"] in lines
    assert ["layers.0.weight", "6", "x", "3", "float32"] in lines
    assert ["layers.0.weight", "18", "9", "50.00%", "1", "0"] in lines
    assert main(["info", "net.pt", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["layers"] == [["layers.0.weight", 9, 18]]
    assert about["made by"]["mask"].startswith("weight_orig and weight_mask")
    assert main(["info", "plain.pt"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "plain.pt",
        "file  state dict",
        "mask  none",
    ]


def sample(split: str = "val", images: int = 7, batch: int = 5) -> list[tuple[Any, ...]]:
    return [(torch.ones(batch, 1), split, images)]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({}, (5, "val", 7)),
        ({"split": None, "images": None, "batch": None}, (5, "val", 7)),
        ({"split": "test", "images": 1000, "batch": 128}, (128, "test", 1000)),
        ({"images": 0}, (5, "val", None)),
    ],
)
def test_batches_have_defaults_of_their_own(asked: dict[str, Any], got: tuple[Any, ...]) -> None:
    ((x, *rest),) = resolve.batches(sample, **asked)
    assert (len(x), *rest) == got


@pytest.mark.parametrize("asked", [{}, {"batch": None}])
def test_batches_get_what_they_need(asked: dict[str, Any]) -> None:
    ((x, images),) = resolve.batches(lambda batch, images: [(torch.ones(batch), images)], **asked)
    assert (len(x), images) == (128, 1000)


@pytest.mark.usefixtures("place")
def test_a_report_of_batches_that_take_no_images(capsys: Captured) -> None:
    typed = [*WORDS[:2], "--data", "user.py:ready", *WORDS[4:], "--points", "3", "--top", "1"]
    assert main(["report", "net.pt", *typed]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote report.html"
    assert main(["report", "net.pt", *typed, "--images", "500"]) == 2
    assert "user.py:ready takes no images, got 500" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_several_checkpoints_say_which_mask_is_whose(capsys: Captured) -> None:
    typed = ["--points", "3", "--batch", "20"]
    assert main(["landscape", "net.pt", "plain.pt", *WORDS, *typed]) == 0
    first, second = capsys.readouterr().out.splitlines()[-3:-1]
    assert first.startswith("net: mask: weight_orig and weight_mask (torch.nn.utils.prune) of 1")
    assert second == "plain: mask: none"


@pytest.mark.usefixtures("place")
def test_a_file_that_has_changed_is_read_again() -> None:
    assert resolve.net("user.py:Net").layers[0].out_features == 6
    Path("user.py").write_text(USER.replace("width: int = 6", "width: int = 7"))
    os.utime("user.py", ns=(1, 1))
    assert resolve.net("user.py:Net").layers[0].out_features == 7


@pytest.mark.filterwarnings("ignore")  # from the imports of other people's packages
@pytest.mark.parametrize("zoo", ["torchvision:squeezenet1_1", "timm:vit_tiny_patch16_224"])
def test_nets_of_others_come_without_weights(zoo: str) -> None:
    kind, _, name = zoo.partition(":")
    pytest.importorskip(kind)
    assert isinstance(resolve.net(zoo, {"num_classes": 3}), nn.Module)
    with pytest.raises(ValueError, match=f"unknown {kind} model '{name}x'; did you mean '{name}'"):
        resolve.net(f"{zoo}x")
    asked = {"torchvision": "weights", "timm": "pretrained"}[kind]
    with pytest.raises(ValueError, match=f"multiple values for keyword argument '{asked}'"):
        resolve.net(zoo, {asked: True})


def test_no_part_of_a_segmenting_net_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", pytest.fail)
    assert resolve.net("torchvision:lraspp_mobilenet_v3_large", {"num_classes": 2})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("num_classes=10, width=8", {"num_classes": 10, "width": 8}),
        ("a=(1, -2.5), b=['x', None]", {"a": (1, -2.5), "b": ["x", None]}),
    ],
)
def test_options_are_plain_values(text: str, value: dict[str, Any]) -> None:
    assert resolve.options(text) == value


@pytest.mark.parametrize(
    "text", ["8", "a=", "a=b", "a=1, a=2", "**{'a': 1}", "a=__import__('os')", "a=1) + f(b=2", "x"]
)
def test_other_options_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="are no options; need plain values"):
        resolve.options(text)


# what does not

MODEL = "gradflow net.pt --data user.py:drawn --loss mse_loss --model "
DATA = "gradflow net.pt --model user.py:Net --loss mse_loss --data "
LOSS = "gradflow net.pt --model user.py:Net --data user.py:ready --loss "
BAD = {
    "gradflow net.pt": "4 tensors (layers.0.bias, layers.0.weight, layers.2.weight, ...) given "
    "without their network. Give it: --model file.py:make",
    "gradflow net.pt --model user.py:Net": "names no data set; pass one with --data",
    f"{MODEL}none.py:make": "none.py: no such file; need file.py:make or package.module:Net",
    f"{MODEL}user.py:Nett": "unknown name in user.py: 'Nett'; did you mean 'Net'? Known: Net, ",
    f"{MODEL}user.py:": "'user.py:' names nothing; need file.py:make",
    f"{MODEL}nowhere:Net": "nowhere:Net raised ModuleNotFoundError: No module named 'nowhere'",
    f"{MODEL}lenet": "unknown model 'lenet'; did you mean 'lenet300'? Known: ",
    f"{MODEL}user.py:fails": "user.py:fails raised KeyError: 'first line\\nsecond line'; --debug",
    f"{MODEL}user.py:breaks": "user.py:breaks raised ZeroDivisionError: division by zero; --debug",
    f"{MODEL}user.py:leaves": "user.py:leaves raised SystemExit: 3; --debug shows where",
    f"{MODEL}user.py:number": "user.py:number is a int; need what makes a net",
    f"{MODEL}user.py:fixed": "user.py:fixed raised TypeError: fixed() missing 1 required",
    f"{MODEL}user.py:drawn": "user.py:drawn gave a list; need a torch.nn.Module",
    f"{MODEL}user.py:images": "weights do not fit user.py:images: the file holds no '1.weight'",
    f"{MODEL}user.py:Net --model-options width=7": "weights do not fit user.py:Net: "
    "'layers.0.weight' is (6, 3) in the file, (7, 3) in the model, and 2 more",
    f"{MODEL}user.py:Net --model-options wdth=7": "user.py:Net raised TypeError: Net.__init__() "
    "got an unexpected keyword argument 'wdth'; --debug shows where",
    f"{MODEL}user.py:Net --model-options 7": "'7' are no options; need plain values",
    f"{MODEL}user.py:made --model-options width=7": "user.py:made is a net already",
    f"{MODEL}broken.py:make": "broken.py:make raised SyntaxError: invalid syntax",
    f"{DATA}user.py:number": "user.py:number gave a int; need a list or loader of batches",
    f"{DATA}user.py:fixed --images 5": "user.py:fixed takes no images, got 5; leave it out",
    f"{DATA}user.py:fixed --images 1000": "user.py:fixed takes no images, got 1000; leave it",
    f"{DATA}user.py:ready --split train": "user.py:ready takes no split, got train; leave it",
    f"{DATA}user.py:ready --split test": "user.py:ready takes no split, got test; leave it",
    f"{DATA}user.py:reads": "the batches can be read only once; give a list or a loader",
    f"{DATA}user.py:torn": "the batches cannot be used: KeyError: 'no\\nmore'; --debug",
    f"{DATA}user.py:fails": "user.py:fails raised KeyError",
    f"{DATA}digit": "unknown data set 'digit'; did you mean 'digits'?",
    f"{DATA}digits": "the net failed on inputs (128, 1, 8, 8): RuntimeError: ",
    f"{LOSS}mse_los": "unknown loss 'mse_los'; did you mean 'mse_loss'?",
    f"{LOSS}user.py:number": "user.py:number is a int; need loss(outputs,",
    f"{LOSS}user.py:Net": "the loss failed on outputs (2, 1) and targets",
    f"{DATA}user.py:ready --mask none.pt": "none.pt: no such file",
    f"{DATA}user.py:ready --mask plain.pt": "plain.pt holds no mask",
    f"{DATA}user.py:ready --mask other.pt": "other.pt does not fit the net: unknown weight named",
    "gradflow ours.pt --model-options width=4": "options of a model given without one; give",
    "info trap.pt": "trap.pt holds pickled Python objects, and reading them would run code",
    "info plain.pt net.pt --out x.png": "--out x.png: results are written as .npz",
    "info plain.pt --out x.npz": "there is no mask to count in plain.pt",
}  # fmt: skip


class Trap:
    """An object whose unpickling makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize(("line", "message"), BAD.items())
def test_what_cannot_be(place: Path, capsys: Captured, line: str, message: str) -> None:
    Path("broken.py").write_text("def make(:\n")
    torch.save({"state_dict": net().state_dict(), "hparams": Trap()}, "trap.pt")
    mask = Checkpoint.load("net.pt").mask
    assert mask is not None
    save(type(mask)({"fc.weight": mask["layers.0.weight"]}), "other.pt")
    Checkpoint.of(resolve.net("mlp", {"size": 8}), model="mlp", options={"size": 8}).save("ours.pt")
    assert message in refused(capsys, line)
    assert not Path("sprung").exists()


@pytest.mark.usefixtures("place")
def test_debug_shows_where_it_was_raised() -> None:
    with pytest.raises(ValueError, match="raised ZeroDivisionError") as caught:
        main([*MODEL.split(), "user.py:breaks", "--debug"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.usefixtures("place")
def test_the_trap_works() -> None:
    torch.save(Trap(), "trap.pt")
    with pytest.raises(CheckpointError):
        Checkpoint.load("trap.pt")
    assert not Path("sprung").exists()
    torch.load("trap.pt", weights_only=False)
    assert Path("sprung").exists()
