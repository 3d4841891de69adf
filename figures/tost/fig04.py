"""ToST, Figure 4: a block of ResNet-18 with ghost skips and soft neurons. A schematic.

Every 3x3 convolution gets a skip from its input to its output, before the activation, multiplied by
a gate that closes during training. Layers and connections are read from the block that is trained.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from figures.block_graph import Step, main_path, trace
from figures.measurement import Results
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag import models
from sparsediag.models import GhostReLU, GhostSkip
from sparsediag.plotting import style

BLOCK = "layer1.0"


def steps() -> dict[str, Step]:
    """Return the forward pass of a block with ToST's tweaks."""
    options: dict[str, str] = {}
    for tweak in run("ToST").tweaks.values():
        options |= tweak.options()
    return trace(models.build("resnet18", **options).get_submodule(BLOCK))


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the main path from left to right, ghost skips above it, the block's shortcut below."""
    fig = style.new_figure(style.PAGE, 1.7)
    ax = fig.add_subplot()
    ax.axis("off")
    graph = steps()
    path = main_path(graph)
    position = {step.name: x for x, step in enumerate(path)}
    for x, step in enumerate(path[1:], 1):
        arrow = {"arrowstyle": "-|>", "color": "black"}
        ax.plot((x - 1, x), (0, 0), color="black", lw=1, zorder=0)
        ax.annotate("", (x - 0.33, 0), (x - 0.6, 0), arrowprops=arrow, zorder=0)
        for source in step.inputs[1:]:
            if isinstance(step.layer, GhostSkip):
                text = f"ghost skip ({step.layer.kind}) with its gate"
                _draw_skip(ax, position[source], x, 1, text, style.COLOUR_OF["GSk"])
            else:
                start = position[graph[source].inputs[0]]
                _draw_skip(ax, start, x, -1, "the block's own shortcut", "#777777")
    for x, step in enumerate(path):
        text, colour = label(step)
        shape = "circle,pad=0.2" if text == "+" else "round,pad=0.35"
        box = {"boxstyle": shape, "fc": "white", "ec": colour, "lw": 1.2}
        ax.text(x, 0, text, ha="center", va="center", fontsize=7, bbox=box)
    ax.set(xlim=(-0.4, len(path) - 0.6), ylim=(-1.3, 1.3))
    return fig


def _draw_skip(ax: Axes, start: int, end: int, side: int, text: str, colour: str) -> None:
    """Draw a line from behind one step to another, above the path (side 1) or below it (-1)."""
    left, height = start + 0.42, 0.9 * side
    line = "--" if side > 0 else "-"
    ax.plot((left, left, end, end), (0, height, height, 0.5 * side), line, color=colour)
    arrow = {"arrowstyle": "-|>", "color": colour}
    ax.annotate("", (end, 0.22 * side), (end, 0.52 * side), arrowprops=arrow)
    align = "bottom" if side > 0 else "top"
    middle = (left + end) / 2
    ax.text(middle, height + 0.08 * side, text, color=colour, ha="center", va=align, fontsize=7)


def label(step: Step) -> tuple[str, str]:
    """Return the text in the box of a step, and its colour."""
    layer = step.layer
    if isinstance(layer, nn.Conv2d):
        return "{} x {}\nconv".format(*layer.kernel_size), "#777777"
    if isinstance(layer, nn.BatchNorm2d):
        return "batch\nnorm", "#777777"
    if isinstance(layer, GhostReLU):
        return "Swish\n→ ReLU", style.COLOUR_OF["GSw"]
    if isinstance(layer, GhostSkip):
        return "+", style.COLOUR_OF["GSk"]
    return {"x": "x", "output": "out"}.get(step.name, "+"), "#777777"
