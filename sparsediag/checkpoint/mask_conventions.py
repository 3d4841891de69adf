"""Recognise the ways in which other tools store a mask beside the weights of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsediag.checkpoint.wrapper_names import rename
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask
from sparsediag.core.short_repr import short_repr

PRUNE = "weight_orig and weight_mask (torch.nn.utils.prune)"
PARAMETRISED = "a binary tensor in a parametrisation (torch.nn.utils.parametrize)"
SUFFIXED = "weight_mask beside weight"  # SynFlow's code and many others
BESIDE = "mask beside weight"  # layers that mask themselves
OPENLTH = "mask_... with ___ for dots (OpenLTH)"
DICT = "a dict of masks"  # by weight or by layer, as OpenLTH has it
LIST = "a list of masks (in the order of the weights)"  # as RigL and SNIP have it
SCORES = re.compile(r"(.*_)?scores?")  # movement pruning, edge-popup
FROM_SCORES = "the training's code makes its mask from them; save that mask too"
SUSPICIOUS = 0.2  # share of zeros in the matrices from which a mask may have been forgotten

Masks = dict[str, Tensor] | list[Tensor | None]  # by weight or layer, or in the order of weights
Found = tuple[str, str, str, Tensor]  # name, weight, convention and values of a mask


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

    __repr__ = short_repr


class Candidate(NamedTuple):
    """A tensor that may be the mask of a weight."""

    weight: str  # its name in a network without masks
    convention: str
    mask: str  # name of the mask
    stored: str  # name of the tensor that holds the values of the weight
    certain: bool = False  # whether the names leave no other meaning


def read(state: Mapping[str, Tensor], masks: Iterable[Masks] = ()) -> MaskedWeights:
    """Separate the masks in a state dict from its weights.

    A mask is invalid (`fault`, no exception) if its shape is not that of its weight, if it has
    other values than 0 and 1, names no weight, contradicts another mask, or is inverted.

    Args:
        state: Tensors by name, as `state_dict` returns them.
        masks: Masks from dicts or lists of their own.

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
    if scores := [name for name in state if is_score(name, state)]:
        ignored.append(f"'{scores[0]}'{and_more(scores)} holds scores, not a mask; {FROM_SCORES}")
    names = {name: name for name in state} | {c.stored: c.weight for c in accepted}
    for candidate in accepted:
        del names[candidate.mask]
    weights = {plain: state[name] for name, plain in names.items()}
    try:
        beside = [(c.mask, c.weight, c.convention, state[c.mask]) for c in accepted]
        others = [match for masks_ in masks for match in _named(masks_, weights)]
        convention, mask = _combine(weights, [*beside, *others])
    except CheckpointError as error:
        return MaskedWeights(weights, None, "none that can be used", ignored, str(error))
    if mask is None:
        return MaskedWeights(weights, None, "; ".join(_without(weights, ignored)), ignored)
    summary = "; ".join([describe(convention, mask, weights), *ignored])
    return MaskedWeights(zero_dead(weights, mask), mask, summary, ignored)


def read_masks(
    masks: Iterable[Masks], weights: Mapping[str, Tensor] | None = None
) -> MaskedWeights:
    """Return the mask in a file that holds no weights, by the names of `weights` if they are given.

    >>> read_masks([[torch.ones(2, 3)]], {"fc.weight": torch.ones(2, 3)}).mask
    Mask(6 of 6 weights alive, 1 tensors)
    """
    fault, mask = "", None
    by_name = {
        n.removesuffix("_mask"): t for m in masks if isinstance(m, dict) for n, t in m.items()
    }
    lists = [m for m in masks if isinstance(m, list)]
    try:
        if weights is not None:
            _, mask = _combine(weights, [f for m in masks for f in _named(m, weights)])
        elif lists:
            fault = (
                f"a list of {len(lists[0])} masks names no weights; give it as --mask with its "
                "network, or save a dict of name -> tensor"
            )
        elif by_name:
            _, mask = _combine(by_name, _named(by_name, by_name))
    except CheckpointError as error:
        fault = str(error)
    return MaskedWeights({}, mask, "none" if mask is None else DICT, [], fault)


def _candidates(state: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """Find the tensors that are named like a mask."""
    for name in state:
        module, _, last = name.rpartition(".")
        beside, suffixed = f"{module}.weight".lstrip("."), name.removesuffix("_mask")
        inner = f"model.{name.removeprefix('mask_').replace('___', '.')}"
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
        elif name.startswith("mask_") and inner in state:
            yield Candidate(inner, OPENLTH, name, inner)


def _named(masks: Masks, weights: Mapping[str, Tensor]) -> Iterator[Found]:
    """Find the weight of each mask in a dict or a list."""
    if isinstance(masks, list):
        for name, mask in zip(_in_order(masks, weights), masks, strict=True):
            if mask is not None and name:
                yield f"of {name}", name, LIST, mask
        return
    for name, mask in rename(masks, weights).items():
        stem = re.sub(r"[._]?masks?$", "", name)
        names = (name, f"{name}.weight", stem, f"{stem}.weight")
        weight = next((n for n in names if n in weights), None)
        if weight is None:  # one of the two has a prefix
            fits = [w for w in weights if f".{w}".endswith(tuple(f".{n}" for n in names if n))]
            fits += [w for w in weights if any(n.endswith(f".{w}") for n in names)]
            if len(fits) != 1:
                raise CheckpointError(f"the mask names '{name}', which is no weight in the file")
            (weight,) = fits
        yield f"of {name}", weight, DICT, mask


def _in_order(masks: list[Tensor | None], weights: Mapping[str, Tensor]) -> list[str]:
    """Return the weight of each mask in a list, "" for None.

    The list has an entry for each matrix, for each `weight`, or for each parameter; or its shapes
    fit the matrices in their order in one way only.
    """
    floats = {n: tuple(w.shape) for n, w in weights.items() if w.is_floating_point()}
    floats = {n: s for n, s in floats.items() if s and not n.endswith(("_mean", "_var"))}
    matrices = [n for n, shape in floats.items() if len(shape) > 1]
    for names in (matrices, [n for n in floats if n.endswith("weight")], [*floats]):
        pairs = zip(names, masks, strict=False)
        if len(names) == len(masks) and all(m is None or floats[n] == m.shape for n, m in pairs):
            return names
    shapes = [tuple(m.shape) for m in masks if m is not None]
    first = _embed(shapes, [(n, floats[n]) for n in matrices])
    last = _embed(shapes[::-1], [(n, floats[n]) for n in reversed(matrices)])[::-1]
    if first != last or len(first) < len(shapes):
        ways = "no" if len(first) < len(shapes) else "more than one"
        raise CheckpointError(
            f"a list of {len(masks)} masks fits the {len(matrices)} matrices in {ways} way; need "
            "an entry for each, None for what is not pruned, or a dict of name -> tensor"
        )
    names_left = iter(first)
    return ["" if m is None else next(names_left) for m in masks]


def _embed(shapes: list[tuple[int, ...]], named: list[tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return the first weight that fits each shape, in this order."""
    rest, names = iter(named), []
    for shape in shapes:
        names += [next((n for n, s in rest if s == shape), "")]
    return [n for n in names if n]


def _combine(weights: Mapping[str, Tensor], masks: Iterable[Found]) -> tuple[str, Mask | None]:
    """Check the masks; return their convention and one Mask, None if there are none."""
    by_weight: dict[str, tuple[str, Tensor]] = {}
    for name, weight, convention, values in masks:
        shape, needed = tuple(values.shape), tuple(weights[weight].shape)
        if shape != needed:
            raise CheckpointError(
                f"the mask '{name}' is {shape}, '{weight}' is {needed}; need the same shape"
            )
        if not is_binary(values):
            raise CheckpointError(
                f"the mask '{name}' holds other values than 0 and 1; if they are scores, "
                f"{FROM_SCORES}"
            )
        first, other = by_weight.setdefault(weight, (convention, values.bool()))
        if not torch.equal(other, values.bool()):
            raise CheckpointError(
                f"'{weight}' has two masks that disagree: {first}, {convention}; keep one"
            )
    if not by_weight:
        return "", None
    mask = Mask({name: by_weight[name][1] for name in weights if name in by_weight})
    convention = " and ".join(dict.fromkeys(convention for convention, _ in by_weight.values()))
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
    lost = _count_dead_nonzero(weights, mask)
    if not lost:
        return f"{summary}; all of them exactly 0 in the file"
    return f"{summary}; in the file {dead - lost:,} of them were 0, they are held at 0 here"


def check_not_inverted(convention: str, weights: Mapping[str, Tensor], mask: Mask) -> None:
    """Raise CheckpointError if every live weight is 0 and the dead ones are not."""
    lost = _count_dead_nonzero(weights, mask)
    if lost and mask.alive and lost == sum(int(weights[n].count_nonzero()) for n in mask):
        raise CheckpointError(
            f"the mask ({convention}) is upside down: every weight that it keeps is 0, "
            f"{lost:,} that it drops are not; need 1 for alive"
        )


def _count_dead_nonzero(weights: Mapping[str, Tensor], mask: Mask) -> int:
    """Return how many dead weights are not 0; filling is much faster than selecting."""
    return sum(int(weights[n].masked_fill(m, 0).count_nonzero()) for n, m in mask.items())


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


def is_score(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor holds the scores of a weight, from which a method makes its mask.

    >>> is_score("fc.scores", dict.fromkeys(("fc.weight", "fc.scores"), torch.ones(2)))
    True
    """
    module, _, last = name.rpartition(".")
    weight = tensors.get(f"{module}.weight".lstrip("."), tensors.get(f"{module[:-2]}.original"))
    if weight is None or not SCORES.fullmatch(last):
        return False
    return "mask" in last or weight.shape == tensors[name].shape


def and_more(names: list[str]) -> str:
    """Return how many names follow the first."""
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def is_binary(values: Tensor) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())
