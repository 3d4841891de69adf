"""Compare the verdicts of two halves of the seeds: `python -m figures.stability`.

The rule of `figures.rule` judges seeds 0 to 2 and seeds 3 to 5 of each stored record apart. The two
contradict each other where one reproduces a claim and the other does not. They agree if their
verdicts are the same, or if one is undecided and its mean is on the other's side of the bound.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass

from figures import verdicts
from figures.verdicts import Record

HALVES = (range(3), range(3, 6))
AGREEMENT = 0.95  # least share of the claims with a verdict on which two sets of seeds agree


@dataclass(frozen=True)
class Stability:
    """The verdicts of two sets of seeds, on the claims that at least one of them decides.

    Attributes:
        same: Number of claims with the same verdict.
        leaning: One set is undecided, with its mean on the side of the other's verdict.
        away: One set is undecided, with its mean on the other side.
        contradictions: Statements that one set reproduces and the other does not.
    """

    same: int
    leaning: int
    away: int
    contradictions: tuple[str, ...]

    @property
    def is_stable(self) -> bool:
        """Return whether nothing is contradicted, and enough is agreed on."""
        decided = self.same + self.leaning + self.away
        agreed = self.same + self.leaning >= AGREEMENT * decided
        return not self.contradictions and agreed

    def __str__(self) -> str:
        return (
            f"{self.same} verdicts the same, {self.leaning} undecided in one half and on the same "
            f"side, {self.away} on the other side, {len(self.contradictions)} contradicted"
        )


def compare(record: Record, halves: tuple[Collection[int], Collection[int]] = HALVES) -> Stability:
    """Return how two disjoint sets of seeds judge the claims of a record."""
    bounds = {key: claim.bound for key, claim in verdicts.claims().items() if not claim.exact}
    first, second = (verdicts.judged(_only(record, seeds))["claims"] for seeds in halves)
    same, leaning, away, contradictions = 0, 0, 0, []
    for one, other in zip(first, second, strict=True):
        key = (one["item"], one["says"])
        outcomes = {one["verdict"], other["verdict"]}
        if key not in bounds or not outcomes & {"reproduced", "not reproduced"}:
            continue
        if len(outcomes) == 1:
            same += 1
        elif "undecided" not in outcomes and "not run" not in outcomes:
            contradictions.append(one["says"])
        elif "mean" in one and "mean" in other:
            sides = {row["mean"] > bounds[key] for row in (one, other)}
            leaning, away = leaning + (len(sides) == 1), away + (len(sides) == 2)
    return Stability(same, leaning, away, tuple(contradictions))


def _only(record: Record, seeds: Collection[int]) -> Record:
    """Return a record with the effects of some seeds."""
    rows = [
        row | {"effects": {s: e for s, e in row["effects"].items() if int(s) in seeds}}
        for row in record["claims"]
    ]
    return record | {"claims": rows}


def main() -> int:
    """Compare the halves of each stored record; return 1 if one is not stable."""
    records = [r for r in verdicts.measured_records() if _has_seeds(r)]
    if not records:
        print(f"{verdicts.MEASURED}: no record with six seeds yet")
    stabilities = {record["scale"]: compare(record) for record in records}
    for scale, stability in stabilities.items():
        print(f"{scale}: {stability}")
        for says in stability.contradictions:
            print(f"  contradicted: {says}")
    return int(not all(stability.is_stable for stability in stabilities.values()))


def _has_seeds(record: Record) -> bool:
    seeds = {int(seed) for row in record["claims"] for seed in row["effects"]}
    return all(set(half) <= seeds for half in HALVES)


if __name__ == "__main__":
    sys.exit(main())
