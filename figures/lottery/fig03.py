"""Lottery, Figure 3: a block of ResNet-18 with its new skips.

Drawn from the block that nets are built with, by following a signal through it, so it shows what
is trained here. As in the paper, the input of each 3x3 convolution is added to its output before
the activation. In the paper's words it is added as it is; here batch norm without weights of its
own comes first, for without a norm the signal doubles at every block (see `GhostSkip`). On the
left is a block of one shape, on the right the first one of a stage: there the input is pooled and
padded, of which the paper says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import fx, nn

from figures.claims import Claim
from figures.lottery._runs import run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag import models
from sparsediag.models.ghost import GhostSkip, NoSkip
from sparsediag.plotting import style

NEEDS: dict[str, Need] = {}
CLAIMS: tuple[Claim, ...] = ()
BLOCKS = ("layer1.1", "layer2.0")
NEW, OLD = style.COLOUR_OF["GSk"], style.COLOUR_OF["sparse"]
INK: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "center"}


@dataclass(frozen=True)
class Step:
    """A place on the straight way through a block.

    Attributes:
        name: What is done there, "+" for a sum.
        source: For a sum: the place whose output comes in from the side.
        side: What is done on the way.
        new: Whether that way is a new skip.
    """

    name: str
    source: int = -1
    side: str = ""
    new: bool = False


class _Parts(fx.Tracer):
    """Follows a signal through a block, but not into its parts."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A part is not taken apart."""
        return True


def net() -> nn.Module:
    """The net of the paper with the new skips, without memory for its weights."""
    trained = run("skip")
    kind = trained.tweaks["ghost_skips"].kind  # type: ignore[attr-defined]
    with torch.device("meta"):
        return models.build(trained.model.name, skips=kind)


def told(part: nn.Module) -> str:
    """Return what a part does, in few words."""
    if isinstance(part, GhostSkip):
        words = [f"pool {part.stride}x{part.stride}"] * (part.stride > 1)
        words += [f"pad {part.ins} → {part.outs}"] * (part.ins != part.outs)
        return "\n".join([*words, *(told(child) for child in part.children())])
    if isinstance(part, nn.Sequential):
        return "\n".join(told(child) for child in part)
    if isinstance(part, nn.Conv2d):
        steps = f", /{part.stride[0]}" * (part.stride[0] > 1)
        return "{}x{} conv".format(*part.kernel_size) + steps
    names = {nn.BatchNorm2d: "batch norm", nn.Identity: ""}
    return names.get(type(part), type(part).__name__)


def steps(block: nn.Module) -> list[Step]:
    """The straight way through a block, with what comes in from the side."""
    graph = _Parts().trace(block)
    parts = {node: block.get_submodule(str(node.target)) for node in graph.nodes if _part(node)}
    (node,) = (node for node in graph.nodes if node.op == "output")
    way: list[fx.Node] = []
    while node.op != "placeholder":
        node = node.all_input_nodes[0]
        if not isinstance(parts.get(node), NoSkip):
            way.insert(0, node)
    found = [Step("input")]
    for node in way[1:]:
        part = parts.get(node)
        if len(node.all_input_nodes) == 1 and part:
            found.append(Step(told(part)))
            continue
        side = node.all_input_nodes[1]
        new = isinstance(part, GhostSkip)
        words = told(part) if part else ""
        if side not in way:
            words, side = told(parts[side]), side.all_input_nodes[0]
        found.append(Step("+", way.index(side), words, new))
    return [*found, Step("output")]


def _part(node: fx.Node) -> bool:
    return node.op == "call_module"


def _draw(ax: Axes, way: list[Step]) -> None:
    """From top to bottom; new skips to the right, old ones to the left."""
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    for i, step in enumerate(way):
        if i:
            line = {**arrow, "color": OLD, "lw": 0.9}
            ax.annotate("", (0, -i + 0.3), (0, 0.7 - i), arrowprops=line)
        box: dict[str, Any] = {"boxstyle": "circle,pad=0.12", "fc": "white"}
        box["ec"] = NEW if step.new else OLD
        if step.name != "+":
            ends = step.name in ("input", "output")
            box = {"boxstyle": "round,pad=0.25", "fc": "white" if ends else "#eeeeee"}
            box["ec"] = "none" if ends else "#999999"
        ax.text(0, -i, step.name, bbox=box | {"lw": 0.8}, zorder=3, **INK)
        if step.source < 0:
            continue
        colour, x = (NEW, 1.4) if step.new else (OLD, -1.4)
        top = -step.source - 0.5
        ax.plot([0, x, x], [top, top, -i], color=colour, lw=1.2, solid_joinstyle="round")
        line = {**arrow, "color": colour, "lw": 1.2}
        ax.annotate("", (0.17 if step.new else -0.17, -i), (x, -i), arrowprops=line)
        if step.side:
            box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": colour, "lw": 0.8}
            ink = {**INK, "fontsize": 6, "color": colour}
            ax.text(x, (top - i) / 2, step.side, bbox=box, zorder=4, rotation=90, **ink)
    ax.set(xlim=(-2, 2), ylim=(0.4 - len(way), 0.5))
    ax.axis("off")


def draw(results: dict[str, Any], scale: Scale) -> Figure:
    """Two blocks side by side; new skips in colour."""
    whole = net()
    count = sum(isinstance(part, GhostSkip) for part in whole.modules())
    fig = style.new_figure(style.COLUMN, 3.8)
    for ax, name in zip(fig.subplots(1, len(BLOCKS)), BLOCKS, strict=True):
        block = whole.get_submodule(name)
        _draw(ax, steps(block))
        kept = isinstance(block.get_submodule("shortcut"), nn.Identity)
        ax.set_title(f"{name}, {'shape kept' if kept else 'new shape'}")
    fig.suptitle(f"{count} new skips in the net", color=NEW, fontsize=8)
    return fig
