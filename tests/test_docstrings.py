"""Docstrings and names: every example runs; names and first lines are in the field's words."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from docstring_parser import parse

import sparsediag
import training

ROOT = Path(__file__).parent.parent
SOURCES = [
    file
    for package in ("sparsediag", "training", "figures")
    for file in sorted((ROOT / package).rglob("*.py"))
]
MODULES = [
    module.name
    for package in (sparsediag, training)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["sparsediag", *MODULES])
def test_examples_run(name: str) -> None:
    if name.endswith("integrations.peft"):
        pytest.importorskip("peft")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


PUBLIC = [
    (f"{where.__name__}.{name}", found)
    for where in (sparsediag, sparsediag.data, sparsediag.maskfile, sparsediag.models)
    for name in getattr(where, "__all__", vars(where))
    if not name.startswith("_") and inspect.isfunction(found := getattr(where, name))
    if found.__module__.startswith("sparsediag.") and name not in ("home", "atomic_write")
]


@pytest.mark.parametrize(("name", "function"), PUBLIC)
def test_public_functions_explain_themselves(name: str, function: Callable[..., object]) -> None:
    told = inspect.getdoc(function) or ""
    explained = {p.arg_name.lstrip("*") for p in parse(told).params}
    assert explained >= set(inspect.signature(function).parameters), "an argument is missing"
    assert ">>>" in told or name.endswith(".save")


def test_there_are_examples() -> None:
    tried = [doctest.testmod(importlib.import_module(name)).attempted for name in MODULES]
    assert sum(tried) >= 40


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_docstring_begins_with_a_riddle(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            first = (ast.get_docstring(node) or "-").split()[0].rstrip(",")
            assert first not in ("What", "How", "Whether", "One"), getattr(node, "name", file.name)


# names that say nothing to a stranger, and that functions and classes once had
RIDDLES = re.compile(
    "still|kinds|added|scalar|joined|exactly|measuring|hits|bare|typed|usable|thing|running|taken|"
    "needed|even|fitting|separate|moved|written|push|pull|upright|lasting|together|stopped|"
    "everywhere|carried|settled|Scene|halfway|endless|recorded|later|settle|asleep|banished|ours|"
    "interned"
)


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_definition_has_a_private_word_for_a_name(file: Path) -> None:
    definitions = (ast.FunctionDef, ast.ClassDef)
    names = {n.name for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, definitions)}
    assert [name for name in names if RIDDLES.fullmatch(name)] == []
