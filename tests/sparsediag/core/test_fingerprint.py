"""Fingerprints: other code or another constant is seen, wherever it is; the same is the same."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsediag import Problem
from sparsediag.core.fingerprint import describe_code, is_custom

SOURCE = """
import functools
import math
import numpy as np
import torch
from torch import nn
import helpers

POWER = 2
LIMITS = {"low": 0.5, "all": [1, 2]}
KINDS = {"a", "b", "c"}
OFFSET = torch.tensor([1.0, 2.0])
GRID = np.arange(3.0)
calls = []
count = 0

def inner(x):
    return math.sqrt(x) + POWER

def decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 3
    return wrapper

def make(factor):
    total = 0
    def scaled(x):
        nonlocal total
        total += 1
        return x * factor
    return scaled

scaled = make(4)

class Base:
    def start(self, x):
        return x - 5

class Own(Base, nn.Module):
    size = 6
    seen = 0

    @property
    def width(self):
        return 7

    @staticmethod
    def fixed():
        return 8

    @torch.no_grad()
    def forward(self, x, bias=9):
        global count
        count += 1
        calls.append(x)
        type(self).seen += 1
        if x in {"d", "e", "f"}:
            return [y * 10 for y in LIMITS]
        return inner(x) + decorated(x) + scaled(x) + helpers.shift(x), KINDS, OFFSET, GRID

@decorate
def decorated(x):
    return x * 11
"""
HELPERS = "SHIFT = 12\ndef shift(x): return x + SHIFT\n"
CHANGES = {
    "a constant": ("POWER = 2", "POWER = 20"),
    "a dict": ('"low": 0.5', '"low": 0.25'),
    "a list in a dict": ("[1, 2]", "[1, 3]"),
    "a set": ('"a", "b", "c"', '"a", "b", "x"'),
    "a tensor": ("tensor([1.0,", "tensor([3.0,"),
    "an array": ("np.arange(3.0)", "np.arange(4.0)"),
    "a helper": ("math.sqrt(x)", "math.exp(x)"),
    "a decorator": ("+ 3", "+ 30"),
    "a decorated helper": ("x * 11", "x * 110"),
    "a closure": ("make(4)", "make(40)"),
    "a base class": ("x - 5", "x - 50"),
    "a class variable": ("size = 6", "size = 60"),
    "a property": ("return 7", "return 70"),
    "a static method": ("return 8", "return 80"),
    "a default": ("bias=9", "bias=90"),
    "a method behind no_grad": ("y * 10", "y * 100"),
    "a set in the code": ('"d", "e", "f"', '"d", "e", "g"'),
    "a constant of another module": ("SHIFT = 12", "SHIFT = 120"),
    "a function of another module": ("return x + SHIFT", "return x - SHIFT"),
}


def own(monkeypatch: pytest.MonkeyPatch, change: tuple[str, str] = ("", "")) -> Any:
    """The class of the text above, after a change of it or of its helpers."""
    modules = {}
    for name, text in (("helpers", HELPERS), ("methods", SOURCE)):
        modules[name] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, modules[name])
        exec(text.replace(*change), vars(modules[name]))
    return modules["methods"].Own


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_anywhere_in_the_users_code_is_seen(
    change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (SOURCE + HELPERS).count(change[0]) == 1
    before = describe_code(own(monkeypatch))
    assert describe_code(own(monkeypatch, change)) != before
    assert describe_code(own(monkeypatch)) == before


def test_comments_and_counters_are_not_code(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = own(monkeypatch)
    before = describe_code(kind)
    kind()(16.0)
    assert (kind.seen, len(sys.modules["methods"].calls)) == (1, 1)
    vars(sys.modules["methods"])["seen"] = 100  # the name of an attribute is no global
    assert describe_code(kind) == before
    assert describe_code(own(monkeypatch, ("\n    size", "\n\n    # a word\n    size"))) == before


def test_a_description_is_the_same_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "methods.py").write_text(SOURCE)
    (tmp_path / "helpers.py").write_text(HELPERS)
    text = "import methods; from sparsediag.core.fingerprint import describe_code as describe\n"
    text += "print(describe(methods.Own))"
    root = Path(describe_code.__code__.co_filename).parents[2]
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    elsewhere = subprocess.check_output(
        [sys.executable, "-c", text], env=os.environ | environment, text=True
    )
    assert elsewhere == describe_code(own(monkeypatch)) + "\n"


class Color(enum.Enum):
    RED = 1


@dataclass(frozen=True, slots=True)
class Options:
    power: int = 1


class Pair(NamedTuple):
    low: float = 0.5


class Loud:
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@cache
def cached(x: int) -> int:
    return x + len(ROUND)


ROUND: list[Any] = [1]
ROUND.append(ROUND)
UNUSUAL = [Color, Color.RED, Options, Options(), Pair, Pair(), Loud, Loud(), cached, ROUND]
UNUSUAL += [np.add, torch.relu, lambda: None, iter([]), object(), np.array([{}])]
UNUSUAL += [torch.ones(2, device="meta"), torch.ones(2, dtype=torch.bfloat16)]
SPARSE = torch.eye(2).to_sparse()
OTHERS = [(np.add, np.subtract), (torch.relu, torch.tanh), (Options(1), Options(2))]
OTHERS += [(Pair(1), Pair(2)), (SPARSE, 2 * SPARSE), ({"a": [1]}, {"a": [2]})]


def test_whatever_code_refers_to_has_a_description() -> None:
    whole = [describe_code(one) for one in UNUSUAL]
    for one, text in reversed([*zip(UNUSUAL, whole, strict=True)]):
        assert describe_code(one) == text  # in any order


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_values_have_other_descriptions(one: Any, other: Any) -> None:
    assert describe_code(lambda x: (one, x)) != describe_code(lambda x: (other, x))


def test_what_is_the_users() -> None:
    assert is_custom(own)
    assert not any(map(is_custom, (int, partial, nn.Linear, F.mse_loss, Problem, Problem.view)))
    names: dict[str, Any] = {}
    exec("class Typed: pass", names)
    assert is_custom(names["Typed"])


@pytest.mark.parametrize("change", [("x * factor", "x + factor"), ("make(4)", "make(5)")])
def test_a_loss_and_a_net_are_other_ones_with_other_helpers(
    change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that unfinished work with the old code is not continued."""

    def digests(*change: str) -> dict[str, str]:
        module = sys.modules[own(monkeypatch, change or ("", "")).__module__]
        text = "def loss(z, y): return scaled((z - y).square().mean())\n"
        text += "class Net(nn.Linear):\n    def forward(self, x): return scaled(super().forward(x))"
        exec(text, vars(module))
        torch.manual_seed(0)
        return Problem(
            module.Net(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=module.loss
        ).digests

    before, after = digests(), digests(*change)
    assert {k for k in before if before[k] != after[k]} == {"net", "loss"}
    assert digests() == before
