"""Judge claims on made results, whose seeds differ alike for all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from figures.claims import Claim
from figures.rule import Sample, Verdict, judge


def verdict(claim: Claim, results: Any) -> Verdict:
    """Return the verdict on a claim alone, with a small spread between the seeds."""
    effects = [effect + 1e-4 * seed for seed, effect in claim.effects(results).items()]
    room = claim.room(results) if effects else 0.0
    return judge([Sample(tuple(effects), claim.bound, room, claim.exact)])[0]


def outcomes(claims: Sequence[Claim], results: Any) -> list[str]:
    """Return the outcome of each claim alone."""
    return [verdict(claim, results).outcome for claim in claims]
