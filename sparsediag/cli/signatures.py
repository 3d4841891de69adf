"""The signature of a diagnostic, read from its source, so that `--help` does not wait for torch."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparsediag.diagnostics import ADDED

LIGHT = ("collections.abc", "pathlib", "typing")  # modules that are imported as usual


@dataclass(frozen=True)
class Signature:
    """Keywords, help and traits of a diagnostic, as the command line needs them.

    Attributes:
        keywords: Keyword -> annotation and default.
        docstring: Of the function.
        traits: Names of the traits that it declares.
        hidden: Keywords that are read from the checkpoint.
    """

    keywords: dict[str, tuple[Any, Any]]
    docstring: str
    traits: frozenset[str]
    hidden: frozenset[str]


def signature_of(name: str) -> Signature:
    """Return the signature of a diagnostic.

    >>> signature_of("landscape").keywords["points"]
    (<class 'int'>, 25)
    """
    if name in ADDED:
        return _of_function(ADDED[name])
    names = SourceNames(f"sparsediag.diagnostics.{name}")
    function = names.nodes[name]
    assert isinstance(function, ast.FunctionDef)
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    keywords = {
        a.arg: (names.evaluate(a.annotation), names.evaluate(default))
        for a, default in pairs
        if a.annotation and default
    }
    (decorator,) = function.decorator_list  # @diagnostic(Traits(...))
    calls = [node for node in ast.walk(decorator) if isinstance(node, ast.Call)]
    traits = next((c for c in calls if ast.unparse(c.func) == "Traits"), None)
    declared = {k.arg or "": k.value for k in (traits.keywords if traits else [])}
    hidden = declared.get("from_checkpoint", ast.Dict([], []))
    assert isinstance(hidden, ast.Dict)
    return Signature(
        keywords=keywords,
        docstring=ast.get_docstring(function) or "",
        traits=frozenset(declared),
        hidden=frozenset(ast.literal_eval(key) for key in hidden.keys if key),
    )


def _of_function(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function of a plug-in, which is imported already."""
    traits, hints = getattr(function, "traits", None), typing.get_type_hints(function)
    declared = {name: value for name, value in vars(traits).items() if value} if traits else {}
    parameters = inspect.signature(function).parameters.values()
    return Signature(
        keywords={
            p.name: (hints.get(p.name, type(p.default)), p.default)
            for p in parameters
            if p.kind is p.KEYWORD_ONLY
        },
        docstring=inspect.getdoc(function) or "",
        traits=frozenset(declared),
        hidden=frozenset(declared.get("from_checkpoint", ())),
    )


class SourceNames(dict[str, Any]):
    """The names in a module of ours, evaluated from its source when they are asked for.

    Constants and aliases of types, such as `Literal["filter", "none"]`, have their values. Anything
    else that the module defines or imports, such as a class, is a stand-in.
    """

    def __init__(self, module: str) -> None:
        super().__init__()
        source = getattr(find_spec(module), "origin", "")
        self.nodes: dict[str, ast.stmt] = {}
        for node in ast.parse(Path(source).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.nodes[node.name] = node
            elif isinstance(node, ast.ImportFrom):
                self.nodes |= {alias.asname or alias.name: node for alias in node.names}
            elif isinstance(node, ast.Assign):
                self.nodes |= {ast.unparse(target): node for target in node.targets}

    def evaluate(self, expression: ast.expr) -> Any:
        """Return the value of an expression of the module."""
        return eval(compile(ast.Expression(expression), "<source>", "eval"), {}, self)

    def __missing__(self, name: str) -> Any:
        node, value = self.nodes[name], type(name, (), {})
        if isinstance(node, ast.Assign):
            value = self.evaluate(node.value)
        elif isinstance(node, ast.ImportFrom) and node.module:
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            if node.module in LIGHT:
                value = getattr(import_module(node.module), original)
            elif node.module.startswith("sparsediag."):
                value = SourceNames(node.module)[original]
        self[name] = value
        return value
