"""Recognise the ways in which other tools store a mask beside the weights of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask

PRUNE = "weight_orig and weight_mask (torch.nn.utils.prune)"
PARAMETRISED = "a binary tensor in a parametrisation (torch.nn.utils.parametrize)"
SUFFIXED = "weight_mask beside weight"  # SynFlow's code and many others
BESIDE = "mask beside weight"  # layers that mask themselves
DICT = "a dict of masks"  # by weight or by layer, as OpenLTH has it
SUSPICIOUS = 0.2  # share of zeros in the matrices from which a mask may have been forgotten


@dataclass(frozen=True, eq=False)
class MaskedWeights:
    """Plain weights, and the mask that was stored with them.

    Attributes:
        weights: By the names of a network without masks; dead weights are exactly 0.
        mask: The live weights; None without a valid mask.
        summary: Convention of the mask, number of dead weights, and whether they were 0.
        ignored: Messages about tensors that are named like a mask and are none.
        fault: Why a mask is invalid; empty if it is valid or if there is none.
    """

    weights: dict[str, Tensor]
    mask: Mask | None
    summary: str
    ignored: list[str]
    fault: str = ""


class Candidate(NamedTuple):
    """A tensor that may be the mask of a weight."""

    weight: str  # its name in a network without masks
    convention: str
    mask: str  # name of the mask
    stored: str  # name of the tensor that holds the values of the weight
    certain: bool = False  # whether the names leave no other meaning


def read(state: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> MaskedWeights:
    """Separate the masks in a state dict from its weights.

    A mask is invalid (`fault`, no exception) if its shape is not that of its weight, if it has
    other values than 0 and 1, names no weight, contradicts another mask, or is inverted.

    Args:
        state: Tensors by name, as `state_dict` returns them.
        masks: Masks from a dict of their own, by the name of the weight or of its layer.

    >>> state = {"weight_orig": torch.tensor([3.0, 4.0]), "weight_mask": torch.tensor([1.0, 0.0])}
    >>> read(state).weights, dict(read(state).mask)
    ({'weight': tensor([3., 0.])}, {'weight': tensor([ True, False])})
    """
    accepted, ignored = [], []
    for candidate in _candidates(state):
        values, weight = state[candidate.mask], state[candidate.stored]
        fits = values.shape == weight.shape and values.dim() > 0 and is_binary(values)
        if candidate.certain or fits:
            accepted.append(candidate)
        else:
            ignored.append(
                f"'{candidate.mask}' is not of 0 and 1 in the shape of '{candidate.weight}'"
            )
    names = {name: name for name in state} | {c.stored: c.weight for c in accepted}
    for candidate in accepted:
        del names[candidate.mask]
    weights = {plain: state[name] for name, plain in names.items()}
    try:
        beside = [(c.mask, c.weight, c.convention, state[c.mask]) for c in accepted]
        convention, mask = _combine(weights, [*beside, *_of_dict(masks or {}, weights)])
    except CheckpointError as error:
        return MaskedWeights(weights, None, "none that can be used", ignored, str(error))
    if mask is None:
        return MaskedWeights(weights, None, "; ".join(_without(weights, ignored)), ignored)
    summary = "; ".join([describe(convention, mask, weights), *ignored])
    return MaskedWeights(zero_dead(weights, mask), mask, summary, ignored)


def _candidates(state: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """Find the tensors that are named like a mask."""
    for name in state:
        module, _, last = name.rpartition(".")
        beside, suffixed = f"{module}.weight".lstrip("."), name.removesuffix("_mask")
        hooked = re.fullmatch(r"(.*parametrizations\.(\w+)\.)\d+\.mask", name)
        if hooked and f"{hooked[1]}original" in state:
            weight = re.sub(r"parametrizations\.(\w+)\.$", r"\1", hooked[1])
            yield Candidate(weight, PARAMETRISED, name, f"{hooked[1]}original")
        elif last == "mask" and beside in state:
            yield Candidate(beside, BESIDE, name, beside)
        elif suffixed != name and f"{suffixed}_orig" in state:
            yield Candidate(suffixed, PRUNE, name, f"{suffixed}_orig", certain=True)
        elif suffixed != name and suffixed in state:
            yield Candidate(suffixed, SUFFIXED, name, suffixed)


def _of_dict(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, str, Tensor]]:
    """Name, weight, convention and values of each mask in a dict."""
    for name, mask in masks.items():
        weight = next((w for w in (name, f"{name}.weight") if w in weights), None)
        if weight is None:
            raise CheckpointError(f"the mask names '{name}', which is no weight in the file")
        yield f"of {name}", weight, DICT, mask


def _combine(
    weights: Mapping[str, Tensor], masks: Iterable[tuple[str, str, str, Tensor]]
) -> tuple[str, Mask | None]:
    """Check the masks; return their convention and one Mask, None if there are none."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, weight, convention, values in masks:
        shape, needed = tuple(values.shape), tuple(weights[weight].shape)
        if shape != needed:
            raise CheckpointError(
                f"the mask '{name}' is {shape}, '{weight}' is {needed}; need the same shape"
            )
        if not is_binary(values):
            raise CheckpointError(f"the mask '{name}' holds other values than 0 and 1")
        first, other = found.setdefault(weight, (convention, values.bool()))
        if not torch.equal(other, values.bool()):
            raise CheckpointError(
                f"'{weight}' has two masks that disagree: {first}, {convention}; keep one"
            )
    if not found:
        return "", None
    mask = Mask({name: found[name][1] for name in weights if name in found})
    convention = " and ".join(dict.fromkeys(convention for convention, _ in found.values()))
    check_not_inverted(convention, weights, mask)
    return convention, mask


def zero_dead(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the dead ones exactly 0, where the mask has their shape."""
    fits = {n: m for n, m in mask.items() if n in weights and weights[n].shape == m.shape}
    return {n: w.masked_fill(~fits[n], 0) if n in fits else w for n, w in weights.items()}


def describe(convention: str, mask: Mask, weights: Mapping[str, Tensor] | None = None) -> str:
    """Say where a mask was found, how many weights are dead, and how many of these were 0 before.

    >>> describe("a dict of masks", Mask({"weight": torch.tensor([True, False])}))
    'a dict of masks of 1 tensor; 1 of 2 weights dead'
    """
    tensors, dead = f"{len(mask)} tensor{'s' * (len(mask) > 1)}", mask.size - mask.alive
    summary = f"{convention} of {tensors}; {dead:,} of {mask.size:,} weights dead"
    if weights is None or not dead:
        return summary
    zeros = sum(int((weights[n][~m] == 0).sum()) for n, m in mask.items())
    if zeros == dead:
        return f"{summary}; all of them exactly 0 in the file"
    return f"{summary}; in the file {zeros:,} of them were 0, they are held at 0 here"


def check_not_inverted(convention: str, weights: Mapping[str, Tensor], mask: Mask) -> None:
    """Raise CheckpointError if every live weight is 0 and the dead ones are not."""
    live = sum(int((weights[n][m] != 0).sum()) for n, m in mask.items())
    lost = sum(int((weights[n][~m] != 0).sum()) for n, m in mask.items())
    if lost and not live and mask.alive:
        raise CheckpointError(
            f"the mask ({convention}) is upside down: every weight that it keeps is 0, "
            f"{lost:,} that it drops are not; need 1 for alive"
        )


def zeros(weights: Mapping[str, Tensor]) -> Mask | None:
    """Return the exact zeros of matrices as a mask: a weight that is 0 by chance counts as dead."""
    matrices = {n: w for n, w in weights.items() if w.dim() > 1 and w.is_floating_point()}
    masks = {
        n: w != 0 for n, w in matrices.items() if (w == 0).any() and not (is_binary(w) and w.any())
    }
    return Mask(masks) if masks else None


def _without(weights: Mapping[str, Tensor], ignored: list[str]) -> list[str]:
    """Say that there is no mask, and if many weights are 0, that one may have been forgotten."""
    size = sum(w.numel() for w in weights.values() if w.dim() > 1 and w.is_floating_point())
    mask = zeros(weights)
    dead = mask.size - mask.alive if mask else 0
    hint = f"{dead / max(size, 1):.0%} of the weights are exactly 0: --mask zeros"
    return ["none", *ignored, *([hint] if dead > SUSPICIOUS * size else [])]


def is_binary(values: Tensor) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())
