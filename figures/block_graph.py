"""The forward pass of a network's block as a graph, traced from the code that is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from sparsediag.models.ghost import NoSkip


@dataclass(frozen=True)
class Step:
    """A step of the forward pass.

    Attributes:
        name: Its name; for a layer, that of the layer in the block.
        layer: The layer; None for the input, a sum and the output.
        inputs: Names of the steps whose outputs it takes, the main one first.
    """

    name: str
    layer: nn.Module | None
    inputs: tuple[str, ...]


class _LayerTracer(fx.Tracer):
    """Record each layer of a block as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Do not trace into layers."""
        return True


def trace(block: nn.Module) -> dict[str, Step]:
    """Return all steps by name, in order; places for a ghost skip that have none are left out."""
    steps: dict[str, Step] = {}
    bypassed: dict[str, str] = {}
    for node in _LayerTracer().trace(block).nodes:
        layer = block.get_submodule(str(node.target)) if node.op == "call_module" else None
        inputs = tuple(bypassed.get(n.name, n.name) for n in node.all_input_nodes)
        if isinstance(layer, NoSkip):
            bypassed[node.name] = inputs[0]
        else:
            steps[node.name] = Step(node.name, layer, inputs)
    return steps


def main_path(steps: dict[str, Step]) -> list[Step]:
    """Return the steps from the input to the output along the main inputs."""
    path = [steps["output"]]
    while path[0].inputs:
        path.insert(0, steps[path[0].inputs[0]])
    return path
