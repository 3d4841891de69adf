"""Every command on real files, and one line for everything that can be wrong with them."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
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

import sparsediag
from sparsediag import Checkpoint, Mask, Result, models
from sparsediag.cli.app import main
from sparsediag.cli.options import SHARED
from sparsediag.diagnostics import DIAGNOSTICS
from sparsediag.diagnostics.census import census
from sparsediag.diagnostics.connectivity import dead_units, paths
from sparsediag.plotting import terminal
from tests.commands import SMALL, Captured, contents, refused

FAST = {
    "landscape": ["--points", "3"],
    "inputscape": ["--points", "3", "--count", "20"],
    "perturbation": ["--points", "3"],
    "spectrum": ["--top", "2"],
    "blocks": ["--by", "stage", "--tol", "0.3"],
    "trace": ["--tol", "3", "--sketch", "2", "--max-products", "20"],
}
OF_A_RUN = ("spectrum", "landscape", "activations", "gradflow", "signal")
every_diagnostic = pytest.mark.parametrize("name", DIAGNOSTICS)


@pytest.fixture
def other(place: Path) -> Mask:
    """The mask of other.pt, the net of small.pt with other weights alive."""
    small, chance = Checkpoint.load("small.pt"), torch.Generator().manual_seed(1)
    shapes = {name: alive.shape for name, alive in (small.mask or {}).items()}
    mask = Mask.top({n: torch.rand(s, generator=chance) for n, s in shapes.items()}, 0.4)
    replace(small, mask=mask).save(place / "other.pt")
    return mask


def load(pattern: str) -> Any:
    """Return the only result whose file matches a pattern."""
    (file,) = Path().glob(pattern)
    return Result.load(file)


def plain(text: str) -> str:
    """What a help page says, without its frames, line breaks and markup."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text.replace("`", "")).split())


# what works


@pytest.mark.parametrize(
    ("words", "images", "said"),
    [
        ("--images 70", 70, ""),
        ("--images 70 --count 5", 5, ""),
        ("", 64, ""),
        ("--images 5000 --count 5", 5, "1170 samples: fewer than the 5000 that were asked for"),
    ],
)
def test_inputscape_takes_as_many_images_as_asked_or_says_so(
    words: str, images: int, said: str, place: Path, capsys: Captured
) -> None:
    assert main(["inputscape", "small.pt", "--points", "2", *words.split()]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert f"digits: {images:,} of 1,170 train images" in out
    assert ("fewer than" in out) == bool(said)
    assert load("small-inputscape*.npz").centre.shape == (images,)


@every_diagnostic
@pytest.mark.parametrize("file", ["small", "conv"])
def test_a_diagnostic_writes_its_result_and_prints_a_table(
    place: Path, capsys: Captured, name: str, file: str
) -> None:
    before = contents(place)
    assert main([name, f"{file}.pt", "--images", "40", *FAST.get(name, [])]) == 0
    turned = name in ("landscape", "inputscape")
    endings = ["npz", "png", "html"] if turned else ["npz", "png"]
    new = {n: c for n, c in contents(place).items() if n not in before}
    (stem,) = {n.rpartition(".")[0] for n in new}
    assert stem.startswith(f"{file}-{name}-")
    assert "-images=40" in stem
    files = [f"{stem}.{ending}" for ending in endings]
    assert sorted(new) == sorted(files)
    assert new[f"{stem}.png"].startswith(b"\x89PNG")

    result = Result.load(f"{stem}.npz")
    assert type(result).__name__ == name.capitalize()
    assert result.source["samples"] == 40
    out, err = capsys.readouterr()
    assert err.strip() == ""
    *table, last = [line.split() for line in out.splitlines()]
    assert last == ["wrote", *files]
    for row in result.table():
        assert " ".join(row.values()).split() in table


@every_diagnostic
def test_json_is_one_object_and_progress_goes_to_stderr(
    place: Path, capsys: Captured, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_A_LINE", 0.001)
    words = [name, "small.pt", "--json", "--images", "40", *FAST.get(name, [])]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert re.match(rf"{name}: (\d+ of \d+ done, )?0:00:0\d elapsed", err)
    (line,) = out.splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    files = found.pop("files")
    assert found == Result.load(files[0]).json()
    assert all(Path(file).is_file() for file in files)
    assert [Path(file).suffix for file in files[:2]] == [".npz", ".png"]


def test_the_result_is_what_python_gives(place: Path) -> None:
    options = ["--top", "2", "--seed", "3", "--split", "test", "--batch", "20", "--images", "30"]
    options += ["--mode", "retained"]  # auto takes what is faster at the moment
    assert main(["spectrum", "small.pt", *options, "--device", "cpu"]) == 0
    checkpoint = Checkpoint.load("small.pt")
    problem = checkpoint.problem(split="test", images=30, batch=20, device="cpu")
    expected = sparsediag.spectrum(problem, top=2, seed=3, mode="retained")
    found = load("small-spectrum*.npz")
    assert found.source == expected.source
    assert found.eigenvalues.tolist() == expected.eigenvalues.tolist()
    assert found.vectors.tolist() == expected.vectors.tolist()


def test_a_spectrum_says_how_far_it_can_be_trusted(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["spectrum", "small.pt", "--top", "3", "--density", "--images", "40"]) == 0
    assert contents(place).keys() - before.keys() == {
        f"small-spectrum-images=40-top=3-density.{ending}" for ending in ("npz", "png")
    }
    result = load("small-spectrum*.npz")
    assert result.nodes.shape == (5, 40)
    assert result.converged
    out, err = capsys.readouterr()
    lines = out.splitlines()
    (head,) = [line for line in lines if "eigenvalue" in line and "residual" in line]
    assert head.index("eigenvalue") < head.index("residual") < head.index("mostly in")
    for value, residual in zip(result.eigenvalues, result.residuals, strict=True):
        (row,) = [line.split() for line in lines if f"{value:.6g}" in line.split()]
        assert f"{residual:.1e}" in row
    (verdict,) = [line for line in lines if "converged" in line]
    assert verdict.startswith(f"converged: {result.products} products and 2 to check them")
    assert err.strip() == ""


def test_a_spectrum_that_has_not_converged_says_so(place: Path, capsys: Captured) -> None:
    words = ["spectrum", "small.pt", "--images", "40", "--max-products", "6"]
    assert main(words) == 3
    out, err = capsys.readouterr()
    assert "exit code 3" in err
    out = out.splitlines()
    assert any(line.startswith("NOT converged: 6 products") for line in out)
    doubts = [f"doubt: {doubt}" for doubt in load("small-spectrum*.npz").doubts]
    assert doubts
    assert set(doubts) <= set(out)


ROUNDED = """
import torch
class Net(torch.nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y + (y.round() - y).detach()  # its gradient is not that of the loss
make = lambda: Net(2, 2)
batches = lambda: [(torch.randn(16, 2), torch.arange(16) % 2)]
"""


@pytest.mark.parametrize(
    "words",
    [
        "trace",
        "blocks",
        "gradflow",
        "perturbation",
        "landscape --axes eigenvectors",
        "report --json",
    ],
)
def test_every_command_exits_with_3_if_a_number_is_in_doubt(
    place: Path, capsys: Captured, words: str
) -> None:
    Path("net.py").write_text(ROUNDED)
    torch.save(torch.nn.Linear(2, 2).state_dict(), "odd.pt")
    name, *options = words.split()
    of = ["odd.pt", "--model", "net.py:make", "--data", "net.py:batches"]
    few = [] if name in ("trace", "blocks", "gradflow") else ["--points", "3"]
    assert main([name, *of, *options, *few]) == 3
    out, err = capsys.readouterr()
    assert "the gradient is off" in (Path("report.html").read_text() if name == "report" else out)
    if name == "report":
        assert "spectrum of odd did not converge: see the findings" in json.loads(out)["notes"]
    else:
        assert "exit code 3" in err


def test_the_only_checkpoint_of_a_run_is_shown_by_layer(place: Path, capsys: Captured) -> None:
    folder = place / "run"
    folder.mkdir()
    shutil.copy("small.pt", folder / "best.pt")
    assert main(["signal", "run", "--images", "40"]) == 0
    out = capsys.readouterr().out
    assert len(load("run/*.npz").names) > 1
    assert "run holds one checkpoint, best.pt" in out
    assert "--record.checkpoint_epochs" in out
    assert [file.name for file in folder.glob("*.npz")] == ["best-signal-images=40.npz"]


def test_a_spectrum_of_a_run_is_a_trajectory(place: Path, run: Path, capsys: Captured) -> None:
    before = contents(place)
    words = ["spectrum", "run", "--top", "1", "--images", "40"]
    assert main([*words, "--mode", "retained"]) == 0
    new = contents(place).keys() - before.keys()
    stem = "run/spectrum-images=40-top=1"
    assert new == {f"{stem}.npz", f"{stem}.png"}
    result = Result.load(f"{stem}.npz")
    assert type(result).__name__ == "Trajectory"
    assert result.eigenvalues.shape == (2, 1)
    assert result.epochs.tolist() == [1, 2]
    assert result.source["samples"] == 40
    lines = capsys.readouterr().out.splitlines()
    assert [file for file in result.files if any(file in line for line in lines)] == result.files
    assert lines[-1].split() == ["wrote", f"{stem}.npz", f"{stem}.png"]

    alone = [*words[:1], f"run/{result.files[0]}", *words[2:], "--mode", "retained"]
    assert main([*alone, "--out", "one.npz"]) == 0
    assert result.eigenvalues[0].tolist() == Result.load("one.npz").eigenvalues.tolist()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    assert found["kind"] == "Trajectory"
    assert found["kept"][0] is None


def test_a_run_goes_on_after_an_interrupt(
    place: Path, run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("sparsediag.diagnostics.trajectory")
    real, calls = module.spectrum, count()

    def breaking(problem: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(problem, **options)

    monkeypatch.setattr(module, "spectrum", breaking)
    words = ["spectrum", "run", "--top", "1", "--images", "40"]
    before = contents(place)
    assert main(words) == 130
    (left,) = contents(place).keys() - before.keys()
    assert left == "run/.spectrum-images=40-top=1.unfinished"
    assert f"interrupted: {left} holds the work so far" in capsys.readouterr().err
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[0].endswith(f"the unfinished work in {left}")
    assert next(calls) == 3  # one for each checkpoint, and the one that broke
    assert {Path(file).suffix for file in contents(place).keys() - before.keys()} == {
        ".npz",
        ".png",
    }


def test_blocks_and_traces_are_what_python_gives(place: Path, capsys: Captured) -> None:
    problem = Checkpoint.load("small.pt").problem(images=40, device="cpu")
    shared = ["--images", "40", "--mode", "retained", "--json"]
    assert main(["blocks", "small.pt", "--by", "tensor", "--top", "2", *shared]) == 0
    found = json.loads(capsys.readouterr().out)
    blocks = sparsediag.blocks(problem, by="tensor", top=2, mode="retained")
    assert found["names"] == list(problem.live.shapes)
    assert found["eigenvalues"] == blocks.eigenvalues.tolist()
    assert main(["trace", "small.pt", "--tol", "0.1", "--seed", "3", *shared]) == 0
    found = json.loads(capsys.readouterr().out)
    trace = sparsediag.trace(problem, tol=0.1, seed=3, mode="retained")
    assert (found["trace"], found["error"]) == (trace.trace, trace.error)


@pytest.mark.parametrize(("asked", "samples"), [("0", 497), ("7", 7)])
def test_no_images_mean_all_images(place: Path, asked: str, samples: int) -> None:
    assert main(["gradflow", "small.pt", "--split", "test", "--images", asked]) == 0
    assert load("small-gradflow*.npz").source["samples"] == samples


def test_out_names_the_result_and_its_picture(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["gradflow", "small.pt", "--out", "new/folder/v1.2.npz"]) == 0
    new = contents(place).keys() - before.keys()
    assert new == {"new/folder/v1.2.npz", "new/folder/v1.2.png"}
    assert capsys.readouterr().out.split()[-2:] == ["new/folder/v1.2.npz", "new/folder/v1.2.png"]


def test_no_result_is_replaced_without_a_word(
    place: Path, run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_A_LINE", 0.001)
    nets = ["run/epoch-001.pt", "run/best.pt", "run/last.pt"]
    line = "--points 2"
    commands = [
        *("spectrum small.pt --top 1" + more for more in ("", " --split test", " --params fc*")),
        *(f"gradflow small.pt --previous-mask {folder}/m.pt" for folder in ("a", "b")),
        *(f"landscape {' '.join(nets[:n])} {line}" for n in (1, 2)),
        f"landscape {nets[0]} {nets[2]} {line}",
        f"landscape {nets[0]} {nets[2]} {line} --compare",
        *(f"landscape {nets[0]} --points {points} --dims 1" for points in (2, 3)),
        "landscape run --points 2",
        "report small.pt --points 3 --top 1",
    ]
    for folder in ("a", "b"):
        (place / folder).mkdir()
        shutil.copy("small.pt", f"{folder}/m.pt")
    written: dict[str, str] = {}
    for command in commands:
        before = contents(place)
        assert main([*command.split(), "--images", "20", "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert "replaced" not in out
        assert err == ""
        new = contents(place).keys() - before.keys()
        assert {*out.splitlines()[-1].split()} == {"wrote", *new}
        written[command] = "replaced " + out.splitlines()[-1].removeprefix("wrote ")
    for command in (commands[0], commands[-1]):
        assert main([*command.split(), "--images", "20", "--quiet"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == written[command]


def test_a_picture_of_something_else_stays(place: Path, capsys: Captured) -> None:
    for name in ("x.png", "x.html"):
        (place / name).write_text("of another tool")
    words = ["landscape", "small.pt", "--points", "2", "--images", "20", "--out", "x.npz"]
    assert main(words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "wrote x.npz x-landscape.png x-landscape.html"
    assert {Path(name).read_text() for name in ("x.png", "x.html")} == {"of another tool"}
    assert main(["info", "small.pt", "--out", "x.npz"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "replaced x.npz x.png"
    assert main([*words[:-1], "y.npz"]) == 0
    capsys.readouterr()
    refused(place, capsys, ["report", "small.pt", "--out", "y.html"], "is the picture of y.npz")


def test_info_says_what_the_file_holds(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["info", "small.pt"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["model", "lenet300"] in lines
    assert ["data", "digits"] in lines
    kept = Checkpoint.load("small.pt")
    assert kept.mask is not None
    used = paths(kept.build(), kept.mask, torch.Size((1, 8, 8))).used
    for name, alive, size in kept.mask.table():
        row = [name, f"{size:,}", f"{alive:,}", f"{alive / size:.2%}", f"{used[name]:,}"]
        assert [*row, *map(str, dead_units(kept.mask, name))] in lines
    assert err == ""
    assert contents(place) == before


@pytest.mark.parametrize("file", ["small.pt", "conv.pt"])
def test_info_as_json(place: Path, capsys: Captured, file: str) -> None:
    assert main(["info", file, "--json"]) == 0
    out, err = capsys.readouterr()
    about, kept = json.loads(out, parse_constant=pytest.fail), Checkpoint.load(file)
    counted = census({Path(file).stem: kept}).json() if kept.mask else None
    assert about == json.loads(json.dumps({**kept.about(), "census": counted}))
    assert out.count("\n") == 1
    assert err == ""


def test_info_of_two_nets_says_how_far_their_masks_agree(
    place: Path, other: Mask, capsys: Captured
) -> None:
    before, mask = contents(place), Checkpoint.load("small.pt").mask
    assert mask is not None
    assert main(["info", "small.pt", "other.pt"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["weight", "size", "small", "other", "IoU", "of", "small,", "other"] in lines
    both, either = mask & other, mask | other
    for name, alive, size in mask.table():
        shares = [f"{int(m.sum()) / size:.2%}" for m in (mask[name], other[name])]
        overlap = int(both[name].sum()) / int(either[name].sum())
        assert shares[0] == f"{alive / size:.2%}"
        assert [name, f"{size:,}", *shares, f"{overlap:.3f}"] in lines
    overlap = both.alive / either.alive
    for name, shown in {"small": (1, overlap), "other": (overlap, 1)}.items():
        (row,) = [line for line in lines if line[:1] == [name]]
        assert row[-2:] == [f"{share:.3f}" for share in shown]
    assert err == ""
    assert contents(place) == before


def test_info_takes_the_mask_that_it_advises(place: Path, capsys: Captured) -> None:
    kept = Checkpoint.load("small.pt")
    assert kept.mask is not None
    torch.save(kept.weights, "plain.pt")
    torch.save([*kept.mask.values()], "mask.pt")
    assert main(["info", "plain.pt"]) == 0
    out, err = capsys.readouterr()
    assert "are exactly 0: --mask zeros" in out
    for asked in ("zeros", "mask.pt"):
        assert main(["info", "plain.pt", "--mask", asked]) == 0
        out, err = capsys.readouterr()
        lines = [line.split() for line in out.splitlines()]
        for name, alive, size in kept.mask.table():
            assert [name, f"{size:,}", f"{alive:,}", f"{alive / size:.2%}"] in [
                r[:4] for r in lines
            ]
        assert err == ""
    assert main(["info", "small.pt", "--mask", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["density"] == 1
    torch.save(kept.weights | {"fc.weight": torch.ones(3, 3)}, "other.pt")
    refused(place, capsys, ["info", "other.pt", "--mask", "mask.pt"], "mask.pt holds no mask")


def test_a_folder_of_a_network_is_no_folder_of_a_run(place: Path, capsys: Captured) -> None:
    Path("folder").mkdir()
    kept = Checkpoint.load("small.pt")
    torch.save(kept.weights, "folder/pytorch_model.bin")
    Path("net.py").write_text(
        "from sparsediag import models\n"
        f"def make(): return models.build('lenet300', **{kept.options})"
    )
    own = ["--images", "20", "--json"]
    assert main(["gradflow", "small.pt", *own]) == 0
    expected = json.loads(capsys.readouterr().out)
    more = ["--model", "net.py:make", "--data", "digits", "--mask", "zeros"]
    assert main(["gradflow", "folder", *more, *own]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"][0] == "folder-gradflow-images=20-data=digits-mask=zeros.npz"
    about = {"source", "files", "notes"}
    assert {k: v for k, v in result.items() if k not in about} == {
        k: v for k, v in expected.items() if k not in about
    }


@pytest.mark.usefixtures("other")
def test_info_of_two_nets_as_json(place: Path, capsys: Captured) -> None:
    before = contents(place)
    assert main(["info", "small.pt", "other.pt", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    nets = {name: Checkpoint.load(f"{name}.pt") for name in ("small", "other")}
    about = {name: net.about() for name, net in nets.items()}
    expected = json.loads(json.dumps({**about, "census": census(nets).json()}))
    assert json.loads(line, parse_constant=pytest.fail) == expected
    assert contents(place) == before


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("names", [["small"], ["conv"], ["small", "other"]], ids=str)
def test_info_keeps_its_count_and_draws_it(place: Path, capsys: Captured, names: list[str]) -> None:
    before = contents(place)
    assert main(["info", *(f"{name}.pt" for name in names), "--out", "new/count.npz"]) == 0
    new = {n: c for n, c in contents(place).items() if n not in before}
    assert sorted(new) == ["new/count.npz", "new/count.png"]
    assert new["new/count.png"].startswith(b"\x89PNG")
    counted = census({name: Checkpoint.load(f"{name}.pt") for name in names})
    assert Result.load("new/count.npz").json() == counted.json()
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "wrote new/count.npz new/count.png"
    assert err == ""


def stop(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: int) -> None:
    """Let so many points be measured, and then fail."""
    from sparsediag.surfaces.evaluate import LossEvaluator

    value, calls = LossEvaluator.__call__, count()

    def breaking(self: LossEvaluator, place: Any, **options: Any) -> tuple[float, float]:
        if next(calls) == after:
            raise error
        return value(self, place)

    monkeypatch.setattr(LossEvaluator, "__call__", breaking)


def test_a_landscape_goes_on_after_an_error(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["landscape", "small.pt", "--points", "3", "--images", "20"]
    assert main([*words, "--out", "whole.npz"]) == 0
    before = contents(place)
    with monkeypatch.context() as patch:
        stop(patch, OSError("unplugged"), after=5)
        assert main(words) == 2
    assert capsys.readouterr().err.split() == ["unplugged"]
    assert contents(place).keys() - before.keys() == {
        ".small-landscape-images=20-points=3.unfinished"
    }
    assert main(words) == 0
    assert not list(place.glob(".*.unfinished"))
    assert (
        Path("small-landscape-images=20-points=3.npz").read_bytes()
        == Path("whole.npz").read_bytes()
    )


def test_shards_are_joined(place: Path, capsys: Captured) -> None:
    words = ["landscape", "small.pt", "--points", "3", "--images", "20"]
    assert main([*words, "--out", "whole.npz"]) == 0
    for i in (1, 2):
        assert main([*words, "--shard", f"{i}/2"]) == 0
    out = capsys.readouterr().out
    assert "points are in other shards" in out
    assert "mean rise" not in out.rpartition("centre")[2]
    shards = [f"small-landscape-images=20-points=3-{i}of2.npz" for i in (1, 2)]
    assert main(["join", *shards, "--out", "joined.npz", "--formats", "svg,csv"]) == 0
    assert Path("joined.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert Path("joined.svg").exists()
    assert len(Path("joined.csv").read_text().splitlines()) == 1 + 9
    assert main(["join", *shards, "--out", "joined.png"]) == 2
    assert "--out joined.png: results are written as .npz" in capsys.readouterr().err
    assert main(["join", shards[0], "--out", "joined.npz"]) == 2
    assert "4 points are in none of 1 shards" in capsys.readouterr().err


def test_a_loss_that_is_not_the_recorded_one_is_found(run: Path, capsys: Captured) -> None:
    words = ["--split", "validation", "--images", "0", "--points", "3"]
    assert main(["landscape", "run/best.pt", *words]) == 0
    assert "its training recorded" not in capsys.readouterr().out
    kept = Checkpoint.load("run/best.pt")
    kept.history[-1]["val_loss"] += 1
    kept.save("run/other.pt")
    assert main(["landscape", "run/other.pt", *words]) == 0
    assert "its training recorded" in capsys.readouterr().out
    assert main(["landscape", "run/other.pt", *words[4:]]) == 0
    assert "its training recorded" not in capsys.readouterr().out


def test_nets_are_drawn_between_and_side_by_side(place: Path, run: Path, capsys: Captured) -> None:
    nets = [str(run / name) for name in ("epoch-001.pt", "last.pt")]
    words = ["--points", "3", "--images", "40", "--dims", "1"]
    assert main(["landscape", *nets, *words[:4], "--out", "between.npz"]) == 0
    between = Result.load("between.npz")
    assert between.stops == [Path(net).stem for net in nets]
    assert between.places.tolist() == [[0.0], [pytest.approx(1.0)]]
    assert main(["landscape", *nets, "--shared", *words, "--out", "compared.npz"]) == 0
    compared = Result.load("compared.npz")
    assert compared.names == between.stops
    assert "rise at" in capsys.readouterr().out
    assert main(["landscape", "run", "--points", "3", "--images", "40"]) == 0
    assert load("run/landscape-*.npz").stops[0] == "epoch-001"
    assert not [file for file in contents(place) if "unfinished" in file]
    assert main(["landscape", nets[0], "--shared"]) == 2
    assert "--compare needs two checkpoints" in capsys.readouterr().err
    assert main(["landscape", *nets, "--shared", "--shard", "1/2"]) == 2
    assert main(["landscape", *nets, "--seed", "1"]) == 2
    assert "--seed does not apply to a plane through several networks" in capsys.readouterr().err
    assert main(["landscape", "run", "--axes", "gradient"]) == 2
    assert "--axes does not apply to a plane through a run" in capsys.readouterr().err
    assert main(["trace", "run"]) == 2
    assert "is a folder; trace needs one checkpoint of it" in capsys.readouterr().err


def test_an_interrupt_is_said_and_is_exit_code_130(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, KeyboardInterrupt(), after=3)
    before = contents(place)
    assert main(["landscape", "small.pt"]) == 130
    assert "interrupted: .small-landscape.unfinished holds the work" in capsys.readouterr().err
    left = contents(place)
    assert left.pop(".small-landscape.unfinished")
    assert left == before


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
        if option in ("problem", "progress", "resume", "along", "also", "start", "std", "expected"):
            assert f"--{option} " not in page
        else:
            assert f"--{option.replace('_', '-')} " in page
            assert plain(explained[option] or "-") in page
    for option, (hint, _) in SHARED.items():
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
    assert "info contents of a checkpoint" in page


def test_help_of_info(capsys: Captured) -> None:
    assert main(["info", "--help"]) == 0
    page = plain(capsys.readouterr().out)
    assert "--json Print one JSON object instead of a table." in page
    assert "CHECKPOINT File with a trained network" in page
    assert "to compare their masks." in page
    assert "Result file for the statistics of the masks, .npz" in page


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == sparsediag.__version__


# what cannot work: one line, exit code 2, and no new file


def text(file: Path) -> None:
    file.write_text("hello there\n")


def pickled(file: Path) -> None:
    torch.save({"activation": torch.relu}, file)


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
    "text": (text, "bad.pt: not a torch checkpoint (it starts with b'hello')"),
    "empty": (Path.touch, "bad.pt: not a torch checkpoint"),
    "pickled function": (pickled, "bad.pt holds pickled Python objects"),
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
    ("command", "message"),
    [
        ("info", "empty is a folder; it holds no file of weights"),
        *(
            (name, "empty holds no checkpoint; give the folder that a training wrote")
            for name in OF_A_RUN
        ),
        *(
            (name, f"empty is a folder; {name} needs one checkpoint of it")
            for name in DIAGNOSTICS
            if name not in OF_A_RUN
        ),
    ],
)
def test_an_empty_folder(place: Path, capsys: Captured, command: str, message: str) -> None:
    (place / "empty").mkdir()
    refused(place, capsys, [command, "empty"], message)
    assert os.listdir(place / "empty") == []


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


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").write_text("in the way")
    monkeypatch.setattr(Checkpoint, "load", pytest.fail)
    for command in ("landscape", "info"):
        words = [command, "small.pt", "--out", "file/new/x.npz"]
        refused(place, capsys, words, "file/new/x.npz cannot be written: Not a directory: ")


def test_names_are_shown_as_they_are(place: Path, capsys: Captured) -> None:
    nets = ["run[lr=0.1].pt", "x[bold] :fire:.pt"]
    for net in nets:
        shutil.copy("small.pt", net)
    assert main(["info", *nets]) == 0
    out = capsys.readouterr().out
    assert all(net.removesuffix(".pt") in out for net in nets)
    weights = {"a[red].weight": torch.rand(3, 3), "x[/bold].weight": torch.rand(3, 3)}
    torch.save(weights, "[i]markup.pt")
    assert main(["info", "[i]markup.pt"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*weights, "[i]markup.pt"))


def test_dollars_in_names_are_no_formulas(place: Path) -> None:
    nets = [r"$\frac{1$.pt", "$x$.pt"]
    for i, net in enumerate(nets):
        noisy = Checkpoint.load("small.pt")
        bias = noisy.weights["fc.bias"] + i
        replace(noisy, weights={**noisy.weights, "fc.bias": bias}).save(net)
    words = ["landscape", *nets, "--points", "3", "--images", "20"]
    assert main([*words, "--out", "line.npz"]) == 0
    assert main([*words, "--shared", "--out", "shared.npz"]) == 0
    assert {f"{name}.png" for name in ("line", "shared", "shared-panels")} <= {*os.listdir()}


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError("Unable to allocate 745. GiB for an array"), "there is"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory"
            ),
            "there is",
        ),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"), "the GPU has"),
    ],
)
def test_too_little_memory_is_said(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Checkpoint, "load", full)
    refused(place, capsys, ["gradflow", "small.pt"], f"{where} too little memory; reduce")
    with pytest.raises(type(error)):
        main(["gradflow", "small.pt", "--debug"])


@pytest.mark.usefixtures("place")
def test_another_runtime_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "load", lambda _: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["gradflow", "small.pt"])


def test_debug_shows_the_traceback(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(["info", "bad.pt", "--debug"])
    with pytest.raises(ValueError, match="points=1"):
        main(["landscape", "small.pt", "--points", "1", "--debug"])
