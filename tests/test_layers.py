"""Rooms: every import goes from a room to one below it, and there is no circle.

Every import statement counts, also under TYPE_CHECKING and inside functions.
"""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"sparsediag.core"}
BELOW = GROUND | {"sparsediag.models", "sparsediag.data", "sparsediag.plotting"}
SURFACES = GROUND | {"sparsediag.curvature"}
LIBRARY = BELOW | SURFACES | {"sparsediag.surfaces", "sparsediag.checkpoint"}
LIBRARY |= {"sparsediag.diagnostics"}

# a room, and what it may import beside itself
ROOMS: dict[str, set[str]] = {
    "sparsediag.core": set(),
    "sparsediag.models": GROUND,
    "sparsediag.data": GROUND,
    "sparsediag.plotting": GROUND,
    "sparsediag.curvature": GROUND,
    "sparsediag.surfaces": SURFACES,
    "sparsediag.checkpoint": GROUND | {"sparsediag.models", "sparsediag.data"},
    "sparsediag.diagnostics": LIBRARY - {"sparsediag.diagnostics"},
    "sparsediag.watch": SURFACES | {"sparsediag.diagnostics"},
    "sparsediag.integrations": GROUND | {"sparsediag.watch"},
    "sparsediag.cli": LIBRARY,
    "sparsediag": LIBRARY | {"sparsediag.cli", "sparsediag.watch"},  # __init__ and __main__
    "training": LIBRARY | {"sparsediag", "sparsediag.watch"},
    "figures": LIBRARY | {"sparsediag", "training"},
}
# names in texts that a room imports only when a user asks for them: `sparsediag train`
BY_NAME = {"sparsediag.cli": {"training"}}
FILES = {
    ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f
    for package in ("sparsediag", "training", "figures")
    for f in sorted((ROOT / package).rglob("*.py"))
}


def room(module: str) -> str:
    """The room that a module lies in."""
    while module not in ROOMS:
        module = module.rpartition(".")[0]
    return module


def imports(name: str) -> Iterator[tuple[int, str]]:
    """Lines and modules of ours that a file imports."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [module if module in FILES else node.module for module in inner]
        else:
            continue
        yield from ((node.lineno, module) for module in found if module in FILES)


def test_every_room_is_in_the_table() -> None:
    """And `sparsediag/` holds nothing beside its rooms, `__init__` and `__main__`."""
    rooms = {name for name in ROOMS if name.startswith("sparsediag.")}
    found = {name for name in FILES if name.count(".") == 1 and name.startswith("sparsediag.")}
    assert found == rooms | {"sparsediag.__main__"}
    assert len(rooms) <= 11


@pytest.mark.parametrize("name", FILES)
def test_every_import_goes_down(name: str) -> None:
    own = room(name)
    for line, module in imports(name):
        other = room(module)
        assert other == own or other in ROOMS[own], f"{FILES[name]}:{line} imports {module}"


@pytest.mark.parametrize("name", FILES)
def test_a_module_named_in_a_text_lies_below_too(name: str) -> None:
    """Such as `import_module("training.loop")`, or a command given as "module:function"."""
    own = room(name)
    allowed = {own} | ROOMS[own] | BY_NAME.get(own, set())
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"\w+(\.\w+)+(:\w+)?", text):
            module = text.partition(":")[0]
            assert module not in FILES or room(module) in allowed, f"{FILES[name]}: {text}"


def test_there_is_no_circle() -> None:
    graph = {name: {module for _, module in imports(name)} - {name} for name in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)


@pytest.mark.parametrize("name", [name for name in ROOMS if name.count(".") == 1])
def test_a_room_says_what_it_is_for(name: str) -> None:
    told = ast.get_docstring(ast.parse(FILES[name].read_text())) or ""
    assert told.endswith(".")
    assert len(told.splitlines()[0]) > 15


def test_the_wheel_holds_two_packages(tmp_path: Path) -> None:
    script = f"import hatchling.build as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        top = {entry.split("/")[0] for entry in wheel.namelist()}
    assert {entry for entry in top if not entry.endswith(".dist-info")} == {
        "sparsediag",
        "training",
    }
