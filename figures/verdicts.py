"""The verdict on every claim at a scale, as one small JSON file."""

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
from figures import registry
from figures.claims import Claim
from figures.scales import Scale
from sparsediag.core.atomic import atomic_write
from sparsediag.plotting.tables import EMPTY

MEASURED = Path(__file__).parent / "measured"  # verdicts of slower scales or other machines
Record = dict[str, Any]


def judge_all(scale: Scale, out: Path) -> Record:
    """Return every claim with its verdict, and the machine that measured it."""
    claims = []
    for name in registry.names():
        if of_item := registry.claims(name):
            results = registry.results(name, scale, out)
            claims += [_record(name, claim, results) for claim in of_item]
    return {"scale": scale.name, **machine(), "claims": claims}


def _record(name: str, claim: Claim, results: Mapping[Any, Any]) -> Record:
    verdict = claim.judge(results)
    record: Record = {
        "item": name,
        "says": claim.says,
        "quote": claim.quote,
        "source": claim.source,
        "unit": claim.unit,
        "paper": claim.paper,
        "verdict": verdict.outcome,
        "why": verdict.why,
    }
    if margin := verdict.measured:
        half = round(margin.half, 4) if math.isfinite(margin.half) else None
        record |= {"mean": round(margin.mean, 4), "half": half, "count": margin.count}
    return record


def machine() -> Record:
    """Return hardware and versions."""
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


def save(record: Record, path: Path) -> None:
    """Write all verdicts as JSON, one claim per line."""
    claims = ",\n".join(json.dumps(row, ensure_ascii=False) for row in record["claims"])
    head = json.dumps({k: v for k, v in record.items() if k != "claims"}, ensure_ascii=False)
    with atomic_write(path) as draft:
        draft.write_text(f'{head[:-1]}, "claims": [\n{claims}\n]}}\n')


def of_other_scales(scale: Scale) -> list[Record]:
    """Return the stored verdicts of all scales but this one."""
    records = [json.loads(file.read_text()) for file in sorted(MEASURED.glob("*.json"))]
    return [record for record in records if record["scale"] != scale.name]


def count(claims: Sequence[Record]) -> str:
    """Return the number of claims with each verdict."""
    counts = Counter(row["verdict"] for row in claims)
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items(), reverse=True))


def measured_margin(row: Record) -> str:
    """Return the measured margin of a claim with its interval."""
    if "mean" not in row:
        return EMPTY
    half = "" if row["half"] is None else f" ± {_short(row['half'])}"
    return f"{_short(row['mean'], '+')}{half}"


def paper_margin(row: Record) -> str:
    """Return the margin that the paper gives."""
    return EMPTY if row["paper"] is None else _short(row["paper"], "+")


def difference(row: Record) -> str:
    """Return the measured margin minus the paper's."""
    if "mean" not in row or row["paper"] is None:
        return EMPTY
    return _short(row["mean"] - row["paper"], "+")


def _short(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2f}" if abs(value) < 100 else f"{value:{sign}.3g}"
