"""ToST, Figure 4: a block of ResNet-18 with ghost skips and soft neurons. A schematic.

Every 3x3 convolution gets a skip from its input to its output, before the activation, behind a gate
that shuts. Layers and connections are read from the block that is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import fx, nn

from figures.claims import Claim, Results
from figures.measurement import Need
from figures.scales import Scale
from figures.tost._runs import run
from sparsediag import models
from sparsediag.models import GhostReLU, GhostSkip
from sparsediag.models.ghost import NoSkip
from sparsediag.plotting import style

NEEDS: dict[str, Need] = {}
CLAIMS: tuple[Claim, ...] = ()

BLOCK = "layer1.0"


@dataclass(frozen=True)
class Step:
    """A step of the block's forward pass.

    Attributes:
        name: Its name, for a layer as in the block.
        layer: The layer; None for the input, a sum and the output.
        inputs: Names of the steps that it takes, the main one first.
    """

    name: str
    layer: nn.Module | None
    inputs: tuple[str, ...]


class _Layers(fx.Tracer):
    """Sees a block's layers as they are, without a look inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def steps() -> list[Step]:
    """The forward pass of a block with ToST's ghosts; sites without a ghost are left out."""
    options: dict[str, str] = {}
    for tweak in run("ToST").tweaks.values():
        options |= tweak.options()
    block = models.build("resnet18", **options).get_submodule(BLOCK)
    found: list[Step] = []
    stands_for: dict[str, str] = {}
    for node in _Layers().trace(block).nodes:
        layer = block.get_submodule(node.target) if node.op == "call_module" else None
        inputs = tuple(stands_for.get(n.name, n.name) for n in node.all_input_nodes)
        if isinstance(layer, NoSkip):
            stands_for[node.name] = inputs[0]
        else:
            found.append(Step(node.name, layer, inputs))
    return found


def draw(results: Results, scale: Scale) -> Figure:
    """The main path from left to right; skips above it, the block's own shortcut below."""
    fig = style.new_figure(style.PAGE, 1.7)
    ax = fig.add_subplot()
    ax.axis("off")
    known = {step.name: step for step in steps()}
    path = ["output"]
    while known[path[0]].inputs:
        path.insert(0, known[path[0]].inputs[0])
    place = {name: i for i, name in enumerate(path)}
    for name in path[1:]:
        step, x = known[name], place[name]
        arrow = {"arrowstyle": "-|>", "color": "black"}
        ax.plot((x - 1, x), (0, 0), color="black", lw=1, zorder=0)
        ax.annotate("", (x - 0.33, 0), (x - 0.6, 0), arrowprops=arrow, zorder=0)
        for other in step.inputs[1:]:
            if isinstance(step.layer, GhostSkip):
                text = f"ghost skip ({step.layer.kind}) behind its gate"
                _around(ax, place[other], x, 1, text, style.COLOUR_OF["GSk"])
            else:
                start = place[known[other].inputs[0]]
                _around(ax, start, x, -1, "the block's own shortcut", "#777777")
    for name in path:
        _box(ax, place[name], known[name])
    ax.set(xlim=(-0.4, len(path) - 0.6), ylim=(-1.3, 1.3))
    return fig


def _around(ax: Axes, start: int, end: int, side: int, text: str, colour: str) -> None:
    """A line from behind a step to before another, above the path or below it."""
    behind, height = start + 0.42, 0.9 * side
    line = "--" if side > 0 else "-"
    ax.plot((behind, behind, end, end), (0, height, height, 0.5 * side), line, color=colour)
    arrow = {"arrowstyle": "-|>", "color": colour}
    ax.annotate("", (end, 0.22 * side), (end, 0.52 * side), arrowprops=arrow)
    place = "bottom" if side > 0 else "top"
    middle = (behind + end) / 2
    ax.text(middle, height + 0.08 * side, text, color=colour, ha="center", va=place, fontsize=7)


def told(step: Step) -> tuple[str, str]:
    """Return what stands in the box of a step, and its colour."""
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


def _box(ax: Axes, x: int, step: Step) -> None:
    text, colour = told(step)
    shape = "circle,pad=0.2" if text == "+" else "round,pad=0.35"
    box = {"boxstyle": shape, "fc": "white", "ec": colour, "lw": 1.2}
    ax.text(x, 0, text, ha="center", va="center", fontsize=7, bbox=box)
