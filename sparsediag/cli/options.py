"""Options that the commands share."""

from __future__ import annotations

import typing
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

CHECKPOINT = Annotated[
    Path, Parameter(help="A file that a training wrote, or weights that others saved.")
]
OTHERS = Annotated[
    Path, Parameter(help="More of them: the line or plane through two or three nets.")
]
SHARE = Annotated[
    bool, Parameter(negative="", help="Draw each net by itself on common axes, and compare.")
]
JSON = Annotated[bool, Parameter(negative="", help="Print one JSON object instead of a table.")]
DEBUG = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
SHARED: dict[str, tuple[Any, Any]] = {
    "out": (
        Annotated[
            Path | None, Parameter(help="Result file, .npz (default: beside the checkpoint).")
        ],
        None,
    ),
    "formats": (
        Annotated[str, Parameter(help="Also write these: png, pdf, svg, csv, vtk, by commas.")],
        "png",
    ),
    "model": (
        Annotated[
            str | None,
            Parameter(
                help="What makes the net: file.py:make, package.module:Net, torchvision:NAME, "
                "timm:NAME (default: what the checkpoint says)."
            ),
        ],
        None,
    ),
    "model_options": (
        Annotated[str | None, Parameter(help="Keywords for it, as in 'num_classes=10, width=8'.")],
        None,
    ),
    "data": (
        Annotated[
            str | None,
            Parameter(help="Another data set than the net's own, folder:PATH, or file.py:batches."),
        ],
        None,
    ),
    "loss": (
        Annotated[
            str | None,
            Parameter(help="A loss of torch.nn.functional, such as mse_loss, or file.py:loss."),
        ],
        None,
    ),
    "mask": (
        Annotated[
            str | None,
            Parameter(help="zeros: what is exactly 0 is dead; none: no mask; or a mask's file."),
        ],
        None,
    ),
    "split": (
        Annotated[
            Literal["train", "validation", "test"] | None,
            Parameter(help="Part of the data (default: train)."),
        ],
        None,
    ),
    "images": (
        Annotated[
            int | None, Parameter(help="Images to use; 0 for the whole split (default: 1000).")
        ],
        None,
    ),
    "batch": (Annotated[int | None, Parameter(help="Images at a time (default: 128).")], None),
    "batch_norm": (
        Annotated[Literal["eval", "train"], Parameter(help="Running statistics, or each batch's.")],
        "eval",
    ),
    "device": (Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")], "auto"),
    "json": (JSON, False),
    "debug": (DEBUG, False),
}
LOOK = ("split", "images", "batch", "data", "model", "loss", "mask", "batch_norm", "device")
PLAIN = (int, float, str, bool)


def sizes(images: int | None, batch: int | None) -> None:
    """Raise ValueError where a number of images cannot be; None was not typed."""
    if (images is not None and images < 0) or (batch is not None and batch < 1):
        raise ValueError("--images needs 0 or more, --batch needs 1 or more")


def typed(hint: Any) -> Any:
    """Return the part of an annotation that a command line can express, or None.

    >>> typed(int | None), typed(Path | None)
    (int | None, None)
    """
    if typing.get_origin(hint) is Literal or hint in PLAIN:
        return hint
    parts = [part for part in typing.get_args(hint) if part is NoneType or typed(part)]
    if NoneType not in parts or len(parts) < 2:
        return None
    return reduce(or_, parts)
