"""The report: its numbers are the diagnostics', whatever net comes, and a killed one goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cyclopts import App
from torch import nn

from sparsediag import Checkpoint, Mask, Problem, activations, gradflow, landscape, signal, spectrum
from sparsediag.diagnostics.report import classes, layers
from sparsediag.diagnostics.report.charts import describe_values, line_styles
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.nets import Net, gather
from sparsediag.diagnostics.report.report import report
from sparsediag.diagnostics.report.summary import findings, provenance
from sparsediag.diagnostics.report.training import checkpoint_row, training

FAST: dict[str, Any] = {"points": 5, "top": 2, "images": 60, "device": "cpu"}
SECTIONS = [
    "findings",
    "landscape",
    "training",
    "masks",
    "activations",
    "gradients",
    "signal",
    "curvature",
    "eigenvectors",
    "provenance",
]


@pytest.fixture(scope="module")
def files(trained: Path) -> list[Path]:
    """A sparse perceptron after one epoch, and after two."""
    return [trained / "epoch-001.pt", trained / "last.pt"]


@pytest.fixture(scope="module")
def page(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert report(files, out=out, **FAST) == out
    assert [file.name for file in out.parent.iterdir()] == ["report.html"]
    return out.read_text()


def summary(page: str) -> list[dict[str, str]]:
    """The rows of the table at the top."""
    table = page[page.index('class="summary"') :].split("</table>")[0]
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    rows = [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in table.split("<tr>")[2:]
    ]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def section(page: str, name: str) -> str:
    return unescape(page[page.index(f'<section id="{name}"') :].split("</section>")[0])


def surfaces(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [json.loads(text)["data"][0] for text in found]


def toy(act: nn.Module | None = None, **how: Any) -> Problem:
    """A regressor on noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), act or nn.Tanh(), nn.Linear(4, 2))
        return Problem(net, [(torch.randn(16, 3), torch.randn(16, 2))], loss=F.mse_loss, **how)


def steep() -> Problem:
    """A net whose weights are the best there are, nearly."""
    net, x = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU()), torch.eye(3)
    nn.init.constant_(net[0].weight, 0.9)
    return Problem(net, [(x, torch.ones(3, 1))], loss=F.mse_loss)


# what is on the page


def test_the_top_has_the_numbers_of_the_diagnostics(page: str, files: list[Path]) -> None:
    kept = [Checkpoint.load(file) for file in files]
    for row, one in zip(summary(page), kept, strict=True):
        problem = one.problem(images=60, device="cpu")
        assert one.mask
        assert row["density"] == f"{one.mask.density:.2%}"
        value = spectrum(problem, top=2).eigenvalues[0]
        assert float(row["top eigenvalue"]) == pytest.approx(value, rel=6e-3)
        assert float(row["sample loss"]) == pytest.approx(problem.value(), rel=6e-3)
    assert [row["net"].split()[-1] for row in summary(page)] == ["epoch-001", "last"]
    assert summary(page)[1]["test accuracy"] == f"{kept[1].history[-1]['test_accuracy']:.2%}"


def test_the_best_of_a_column_is_marked(page: str) -> None:
    top = page[page.index('class="summary"') :].split("</table>")[0]
    rows = summary(page)
    steep = min((row["top eigenvalue"] for row in rows), key=float)
    assert f'<td class="n best">{steep}</td>' in top
    assert top.count("n best") <= 2 + 1  # of one test accuracy, an eigenvalue and a rise


def test_a_surface_holds_its_landscape(page: str, files: list[Path]) -> None:
    problems = [Checkpoint.load(file).problem(images=60, device="cpu") for file in files]
    losses = [landscape(problem, points=5).loss for problem in problems]
    assert np.max(losses) < 10 * np.min(losses)  # no logarithm for these; see the killed report
    for surface, loss in zip(surfaces(page), losses, strict=True):
        heights, said = np.array(surface["z"]).T, np.array(surface["text"], float).T
        assert heights == pytest.approx(loss, rel=3e-3)
        assert said == pytest.approx(loss, rel=6e-3)
    first, second = surfaces(page)
    assert [first[k] for k in ("x", "y", "cmin", "cmax")] == [
        second[k] for k in ("x", "y", "cmin", "cmax")
    ]


def test_every_section_is_there_with_its_pictures(page: str) -> None:
    assert re.findall(r'<section id="(\w+)"', page) == SECTIONS
    count = {"training": 3, "activations": 2, "gradients": 2, "signal": 3, "curvature": 2}
    for name, pictures in count.items():
        assert section(page, name).count('<svg role="img"') >= pictures
    assert section(page, "landscape").count('<svg role="img"') == 3  # two planes, and their rises
    assert "epoch" in section(page, "training")
    assert '"density": 0.3' in section(page, "provenance")
    for name in ("activations", "curvature", "landscape"):
        assert "60 of 1,170 train images, cross_entropy<" in section(page, name)


def test_the_page_can_be_walked_by_keyboard_and_read_aloud(page: str) -> None:
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    ids = re.findall(r'\sid="([^"]+)"', shown)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', shown)) <= set(ids)
    assert re.findall(r"<h(\d)", shown)[:2] == ["1", "2"]
    assert all(len(alt) > 20 for alt in re.findall(r'role="img" aria-label="([^"]*)"', shown))
    assert shown.count("<table>") == shown.count("<caption>") == shown.count('tabindex="0" role="r')
    for landmark in ("<html lang=", "<header>", "<nav aria-label=", '<main id="main"'):
        assert landmark in shown
    assert shown.index('class="skip" href="#main"') < shown.index("<header>")


def test_the_page_is_whole_and_small(page: str) -> None:
    assert len(page.encode()) < 8e6
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"?(http|//|file)|@import|url\((?!#)", shown)
    assert page.count("plotly.js v") == 1


def test_an_alternative_text_says_where_the_extremes_are(page: str, files: list[Path]) -> None:
    mask = Checkpoint.load(files[1]).mask
    assert mask
    shares = {
        name.removesuffix(".weight"): 100 * float(m.float().mean()) for name, m in mask.items()
    }
    low = min(shares, key=lambda name: shares[name])
    assert f"last: lowest {shares[low]:.2f} at {low}" in section(page, "masks")


def test_lines_through_depth_are_those_of_the_diagnostics(page: str, files: list[Path]) -> None:
    problem = Checkpoint.load(files[1]).problem(images=60, device="cpu")
    flow, wave = gradflow(problem), signal(problem)
    said = section(page, "gradients")
    for live, dead in ((flow.flow, flow.dead_flow), (flow.per_weight, flow.dead_per_weight)):
        assert describe_values({"last": (flow.names, live)}, ".2g") in said
        assert describe_values({"last, dead": (flow.names, dead)}, ".2g") in said
    for values, form in ((wave.rms, ".3g"), (wave.cosine, ".2f"), (wave.gradient, ".2g")):
        assert describe_values({"last": (wave.names, values)}, form) in section(page, "signal")


# what sleeps, and what is doubtful


def only(**found: Any) -> Measured:
    """A part of what is measured."""
    nets = found.pop("nets", {})
    return Measured(nets, found, None, None, {})


def three(weight: torch.Tensor) -> Problem:
    """Three classes of one sample, and what the two channels make of each."""
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 3))
    net[0].weight = nn.Parameter(weight)
    return Problem(net, [(torch.eye(3), torch.arange(3))])


def test_channels_that_sleep_for_a_class_are_shown() -> None:
    one = {"net": activations(three(torch.eye(3)[:2]))}
    assert 'aria-label="Channels inactive for a class, net. At most 100.0%, in 1 for class 2"' in (
        classes.inactive_channels(one)
    )
    cells = re.findall(r"<td[^>]*>(.*?)</td>", classes.extremes(one))
    assert cells == ["50.0% of 0", "100.0% of 2"] * 2


def test_what_never_sleeps_or_has_no_classes_gets_no_heat_map() -> None:
    awake = activations(three(torch.ones(2, 3)))
    assert classes.inactive_channels({"awake": awake}) == ""
    none = activations(toy(nn.ReLU()))
    assert classes.inactive_channels({"none": none}) == classes.extremes({"none": none}) == ""


def test_a_net_without_dead_weights_has_no_dashed_flow() -> None:
    body = layers.gradients(only(gradflow={"whole": gradflow(toy())}), line_styles(["whole"])).body
    assert "dead" not in body.lower()


def test_a_signal_that_ends_is_drawn_and_told() -> None:
    still = three(torch.zeros(2, 3))
    found = only(nets=gather({"still": still}, Checkpoint.problem), signal={"still": signal(still)})
    assert "the output of 1 is 0" in findings(found).body
    assert layers.signals(found, line_styles(["still"])).body.count('<svg role="img"') == 3


@pytest.mark.parametrize(
    ("dead", "kept", "doubt"),
    [
        (0.0, True, ""),
        (7.0, True, "in the file 0 of them were 0, they are held at 0 here"),
        (0.0, False, "50% of the weights are exactly 0: --mask zeros"),
    ],
)
def test_a_mask_that_does_not_prove_itself_is_among_the_findings(
    tmp_path: Path, dead: float, kept: bool, doubt: str
) -> None:
    alive = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    state = {"weight": torch.where(alive > 0, 3.0, dead), "bias": torch.ones(2)}
    torch.save(state | ({"weight_mask": alive} if kept else {}), tmp_path / "net.pt")
    own = {"model": lambda: nn.Linear(2, 2), "data": [(torch.eye(2), torch.arange(2))]}
    found = only(nets=gather(tmp_path / "net.pt", lambda c, **how: c.problem(**own, **how)))
    (line,) = found.nets["net"].notes
    assert line in unescape(provenance(found).body)
    assert doubt in line
    assert (line in unescape(findings(found).body)) == bool(doubt)


# any net


NAME = '<b onclick="x">&'


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a masked regressor and one without an activation layer; none is changed."""
    mask = Mask({"0.weight": torch.arange(12).view(4, 3) % 3 == 0})
    nets, seen = {NAME: toy(mask=mask), "linear": toy(nn.Identity())}, []
    before = [t.clone() for p in nets.values() for t in p.net.state_dict().values()]
    torch.manual_seed(3)
    state, out = torch.get_rng_state(), tmp_path_factory.mktemp("odd") / "a.html"
    report(nets, out=out, points=3, top=1, progress=lambda *at: seen.append(at))
    assert torch.equal(torch.get_rng_state(), state)
    after = [t for p in nets.values() for t in p.net.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert not any(m._forward_hooks for p in nets.values() for m in p.net.modules())
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1
    return out.read_text()


def test_a_name_is_written_as_it_is(odd: str) -> None:
    assert "<b onclick" not in odd
    assert summary(odd)[0]["net"].endswith(NAME)


def test_a_regressor_has_no_accuracy_and_no_history(odd: str) -> None:
    masked, whole = summary(odd)
    assert not [head for head in masked if "accuracy" in head]
    assert (masked["density"], whole["density"]) == ("33.33%", "100.00%")
    assert "no training history" in section(odd, "training")


def test_what_cannot_be_is_a_sentence(odd: str) -> None:
    for where in ("activations", "findings"):
        assert "no activation to look at" in section(odd, where)
    assert section(odd, "activations").count('<svg role="img"') == 2
    assert len(surfaces(odd)) == 2


def test_a_net_that_diverged_is_told_beside_others_and_refused_alone(
    files: list[Path], tmp_path: Path
) -> None:
    good = Checkpoint.load(files[1])
    bad = replace(good, weights={n: t * torch.inf for n, t in good.weights.items()})
    notes: list[str] = []
    nets, out = {"good": good, "bad": bad}, tmp_path / "a.html"
    page = report(nets, out=out, note=notes.append, **FAST).read_text()
    (line,) = notes
    assert re.match("not in the report: .*spectrum.*landscape.* of bad: the loss is nan", line)
    assert "bad has no result here: the loss is nan" in re.sub(
        "<.*?>", "", section(page, "curvature")
    )
    assert len(surfaces(page)) == 1
    with pytest.raises(ValueError, match="the loss is nan"):
        report({"bad": bad}, out=tmp_path / "b.html", **FAST)


@pytest.mark.parametrize(
    ("step", "history", "run", "epoch"),
    [(6, 3, {}, 2), (4, 3, {}, 1), (4, 2, {"optim": {"epochs": 3}}, 1), (0, 3, {}, None)],
)
def test_the_row_of_a_checkpoint_is_that_of_its_step(
    step: int, history: int, run: dict[str, Any], epoch: int | None
) -> None:
    rows = [{"epoch": i, "loss": float(i)} for i in range(history)]
    about = {"step": step, "steps": 6, "history": rows, "run": run}
    kept = Checkpoint(model="", options={}, weights={}, **about)
    assert checkpoint_row(kept) == ({} if epoch is None else rows[epoch] | {"epoch": epoch + 1})


@pytest.mark.parametrize(
    ("row", "tweaks", "told"),
    [
        ({}, {"smoothing": {}}, True),
        ({}, {"rescale": {}}, False),
        ({"objective": 2.0}, {"smoothing": {}}, False),
    ],
)
def test_a_training_loss_with_smoothing_in_it_is_told(
    row: dict[str, Any], tweaks: dict[str, Any], told: bool
) -> None:
    history = [{"val_loss": 1.0, "train_loss": 1.5, **row}]
    kept = Checkpoint(model="", options={}, weights={}, history=history, run={"tweaks": tweaks})
    measured = Measured({"mine": Net(kept, None)}, {}, None, None, {})
    text = training(measured, line_styles(["mine"])).body
    assert ("mine includes its tweaks" in text) == told


# a killed report


class Killed(BaseException):
    """What a kill looks like from within."""


def stop_at(share: float) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= share * total:
            raise Killed

    return progress


def test_a_killed_report_goes_on(tmp_path: Path) -> None:
    out, how = tmp_path / "report.html", {"points": 5, "top": 1}
    whole = report({"net": steep()}, out=tmp_path / "whole.html", **how).read_text()
    loss = landscape(steep(), points=5).loss
    assert loss.max() > 10 * loss.min()
    with pytest.raises(Killed):
        report({"net": steep()}, out=out, progress=stop_at(0.99), **how)
    hidden = tmp_path / ".report.unfinished"
    kept = sorted(file.name.split("-")[0] for file in hidden.glob("*.npz"))
    assert kept == ["activations", "gradflow", "perturbation", "signal", "spectrum"]
    assert not out.exists()
    next(hidden.glob("activations-*.npz")).write_bytes(b"cut")
    seen: list[tuple[int, int]] = []
    page = report(
        {"net": steep()}, out=out, progress=lambda *at: seen.append(at), **how
    ).read_text()
    assert len(seen) < 20  # a step a diagnostic, and the points that were left
    assert seen[-1][0] == seen[-1][1]
    assert surfaces(page) == surfaces(whole)
    heights = np.power(10, surfaces(page)[0]["z"]).T
    assert heights == pytest.approx(loss, rel=3e-3)
    assert "n best" not in page  # among one
    assert summary(page) == summary(whole)
    assert not hidden.exists()


def test_other_options_are_computed_anew(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(Killed):
        report({"net": toy()}, out=out, points=5, top=1, progress=stop_at(0.99))
    page = report({"net": toy()}, out=out, points=3, top=2).read_text()
    assert len(surfaces(page)[0]["x"]) == 3
    assert section(page, "eigenvectors").count('<svg role="img"') == 2


# the command


def run(*words: str) -> None:
    app = App(result_action="return_value")
    app.command("sparsediag.cli.report:command", name="report")
    app(["report", *words], exit_on_error=False, print_error=False)


def test_the_command_writes_the_page(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "a.html")
    run(str(files[1]), "--out", out, "--points", "3", "--top", "1", "--images", "40", "--json")
    assert json.loads(capsys.readouterr().out) == {"files": [out]}
    page = Path(out).read_text()
    assert "40 of 1,170 train images" in page
    assert str(files[1]) in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.pt", "--out", "a.pdf"], "--out a.pdf: a report is written as .html"),
        (["a.pt", "a.pt"], "a.pt twice"),
        (["a.pt", "b/../a.pt"], "a.pt twice"),
        (["no.pt"], "no.pt: no such file"),
        (["."], "is a folder"),
        (["a.pt", "--points", "1"], "need 3 points"),
        (["a.pt", "--top", "0"], "1 eigenpair"),
        (["a.pt", "--images", "-1"], "--images needs 0 or more"),
        (["a.pt", "--data", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    Path("a.pt").write_bytes(files[1].read_bytes())
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as error:
        run(*words)
    assert len(str(error.value).splitlines()) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b"]


def test_no_net_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network given"):
        report([], out=tmp_path / "a.html")
