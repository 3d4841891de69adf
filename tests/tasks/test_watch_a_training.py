"""Train with Watch, then look at it: live in a terminal, as a picture, and in a report."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import sparsediag as sd
from sparsediag.checkpoint.watch_file import read_watch_file
from sparsediag.cli import watch as watch_command
from sparsediag.cli.app import main
from tests.commands import Captured, refused


def train(file: Path, density: float) -> None:
    torch.manual_seed(0)
    net = sd.models.build("lenet300", size=8, width=8)
    weights = {n: net.get_parameter(n).abs() for n in sd.prunable_weights(net)}
    mask = sd.Mask.top(weights, density, scope="layer")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    batches = sd.data.load("digits").batches("train", images=120, batch=20)
    options = {"probe": batches[:1], "every": 2, "metrics": "gradient,mask,noise,probe_loss"}
    with sd.Watch(net, mask=mask, optimizer=optimizer, file=file, **options) as watch:
        for epoch in range(2):
            for x, y in batches:
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
                mask.apply_(net)
                watch.step(loss, epoch=epoch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    for name, density in {"a": 0.5, "b": 0.25}.items():
        (folder / name).mkdir()
        train(folder / name / "watch.jsonl", density)
    return folder


@pytest.fixture(autouse=True)
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_a_table_where_there_is_no_terminal(capsys: Captured) -> None:
    assert main(["watch", "a/watch.jsonl"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    last = read_watch_file("a").rows[-1]
    for name in ("loss", "lr", "gradient/live", "mask/density", "probe_loss"):
        assert rows[name][1] == f"{last[name]:.4g}"
    assert main(["watch", "a"]) == 0  # the folder means its file


def test_two_trainings_side_by_side_and_drawn(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "both.npz"
    words = ["watch", "a", "b", "--names", "half, quarter", "--out", str(out)]
    assert main([*words, "--formats", "png,csv"]) == 0
    head, *_, last = capsys.readouterr().out.splitlines()[1:]
    assert head.split() == ["metric", "half", "quarter"]
    assert last.split() == [
        "wrote",
        *(str(out.with_suffix(f".{e}")) for e in ("npz", "png", "csv")),
    ]
    assert out.with_suffix(".png").stat().st_size > 20_000
    assert sd.Recording.load(out).labels == ["half", "quarter"]


def test_a_terminal_follows_the_file_until_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "watch.jsonl"
    text = Path("a/watch.jsonl").read_text()
    file.write_text(text)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "60")
    monkeypatch.setattr(watch_command, "SECONDS", 0.02)
    reader, writer = os.openpty()
    shown = bytearray()

    def wait_for(sight: bytes) -> None:
        end = time.monotonic() + 20
        while sight not in shown and time.monotonic() < end:
            shown.extend(os.read(reader, 65536))

    def follow() -> None:
        wait_for(b"step 12 in epoch 1")
        with file.open("a") as more:
            more.write('{"step": 14, "epoch": 1, "loss": 0.0678}\n{"st')
        wait_for(b"step 14 in epoch 1")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=follow)
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        thread.start()
        assert main(["watch", str(file)]) == 0
        thread.join()
    os.close(reader)
    assert b"0.0678" in shown
    assert b"step 14 in epoch 1" in shown


def test_a_report_of_watch_files(tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "rows.html"
    assert (
        main(["report", "a/watch.jsonl", "b", "--names", "half,quarter", "--out", str(page)]) == 0
    )
    html = page.read_text()
    assert "<h1>half, quarter</h1>" in html
    assert "Gradient norm.</b>" in html
    assert re.search("<caption>Last values</caption>.*>probe_loss<", html)


@pytest.mark.parametrize(
    "words",
    ["info", "spectrum", "landscape", "runs", "join --out j.npz", "training", "gradflow"],
)
def test_every_other_command_names_the_one_that_shows_it(
    words: str, place: Path, capsys: Captured
) -> None:
    name, *others = words.split()
    refused(place, capsys, [name, *others, "a/watch.jsonl"], "sparsediag watch a/watch.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("net.pt", "net.pt: no such file"),
        ("a/watch.json", "did you mean 'a/watch.jsonl'?"),
        ("", "there is one in a"),
        ("a a", "a/watch.jsonl twice"),
        ("a b --names one", "--names one: need 2 different names"),
        ("a --out x.png", "--out x.png: results are written as .npz"),
        ("a --formats vtk", "--formats vtk: this result has no such export"),
    ],
)
def test_what_cannot_be_shown(words: str, message: str, place: Path, capsys: Captured) -> None:
    refused(place, capsys, ["watch", *words.split()], message)


def test_python_has_the_rows(place: Path) -> None:
    recording = sd.read_watch("a/watch.jsonl", "b/watch.jsonl")
    assert recording.labels == ["density 0.5", "density 0.25"]
    assert recording.curve("loss", "density 0.25").steps.tolist() == [2, 4, 6, 8, 10, 12]
