"""Result: what a diagnostic found, as a frozen value that is one `.npz` on disk."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch

from sparsediag.checkpoint.watch_file import advise_watch
from sparsediag.core.atomic import atomic_write
from sparsediag.core.errors import CheckpointError, missing_file
from sparsediag.core.problem import Problem
from sparsediag.core.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Interactive

FORMAT = 1
SHOWN = 40  # rows of a table in a notebook
STATISTICS = {
    "running": "running statistics",
    "batch": "statistics of each batch",
    "estimate": "statistics of these samples at each point",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Arrays and numbers of one diagnostic, and where they come from.

    A subclass adds fields (arrays, or anything JSON can hold) and draws itself with `plot`. The
    command line writes `plot`, `panels`, `surface` and `exports` beside the result's file.

    Attributes:
        source: What was diagnosed, with which options, by which versions.
    """

    kinds: ClassVar[dict[str, type[Result]]] = {}
    source: dict[str, Any]

    def __init_subclass__(cls) -> None:
        Result.kinds[cls.__name__] = cls
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]  # the arrays are long

    def __repr__(self) -> str:
        from sparsediag.plotting import terminal

        return "\n".join([terminal.format_table(type(self).__name__, self.table()), *self.below()])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw on `ax`, or on a new figure, and return the axes."""
        raise TypeError(f"a {type(self).__name__} has no picture of its own")

    @property
    def has_plot(self) -> bool:
        """Return whether there is a picture: the class defines `plot`."""
        return type(self).plot is not Result.plot

    def table(self) -> list[dict[str, Any]]:
        """Return the result in a few rows, for a terminal."""
        return []

    def remarks(self) -> list[str]:
        """Return what there is to say below the table, a line each."""
        return []

    @property
    def title(self) -> str:
        """Return the title of its pictures: net, data and samples."""
        return title(self.source)

    @property
    def provenance(self) -> str:
        """Return in a line what was measured: net, data, samples, loss and batch norm."""
        return provenance(self.source)

    def below(self) -> list[str]:
        """Return the lines below the table: the provenance, then the remarks."""
        return [line for line in (self.provenance, *self.remarks()) if line]

    def figures(self) -> dict[str, Figure]:
        """Return the pictures with title and provenance; the key of that of `plot` is ""."""
        from sparsediag.plotting import style

        with style.style():
            main = {"": cast("Figure", self.plot().figure)} if self.has_plot else {}
            pictures = {**main, **self.panels()}
            for picture in pictures.values():
                style.add_title(picture, self.title)
                style.add_footer(picture, self.provenance)
        return pictures

    @property
    def findings(self) -> list[str]:
        """Return the reasons to doubt the result, a line each; the report lists them first."""
        return list(getattr(self, "doubts", []))

    @property
    def reliable(self) -> bool:
        """Return whether all converged and nothing is in doubt; if not, commands exit with 3."""
        return bool(np.all(getattr(self, "converged", not getattr(self, "doubts", []))))

    @property
    def complete(self) -> bool:
        """Return whether the result is complete; a shard is saved without pictures."""
        return True

    def panels(self) -> dict[str, Figure]:
        """Return further pictures, by the last part of their files' names."""
        return {}

    def surface(self) -> Interactive | None:
        """Return an interactive picture, saved as .html, if there is one."""
        return None

    def exports(self) -> dict[str, Callable[[Path], Path]]:
        """Return functions that write the result in other formats, by file ending."""
        return {}

    def _repr_html_(self) -> str:
        """Return table, remarks and picture, for a notebook."""
        from sparsediag.core import html
        from sparsediag.plotting import svg

        kind, rows = type(self).__name__, self.table()
        parts = [html.table(rows[:SHOWN], caption=kind)]
        if len(rows) > SHOWN:
            parts.append(f"<p>{len(rows) - SHOWN} more rows: <code>.table()</code></p>")
        parts += [f"<p>{escape(line)}</p>" for line in self.below()]
        if self.has_plot:
            parts.append(svg.inline_svg(self.figures()[""], alt=f"{kind}, drawn"))
        return html.fragment(*parts)

    def save(self, path: str | Path) -> Path:
        """Write one `.npz`, whole or not at all; returns its path."""
        path = Path(path)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {n: v for n, v in values.items() if isinstance(v, np.ndarray)}
        header = {n: v for n, v in values.items() if n not in arrays}
        header |= {"kind": type(self).__name__, "format": FORMAT}
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=json.dumps(header), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote, as the subclass that it holds.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is no result, or holds another kind than `cls`.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(missing_file(path, "a .npz that a diagnostic wrote"))
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
            name, file_format = header.pop("kind"), header.pop("format")
            newer, module = file_format > FORMAT, f"sparsediag.diagnostics.{name.lower()}"
            known = name in Result.kinds or find_spec(module)
            if known and not newer:
                if name not in Result.kinds:
                    importlib.import_module(module)
                result = Result.kinds[name](**header, **arrays)
        except Exception:
            raise CheckpointError(
                f"{path} is not a result; give a .npz that a diagnostic wrote{advise_watch(path)}"
            ) from None
        if newer:
            raise CheckpointError(
                f"{path} has format {file_format}, this version reads up to {FORMAT}"
            )
        if not known:
            raise CheckpointError(
                f"{path} holds {name}, a result of a plug-in; import the file that defines it first"
            )
        if not isinstance(result, cls):
            raise CheckpointError(f"{path} holds {name}, expected {cls.__name__}")
        return result

    def json(self) -> dict[str, Any]:
        """Return plain types, for machines; arrays above 10,000 numbers are left to the `.npz`.

        Non-finite numbers become None, as JSON has none.
        """
        plain: dict[str, Any] = {"kind": type(self).__name__}
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, np.ndarray):
                plain[f.name] = _replace_non_finite(value)
            elif value.size <= 10_000:
                known = np.isfinite(value) if value.dtype.kind == "f" else np.ones_like(value, bool)
                plain[f.name] = np.where(known, value.astype(object), np.array(None)).tolist()
        return plain


def _replace_non_finite(value: Any) -> Any:
    """Return the value with None in place of non-finite numbers, in dicts and lists too."""
    if isinstance(value, dict):
        return {key: _replace_non_finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def source(problem: Problem, **options: Any) -> dict[str, Any]:
    """Return the provenance of a result: problem, options of the diagnostic, versions."""
    return {
        **problem.about,
        "problem": problem.digest,
        "weights": problem.size,
        "density": problem.mask.density if problem.mask else 1.0,
        "batch_norm": problem.batch_norm,
        "dtype": str(problem.weights.dtype).removeprefix("torch."),
        "device": str(problem.device),
        "options": options,
        "sparsediag": __version__,
        "torch": str(torch.__version__),
    }


def provenance(source: Mapping[str, Any]) -> str:
    """Return in a line what a source says was measured; "" for files that do not say it.

    >>> about = {"net": "mlp", "data": "digits", "split": "train", "available": 1170}
    >>> provenance({**about, "samples": 1000, "loss": "mse_loss", "batch_statistics": ""})
    'mlp on digits: 1,000 of 1,170 train images, mse_loss'
    """
    if "loss" not in source:
        return ""
    data = f" on {source['data']}" if "data" in source else ""
    samples, statistics = f"{source['samples']:,} samples", source["batch_statistics"]
    if "split" in source:
        samples = f"{source['samples']:,} of {source['available']:,} {source['split']} images"
        samples += f" ({source['pixels']})" if source.get("pixels") else ""
    norm = f", batch norm: {STATISTICS[statistics]}" if statistics else ""
    return f"{source['net']}{data}: {samples}, {source['loss']}{norm}"


def title(source: Mapping[str, Any]) -> str:
    """Return net, data and number of samples for the title of a picture; "" if not known.

    >>> title({"net": "mlp", "data": "digits", "split": "train", "samples": 1000})
    'mlp, digits, 1,000 train samples'
    """
    if not {"net", "samples"} <= source.keys():
        return ""
    label, data, split = (
        source.get("label") or source["net"],
        source.get("data"),
        source.get("split"),
    )
    samples = (
        f"{source['samples']:,} {split} samples" if split else f"{source['samples']:,} samples"
    )
    return ", ".join([label, *([data] if data and data not in label else []), samples])


def table_rows(columns: Mapping[str, tuple[Iterable[Any], str]]) -> list[dict[str, Any]]:
    """Return the rows of a table, given its columns as values and a format; NaN becomes "".

    >>> table_rows({"layer": (["conv", "fc"], ""), "zeros": ([0.5, float("nan")], ".0%")})
    [{'layer': 'conv', 'zeros': '50%'}, {'layer': 'fc', 'zeros': ''}]
    """
    cells = [
        ["" if value != value else format(value, spec) for value in values]
        for values, spec in columns.values()
    ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
