"""Conventions: the ways in which others keep a mask beside their weights, told apart by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsediag.mask import Mask

PRUNE = "weight_orig and weight_mask (torch.nn.utils.prune)"
PARAMETRISED = "a binary tensor in a parametrisation (torch.nn.utils.parametrize)"
NAMED = "weight_mask beside weight"
BESIDE = "mask beside weight"
DICT = "a dict of masks"
SUSPECT = 0.2  # share of zeros in the matrices from which a mask may have been forgotten


@dataclass(frozen=True, eq=False)
class Found:
    """Plain weights, and the mask that was kept beside them.

    Attributes:
        weights: By the names of a net without a mask; the dead ones are exactly 0.
        mask: What is alive, None where no mask was found.
        line: Which convention it is, and what the weights say to it.
        doubts: What looks like a mask and is none.
    """

    weights: dict[str, Tensor]
    mask: Mask | None
    line: str
    doubts: list[str]


class Claim(NamedTuple):
    """A tensor that may be the mask of a weight."""

    of: str  # name of the weight
    how: str
    at: str  # name of the mask
    mask: Tensor
    values: str  # name of the tensor that holds the weight
    sure: bool = True  # whether it can be nothing else


def read(state: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> Found:
    """Tell the mask from the weights.

    Args:
        state: Tensors by name, as `state_dict` gives them.
        masks: Masks in a dict of their own, by the name of the weight or of its layer.

    Raises:
        ValueError: If a mask has another shape than its weight, holds other values than 0 and 1,
            names no weight, is contradicted by another, or is upside down.

    >>> state = {"weight_orig": torch.tensor([3.0, 4.0]), "weight_mask": torch.tensor([1.0, 0.0])}
    >>> read(state).weights, dict(read(state).mask)
    ({'weight': tensor([3., 0.])}, {'weight': tensor([ True, False])})
    """
    kept: dict[str, tuple[str, Tensor]] = {}  # name of the weight -> convention, mask
    names, doubts = {name: name for name in state}, []
    for claim in (*_named(state), *_beside(state), *_parametrised(state)):
        if not claim.sure and not _fits(claim.mask, state[claim.values]):
            doubts.append(f"'{claim.at}' is not of 0 and 1 in the shape of '{claim.of}'")
            continue
        _keep(claim, state, kept)
        names[claim.values] = claim.of
        names.pop(claim.at)
    weights = {new: state[old] for old, new in names.items()}
    for name, m in (masks or {}).items():
        of = name if name in weights else f"{name}.weight"
        if of not in weights:
            raise ValueError(f"the mask names '{name}', which is no weight in the file")
        _keep(Claim(of, DICT, f"of {name}", m, of), weights, kept)
    if not kept:
        return Found(weights, None, _none(weights, doubts), doubts)
    mask = Mask({n: kept[n][1] for n in weights if n in kept})
    hows = dict.fromkeys(how for how, _ in kept.values())
    line = "; ".join([proof(" and ".join(hows), weights, mask), *doubts])
    return Found(fold(weights, mask), mask, line, doubts)


def _keep(claim: Claim, state: Mapping[str, Tensor], kept: dict[str, tuple[str, Tensor]]) -> None:
    came, need = tuple(claim.mask.shape), tuple(state[claim.values].shape)
    if came != need:
        raise ValueError(f"the mask '{claim.at}' is {came}, '{claim.of}' is {need}; need one shape")
    if not binary(claim.mask):
        raise ValueError(f"the mask '{claim.at}' holds other values than 0 and 1; need those alone")
    how, twin = kept.setdefault(claim.of, (claim.how, claim.mask.bool()))
    if claim.how == how == PARAMETRISED:  # one after the other
        kept[claim.of] = (how, twin & claim.mask.bool())
    elif not torch.equal(twin, claim.mask.bool()):
        raise ValueError(f"'{claim.of}' has two masks that disagree: {how}, {claim.how}; keep one")


def _named(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """X_mask, of X_orig or of X."""
    for name, m in state.items():
        of = name.removesuffix("_mask")
        if of != name and f"{of}_orig" in state:
            yield Claim(of, PRUNE, name, m, f"{of}_orig")
        elif of != name and of in state:
            yield Claim(of, NAMED, name, m, of)


def _beside(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """`mask` beside a `weight`; attention has buffers of that name too."""
    for name, m in state.items():
        module, _, last = name.rpartition(".")
        of = f"{module}.weight".lstrip(".")
        if last == "mask" and of in state:
            yield Claim(of, BESIDE, name, m, of, sure=False)


def _parametrised(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """`parametrizations.X.original`, where all other tensors of the parametrisation are masks."""
    for name, original in state.items():
        if match := re.fullmatch(r"(.*?)parametrizations\.(\w+)\.original", name):
            stem = name.removesuffix("original")
            parts = {n: t for n, t in state.items() if n.startswith(stem) and n != name}
            other = [n for n, t in parts.items() if not _fits(t, original)]
            if any(t.shape == original.shape for t in parts.values()):
                for n in other[:1] or parts:
                    yield Claim(
                        "".join(match.groups()), PARAMETRISED, n, parts[n], name, sure=False
                    )


def fold(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the dead ones exactly 0."""
    return {n: w.masked_fill(~mask[n], 0) if n in mask else w for n, w in weights.items()}


def proof(how: str, weights: Mapping[str, Tensor], mask: Mask) -> str:
    """One line: where the mask comes from, how much is dead, and whether it was 0 already.

    Raises:
        ValueError: If every live weight is 0 and dead ones are not: 0 and 1 are exchanged.
    """
    dead = mask.size - mask.alive
    zero = sum(int((weights[n][~m] == 0).sum()) for n, m in mask.items())
    live = sum(int((weights[n][m] != 0).sum()) for n, m in mask.items())
    if mask.alive and not live and zero < dead:
        raise ValueError(
            f"the mask ({how}) is upside down: every weight that it keeps is 0, "
            f"{dead - zero:,} that it drops are not; need 1 for alive"
        )
    seen = "all of them exactly 0 in the file"
    if zero < dead:
        seen = f"in the file {zero:,} of them were 0, they are held at 0 here"
    tensors = f"{len(mask)} tensor{'s' * (len(mask) > 1)}"
    return f"{how} of {tensors}; {dead:,} of {mask.size:,} weights dead" + (
        f"; {seen}" if dead else ""
    )


def zeros(weights: Mapping[str, Tensor]) -> Mask | None:
    """The exact zeros of matrices as a mask: a weight that only happens to be 0 counts as dead."""
    matrices = {n: w for n, w in weights.items() if w.dim() > 1 and w.is_floating_point()}
    holed = {
        n: w != 0 for n, w in matrices.items() if (w == 0).any() and not (binary(w) and w.any())
    }
    return Mask(holed) if holed else None


def _none(weights: Mapping[str, Tensor], doubts: list[str]) -> str:
    sizes = [w.numel() for w in weights.values() if w.dim() > 1 and w.is_floating_point()]
    holes = zeros(weights)
    dead = holes.size - holes.alive if holes else 0
    parts = ["none", *doubts]
    if dead > SUSPECT * sum(sizes):
        parts.append(f"{dead / sum(sizes):.0%} of the weights are exactly 0: --mask zeros")
    return "; ".join(parts)


def _fits(mask: Tensor, weight: Tensor) -> bool:
    return mask.shape == weight.shape and mask.dim() > 0 and binary(mask)


def binary(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())
