"""Add what a machine measured to `figures/measured/`: `python -m figures.merge FILE...`.

A FILE is the `out/figures/claims.json` of a run of all items. Runs of one scale are united: a later
one adds the seeds and the claims that an earlier one lacks, and changes nothing else.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from figures import verdicts
from figures.verdicts import Record


def merge(first: Record, second: Record) -> Record:
    """Return a record with the seeds of both; where both have a seed, that of the first.

    Raises:
        ValueError: If they are of different scales, or their trainings differ.
    """
    for key in ("scale", "setting"):
        if first[key] != second[key]:
            raise ValueError(f"{key} '{second[key]}' is not that of the other: '{first[key]}'")
    others = {(row["item"], row["says"]): row for row in second["claims"]}
    rows = []
    for row in first["claims"]:
        other = others.get((row["item"], row["says"]), {"effects": {}})
        effects = other["effects"] | row["effects"]
        room = min(row.get("room", math.inf), other.get("room", math.inf))
        united = row | {"effects": dict(sorted(effects.items(), key=lambda pair: int(pair[0])))}
        rows.append(united | ({"room": room} if math.isfinite(room) else {}))
    machines = [*first["machines"], *(m for m in second["machines"] if m not in first["machines"])]
    return verdicts.judged(first | {"machines": machines, "claims": rows})


def main(argv: Sequence[str] | None = None) -> int:
    """Merge files into the stored records; return 2 if one does not fit."""
    files = sys.argv[1:] if argv is None else argv
    if not files:
        print("python -m figures.merge FILE...: need at least one claims.json", file=sys.stderr)
        return 2
    for file in map(Path, files):
        try:
            record: Record = json.loads(file.read_text())
            stored = verdicts.MEASURED / f"{record['scale']}.json"
            if stored.exists():
                record = merge(json.loads(stored.read_text()), record)
            verdicts.save(verdicts.judged(record), stored)
        except (OSError, ValueError, KeyError) as error:
            print(f"{file}: cannot be merged: {error}", file=sys.stderr)
            return 2
        print(f"{stored}: {len(record['machines'])} machines, {_seeds(record)} seeds")
    return 0


def _seeds(record: Record) -> int:
    return max(len(row["effects"]) for row in record["claims"])


if __name__ == "__main__":
    sys.exit(main())
