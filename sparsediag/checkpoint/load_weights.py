"""Load the weights of a file into the network that they belong to, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsediag.checkpoint import mask_conventions, mask_file
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask

COUNTER = "num_batches_tracked"  # of batch norms: files may leave it out
SHORT = (torch.float16, torch.bfloat16)
OF_OTHERS = {"attn.bias": 4, "attn.masked_bias": 0, "rotary_emb.inv_freq": 1}  # buffers, dimensions


def prefix(net: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return the prefix of the network's names in a file, such as `model.`, or nothing.

    Raises:
        CheckpointError: If several copies of the net are in the file.

    >>> prefix(nn.Linear(2, 1), {"model.weight": 1, "model.bias": 2, "loss.factor": 3})
    'model.'
    """
    own = net.state_dict().keys()
    found = Counter({"": sum(name in own for name in weights)})
    for name in weights:
        dots = [i + 1 for i, c in enumerate(name) if c == "."]
        found.update(name[:i] for i in dots if name[i:] in own)
    (best, most), *others = found.most_common()
    if best and others[0][1] == most:
        raise CheckpointError(
            f"the net is in the file twice, under '{best}' and '{others[0][0]}'; save one of them"
        )
    return best


def fill(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask | None,
    *,
    asked: str | Path | None = None,
    line: str = "",
    name: str,
) -> tuple[Mask | None, list[str]]:
    """Put copies of a file's weights into `net`, in place and in their own precision.

    Numbers of 16 bits become float32. Tensors that are tied in the net stay so, and one of their
    names is enough. Where the net keeps its masks in buffers, these are filled as well.

    Args:
        net: Without hooks and parametrisations that mask.
        weights: By name; what stands before all names of the net is left out.
        mask: Found beside them.
        asked: None for that mask, "zeros" for exact zeros where there is none, "none" for none, or
            the file of another one.
        line: Where that mask is from.
        name: Of the net, for what is said.

    Returns:
        The mask that is asked for, by the names of the net, and lines about it and what was left.

    Raises:
        CheckpointError: If a name is missing or unknown, a shape differs, tied tensors differ, or
            there is no such mask.
    """
    start, first = prefix(net, weights), _first(net)
    inner = {n.removeprefix(start): m for n, m in (mask or {}).items() if n.startswith(start)}
    alive = _once(inner, first, name, {})
    found = Mask(alive) if alive else None
    inner = {n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)}
    weights = _once(inner, first, name, alive)
    chosen, how = _chosen(net, weights, found, asked)
    lines = _put(net, mask_conventions.fold(weights, chosen or {}), chosen or found, first, name)
    outside = [n for n in mask or () if not n.startswith(start)]
    if how and chosen:  # names and shapes fit by now
        for fault in mask_conventions.upside_down(how, weights, chosen):
            raise CheckpointError(fault)
        line = mask_conventions.proof(how, weights, chosen)
    elif how:
        line = how
    elif outside:
        line = mask_conventions.told("the file's mask", chosen) if chosen else "none"
        line += f"; left out, as they are outside of '{start}': {_several(outside)}"
    return chosen, [f"mask: {line}", *lines] if line else lines


def _first(net: nn.Module) -> dict[str, str]:
    """The first name of each tensor, by all of its names."""
    both = (net.named_parameters, net.named_buffers)
    named = [(n, t) for names in both for n, t in names(remove_duplicate=False)]
    first = {id(t): n for n, t in reversed(named)}
    return {n: first[id(t)] for n, t in named}


def _once(
    tensors: Mapping[str, Tensor], first: Mapping[str, str], name: str, mask: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors by the first of their names in the net, with the dead entries 0."""
    kept: dict[str, tuple[str, Tensor]] = {}
    for n, t in tensors.items():
        own = first.get(n, n)
        (one,) = mask_conventions.fold({own: t}, mask).values()
        other, twin = kept.setdefault(own, (n, one))
        if other != n and not _alike(one, twin):
            raise CheckpointError(
                f"'{other}' and '{n}' are one tensor in {name}, and differ in the file; keep one"
            )
    return {own: t for own, (_, t) in kept.items()}


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return torch.allclose(one, other.to(one.dtype), rtol=0, atol=0, equal_nan=True)


def _chosen(
    net: nn.Module, weights: Mapping[str, Tensor], found: Mask | None, asked: str | Path | None
) -> tuple[Mask | None, str]:
    """The mask that is asked for, and where it is from if it is not the file's own."""
    if asked is None or (asked == "zeros" and found):
        return found, ""
    if asked == "none":
        return None, "none, as asked"
    if asked == "zeros":
        mask = mask_conventions.zeros(
            {n: weights[n] for n, _ in net.named_parameters() if n in weights}
        )
        if mask is None:
            raise CheckpointError("no weight is exactly 0, so there are no zeros to take for dead")
        return mask, "exact zeros"
    mask = Mask(_once(mask_file.load(asked), _first(net), str(asked), {}))
    try:
        mask.check(net)
    except ValueError as error:
        raise CheckpointError(f"{asked} does not fit the net: {error}") from None
    return mask, str(asked)


def _put(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask | None,
    first: Mapping[str, str],
    name: str,
) -> list[str]:
    """Weights by their first names into the net; lines about what is changed or left out."""
    state = net.state_dict(keep_vars=True)
    own = {n: t for n, t in state.items() if isinstance(t, Tensor) and first.get(n, n) == n}
    came = {**_buffers(own, mask), **weights}
    missing = [n for n in own if n not in came and not n.endswith(COUNTER)]
    wrong = [n for n, t in own.items() if n in came and came[n].shape != t.shape]
    surplus = [n for n in weights if n not in own]
    unknown = [n for n in surplus if not _spare(n, weights[n])]
    if missing:
        raise _misfit(name, f"the file holds no '{missing[0]}'", missing)
    if wrong:
        file, model = tuple(came[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise _misfit(name, f"'{wrong[0]}' is {file} in the file, {model} in the model", wrong)
    if unknown:
        raise _misfit(name, f"the model has no '{unknown[0]}'", unknown)
    put: dict[str, Tensor] = {}
    for n, t in own.items():
        if n in came:
            copied = came[n].float() if came[n].dtype in SHORT else came[n].clone()
            is_weight = isinstance(t, nn.Parameter)
            put[n] = nn.Parameter(copied, t.requires_grad) if is_weight else copied
    filled = {n: put[first.get(n, n)] for n in state if first.get(n, n) in put}
    net.load_state_dict(net.state_dict() | filled, assign=True)
    lines = []
    if any(came[n].dtype in SHORT for n in put):
        lines.append("file: its numbers of 16 bits are float32 here")
    if surplus:
        lines.append(f"file: left out, as {name} has no place for it: {_several(surplus)}")
    return lines


def _spare(name: str, t: Tensor) -> bool:
    """Return whether a tensor may be missing: counts, masks, buffers of other versions."""
    counts = not (t.is_floating_point() or t.is_complex())
    known = any(f".{name}".endswith(f".{n}") and t.dim() == d for n, d in OF_OTHERS.items())
    return counts or known or name.endswith("mask")


def _buffers(own: Mapping[str, Tensor], mask: Mask | None) -> dict[str, Tensor]:
    """The mask by the names of a net's own buffers."""
    found = {}
    for weight, m in (mask or {}).items():
        for n in (f"{weight}_mask", re.sub(r"weight$", "mask", weight)):
            if n in own and n != weight and own[n].shape == m.shape:
                found[n] = m.to(own[n].dtype)
    return found


def _several(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"


def _misfit(name: str, what: str, all_of_them: list[str]) -> CheckpointError:
    more = f", and {len(all_of_them) - 1} more" if len(all_of_them) > 1 else ""
    return CheckpointError(f"weights do not fit {name}: {what}{more}")
