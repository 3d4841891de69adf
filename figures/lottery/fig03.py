"""Lottery, Figure 3: a block of ResNet-18 with its new skips.

Drawn from the block that is trained, by tracing its forward pass. As in the paper, the input of
each 3x3 convolution is added to its output before the activation. The paper adds it unchanged; here
it first passes through a batch norm without parameters, because otherwise the signal doubles at
every block (see `GhostSkip`). On the left is a block that keeps the shape, on the right the first
one of a stage: there the input is pooled and padded, about which the paper says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from figures.block_graph import main_path, trace
from figures.lottery.runs import run
from figures.measurement import Results
from figures.scales import Scale
from sparsediag import models
from sparsediag.models.ghost import GhostSkip
from sparsediag.plotting import style

BLOCKS = ("layer1.1", "layer2.0")
NEW, OLD = style.COLOUR_OF["GSk"], style.COLOUR_OF["sparse"]
CENTRED: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "center"}


@dataclass(frozen=True)
class Box:
    """A step of the main path through a block.

    Attributes:
        text: The layer, or "+" for a sum.
        source: For a sum: index of the box whose output a skip adds; otherwise -1.
        on_skip: Layers on the skip.
        is_new: Whether the skip is a new one.
    """

    text: str
    source: int = -1
    on_skip: str = ""
    is_new: bool = False


def build_net() -> nn.Module:
    """Return the network of the paper with the new skips, without memory for its weights."""
    trained = run("skip")
    kind = trained.tweaks["ghost_skips"].kind  # type: ignore[attr-defined]
    with torch.device("meta"):
        return models.build(trained.model.name, skips=kind)


def describe(layer: nn.Module) -> str:
    """Return what a layer does, in few words."""
    if isinstance(layer, GhostSkip):
        words = [f"pool {layer.stride}x{layer.stride}"] * (layer.stride > 1)
        words += [f"pad {layer.ins} → {layer.outs}"] * (layer.ins != layer.outs)
        return "\n".join([*words, *(describe(child) for child in layer.children())])
    if isinstance(layer, nn.Sequential):
        return "\n".join(describe(child) for child in layer)
    if isinstance(layer, nn.Conv2d):
        stride = f", /{layer.stride[0]}" * (layer.stride[0] > 1)
        return "{}x{} conv".format(*layer.kernel_size) + stride
    names = {nn.BatchNorm2d: "batch norm", nn.Identity: ""}
    return names.get(type(layer), type(layer).__name__)


def boxes(block: nn.Module) -> list[Box]:
    """Return the main path through a block, with the skips that join it."""
    steps = trace(block)
    path = main_path(steps)
    position = {step.name: i for i, step in enumerate(path)}
    result = []
    for step in path:
        if len(step.inputs) < 2:
            result.append(Box(describe(step.layer) if step.layer else step.name))
            continue
        text = describe(step.layer) if step.layer else ""
        skip = steps[step.inputs[1]]
        if skip.name not in position:  # the block's own shortcut is a layer beside the path
            assert skip.layer is not None
            text, skip = describe(skip.layer), steps[skip.inputs[0]]
        result.append(Box("+", position[skip.name], text, isinstance(step.layer, GhostSkip)))
    return [Box("input"), *result[1:-1], Box("output")]


def _draw(ax: Axes, path: list[Box]) -> None:
    """Draw a block from top to bottom, with new skips on the right and old ones on the left."""
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    for i, box in enumerate(path):
        if i:
            line = {**arrow, "color": OLD, "lw": 0.9}
            ax.annotate("", (0, -i + 0.3), (0, 0.7 - i), arrowprops=line)
        colour = NEW if box.is_new else OLD
        frame: dict[str, Any] = {"boxstyle": "circle,pad=0.12", "fc": "white", "ec": colour}
        if box.text != "+":
            is_end = box.text in ("input", "output")
            frame = {"boxstyle": "round,pad=0.25", "fc": "white" if is_end else "#eeeeee"}
            frame["ec"] = "none" if is_end else "#999999"
        ax.text(0, -i, box.text, bbox=frame | {"lw": 0.8}, zorder=3, **CENTRED)
        if box.source < 0:
            continue
        side, top = 1 if box.is_new else -1, -box.source - 0.5
        x = 1.4 * side
        ax.plot([0, x, x], [top, top, -i], color=colour, lw=1.2, solid_joinstyle="round")
        line = {**arrow, "color": colour, "lw": 1.2}
        ax.annotate("", (0.17 * side, -i), (x, -i), arrowprops=line)
        if box.on_skip:
            frame = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": colour, "lw": 0.8}
            font = {**CENTRED, "fontsize": 6, "color": colour}
            ax.text(x, (top - i) / 2, box.on_skip, bbox=frame, zorder=4, rotation=90, **font)
    ax.set(xlim=(-2, 2), ylim=(0.4 - len(path), 0.5))
    ax.axis("off")


def draw(results: Results, scale: Scale) -> Figure:
    """Draw two blocks side by side, with new skips in colour."""
    net = build_net()
    count = sum(isinstance(layer, GhostSkip) for layer in net.modules())
    fig = style.new_figure(style.COLUMN, 3.8)
    for ax, name in zip(fig.subplots(1, len(BLOCKS)), BLOCKS, strict=True):
        block = net.get_submodule(name)
        _draw(ax, boxes(block))
        same_shape = isinstance(block.get_submodule("shortcut"), nn.Identity)
        ax.set_title(f"{name}, {'same shape' if same_shape else 'new shape'}")
    fig.suptitle(f"{count} new skips in the network", color=NEW, fontsize=8)
    return fig
