"""Imports run one way: training -> sparsediag <- figures, and inside each from high to low."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# low to high; modules on one line do not import each other
ORDER = [
    [
        "sparsediag.core.errors",
        "sparsediag.core.version",
        "sparsediag.core.batch_loss",
        "sparsediag.core.atomic",
        "sparsediag.core.device",
        "sparsediag.core.rng",
        "sparsediag.plotting.terminal",
        "sparsediag.curvature.tape_rules",
        "sparsediag.curvature.krylov",
        "sparsediag.core.process",
        "sparsediag.options",
        "sparsediag.core.prunable",
        "sparsediag.core.twice_differentiable",
        "sparsediag.curvature.cuda_graph",
    ],
    [
        "sparsediag.checkpoint.safe_load",
        "sparsediag.checkpoint.user_code",
        "sparsediag.core.fingerprint",
        "sparsediag.curvature.recorder",
        "sparsediag.surfaces.point_log",
        "sparsediag.plotting.style",
    ],
    [
        "sparsediag.curvature.bn_folding",
        "sparsediag.core.evaluation",
        "sparsediag.core.html",
        "sparsediag.plotting.layers",
        "sparsediag.plotting.svg",
        "sparsediag.plotting.spectrum",
    ],
    [
        "sparsediag.core.mask",
        "sparsediag.models",
        "sparsediag.data.images",
        "sparsediag.curvature.lanczos",
        "sparsediag.curvature.slq",
        "sparsediag.curvature.tape",
    ],
    ["sparsediag.checkpoint.mask_conventions", "sparsediag.checkpoint.resolve"],
    ["sparsediag.checkpoint.state_dicts"],
    [
        "sparsediag.checkpoint.mask_file",
        "sparsediag.diagnostics.connectivity",
        "sparsediag.core.coordinates",
        "sparsediag.data.datasets",
        "sparsediag.core.batches",
        "sparsediag.curvature.certificate",
        "sparsediag.curvature.forward_over_reverse",
        "sparsediag.core.double_backward",
    ],
    ["sparsediag.core.validation", "sparsediag.core.losses"],
    [
        "sparsediag.core.problem",
        "sparsediag.checkpoint.strip_pruning",
        "sparsediag.checkpoint.load_weights",
    ],
    ["sparsediag.checkpoint.rebuild"],
    [
        "sparsediag.surfaces.directions",
        "sparsediag.checkpoint.checkpoint",
        "sparsediag.diagnostics.result",
        "sparsediag.curvature.pyhessian",
        "sparsediag.core.memory_format",
        "sparsediag.diagnostics.layers.hooks",
        "sparsediag.diagnostics.layers.zero_counts",
        "sparsediag.diagnostics.layers.signal_moments",
    ],
    [
        "sparsediag.curvature.engines",
        "sparsediag.diagnostics.layers.unit_axis",
        "sparsediag.core.filter_norms",
        "sparsediag.curvature.chunks",
    ],
    ["sparsediag.curvature.operator"],
    ["sparsediag.curvature.eigensolvers"],
    ["sparsediag.surfaces.plane"],
    [
        "sparsediag.surfaces.interpolation",
        "sparsediag.surfaces.evaluate",
        "sparsediag.surfaces.adaptive",
    ],
    ["sparsediag.surfaces.checks", "sparsediag.surfaces.parallel"],
    ["sparsediag.surfaces.grid", "sparsediag.plotting.landscape", "sparsediag.surfaces.export"],
    ["sparsediag.diagnostics"],
    ["sparsediag.job", "sparsediag.output"],
    ["sparsediag.reporting"],
    ["sparsediag.cli"],
    ["sparsediag.__main__"],
    ["training.schedule", "training.table", "training.augment", "training.prerequisite"],
    ["training.optim", "training.keeper", "training.zero", "training.compute", "training.model"],
    ["training.masks", "training.tweaks"],
    ["training.config"],
    ["training.records", "training.feed"],
    ["training.start", "training.step"],
    ["training.captured"],
    ["training.loop"],
    ["training.engine"],
    ["training.work"],
    ["training.stages", "training.catalogue"],
    ["training.progress"],
    ["training.__main__"],
    ["figures.need", "figures.estimate"],
    ["figures.scales", "figures.claims", "figures.tables", "figures.accuracy"],
    ["figures.store", "figures.margins"],
    ["figures.lottery"],
    ["figures.tost"],
    ["figures.pipeline"],
    ["figures.items"],
    ["figures.plan"],
    ["figures.bill", "figures.findings"],
    ["figures.page"],
    ["figures.__main__"],
]
LEVEL = {module: level for level, modules in enumerate(ORDER) for module in modules}
FILES = [
    file
    for package in ("sparsediag", "training", "figures")
    for file in sorted((ROOT / package).rglob("*.py"))
]


def layer(module: str) -> str | None:
    """The entry of ORDER that a module belongs to."""
    while module and module not in LEVEL:
        module = module.rpartition(".")[0]
    return module or None


def imports(file: Path) -> list[tuple[int, str]]:
    """Lines and modules that a file imports, but for those that only a type checker sees."""
    found = []
    pending: list[ast.AST] = [ast.parse(file.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        pending += ast.iter_child_nodes(node)
    return found


def name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_import_goes_down(file: Path) -> None:
    own = layer(name(file))
    for line, module in imports(file):
        package = module.split(".")[0]
        if package not in ("sparsediag", "training", "figures") or own is None:
            continue
        other = layer(module)
        if other is None or other == own:
            continue
        assert LEVEL[other] < LEVEL[own], f"{name(file)}:{line} imports {module}, above it"


def test_every_module_has_a_place() -> None:
    packages = {"sparsediag", "training", "figures"}
    assert [name(f) for f in FILES if layer(name(f)) is None and name(f) not in packages] == []


def test_the_wheel_holds_two_packages(tmp_path: Path) -> None:
    script = f"import hatchling.build as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        top = {entry.split("/")[0] for entry in wheel.namelist()}
    assert {entry for entry in top if not entry.endswith(".dist-info")} == {
        "sparsediag",
        "training",
    }
