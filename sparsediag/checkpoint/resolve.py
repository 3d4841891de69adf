"""Resolve the model, data and loss given on the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from sparsediag import models
from sparsediag.checkpoint.user_code import (
    OWN,
    accepted_kwargs,
    import_object,
    required_kwargs,
    user_code,
)
from sparsediag.core.errors import unknown

Model = str | Callable[..., nn.Module] | nn.Module
Loss = Callable[[Any, Any], Any]
DEFAULTS = {"split": "train", "images": 1000, "batch": 128}


def net(
    model: Model,
    options: Mapping[str, Any] | None = None,
    *,
    recorded: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The net that a name, a function, or a net stands for.

    Args:
        model: A name in `models.MODELS`, `torchvision:NAME`, `timm:NAME`, `file.py:make`,
            `package.module:Net`, a function or class that makes a net, or a net.
        options: Keywords of what makes it.
        recorded: Keywords for it where there are no options, as far as it takes them.

    Raises:
        ValueError: If there is no such thing, or it fails, or gives something else.

    >>> net("mlp", {"size": 4, "hidden": (3,)}).fc
    Linear(in_features=3, out_features=10, bias=True)
    """
    name = called(model)
    make = _maker(model) if isinstance(model, str) else model
    if isinstance(make, nn.Module):
        if options:
            raise ValueError(f"{name} is a net already; options are for what makes one")
        return make
    if not callable(make):
        raise ValueError(f"{name} is a {type(make).__name__}; need what makes a net")
    with user_code(name):
        made = make(**(accepted_kwargs(make, recorded or {}) if options is None else options))
    if not isinstance(made, nn.Module):
        raise ValueError(f"{name} gave a {type(made).__name__}; need a torch.nn.Module")
    return made


def called(what: Any) -> str:
    """Return a name for an object that was given or named."""
    return what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)


def own(data: Any) -> bool:
    """Return whether batches are custom, not a data set that `data.load` knows.

    >>> own("digits"), own("folder:images"), own("file.py:batches")
    (False, False, True)
    """
    return not isinstance(data, str) or (":" in data and not data.startswith("folder:"))


def batches(data: str | Callable[..., Any] | Iterable[Any], **asked: Any) -> Iterable[Any]:
    """The batches that a name, a function, or a list or loader stands for.

    A function gets what was asked for, and `DEFAULTS` only where it needs something. All images
    are `images=None` to it.

    Args:
        data: What gives them.
        **asked: split, images (0 for all) and batch, each None where it was not asked for.

    Raises:
        ValueError: If there is no such thing, it fails, or it does not take what was asked for.

    >>> import torch
    >>> batches(lambda batch=3: [torch.ones(batch, 2)], images=None, batch=4)[0].shape
    torch.Size([4, 2])
    """
    name = called(data)
    found = import_object(data) if isinstance(data, str) else data
    wanted = {key: value for key, value in asked.items() if value is not None}
    gets = accepted_kwargs(found, wanted) if callable(found) else {}
    for key, value in wanted.items():
        if key not in gets:
            raise ValueError(f"{name} takes no {key}, and {value} came; leave it out")
    if callable(found):
        gets = {key: DEFAULTS[key] for key in required_kwargs(found, DEFAULTS)} | gets
    if gets.get("images") == 0:
        gets["images"] = None
    if callable(found):
        with user_code(name):
            found = found(**gets)
    if not isinstance(found, Iterable):
        raise ValueError(f"{name} gave a {type(found).__name__}; need a list or loader of batches")
    return found


def loss(named: str) -> Loss:
    """A loss of `torch.nn.functional`, or a custom one, by its name.

    >>> import torch
    >>> loss("mse_loss")(torch.ones(2), torch.zeros(2))
    tensor(1.)
    """
    if ":" not in named:
        known = {n: f for n, f in vars(F).items() if inspect.isfunction(f) and _compares(f)}
        if named not in known:
            raise ValueError(f"{unknown('loss', named, known)} Your own: file.py:loss.")
        found: Loss = known[named]
        return found
    made = import_object(named)
    if inspect.isclass(made):
        with user_code(named):
            made = made()
    if not callable(made):
        raise ValueError(f"{named} is a {type(made).__name__}; need loss(outputs, targets)")
    own_loss: Loss = made
    return own_loss


def options(text: str) -> dict[str, Any]:
    """Keywords as Python has them, of plain values only.

    >>> options("num_classes=10, size=(8, 8)")
    {'num_classes': 10, 'size': (8, 8)}
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        found = {_name(k): ast.literal_eval(k.value) for k in call.keywords}
        if len(found) < len(call.keywords):
            raise ValueError
        return found
    except (ValueError, SyntaxError):
        raise ValueError(
            f"'{text}' are no options; need plain values, as in 'classes=10, kind=\"small\"'"
        ) from None


def _maker(words: str) -> Any:
    kind, _, name = words.partition(":")
    if words in models.MODELS:
        return partial(models.build, words)
    if ":" not in words:
        also = f"Your own: {OWN}; others': torchvision:NAME or timm:NAME."
        raise ValueError(f"{unknown('model', words, models.MODELS)} {also}")
    if kind not in ("torchvision", "timm"):
        return import_object(words)
    try:
        zoo = importlib.import_module("torchvision.models" if kind == "torchvision" else kind)
    except ImportError:
        raise ValueError(f"{kind} is not installed; pip install {kind}") from None
    known = zoo.list_models()
    if name not in known:
        raise ValueError(unknown(f"{kind} model", name, get_close_matches(name, known, 5, 0)))
    if kind == "timm":
        return lambda **options: zoo.create_model(name, pretrained=False, **options)
    build = zoo.get_model_builder(name)
    has = inspect.signature(build).parameters
    none = {key: None for key in ("weights", "weights_backbone") if key in has}  # no download
    return lambda **options: build(**none, **options)


def _name(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("two asterisks")
    return keyword.arg


def _compares(function: Callable[..., Any]) -> bool:
    """Return whether it can be called as loss(outputs, targets)."""
    first, *rest = inspect.signature(function).parameters.items()
    names = [first[0], *(n for n, p in rest if p.default is p.empty)]
    return names == ["input", "target"]
