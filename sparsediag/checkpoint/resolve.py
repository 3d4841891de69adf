"""Resolve the model, data and loss given on the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import nn

from sparsediag import models
from sparsediag.checkpoint import DEFAULTS
from sparsediag.checkpoint.user_code import (
    SYNTAX,
    accepted_kwargs,
    import_object,
    required_kwargs,
    user_code,
)
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Loss

Model = str | Callable[..., nn.Module] | nn.Module


def net(
    model: Model,
    options: Mapping[str, Any] | None = None,
    *,
    recorded: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the network that is given by a name, a function or itself.

    Args:
        model: A name in `models.MODELS`, `torchvision:NAME`, `timm:NAME`, `hf:FOLDER`,
            `file.py:make`, `package.module:Net`, a function or class that makes a network, or a
            network.
        options: Keywords for the function.
        recorded: Keywords of a checkpoint, used without `options` as far as the function takes
            them.

    Raises:
        ValueError: If there is no such model, or it fails, or is no network.

    >>> net("mlp", {"size": 4, "hidden": (3,)}).fc
    Linear(in_features=3, out_features=10, bias=True)
    """
    name = label(model)
    make = _model_function(model) if isinstance(model, str) else model
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


def label(obj: Any) -> str:
    """Return a name for messages: the name that was given, or that of the object."""
    return obj if isinstance(obj, str) else getattr(obj, "__name__", type(obj).__name__)


def is_custom_data(data: Any) -> bool:
    """Return whether data are batches of the user, not a data set that `data.load` knows.

    >>> is_custom_data("digits"), is_custom_data("folder:images"), is_custom_data("file.py:batches")
    (False, False, True)
    """
    return not isinstance(data, str) or (":" in data and not data.startswith("folder:"))


def batches(data: str | Callable[..., Any] | Iterable[Any], **asked: Any) -> Iterable[Any]:
    """Return the batches that are given by a name, a function, or a list or loader.

    A function gets the values that were asked for, and `DEFAULTS` only for arguments that it needs.
    It gets `images=None` for all images.

    Args:
        data: The name, function, list or loader.
        **asked: split, images (0 for all) and batch; None where it was not asked for.

    Raises:
        ValueError: If there is no such object, it fails, or does not take a value that was asked
            for.

    >>> import torch
    >>> batches(lambda batch=3: [torch.ones(batch, 2)], images=None, batch=4)[0].shape
    torch.Size([4, 2])
    """
    name = label(data)
    source = import_object(data) if isinstance(data, str) else data
    wanted = {key: value for key, value in asked.items() if value is not None}
    accepted = accepted_kwargs(source, wanted) if callable(source) else {}
    for key, value in wanted.items():
        if key not in accepted:
            raise ValueError(f"{name} takes no {key}, got {value}; leave it out")
    if callable(source):
        kwargs = {key: DEFAULTS[key] for key in required_kwargs(source, DEFAULTS)} | accepted
        if kwargs.get("images") == 0:
            kwargs["images"] = None
        with user_code(name):
            source = source(**kwargs)
    if not isinstance(source, Iterable):
        raise ValueError(f"{name} gave a {type(source).__name__}; need a list or loader of batches")
    return source


def loss(name: str) -> Loss:
    """Return a loss of `torch.nn.functional`, or one of the user, by its name.

    >>> import torch
    >>> loss("mse_loss")(torch.ones(2), torch.zeros(2))
    tensor(1.)
    """
    if ":" not in name:
        known: dict[str, Loss] = {
            n: f for n, f in vars(F).items() if inspect.isfunction(f) and _is_loss(f)
        }
        if name not in known:
            raise ValueError(f"{unknown_name('loss', name, known)} Your own: file.py:loss.")
        return known[name]
    made = import_object(name)
    if inspect.isclass(made):
        with user_code(name):
            made = made()
    if not callable(made):
        raise ValueError(f"{name} is a {type(made).__name__}; need loss(outputs, targets)")
    return made


def options(text: str) -> dict[str, Any]:
    """Parse keyword arguments in Python's syntax; only plain values are allowed.

    >>> options("num_classes=10, size=(8, 8)")
    {'num_classes': 10, 'size': (8, 8)}
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        parsed = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
        if len(parsed) < len(call.keywords):  # one came twice, or **
            raise ValueError
        return parsed
    except (ValueError, SyntaxError):
        raise ValueError(
            f"'{text}' are no options; need plain values, as in 'classes=10, kind=\"small\"'"
        ) from None


def _model_function(spec: str) -> object:
    """Return the function that makes the network of a name; the weights are never downloaded."""
    zoo, _, name = spec.partition(":")
    if spec in models.MODELS:
        return partial(models.build, spec)
    if ":" not in spec:
        hint = f"Your own: {SYNTAX}; others': torchvision:NAME, timm:NAME or hf:FOLDER."
        raise ValueError(f"{unknown_name('model', spec, models.MODELS)} {hint}")
    if zoo == "hf":
        return _hugging_face(Path(name))
    if zoo not in ("torchvision", "timm"):
        return import_object(spec)
    try:
        package = importlib.import_module("torchvision.models" if zoo == "torchvision" else zoo)
    except ImportError:
        raise ValueError(f"{zoo} is not installed; pip install {zoo}") from None
    known = package.list_models()
    if name not in known:
        raise ValueError(unknown_name(f"{zoo} model", name, get_close_matches(name, known, 5, 0)))
    if zoo == "timm":
        return lambda **options: package.create_model(name, pretrained=False, **options)
    build = package.get_model_builder(name)
    parameters = inspect.signature(build).parameters
    no_weights = {key: None for key in ("weights", "weights_backbone") if key in parameters}
    return lambda **options: build(**no_weights, **options)


def _hugging_face(folder: Path) -> Callable[..., nn.Module]:
    """Return what builds the network of a config.json, with random weights, from a folder's files.

    Its keywords are other values for keys of the config.

    Raises:
        ValueError: If transformers is not installed, or there is no config that names a network.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"hf:{folder}: need a folder with config.json, as save_pretrained writes")
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise ValueError("transformers is not installed; pip install transformers") from None
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    build = getattr(transformers, next(iter(config.architectures or []), ""), None)
    if build is None:
        raise ValueError(
            f"{folder / 'config.json'} names no network of transformers; use file.py:make"
        )

    def make(**options: Any) -> nn.Module:
        if unknown := [key for key in options if not hasattr(config, key)]:
            raise ValueError(unknown_name("key of config.json", unknown[0], config.to_dict()))
        config.update(options)
        net: nn.Module = build(config)
        return net

    return make


def _is_loss(function: Callable[..., Any]) -> bool:
    """Return whether a function of torch can be called as loss(outputs, targets)."""
    first, *rest = inspect.signature(function).parameters.items()
    names = [first[0], *(n for n, p in rest if p.default is p.empty)]
    return names == ["input", "target"]
