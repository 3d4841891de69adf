"""Findings: what the measurements of a scale say of every claim, as one small file."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import sparsediag
from figures import items
from figures.claims import Claim
from figures.scales import Scale
from figures.tables import EMPTY
from sparsediag.core.atomic import atomic_write

MEASURED = Path(__file__).parent / "measured"  # of scales that take longer, or of other machines
Found = dict[str, Any]


def findings(scale: Scale, out: Path) -> Found:
    """Every claim with its verdict, and what it was measured on."""
    claims = []
    for name in items.names():
        module = items.item(name)
        results = items.results(name, scale, out) if module.CLAIMS else {}
        claims += [_row(name, claim, results) for claim in module.CLAIMS]
    return {"scale": scale.name, **machine(), "claims": claims}


def _row(name: str, claim: Claim, results: Mapping[Any, Any]) -> Found:
    verdict = claim.judge(results)
    row: Found = {
        "item": name,
        "says": claim.says,
        "quote": claim.quote,
        "source": claim.source,
        "unit": claim.unit,
        "paper": claim.paper,
        "verdict": verdict.word,
        "why": verdict.why,
    }
    if found := verdict.measured:
        half = round(found.half, 4) if math.isfinite(found.half) else None
        row |= {"mean": round(found.mean, 4), "half": half, "count": found.count}
    return row


def machine() -> Found:
    """Hardware and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(": ")[2] if models else name
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()}; {name}"
    return {
        "hardware": f"{name}, {os.cpu_count()} cores",
        "versions": f"sparsediag {sparsediag.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def save(found: Found, path: Path) -> None:
    """Write findings, a claim a line."""
    claims = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found["claims"])
    head = json.dumps({k: v for k, v in found.items() if k != "claims"}, ensure_ascii=False)
    with atomic_write(path) as draft:
        draft.write_text(f'{head[:-1]}, "claims": [\n{claims}\n]}}\n')


def elsewhere(scale: Scale) -> list[Found]:
    """The findings that came with the project, but for those of this scale."""
    found = [json.loads(file.read_text()) for file in sorted(MEASURED.glob("*.json"))]
    return [other for other in found if other["scale"] != scale.name]


def told(row: Found) -> str:
    """The margin of a claim as it was measured."""
    if "mean" not in row:
        return EMPTY
    half = "" if row["half"] is None else f" ± {_short(row['half'])}"
    return f"{_short(row['mean'], sign=True)}{half}"


def difference(row: Found) -> str:
    """Measured minus the paper's."""
    if "mean" not in row or row["paper"] is None:
        return EMPTY
    return _short(row["mean"] - row["paper"], sign=True)


def _short(value: float, sign: bool = False) -> str:
    return (
        f"{value:{'+' if sign else ''}.2f}"
        if abs(value) < 100
        else f"{value:{'+' if sign else ''}.3g}"
    )


def paper(row: Found) -> str:
    """The margin that the paper gives."""
    return EMPTY if row["paper"] is None else _short(row["paper"], sign=True)


def tally(claims: Sequence[Found]) -> str:
    """Return how many claims have each verdict."""
    counts = Counter(row["verdict"] for row in claims)
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), reverse=True))


def markdown(found: Found) -> str:
    """The claims as a table, for a README."""
    lines = ["| item | claim | paper | measured | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in found["claims"]:
        unit = "" if row["unit"] == "points" else f" {row['unit']}"
        measured = f"{told(row)}{unit if 'mean' in row else ''}"
        lines.append(
            f"| {row['item']} | {row['says']} | {paper(row)} | {measured} | {row['verdict']} |"
        )
    return "\n".join(lines)
