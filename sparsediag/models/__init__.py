"""Build the networks of the papers by name: `build("resnet18", classes=100)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from sparsediag.core.errors import unknown_name
from sparsediag.models import mlp, mobilenet, resnet, vgg
from sparsediag.models.ghost import ACTIVATIONS, SKIPS, Ghost, GhostReLU, GhostSkip
from sparsediag.models.ghostify import ghostify

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "SKIPS",
    "Ghost",
    "GhostReLU",
    "GhostSkip",
    "build",
    "defaults",
    "ghostify",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    **resnet.NETS,
    **vgg.NETS,  # type: ignore[dict-item]
    **mobilenet.NETS,
    **mlp.NETS,
}
BUILT_IN = MODELS.copy()


def build(name: str, **options: Any) -> nn.Module:
    """Return a new net with PyTorch's default initialisation, drawn from the global RNG.

    Args:
        name: A key of `MODELS`.
        options: Every net takes `classes`, `channels` (1 or 3), `width`, `activation` (relu, swish,
            mish or ghost) and `skips` (a kind of ghost skip). Only perceptrons use `size`, the
            height and width of the images; the others pool globally and ignore it.

    Raises:
        ValueError: If the name or an option is unknown.

    >>> sum(p.numel() for p in build("resnet20", classes=10, shortcut="A").parameters())
    269722
    """
    known = defaults(name)
    if "size" not in known:
        options.pop("size", None)
    for option in options.keys() - known.keys():
        raise ValueError(unknown_name(f"option of {name}", option, known))
    return MODELS[name](**options)


def defaults(name: str) -> dict[str, Any]:
    """Return the options of the net `name` with their defaults.

    Args:
        name: A key of `MODELS`.

    Raises:
        ValueError: If there is no such net.

    >>> defaults("mlp")["size"]
    28
    """
    if name not in MODELS:
        raise ValueError(unknown_name("model", name, MODELS))
    return {key: p.default for key, p in inspect.signature(MODELS[name]).parameters.items()}
