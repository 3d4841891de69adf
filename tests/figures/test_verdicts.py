"""Records of what was measured: merged from pieces, judged, and compared with themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures import merge, readme, stability, verdicts
from figures.verdicts import Record

KEYS = [key for key, claim in verdicts.claims().items() if not claim.exact]


def record(effects: Any, *, scale: str = "desk", machine: str = "a CPU") -> Record:
    """Return a record with the effects by seed that a function gives for the i-th claim."""
    rows = [
        {"item": item, "says": says, "unit": "points", "effects": effects(i)}
        for i, (item, says) in enumerate(KEYS)
    ]
    machines = [{"hardware": machine, "versions": "torch", "command": "python -m figures"}]
    made = {"scale": scale, "setting": "clutter", "machines": machines, "claims": rows}
    return verdicts.judged(made)


def of_seeds(*seeds: int, shift: float = 0.0) -> Any:
    return lambda i: {str(s): 5.0 + 0.01 * i + 0.1 * s + shift for s in seeds} if i % 2 else {}


def test_pieces_of_two_machines_make_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdicts, "MEASURED", tmp_path / "measured")
    pieces = [record(of_seeds(0, 1)), record(of_seeds(1, 2, shift=9.0), machine="another")]
    files = [tmp_path / f"{i}.json" for i in range(2)]
    for piece, file in zip(pieces, files, strict=True):
        verdicts.save(piece, file)
    assert merge.main([str(files[0])]) == merge.main([str(files[1])]) == 0
    (stored,) = verdicts.measured_records()
    assert [m["hardware"] for m in stored["machines"]] == ["a CPU", "another"]
    row = stored["claims"][1]
    assert row["effects"] == pytest.approx({"0": 5.01, "1": 5.11, "2": 14.21})  # seed 1: the first
    assert row["mean"] == pytest.approx(8.11)
    assert stored["claims"][0]["verdict"] == "not run"
    assert merge.main(list(map(str, files))) == 0  # again: nothing changes
    assert verdicts.measured_records() == [stored]
    assert "2 machines, 3 seeds" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdicts, "MEASURED", tmp_path / "measured")
    good, other = tmp_path / "good.json", tmp_path / "other.json"
    verdicts.save(record(of_seeds(0)), good)
    verdicts.save(record(of_seeds(0)) | {"setting": "digits"}, other)
    assert merge.main([str(good)]) == 0
    before = (tmp_path / "measured/desk.json").read_text()
    for file, token in ((other, "'digits'"), (tmp_path / "none.json", "none.json")):
        assert merge.main([str(file)]) == 2
        error = capsys.readouterr().err
        assert token in error
        assert error.count("\n") == 1
    assert merge.main([]) == 2
    assert (tmp_path / "measured/desk.json").read_text() == before


def test_the_largest_scale_that_decides_gives_the_verdict() -> None:
    def clear(i: int) -> dict[str, float]:
        return {str(s): (-1) ** i * 5 + 0.1 * s for s in range(3)}

    desk, hour = record(clear), record(of_seeds(0), scale="hour")
    paper = record(lambda i: clear(i + 1) if i == 0 else {}, scale="paper")
    found = {f.key: f for f in verdicts.findings([desk, hour, paper])}
    first, second = (found[key] for key in KEYS[:2])
    assert (first.scale, first.row["verdict"]) == ("paper", "not reproduced")
    assert (second.scale, second.row["verdict"]) == ("desk", "not reproduced")
    assert {f.scale for f in verdicts.findings([hour])} == {"", "hour"}
    assert f"| {KEYS[1][0]} | {KEYS[1][1]} |" in readme.claim_table(list(found.values()))
    assert "desk, 3 seeds | not reproduced |" in readme.claim_table(list(found.values()))
    numbers = [
        row.split(" | ")[1:] for row in readme.summary_table(list(found.values())).split("\n")
    ]
    assert sum(int(row[0]) for row in numbers[2:]) == len(verdicts.claims())


def test_a_record_of_older_claims_loses_only_those() -> None:
    old = record(of_seeds(0, 1, 2))
    old["claims"].append({"item": "tost/fig99", "says": "once", "unit": "points", "effects": {}})
    assert len(verdicts.judged(old)["claims"]) == len(KEYS)
    assert len(merge.merge(record(of_seeds(3)), old)["claims"]) == len(KEYS)


def test_halves_are_compared_claim_by_claim() -> None:
    up, down = ({str(s): sign * 5 + 0.1 * s for s in range(6)} for sign in (1, -1))
    turned = {s: e if int(s) < 3 else -e for s, e in up.items()}
    vague = {s: e if int(s) < 3 else 2 * e * (-1) ** int(s) + 5 for s, e in up.items()}
    away = {s: e if int(s) < 3 else 2 * e * (-1) ** int(s) for s, e in up.items()}
    given = dict(enumerate((up, down, turned, vague, away)))
    found = stability.compare(record(lambda i: given.get(i, {})))
    assert (found.same, found.leaning, found.away) == (2, 1, 1)
    assert found.contradictions == (KEYS[2][1],)
    assert not found.is_stable
    assert "1 contradicted" in str(found)


def test_two_sets_of_seeds_do_not_contradict_each_other() -> None:
    """Effects of all sizes, many near their bounds, measured in 40 made-up worlds."""
    rng = np.random.default_rng(0)
    total = np.zeros(4, int)
    for _ in range(40):
        effects = rng.normal(0.5, 3, len(KEYS))
        drawn = effects[:, None] + rng.normal(0, 1, (len(KEYS), 6))
        found = stability.compare(
            record(lambda i, drawn=drawn: {str(s): e for s, e in enumerate(drawn[i])})
        )
        total += (found.same, found.leaning, found.away, len(found.contradictions))
    same, leaning, away, contradicted = total
    assert contradicted == 0
    assert same + leaning >= stability.AGREEMENT * (same + leaning + away)
    assert same > 40


def test_stability_of_the_stored_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stability.main() == 0
    monkeypatch.setattr(verdicts, "MEASURED", tmp_path)
    capsys.readouterr()
    assert stability.main() == 0
    assert "no record with six seeds yet" in capsys.readouterr().out
    verdicts.save(record(of_seeds(*range(6))), tmp_path / "desk.json")
    assert stability.main() == 0
    assert "desk: " in capsys.readouterr().out
    turned = {str(s): (5.0 if s < 3 else -5.0) + 0.1 * s for s in range(6)}
    verdicts.save(record(lambda _: turned), tmp_path / "desk.json")
    assert stability.main() == 1
    assert json.loads((tmp_path / "desk.json").read_text())["scale"] == "desk"
