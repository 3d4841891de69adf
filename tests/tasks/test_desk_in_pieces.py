"""Measure a scale in pieces, merge what was found, and look at the page meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from figures import merge, verdicts
from figures.__main__ import main
from figures.scales import SCALES, StandIn
from training.config import Model


def test_desk_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = SCALES["desk"]
    tiny = replace(
        desk, name="tiny", seeds=2, data=dict.fromkeys(desk.data, "digits"), items=("tost/table5",),
        nets={"resnet18": StandIn(Model("resnet10", 2), 1, frozenset())},
    )  # fmt: skip
    monkeypatch.setitem(SCALES, "tiny", tiny)
    monkeypatch.setattr(verdicts, "MEASURED", tmp_path / "measured")
    out, page = tmp_path / "out", tmp_path / "out/figures/index.html"
    words = ["--scale", "tiny", "--jobs", "1", "--quiet", "--out", str(out)]

    assert main([*words, "--minutes", "1e-9"]) == 0
    assert "time is up: " in capsys.readouterr().out
    text = page.read_text()
    assert 'http-equiv="refresh"' in text
    assert "Not yet: 0 of 6 measurements exist." in text
    assert not list(out.glob("runs/*/finished"))

    assert main([*words, "--minutes", "60"]) == 0
    assert "time is up" not in capsys.readouterr().out
    text = page.read_text()
    assert 'http-equiv="refresh"' not in text
    assert "tiny, 2 seeds</span>" in text[: text.index("<h2>")]

    assert merge.main([str(out / "figures/claims.json")]) == 0
    (stored,) = verdicts.measured_records()
    (row,) = [row for row in stored["claims"] if row["says"] == "GSk harms the dense network"]
    assert list(row["effects"]) == ["0", "1"]
    assert (row["verdict"], row["why"]) == ("undecided", "2 of at least 3 seeds")
    assert all(r["verdict"] == "not run" for r in stored["claims"] if r["item"] == "tost/table4")
    assert stored["machines"][0]["command"] == "python -m figures --scale tiny"
    assert "digits" in stored["setting"]
