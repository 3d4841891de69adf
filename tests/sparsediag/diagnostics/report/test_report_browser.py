"""A report in a browser: it draws all of it, the console is silent, and it asks for nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsediag import Problem
from sparsediag.diagnostics.report.report import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1200,6000",
    "--virtual-time-budget=8000",
    "--dump-dom",
]
PROBE = """<script>
  const turns = [...document.querySelectorAll(".turn")], begun = [], make = Plotly.newPlot;
  let shown = 0;
  const note = (name, what) => document.body.setAttribute(`data-${name}`, JSON.stringify(what));
  const eyes = () => turns.map((plot) => plot.layout.scene.camera.eye);
  const act = () => {
    note("begun", begun);
    note("before", eyes());
    turns[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    setTimeout(() => { note("after", eyes()); dispatchEvent(new Event("beforeprint")); }, 1000);
  };
  Plotly.newPlot = async (...given) => {
    begun.push(shown);
    await make(...given);
    requestAnimationFrame(() => { shown += 1; if (shown === turns.length) setTimeout(act, 500); });
  };
</script>"""
DRIVER = ("GL Driver Message", "willReadFrequently")  # what a software WebGL says of itself
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: its document, the console, and the addresses it asked for."""

    dom: str
    console: list[str]
    asked: list[str]


def opened(page: Path) -> Seen:
    log = page.with_suffix(".net")
    own = [f"--user-data-dir={page.parent / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [str(BROWSER), *FLAGS, *own, page.as_uri()], capture_output=True, text=True, timeout=120
    )
    said = re.findall(r"CONSOLE\W.*", done.stderr)
    text = log.read_text().rstrip()
    events = json.loads(text if text.endswith("}") else text.rstrip(",") + "]}")["events"]
    starts = [event.get("params", {}) for event in events]
    return Seen(
        dom=done.stdout,
        console=[line for line in said if not any(word in line for word in DRIVER)],
        asked=[  # the browser's own requests come from no page
            at["url"]
            for at in starts
            if at.get("initiator", "not an origin") != "not an origin"
            and not at["url"].startswith(("file:", "data:", "blob:"))
        ],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, y = torch.randn(20, 3), torch.randint(2, (20,))
        nets = {
            name: Problem(nn.Sequential(nn.Linear(3, 6), act, nn.Linear(6, 2)), [(x, y)])
            for name, act in {"relu": nn.ReLU(), "tanh": nn.Tanh()}.items()
        }
    return report(nets, out=tmp_path_factory.mktemp("page") / "a.html", points=5, top=1)


@pytest.fixture(scope="module")
def seen(page: Path) -> Seen:
    """The page after an arrow key on its first surface, as it is about to be printed."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    return opened(probed)


def test_a_browser_draws_all_of_it_and_asks_for_nothing(seen: Seen) -> None:
    shown = re.sub(r"<script.*?</script>", "", seen.dom, flags=re.DOTALL)
    assert shown.count('<svg role="img"') == 14
    turned = re.findall(r'<div class="turn js-plotly-plot".*?</figure>', shown, flags=re.DOTALL)
    assert len(turned) == 2
    assert all("<canvas" in plot for plot in turned)
    assert seen.console == []
    assert seen.asked == []


def test_a_surface_is_on_the_screen_before_the_next_is_begun(seen: Seen) -> None:
    assert re.findall(r'data-begun="(.*?)"', seen.dom) == ["[0,1]"]


def test_an_arrow_key_turns_all_surfaces(seen: Seen) -> None:
    before, after = (
        json.loads(unescape(re.findall(rf'data-{when}="(.*?)"', seen.dom)[0]))
        for when in ("before", "after")
    )
    assert before[0] == before[1]
    assert after[0] == after[1]
    for eye in (before[0], after[0]):
        assert math.hypot(*eye.values()) == pytest.approx(math.hypot(1.2, 1.2, 1.0))
    (x, y, z), (u, v, w) = before[0].values(), after[0].values()
    assert math.atan2(v, u) - math.atan2(y, x) == pytest.approx(0.15)
    assert w == pytest.approx(z)


def test_everything_is_open_when_it_is_printed(seen: Seen) -> None:
    details = re.findall(r"<details[^>]*>", seen.dom)
    assert len(details) > 5
    assert all("open" in one for one in details)


def test_what_would_be_wrong_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text('<!doctype html><img src="http://localhost:9/x"><script>throw Error()</script>')
    seen = opened(page)
    assert seen.asked == ["http://localhost:9/x"]
    assert len([line for line in seen.console if "Uncaught Error" in line]) == 1
