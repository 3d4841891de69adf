"""Default losses, logits and accuracy for outputs that are a tensor, a tuple or a dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.autograd_graph import graph_nodes


def logits(outputs: Any) -> Any:
    """Return the logits among outputs: the entry or attribute `logits`, the only entry, or all.

    >>> logits({"loss": torch.zeros(()), "logits": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if not isinstance(outputs, Mapping):
        return _entry(outputs, "logits", outputs)
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs.get("logits", outputs)


def _entry(outputs: Any, name: str, default: Any) -> Any:
    """Return the entry or attribute `name` of outputs that are no tensor."""
    if isinstance(outputs, Mapping):
        return outputs.get(name, default)
    return default if isinstance(outputs, Tensor) else getattr(outputs, name, default)


def default_loss(outputs: Any, targets: Any) -> Tensor:
    """Return the loss that the outputs carry, or else the mean cross-entropy of their logits.

    Outputs of Hugging Face's models carry a loss if the inputs have labels.

    Args:
        outputs: Of a net.
        targets: Indices of classes, whole numbers of any type, (N, ...) or (N, 1, ...).

    Raises:
        ValueError: If the outputs carry no loss, and are not logits (N, C, ...) with C > 1 for
            targets (N, ...), or if it is ambiguous which dimension is that of the classes.

    >>> default_loss({"logits": torch.zeros(4, 2)}, torch.tensor([0, 1, 0, 1]))
    tensor(0.6931)
    """
    carried = _entry(outputs, "loss", None)
    if isinstance(carried, Tensor):
        return carried
    z = logits(outputs)
    classes = _as_classes(z, targets)
    if not _is_classification(z, classes):
        kinds = " and ".join(
            f"{name} {tuple(t.shape)} of {t.dtype}"
            if isinstance(t, Tensor)
            else f"{name} {t!r:.50}"
            for name, t in (("outputs", z), ("targets", targets))
        )
        raise ValueError(
            f"{kinds} are not scores (N, classes) and classes (N); give a loss, such as "
            "torch.nn.functional.mse_loss, or any function of outputs and targets"
        )
    entropy: Tensor = F.cross_entropy(z, classes.to(z.device))
    return entropy


def loss_name(loss: Callable[..., Any], outputs: Any) -> str:
    """Return the name of a loss, such as "mse_loss"; the default one depends on the outputs.

    >>> loss_name(default_loss, torch.zeros(4, 2))
    'cross_entropy'
    """
    if loss is default_loss:
        carried = isinstance(_entry(outputs, "loss", None), Tensor)
        return "of the network itself" if carried else "cross_entropy"
    function = getattr(loss, "func", loss)  # of a functools.partial
    return str(getattr(function, "__name__", type(function).__name__))


def _as_classes(z: Any, targets: Any) -> Any:
    """Return whole numbers as int64, and those of (N, 1, ...) as (N, ...); the rest as it is."""
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.is_complex():
        return targets
    extra = isinstance(z, Tensor) and targets.dim() == z.dim() > 1 == targets.shape[1]
    return (targets.squeeze(1) if extra else targets).long()


def _is_classification(z: Any, targets: Any) -> bool:
    """Return whether there are logits for each target, with an unambiguous class dimension."""
    if not (isinstance(z, Tensor) and isinstance(targets, Tensor)) or z.dim() < 2:
        return False
    if targets.dtype != torch.int64 or z.shape[1] < 2:
        return False
    return targets.shape == (len(z), *z.shape[2:]) and (z.dim() != 3 or z.shape[1] != z.shape[2])


def is_sample_mean(loss: object, outputs: Any, targets: Sequence[Any]) -> bool:
    """Return whether a loss is known to be a mean over samples, so that nothing is to be measured.

    That is the cross-entropy of classes of which none is ignored, and the squared error.

    Args:
        loss: Any function.
        outputs: The outputs of one batch.
        targets: The targets of all batches.

    >>> is_sample_mean(F.cross_entropy, torch.zeros(2, 3), [torch.tensor([0, 2])])
    True
    """
    if not all(isinstance(t, Tensor) for t in (outputs, *targets)):
        return False
    plain = getattr(loss, "reduction", "mean") == "mean" and getattr(loss, "weight", None) is None
    if loss in (default_loss, F.cross_entropy) or (type(loss) is nn.CrossEntropyLoss and plain):
        ignored = getattr(loss, "ignore_index", -1) >= 0
        classes = all(t.dim() == 1 and not t.is_floating_point() for t in targets)
        return outputs.dim() == 2 and classes and not ignored and all(t.min() >= 0 for t in targets)
    squares = loss is F.mse_loss or (type(loss) is nn.MSELoss and plain)
    return squares and all(t.shape[1:] == outputs.shape[1:] for t in targets)


def num_correct(outputs: Any, targets: Any) -> Tensor:
    """Return the number of samples whose largest logit is that of their class; NaN if undefined."""
    z = logits(outputs)
    targets = _as_classes(z, targets)
    rows = isinstance(z, Tensor) and z.dim() == 2
    classes = isinstance(targets, Tensor) and targets.dim() == 1
    if not (rows and classes) or targets.is_floating_point() or len(z) != len(targets):
        device = z.device if isinstance(z, Tensor) else None
        return torch.full((), torch.nan, dtype=torch.float64, device=device)
    correct: Tensor = (z.argmax(dim=1) == targets.to(z.device)).sum()
    return correct.double()


def map_outputs(outputs: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return outputs of the same kind with `change` applied to every tensor.

    They may be a tensor, a tuple, a dict, or another object with attributes, in any nesting.

    >>> map_outputs({"logits": torch.ones(2, 3), "hidden": (torch.ones(1),)}, len)
    {'logits': 2, 'hidden': (1,)}
    """
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, tuple | list):
        parts = [map_outputs(part, change) for part in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else type(outputs)(parts)
    if isinstance(outputs, MutableMapping):
        changed = copy(outputs)
        changed.update({key: map_outputs(value, change) for key, value in outputs.items()})
        return changed
    if hasattr(outputs, "__dict__") and not callable(outputs):
        changed = copy(outputs)
        vars(changed).update(map_outputs(vars(outputs), change))
        return changed
    return outputs


def leaves_of(loss: Tensor) -> set[int]:
    """Return the ids of the leaf tensors that a loss depends on.

    >>> w = torch.ones(2, requires_grad=True)
    >>> leaves_of(w.square().sum()) == {id(w)}
    True
    """
    return {id(node.variable) for node in graph_nodes([loss]) if hasattr(node, "variable")}
