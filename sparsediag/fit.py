"""Fit: the weights of a file in the net that they belong to, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from sparsediag import conventions, maskfile
from sparsediag.errors import CheckpointError
from sparsediag.mask import Mask

COUNTER = "num_batches_tracked"  # of batch norms: files may leave it out


def prefix(net: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """What stands before the net's names in a file, such as `model.`; nothing if they are there.

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
    name: str,
) -> tuple[Mask | None, str]:
    """Put copies of a file's weights into `net`, in place and in their own precision.

    Tensors that are tied in the net stay so, and one of their names is enough. Where the net keeps
    its masks in buffers, these are filled as well.

    Args:
        net: Without hooks and parametrisations that mask.
        weights: By name; what stands before all names of the net is left out.
        mask: Found beside them.
        asked: None for that mask, "zeros" for exact zeros where there is none, "none" for none, or
            the file of another one.
        name: Of the net, for what is said.

    Returns:
        The mask that is asked for, by the names of the net, and a line that says where it is from.

    Raises:
        CheckpointError: If a name is missing or unknown, a shape differs, or there is no such mask.
    """
    start = prefix(net, weights)
    weights = {n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)}
    inner = {n.removeprefix(start): m for n, m in (mask or {}).items() if n.startswith(start)}
    found = Mask(inner) if inner else None
    chosen, line = _chosen(net, weights, found, asked)
    _put(net, conventions.fold(weights, chosen or {}), chosen or found, name)
    return chosen, line


def _chosen(
    net: nn.Module, weights: Mapping[str, Tensor], found: Mask | None, asked: str | Path | None
) -> tuple[Mask | None, str]:
    """The mask that is asked for, and a line about it."""
    if asked is None or (asked == "zeros" and found):
        return found, ""
    if asked == "none":
        return None, "none, as asked"
    if asked == "zeros":
        own = {n: weights[n] for n, _ in net.named_parameters() if n in weights}
        mask, how = conventions.zeros(own), "exact zeros"
        if mask is None:
            raise CheckpointError("no weight is exactly 0, so there are no zeros to take for dead")
    else:
        mask, how = maskfile.load(asked), str(asked)
        try:
            mask.check(net)
        except ValueError as error:
            raise CheckpointError(f"{asked} does not fit the net: {error}") from None
    return mask, conventions.proof(how, weights, mask)


def _put(net: nn.Module, weights: Mapping[str, Tensor], mask: Mask | None, name: str) -> None:
    own = {n: t for n, t in net.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    came = {**_buffers(own, mask), **weights}
    tied = {id(own[n]): came[n] for n in came if n in own}
    missing = [n for n, t in own.items() if id(t) not in tied and not n.endswith(COUNTER)]
    wrong = [n for n, t in own.items() if id(t) in tied and tied[id(t)].shape != t.shape]
    surplus = [n for n in weights if n not in own]
    if missing:
        raise _misfit(name, f"the file holds no '{missing[0]}'", missing)
    if wrong:
        file, model = tuple(tied[id(own[wrong[0]])].shape), tuple(own[wrong[0]].shape)
        raise _misfit(name, f"'{wrong[0]}' is {file} in the file, {model} in the model", wrong)
    if surplus:
        raise _misfit(name, f"the model has no '{surplus[0]}'", surplus)
    put: dict[int, Tensor] = {}
    for t in own.values():
        if id(t) in tied:
            copied = tied[id(t)].clone()
            is_weight = isinstance(t, nn.Parameter)
            put[id(t)] = nn.Parameter(copied, t.requires_grad) if is_weight else copied
    state = net.state_dict() | {n: put[id(t)] for n, t in own.items() if id(t) in put}
    net.load_state_dict(state, assign=True)


def _buffers(own: Mapping[str, Tensor], mask: Mask | None) -> dict[str, Tensor]:
    """The mask by the names of a net's own buffers."""
    found = {}
    for weight, m in (mask or {}).items():
        for n in (f"{weight}_mask", re.sub(r"weight$", "mask", weight)):
            if n in own and n != weight and own[n].shape == m.shape:
                found[n] = m.to(own[n].dtype)
    return found


def _misfit(name: str, what: str, all_of_them: list[str]) -> CheckpointError:
    more = f", and {len(all_of_them) - 1} more" if len(all_of_them) > 1 else ""
    return CheckpointError(f"weights do not fit {name}: {what}{more}")
