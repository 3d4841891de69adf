"""Load the weights of a file into the network that they belong to, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsediag.checkpoint import mask_conventions, mask_file
from sparsediag.checkpoint.mask_conventions import FROM_SCORES, and_more, is_score
from sparsediag.checkpoint.wrapper_names import rename
from sparsediag.core.errors import CheckpointError, missing_file
from sparsediag.core.mask import Mask

COUNTER = "num_batches_tracked"  # of batch norms; files of old versions of torch leave it out
HALF = (torch.float16, torch.bfloat16)
QUANTISED = re.compile(r"(?<![a-z])(qweight|qzeros|scales?|scale_inv|SCB|absmax|quant_map)$")
# buffers that old versions of transformers wrote, and their number of dimensions
OLD_BUFFERS = {"attn.bias": 4, "attn.masked_bias": 0, "rotary_emb.inv_freq": 1}


def find_prefix(net: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return the prefix of the network's names in a file, such as `model.`, or "".

    Raises:
        CheckpointError: If the file holds several copies of the network.

    >>> find_prefix(nn.Linear(2, 1), {"model.weight": 1, "model.bias": 2, "loss.factor": 3})
    'model.'
    """
    names = net.state_dict().keys()
    counts = Counter({"": sum(name in names for name in weights)})
    for name in weights:
        starts = [match.end() for match in re.finditer(r"\.", name)]
        counts.update(name[:i] for i in starts if name[i:] in names)
    (best, most), *others = counts.most_common()
    if best and others[0][1] == most:
        raise CheckpointError(
            f"the net is in the file twice, under '{best}' and '{others[0][0]}'; save one of them"
        )
    return best


def load_weights(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mapping[str, Tensor] | None,
    *,
    choice: str | Path | None = None,
    summary: str = "",
    name: str,
) -> tuple[Mask | None, list[str]]:
    """Put copies of a file's weights into `net`, in place; return the chosen mask and notes.

    The precision is that of the file, but numbers of 16 bits become float32. Tensors that are tied
    in the network stay tied, and one of their names is enough. Mask buffers are filled too.

    Args:
        net: A network without hooks and parametrisations that mask.
        weights: By name; tensors outside of the network's prefix are left out.
        mask: The mask of the file.
        choice: See `mask` of `Checkpoint.problem`.
        summary: Where the mask of the file was found.
        name: Name of the network in messages.

    Raises:
        CheckpointError: If names or shapes differ, tied tensors differ, or there is no such mask.
    """
    names = net.state_dict().keys()
    weights, mask = rename(weights, names), rename(mask or {}, names)
    prefix, first_names = find_prefix(net, weights), _first_names(net)
    inner_mask = _untie(_strip(mask, prefix), first_names, name)
    file_mask = Mask(inner_mask) if inner_mask else None
    weights = _untie(_strip(weights, prefix), first_names, name, inner_mask)
    parameters = dict(net.named_parameters(remove_duplicate=False))
    values = {n: weights.get(first_names[n], p) for n, p in parameters.items()}
    values = {n: w if w.shape == parameters[n].shape else parameters[n] for n, w in values.items()}
    chosen, source = choose_mask(choice, file_mask, values)
    if source and chosen:
        chosen = Mask(_untie(chosen, first_names, source))
    masked = mask_conventions.zero_dead(weights, chosen or {})
    if choice is not None:  # it replaces the mask that scores stand for
        masked = {n: t for n, t in masked.items() if n in names or not is_score(n, masked)}
    notes = _assign(net, masked, chosen or file_mask, first_names, name)
    outside = [n for n in mask if not n.startswith(prefix)]
    if source and chosen:  # names and shapes fit by now
        mask_conventions.check_not_inverted(source, weights, chosen)
        summary = mask_conventions.describe(source, chosen, weights)
    elif source:
        summary = source
    elif outside:
        summary = mask_conventions.describe("the file's mask", chosen) if chosen else "none"
        summary += (
            f"; left out, as they are outside of '{prefix}': '{outside[0]}'{and_more(outside)}"
        )
    return chosen, [f"mask: {summary}", *notes] if summary else notes


def choose_mask(
    choice: str | Path | None, mask: Mask | None, weights: Mapping[str, Tensor]
) -> tuple[Mask | None, str]:
    """Return the mask that `--mask` chooses, and its source if it is not the file's own.

    Args:
        choice: None for the mask of the file; "zeros" for exact zeros if it has none; "none";
            or the file of a mask.
        mask: The mask of the file.
        weights: The weights that a mask may cover, by name.

    Raises:
        CheckpointError: If no weight is 0, or the mask does not fit the weights.

    >>> choose_mask("zeros", None, {"weight": torch.tensor([[0.5, 0.0]])})
    (Mask(1 of 2 weights alive, 1 tensors), 'exact zeros')
    """
    if choice is None or (choice == "zeros" and mask):
        return mask, ""
    if choice == "none":
        return None, "none, as asked"
    if choice == "zeros":
        if zeros := mask_conventions.zeros(weights):
            return zeros, "exact zeros"
        raise CheckpointError("no weight is exactly 0, so there are no zeros to take for dead")
    if not Path(choice).exists():
        need = "zeros, none, or a file with a mask"
        raise FileNotFoundError(f"--mask {missing_file(Path(choice), need)}")
    return mask_file.load(choice, weights=weights), str(choice)


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _first_names(net: nn.Module) -> dict[str, str]:
    """Map every name of a parameter or buffer to the first name of the same tensor."""
    kinds = (net.named_parameters, net.named_buffers)
    named = [(n, t) for kind in kinds for n, t in kind(remove_duplicate=False)]
    first = {id(t): n for n, t in reversed(named)}
    return {n: first[id(t)] for n, t in named}


def _untie(
    tensors: Mapping[str, Tensor],
    first_names: Mapping[str, str],
    net_name: str,
    mask: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return tensors by the first of their names in the network, with the dead entries 0."""
    by_first: dict[str, tuple[str, Tensor]] = {}
    for name, t in tensors.items():
        first = first_names.get(name, name)
        (masked,) = mask_conventions.zero_dead({first: t}, mask or {}).values()
        other, twin = by_first.setdefault(first, (name, masked))
        same_shape = masked.shape == twin.shape
        if not same_shape or not torch.allclose(masked, twin.to(masked.dtype), 0, 0, True):
            raise CheckpointError(
                f"'{other}' and '{name}' are one tensor in {net_name}, and differ in the file; "
                "keep one"
            )
    return {first: t for first, (_, t) in by_first.items()}


def _assign(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask | None,
    first_names: Mapping[str, str],
    name: str,
) -> list[str]:
    """Check names and shapes, and replace the tensors of `net`; return notes."""
    state = net.state_dict(keep_vars=True)
    expected = {
        n: t for n, t in state.items() if isinstance(t, Tensor) and first_names.get(n, n) == n
    }
    new = {**_mask_buffers(expected, mask), **weights}
    missing = [n for n in expected if n not in new and not n.endswith(COUNTER)]
    surplus = [n for n in weights if n not in expected]
    unknown = [n for n in surplus if not _is_optional(n, weights[n])]
    if misfit := _misfit(expected, new, weights, missing, unknown):
        hint = _hint_at_classes(expected, new, name) if not missing else ""
        raise CheckpointError(f"weights do not fit {name}: {misfit}{hint}")
    copies: dict[str, Tensor] = {}
    for n, t in expected.items():
        if n in new:
            copied = new[n].float() if new[n].dtype in HALF else new[n].clone()
            is_weight = isinstance(t, nn.Parameter)
            copies[n] = nn.Parameter(copied, t.requires_grad) if is_weight else copied
    tied = {n: first_names.get(n, n) for n in state}
    assigned = {n: copies[first] for n, first in tied.items() if first in copies}
    net.load_state_dict(net.state_dict() | assigned, assign=True)
    notes = []
    if any(new[n].dtype in HALF for n in copies):
        notes.append("file: its numbers of 16 bits are float32 here")
    if surplus:
        left = f"'{surplus[0]}'{and_more(surplus)}"
        notes.append(f"file: left out, as {name} has no place for it: {left}")
    return notes


def _misfit(
    expected: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    missing: list[str],
    unknown: list[str],
) -> str:
    """Say which names, shapes or dtypes of a file do not fit the network; "" if all fit."""
    wrong = [n for n, t in expected.items() if n in new and new[n].shape != t.shape]
    parameters = [n for n, t in expected.items() if isinstance(t, nn.Parameter) and n in new]
    integers = [n for n in parameters if expected[n].is_floating_point() and _is_integer(new[n])]
    scores = [n for n in unknown if is_score(n, weights)]
    first, *_ = names = scores or missing or wrong or integers or unknown or [""]
    if scores:
        return f"'{first}'{and_more(names)} holds scores; {FROM_SCORES}: --mask FILE, or none"
    if missing:
        misfit = f"the file holds no '{first}'"
    elif wrong:
        file, model = tuple(new[first].shape), tuple(expected[first].shape)
        misfit = f"'{first}' is {file} in the file, {model} in the model"
    elif integers:
        kind = str(new[first].dtype).removeprefix("torch.")
        misfit = f"'{first}' is {kind} in the file, quantised without its scale; dequantise it"
    elif unknown:
        misfit = f"the model has no '{first}'"
    else:
        return ""
    misfit += and_more(names)
    if any("_flat_param" in n or not t.numel() for n, t in weights.items()):
        misfit += "; it has a part of the weights only; save all in one file: zero_to_fp32.py of "
        misfit += "DeepSpeed, or the full state dict of FSDP"
    if quantised := next(filter(QUANTISED.search, weights), ""):
        misfit += f"; the weights are quantised, as '{quantised}' shows; save them dequantised"
    return misfit


def _hint_at_classes(expected: Mapping[str, Tensor], new: Mapping[str, Tensor], name: str) -> str:
    """Say how to build the network with as many outputs as the file has, if nothing else differs.

    >>> fc, other = {"fc.bias": torch.zeros(1000)}, {"fc.bias": torch.zeros(3)}
    >>> _hint_at_classes(fc, other, "torchvision:resnet18")
    '; the file has 3 outputs: --model-options num_classes=3'
    """
    shapes = [(t.shape, new[n].shape) for n, t in expected.items() if n in new]
    wrong = [(model, file) for model, file in shapes if model != file]
    same_rows = len({(model[:1], file[:1]) for model, file in wrong}) == 1
    if not same_rows or any(model[1:] != file[1:] for model, file in wrong):
        return ""
    outputs = wrong[0][1][0]
    zoo = name.startswith(("torchvision:", "timm:"))
    how = f"--model-options {'num_' * zoo}classes={outputs}"
    if ":" in name and not zoo:
        how = "build the net with as many, or give it options (--model-options)"
    return f"; the file has {outputs} outputs: {how}"


def _is_optional(name: str, t: Tensor) -> bool:
    """Return whether the network may lack a tensor: counters, masks, buffers of old versions."""
    old = any(f".{name}".endswith(f".{n}") and t.dim() == d for n, d in OLD_BUFFERS.items())
    return _is_integer(t) or old or name.endswith("mask")


def _is_integer(t: Tensor) -> bool:
    return not (t.is_floating_point() or t.is_complex())


def _mask_buffers(expected: Mapping[str, Tensor], mask: Mask | None) -> dict[str, Tensor]:
    """Return the mask by the names of the network's own mask buffers."""
    buffers = {}
    for weight, m in (mask or {}).items():
        for n in (f"{weight}_mask", re.sub(r"weight$", "mask", weight)):
            if n in expected and n != weight and expected[n].shape == m.shape:
                buffers[n] = m.to(expected[n].dtype)
    return buffers
