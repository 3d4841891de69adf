"""The weights that a mask covers by default, and the order of their dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
CONV1D = "Conv1D"  # GPT-2's linear layers in Hugging Face's library
FUSED = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)  # with weights of their own
# what wrappers add to names: copies on several GPUs and PEFT in front; torch.compile, activation
# checkpointing, sharding and PEFT's layers anywhere
WRAPPERS = re.compile(
    r"^(module\.)+|\b(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.(module\.)*"
    r"|\bbase_model\.model\.|\bbase_layer\.|\bmodules_to_save\.\w+\."
)


def prunable(net: nn.Module) -> list[str]:
    """Return the names of the weights that a mask covers by default.

    In a convolutional net: every convolution, including the first one and the shortcuts, but not
    the classifier (ToST, section 4). In a net with more linear layers than convolutions, such as a
    transformer: all of both. Never a bias, a norm, an embedding, or a temporary layer (ghost skips
    set `temporary = True`). The fused input projection of `nn.MultiheadAttention` is no linear
    layer and stays dense.

    Args:
        net: Any module; it is not changed.

    >>> prunable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)))
    ['0.weight']
    """
    modules = [m for _, m in permanent_modules(net)]
    convolutions = [m for m in modules if is_convolution(m)]
    linears = [m for m in modules if is_linear(m)]
    layers = convolutions if len(convolutions) >= len(linears) else [*convolutions, *linears]
    return _names(net, layers)


def layer_weights(net: nn.Module) -> list[str]:
    """Return the names of the weights of all convolutions and linear layers, pruned or not.

    >>> layer_weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)))
    ['0.weight', '2.weight']
    """
    modules = [m for _, m in permanent_modules(net)]
    return _names(net, [m for m in modules if is_convolution(m) or is_linear(m)])


def _names(net: nn.Module, layers: list[nn.Module]) -> list[str]:
    """Return the names of the weights of layers, without embeddings; a shared weight only once."""
    embedded = {id(_weight(m)) for m in net.modules() if isinstance(m, EMBEDDINGS)}
    names = {id(p): name for name, p in net.named_parameters() if id(p) not in embedded}
    weights = dict.fromkeys(id(_weight(m)) for m in layers)
    return [names[key] for key in weights if key in names]


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution of torch, transposed ones included."""
    return issubclass(_class_of(module), nn.modules.conv._ConvNd)


def plain_name(name: str) -> str:
    """Return the name of a weight without what wrappers add to it.

    >>> plain_name("module._orig_mod.block._checkpoint_wrapped_module.weight")
    'block.weight'
    """
    return WRAPPERS.sub("", name)


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer of torch or of Hugging Face's GPT-2."""
    return issubclass(_class_of(module), nn.Linear) or type(module).__name__ == CONV1D


def _class_of(module: nn.Module) -> type:
    """Return the class of a module; of TorchScript, the one in torch.nn that it was made from."""
    kind: type = getattr(nn, getattr(module, "original_name", ""), type(module))
    return kind


def weight_matrices(net: nn.Module) -> list[str]:
    """Return the names of the weights that diagnostics look at if there is no mask.

    These are the prunable ones. In a net with recurrent or attention modules, whose weights belong
    to no linear layer: all weights of two dimensions or more, without embeddings and norms.

    >>> weight_matrices(nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 2)))
    ['0.weight_ih_l0', '0.weight_hh_l0', '1.weight']
    """
    modules = list(net.modules())
    if not any(isinstance(m, FUSED) for m in modules):
        return prunable(net)
    kinds = (*EMBEDDINGS, nn.LayerNorm)
    excluded = {
        id(p)
        for m in modules
        if isinstance(m, kinds) or getattr(m, "temporary", False)
        for p in m.parameters()
    }
    return [
        name
        for name, p in net.named_parameters()
        if p.dim() > 1 and "weight" in name and id(p) not in excluded
    ]


def pruned_in_passes(net: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Return the weights that `torch.nn.utils.prune` masks in each forward pass.

    Returns:
        For each, the name of the parameter, its module, and the name of the masked weight there.

    >>> from torch.nn.utils import prune
    >>> [name for name, _, _ in pruned_in_passes(prune.identity(nn.Linear(2, 1), "weight"))]
    ['weight_orig']
    """
    for name, module in net.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                weight: str = hook._tensor_name
                yield f"{name}.{weight}_orig".removeprefix("."), module, weight


def to_oihw(net: nn.Module) -> Callable[[str, Tensor], Tensor]:
    """Return a function that permutes a weight to (out, in, ...); applying it twice restores it.

    Transposed convolutions have (in, out / groups, ...) and GPT-2's layers have (in, out); all
    other weights are returned as they are.

    >>> to_oihw(nn.ConvTranspose1d(2, 3, 1))("weight", nn.ConvTranspose1d(2, 3, 1).weight).shape
    torch.Size([3, 2, 1])
    """
    transposed = {
        id(_weight(m)): getattr(m, "groups", 1)
        for m in net.modules()
        if isinstance(m, nn.modules.conv._ConvTransposeNd) or type(m).__name__ == CONV1D
    }
    groups = {n: transposed[id(p)] for n, p in net.named_parameters() if id(p) in transposed}

    def permute(name: str, weight: Tensor) -> Tensor:
        if name not in groups:
            return weight
        grouped: Tensor = weight.unflatten(0, (groups[name], -1))
        return grouped.transpose(1, 2).flatten(0, 1)

    return permute


def _weight(layer: nn.Module) -> nn.Parameter | None:
    """Return the parameter behind `layer.weight`, without running its parametrisations."""
    weights = [p for name, p in layer.named_parameters() if "weight" in name]
    return max(weights, key=lambda p: p.numel(), default=None)


def permanent_modules(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Return all modules with their names, except temporary ones and their children."""
    modules = [(prefix, module)]
    for name, child in module.named_children():
        if not getattr(child, "temporary", False):
            modules += permanent_modules(child, f"{prefix}.{name}" if prefix else name)
    return modules
