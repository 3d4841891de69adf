"""Scope: which weights of a net a mask covers, where nobody says."""

from __future__ import annotations

from torch import nn

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
CONV1D = "Conv1D"  # GPT-2's linear layers in Hugging Face's library


def prunable(net: nn.Module) -> list[str]:
    """Names of the weights that a mask covers.

    In a convolutional net: every convolution, the first one and the shortcuts included, and not
    the classifier (ToST, section 4). In a net of more linear layers than convolutions, such as a
    transformer: all of both. Never a bias, a norm, an embedding, or a layer that is there only for
    a while (ghost skips set `temporary = True`). The fused input projection of
    `nn.MultiheadAttention` belongs to no linear layer and stays dense.

    Args:
        net: Any module; it is left as it is.

    >>> prunable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)))
    ['0.weight']
    """
    kept = lasting(net)
    convolutions = [m for _, m in kept if isinstance(m, nn.modules.conv._ConvNd)]
    linear = [m for _, m in kept if isinstance(m, nn.Linear) or type(m).__name__ == CONV1D]
    layers = convolutions if len(convolutions) >= len(linear) else [*convolutions, *linear]
    embedded = {id(_weight(m)) for m in net.modules() if isinstance(m, EMBEDDINGS)}
    names = {id(p): name for name, p in net.named_parameters() if id(p) not in embedded}
    owned = dict.fromkeys(id(_weight(m)) for m in layers)
    return [names[key] for key in owned if key in names]


def _weight(layer: nn.Module) -> nn.Parameter | None:
    """The parameter behind `layer.weight`, which some parametrisations change when it is read."""
    weights = [p for name, p in layer.named_parameters() if "weight" in name]
    return max(weights, key=lambda p: p.numel(), default=None)


def lasting(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """All modules by name, but those that are there only for a while, and what is in them."""
    found = [(prefix, module)]
    for name, child in module.named_children():
        if not getattr(child, "temporary", False):
            found += lasting(child, f"{prefix}.{name}" if prefix else name)
    return found
