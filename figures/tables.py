"""Table: rows of a paper's table with what was measured beside them, in four forms."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from figures.estimate import Estimate
from sparsediag.plotting import style

EMPTY = "\N{EN DASH}"
Cell = str | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table; an empty cell is None.

    Attributes:
        title: What the numbers are, with their unit.
        heads: A head for each column.
        rows: Cells; the first of a row says what it is about.
        form: How numbers are written.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    form: str = ".2f"

    def _text(self, cell: Cell, *, empty: str = EMPTY, between: str = " ± ") -> str:
        if cell is None:
            return empty
        if isinstance(cell, Estimate):
            return cell.told(self.form, between)
        return cell if isinstance(cell, str) else f"{cell:{self.form}}"

    def markdown(self) -> str:
        """The table for a page of text."""
        lines = [self.heads, ("---",) * len(self.heads)]
        lines += [tuple(self._text(cell) for cell in row) for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def html(self) -> str:
        """The table for a page that is read aloud too."""
        first, *others = self.heads
        head = f'<th scope="col">{escape(first)}</th>'
        head += "".join(f'<th scope="col" class=n>{escape(h)}</th>' for h in others)
        body = "".join(
            f'<tr><th scope="row">{escape(self._text(name))}</th>'
            + "".join(f"<td class=n>{escape(self._text(cell))}</td>" for cell in rest)
            + "</tr>"
            for name, *rest in self.rows
        )
        return f"<table><caption>{escape(self.title)}</caption><tr>{head}</tr>{body}</table>"

    def latex(self) -> str:
        """The table for a paper; it needs the package booktabs."""
        lines = [r"\begin{tabular}{l" + "r" * (len(self.heads) - 1) + "}", r"\toprule"]
        lines += [_line(self.heads), r"\midrule"]
        lines += [_line([self._text(c, between=r" $\pm$ ") for c in row]) for row in self.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines)

    def csv(self) -> str:
        """The table for a program: a mean and half its interval in two columns, in full."""
        spread = [
            any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.heads))
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        heads = zip(self.heads, spread, strict=True)
        writer.writerow([h for head, both in heads for h in (head, f"{head} ±")[: 1 + both]])
        for row in self.rows:
            cells = zip(row, spread, strict=True)
            writer.writerow([value for cell, both in cells for value in _values(cell, both)])
        return text.getvalue()

    def figure(self) -> Figure:
        """The table as a picture, with light lines between the rows."""
        cells = [[self._text(cell, empty="") for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.heads, *cells, strict=True)]
        fig = style.new_figure(
            max(style.COLUMN, 0.068 * (sum(widths) + 2 * len(widths))),
            0.5 + 0.165 * (len(cells) + 1),
        )
        ax = fig.add_subplot()
        ax.axis("off")
        table = ax.table(
            cells,
            colLabels=self.heads,
            colWidths=[(w + 2) / (sum(widths) + 2 * len(widths)) for w in widths],
            bbox=Bbox.unit(),
            edges="B",
        )
        table.auto_set_font_size(False)
        table.set_fontsize(7)
        for (row, column), cell in table.get_celld().items():
            cell.set_edgecolor("#cccccc" if row else "black")
            cell.get_text().set_horizontalalignment("left" if column == 0 else "right")
            if row == 0:
                cell.get_text().set_fontweight("bold")
        ax.set_title(fill(self.title, round(17 * fig.get_figwidth())), loc="left")
        return fig


def _line(cells: Sequence[str]) -> str:
    safe = [c.replace("&", r"\&").replace("%", r"\%").replace(EMPTY, "--") for c in cells]
    return " & ".join(safe) + r" \\"


def _values(cell: Cell, both: bool) -> tuple[object, ...]:
    if isinstance(cell, Estimate):
        return cell.mean, cell.half if math.isfinite(cell.half) else ""
    value = "" if cell is None else cell
    return (value, "") if both else (value,)
