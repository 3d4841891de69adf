"""Options that several commands share, and the signatures that cyclopts reads."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

from sparsediag.checkpoint import DEFAULTS
from sparsediag.core.old_names import RENAMED

PLAIN = (int, float, str, bool)
Options = dict[str, tuple[Any, Any]]  # keyword -> annotation and default


COMMON = Group("Network, data and files", sort_key=1)  # those of `SHARED`, below the command's own


def option(keyword: str, kind: Any, help: str | None, **more: Any) -> Any:
    """Return the annotation of a keyword: its type, its flag, flags of older names, its help."""
    names = [keyword, *(old for old, new in RENAMED.items() if new == keyword)]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    kinds = {kind, *typing.get_args(kind)}
    if kinds & {int, float} and str not in kinds:
        more["converter"] = partial(_number, int if int in kinds else float)
    return Annotated[kind, Parameter(name=flags, help=help, **more)]


def _number(kind: type[float], _: Any, tokens: Sequence[Token]) -> float:
    """Return the number that was typed; a whole one is not rounded."""
    try:
        return kind(tokens[0].value)
    except ValueError:
        needed = "a whole number, such as 5" if kind is int else "a number, such as 0.05"
        raise ValueError(f"need {needed}, got '{tokens[0].value}'") from None


CHECKPOINT = (
    "File with a trained network: a checkpoint of this package, or a state dict of another tool; "
    "or a folder in the layout of Hugging Face."
)
RUN_FOLDER = " Or the folder of a training, for all its checkpoints."
MASK = option(
    "mask",
    str | None,
    "Mask: zeros (weights that are exactly 0 are dead), none, or a mask file "
    "(default: the checkpoint's).",
)
NAMES = option(
    "names",
    str | None,
    "Names of several checkpoints in tables and pictures, by commas (default: what tells their "
    "trainings apart).",
)
JSON = option("json", bool, "Print one JSON object instead of a table.", negative="")
DEBUG = option("debug", bool, "Show the traceback of an error.", negative="")
QUIET = option("quiet", bool, "Show no progress.", negative="")
SHARED: Options = {
    "out": (
        option("out", Path | None, "Result file, .npz (default: beside the checkpoint)."),
        None,
    ),
    "formats": (
        option("formats", str, "Formats of further files: png, pdf, svg, csv, vtk, by commas."),
        "png",
    ),
    "model": (
        option(
            "model",
            str | None,
            "Function or class that builds the network: file.py:make, package.module:Net, "
            "torchvision:NAME, timm:NAME, or hf:FOLDER with a config.json of Hugging Face "
            "(default: as the checkpoint says).",
        ),
        None,
    ),
    "model_options": (
        option(
            "model_options", str | None, "Keywords for the model, as in 'num_classes=10, width=8'."
        ),
        None,
    ),
    "data": (
        option(
            "data",
            str | None,
            "Data set: a built-in name, folder:PATH, or file.py:batches (default: the one that the "
            "network was trained on).",
        ),
        None,
    ),
    "size": (
        option(
            "size",
            int | None,
            "For folder:PATH: resize the shorter side of each image to so many pixels, and cut out "
            "the middle (default: as in the training, or none).",
        ),
        None,
    ),
    "normalise": (
        option(
            "normalise",
            Literal["own", "imagenet", "none"] | None,
            "Normalise pixels by the mean and std of the data set itself (own) or of ImageNet, or "
            "only scale them to 0 ... 1 (none) (default: as in the training, or own).",
        ),
        None,
    ),
    "loss": (
        option(
            "loss",
            str | None,
            "Loss: a function of torch.nn.functional such as mse_loss, or file.py:loss "
            "(default: cross-entropy).",
        ),
        None,
    ),
    "mask": (MASK, None),
    "split": (
        option(
            "split",
            Literal["train", "validation", "val", "valid", "test"] | None,
            f"Part of the data set; val and valid are validation (default: {DEFAULTS['split']}).",
        ),
        None,
    ),
    "images": (
        option(
            "images",
            int | None,
            f"Number of samples; 0 for the whole split (default: {DEFAULTS['images']}).",
        ),
        None,
    ),
    "batch_size": (
        option(
            "batch_size",
            int | None,
            f"Number of samples in a batch (default: {DEFAULTS['batch']}).",
        ),
        None,
    ),
    "batch_norm": (
        option(
            "batch_norm",
            Literal["eval", "train"],
            "Batch norm with its running statistics (eval) or those of each batch (train).",
        ),
        "eval",
    ),
    "device": (option("device", str, "Device: auto, cpu, cuda or cuda:N."), "auto"),
    "quiet": (QUIET, False),
    "json": (JSON, False),
    "debug": (DEBUG, False),
}
SHARED = {
    key: (Annotated[kind, Parameter(group=COMMON)], default)
    for key, (kind, default) in SHARED.items()
}
PROBLEM = (
    *("split", "images", "batch_size", "data", "size", "normalise"),
    *("model", "loss", "mask", "batch_norm", "device"),
)


def problem_options(shared: dict[str, Any]) -> dict[str, Any]:
    """Return the shared options that are keywords of `Checkpoint.problem`.

    Raises:
        ValueError: If a number of samples is too small, or the model's options cannot be read.
    """
    images, batch_size = shared["images"], shared["batch_size"]
    if (images is not None and images < 0) or (batch_size is not None and batch_size < 1):
        raise ValueError("--images needs 0 or more, --batch-size needs 1 or more")
    keywords = {key: shared[key] for key in PROBLEM}
    if shared["model_options"] is not None:
        from sparsediag.checkpoint import resolve  # imports torch

        keywords["model_options"] = resolve.options(shared["model_options"])
    return keywords


def set_signature(
    command: Callable[..., int],
    options: Options,
    *,
    others: str | None = None,
    takes_run: bool = False,
) -> None:
    """Give a command the signature `(checkpoint, *others, **options)` for cyclopts.

    Args:
        command: The function, which takes keywords of any name.
        options: Its options.
        others: Help text for further checkpoints; None if there can be only one.
        takes_run: Whether the checkpoint may be the folder of a training.
    """
    kinds = inspect.Parameter
    first = Annotated[Path, Parameter(help=CHECKPOINT + RUN_FOLDER * takes_run)]
    parameters = [kinds("checkpoint", kinds.POSITIONAL_ONLY, annotation=first)]
    if others:
        annotation = Annotated[Path, Parameter(help=others)]
        parameters.append(kinds("others", kinds.VAR_POSITIONAL, annotation=annotation))
    for key, (annotation, default) in options.items():
        parameters.append(kinds(key, kinds.KEYWORD_ONLY, default=default, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


def cli_type(hint: Any) -> Any:
    """Return the part of an annotation that a command line can express, or None.

    >>> cli_type(int | None), cli_type(Path | None)
    (int | None, None)
    """
    if typing.get_origin(hint) is Literal or hint in PLAIN:
        return hint
    parts = [part for part in typing.get_args(hint) if part is NoneType or cli_type(part)]
    if NoneType not in parts or len(parts) < 2:
        return None
    return reduce(or_, parts)
