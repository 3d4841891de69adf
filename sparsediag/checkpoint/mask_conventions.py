"""The ways in which other tools store a mask beside the weights, recognised by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsediag.core.mask import Mask

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
        fault: Why there is a mask that cannot be used, empty if there is none such.
    """

    weights: dict[str, Tensor]
    mask: Mask | None
    line: str
    doubts: list[str]
    fault: str = ""


class Claim(NamedTuple):
    """A tensor that may be the mask of a weight."""

    of: str  # name of the weight
    how: str
    at: str  # name of the mask
    mask: Tensor
    values: str  # name of the tensor that holds the weight
    sure: bool = False  # whether it can be nothing else


def read(state: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> Found:
    """Tell the mask from the weights.

    It is a fault, told and not raised, if a mask has another shape than its weight, holds other
    values than 0 and 1, names no weight, is contradicted by another, or is upside down.

    Args:
        state: Tensors by name, as `state_dict` gives them.
        masks: Masks in a dict of their own, by the name of the weight or of its layer; what stands
            before all names of the weights may be missing.

    >>> state = {"weight_orig": torch.tensor([3.0, 4.0]), "weight_mask": torch.tensor([1.0, 0.0])}
    >>> read(state).weights, dict(read(state).mask)
    ({'weight': tensor([3., 0.])}, {'weight': tensor([ True, False])})
    """
    kept: dict[str, tuple[str, Tensor]] = {}  # name of the weight -> convention, mask
    names, doubts, faults = {name: name for name in state}, [], []
    for claim in (*_named(state), *_beside(state), *_parametrised(state)):
        if not claim.sure and not _fits(claim.mask, state[claim.values]):
            doubts.append(f"'{claim.at}' is not of 0 and 1 in the shape of '{claim.of}'")
            continue
        faults += _keep(claim, state, kept)
        names[claim.values] = claim.of
        names.pop(claim.at)
    weights = {new: state[old] for old, new in names.items()}
    for name, of, m in _named_by(masks or {}, weights):
        if of is None:
            faults.append(f"the mask names '{name}', which is no weight in the file")
        else:
            faults += _keep(Claim(of, DICT, f"of {name}", m, of), weights, kept)
    if not kept and not faults:
        return Found(weights, None, _none(weights, doubts), doubts)
    if not faults:
        mask = Mask({n: kept[n][1] for n in weights if n in kept})
        how = " and ".join(dict.fromkeys(how for how, _ in kept.values()))
        faults = upside_down(how, weights, mask)
    if faults:
        return Found(weights, None, "none that can be used", doubts, faults[0])
    line = "; ".join([proof(how, weights, mask), *doubts])
    return Found(fold(weights, mask), mask, line, doubts)


def _keep(
    claim: Claim, state: Mapping[str, Tensor], kept: dict[str, tuple[str, Tensor]]
) -> list[str]:
    """Keep the mask of a claim, or say what is wrong with it."""
    came, need = tuple(claim.mask.shape), tuple(state[claim.values].shape)
    if came != need:
        return [f"the mask '{claim.at}' is {came}, '{claim.of}' is {need}; need one shape"]
    if not binary(claim.mask):
        return [f"the mask '{claim.at}' holds other values than 0 and 1; need those alone"]
    how, twin = kept.setdefault(claim.of, (claim.how, claim.mask.bool()))
    if claim.how == how == PARAMETRISED:  # one after the other
        kept[claim.of] = (how, twin & claim.mask.bool())
    elif not torch.equal(twin, claim.mask.bool()):
        return [f"'{claim.of}' has two masks that disagree: {how}, {claim.how}; keep one"]
    return []


def _named_by(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> list[tuple[str, str | None, Tensor]]:
    """Names of masks, of the weights that they are of, and the masks."""

    def under(before: str) -> list[str | None]:
        both = [(f"{before}{name}", f"{before}{name}.weight") for name in masks]
        return [next((of for of in two if of in weights), None) for two in both]

    ends = [end for name in masks for end in (f".{name}", f".{name}.weight")][:2]
    before = {n.removesuffix(end) + "." for n in weights for end in ends if n.endswith(end)}
    whole = [b for b in sorted(before) if None not in under(b)]
    alone = None in under("") and len(whole) == 1
    return list(zip(masks, under(whole[0] if alone else ""), masks.values(), strict=True))


def _named(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """X_mask, of X_orig or of X."""
    for name, m in state.items():
        of = name.removesuffix("_mask")
        if of != name and f"{of}_orig" in state:
            yield Claim(of, PRUNE, name, m, f"{of}_orig", sure=True)
        elif of != name and of in state:
            yield Claim(of, NAMED, name, m, of)


def _beside(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """`mask` beside a `weight`; attention has buffers of that name too."""
    for name, m in state.items():
        module, _, last = name.rpartition(".")
        of = f"{module}.weight".lstrip(".")
        if last == "mask" and of in state:
            yield Claim(of, BESIDE, name, m, of)


def _parametrised(state: Mapping[str, Tensor]) -> Iterator[Claim]:
    """`parametrizations.X.original`, where all other tensors of the parametrisation are masks."""
    stems: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, t in state.items():
        if match := re.fullmatch(r"(.*?)parametrizations\.(\w+)\.(.*)", name):
            stems.setdefault((match[1], match[2]), {})[name] = t
    for (module, weight), parts in stems.items():
        name = f"{module}parametrizations.{weight}.original"
        original = parts.pop(name, None)
        if original is not None and any(t.shape == original.shape for t in parts.values()):
            other = [n for n, t in parts.items() if not _fits(t, original)]
            for n in other[:1] or parts:
                yield Claim(f"{module}{weight}", PARAMETRISED, n, parts[n], name)


def fold(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the dead ones exactly 0, where the mask has their shape."""
    fits = {n: m for n, m in mask.items() if n in weights and weights[n].shape == m.shape}
    return {n: w.masked_fill(~fits[n], 0) if n in fits else w for n, w in weights.items()}


def told(how: str, mask: Mask) -> str:
    """Describe where a mask was found and how much of it is dead.

    >>> told("a dict of masks", Mask({"weight": torch.tensor([True, False])}))
    'a dict of masks of 1 tensor; 1 of 2 weights dead'
    """
    tensors, dead = f"{len(mask)} tensor{'s' * (len(mask) > 1)}", mask.size - mask.alive
    return f"{how} of {tensors}; {dead:,} of {mask.size:,} weights dead"


def proof(how: str, weights: Mapping[str, Tensor], mask: Mask) -> str:
    """Describe where a mask comes from, how much is dead, and whether it was 0 already."""
    dead = mask.size - mask.alive
    zero = sum(int((weights[n][~m] == 0).sum()) for n, m in mask.items())
    seen = "all of them exactly 0 in the file"
    if zero < dead:
        seen = f"in the file {zero:,} of them were 0, they are held at 0 here"
    return told(how, mask) + (f"; {seen}" if dead else "")


def upside_down(how: str, weights: Mapping[str, Tensor], mask: Mask) -> list[str]:
    """Return a message if the mask looks inverted: every live weight is 0, dead ones are not."""
    live = sum(int((weights[n][m] != 0).sum()) for n, m in mask.items())
    lost = sum(int((weights[n][~m] != 0).sum()) for n, m in mask.items())
    if live or not lost or not mask.alive:
        return []
    return [
        f"the mask ({how}) is upside down: every weight that it keeps is 0, "
        f"{lost:,} that it drops are not; need 1 for alive"
    ]


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
    """Return whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())
