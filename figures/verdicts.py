"""The verdict on every claim at a scale, as one small JSON file that travels.

A record holds what one scale found: the effects by seed of each claim, the verdicts of
`figures.rule` on them, and the machines and commands that measured them. `figures/measured/` has
the records of the slower scales; `python -m figures.merge` adds to them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import sparsediag
from figures import registry, store
from figures.claims import Claim
from figures.rule import OUTCOMES, Sample, judge
from figures.scales import SCALES, Scale
from sparsediag.core.atomic import atomic_write
from sparsediag.core.estimate import Estimate
from sparsediag.plotting.tables import EMPTY

MEASURED = Path(__file__).parent / "measured"
Record = dict[str, Any]
Key = tuple[str, str]  # an item, and what a claim of it says


class Finding(NamedTuple):
    """The verdict on a claim at the scale that says most about it."""

    key: Key
    claim: Claim
    scale: str
    row: Record


def claims() -> dict[Key, Claim]:
    """Return all claims by item and statement."""
    return {(name, c.says): c for name in registry.names() for c in registry.claims(name)}


def collect(scale: Scale, out: Path) -> Record:
    """Return every claim with its effects and its verdict, and the machine that measured it."""
    rows = []
    for name in registry.names():
        if of_item := registry.claims(name):
            results = _of_complete_seeds(name, scale, out)
            rows += [_row(name, claim, claim.effects(results), claim.room(results))
                     for claim in of_item]  # fmt: skip
    return judged({"scale": scale.name, "setting": setting(scale), "machines": [machine(scale)],
                   "claims": rows})  # fmt: skip


def _of_complete_seeds(name: str, scale: Scale, out: Path) -> dict[Any, Any]:
    """Return the results of an item for the seeds that lack none: their effects are final."""
    wanted = registry.measurements(name, scale)
    lacking = {label[-1] for label, m in wanted.items() if not store.exists(m, scale, out)}
    return {
        label: store.load(measurement, scale, out)
        for label, measurement in wanted.items()
        if label[-1] not in lacking
    }


def _row(name: str, claim: Claim, effects: dict[int, float], room: float) -> Record:
    row: Record = {"item": name, "says": claim.says, "unit": claim.unit}
    row["effects"] = {str(seed): float(f"{effect:.5g}") for seed, effect in effects.items()}
    if effects and math.isfinite(room):
        row["room"] = float(f"{room:.4g}")
    return row


def judged(record: Record) -> Record:
    """Return a record with mean, interval and verdict of each claim by the rule of today."""
    known, samples, rows = claims(), [], []
    current = [row for row in record["claims"] if (row["item"], row["says"]) in known]
    for row in current:
        claim = known[row["item"], row["says"]]
        sample = tuple(row["effects"].values())
        samples.append(Sample(sample, claim.bound, row.get("room", math.inf), claim.exact))
    for row, verdict in zip(current, judge(samples), strict=True):
        measured = {k: row[k] for k in ("item", "says", "unit", "effects", "room") if k in row}
        if effects := list(row["effects"].values()):
            estimate = Estimate.of(effects)
            measured["mean"] = round(estimate.mean, 4)
            if math.isfinite(estimate.half):
                measured["half"] = round(estimate.half, 4)
        rows.append(measured | {"verdict": verdict.outcome, "why": verdict.why})
    return record | {"claims": rows}


def setting(scale: Scale) -> str:
    """Return the trainings of a scale in words, and a digest of all that decides its results."""
    digest = hashlib.sha256(f"{scale!r} {sparsediag.__version__}".encode()).hexdigest()[:8]
    data = ", ".join(dict.fromkeys(scale.data.values())) or "the papers' data"
    return f"{data}; at most {scale.seeds} seeds; {digest}"


def machine(scale: Scale) -> Record:
    """Return hardware, versions and command."""
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
        "command": f"python -m figures --scale {scale.name.partition('-')[0]}",
    }


def save(record: Record, path: Path) -> None:
    """Write a record as JSON, one claim per line."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in record["claims"])
    head = json.dumps({k: v for k, v in record.items() if k != "claims"}, ensure_ascii=False)
    with atomic_write(path) as draft:
        draft.write_text(f'{head[:-1]}, "claims": [\n{rows}\n]}}\n')


def measured_records(folder: Path | None = None) -> list[Record]:
    """Return the stored records, the largest scale first."""
    records = [json.loads(file.read_text()) for file in sorted((folder or MEASURED).glob("*.json"))]
    return sorted(records, key=_size, reverse=True)


def _size(record: Record) -> int:
    """Return the place of a record's scale among all, from the smallest."""
    return list(SCALES).index(record["scale"].partition("-")[0])


def findings(records: Iterable[Record]) -> list[Finding]:
    """Return for each claim the verdict of the largest scale that decides it.

    If none does, it is that of the largest scale that trained it.
    """
    nothing = judged({"claims": [_row(key[0], c, c.effects({}), math.inf)
                                 for key, c in claims().items()]})  # fmt: skip
    rows: dict[Key, list[tuple[str, Record]]] = {}
    for record in [*sorted(records, key=_size, reverse=True), nothing | {"scale": ""}]:
        for row in record["claims"]:
            rows.setdefault((row["item"], row["says"]), []).append((record["scale"], row))
    best = []
    for key, claim in claims().items():
        scale, row = min(rows[key], key=lambda of: max(1, OUTCOMES.index(of[1]["verdict"])))
        best.append(Finding(key, claim, "" if claim.exact or not row["effects"] else scale, row))
    return best


def count(rows: Sequence[Record]) -> dict[str, int]:
    """Return the number of claims by verdict."""
    counts = Counter(row["verdict"] for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def measured_margin(row: Record) -> str:
    """Return the measured effect of a claim with its interval."""
    if "mean" not in row:
        return EMPTY
    half = f" ± {_short(row['half'])}" if "half" in row else ""
    return f"{_short(row['mean'], '+')}{half}"


def paper_margin(claim: Claim) -> str:
    """Return the effect that the paper gives."""
    return EMPTY if claim.paper is None else _short(claim.paper, "+")


def _short(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2f}" if abs(value) < 100 else f"{value:{sign}.3g}"
