"""Tables of numbers with their intervals, as text for papers and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sparsediag.core import html
from sparsediag.core.estimate import Estimate
from sparsediag.plotting import style

EMPTY = "\N{EN DASH}"
Cell = str | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table; an empty cell is None.

    Attributes:
        title: Meaning of the numbers, with their unit.
        headers: Header of each column.
        rows: Cells; the first one of a row is its name.
        number_format: Format of the numbers.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    number_format: str = ".2f"

    @classmethod
    def paper_and_here(
        cls,
        title: str,
        head: str,
        columns: Iterable[str],
        rows: Iterable[tuple[str, Sequence[Cell], Sequence[Cell]]],
        number_format: str = ".2f",
    ) -> Table:
        """Return a table that has two cells for each column: the paper's number and ours.

        Args:
            title: Title of the table.
            head: Header of the first column.
            columns: Headers of the other columns.
            rows: For each row its name, the paper's numbers and ours.
            number_format: Format of the numbers.
        """
        headers = (f"{column}, {source}" for column in columns for source in ("paper", "here"))
        cells = (
            (name, *(cell for pair in zip(paper, here, strict=True) for cell in pair))
            for name, paper, here in rows
        )
        return cls(title, (head, *headers), tuple(cells), number_format)

    def _format_cell(self, cell: Cell, *, empty: str = EMPTY, separator: str = " ± ") -> str:
        if cell is None:
            return empty
        if isinstance(cell, Estimate):
            return cell.format(self.number_format, separator)
        return cell if isinstance(cell, str) else f"{cell:{self.number_format}}"

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.headers, ("---",) * len(self.headers)]
        lines += [tuple(self._format_cell(cell) for cell in row) for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def html(self) -> str:
        """Return the table as HTML."""
        texts = [[self._format_cell(cell) for cell in row] for row in self.rows]
        rows = [dict(zip(self.headers, row, strict=True)) for row in texts]
        return html.table(rows, caption=self.title)

    def latex(self) -> str:
        """Return the table as LaTeX for the package booktabs."""
        lines = [r"\begin{tabular}{l" + "r" * (len(self.headers) - 1) + "}", r"\toprule"]
        lines += [_latex_row(self.headers), r"\midrule"]
        lines += [
            _latex_row([self._format_cell(c, separator=r" $\pm$ ") for c in row])
            for row in self.rows
        ]
        lines += [r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines)

    def csv(self) -> str:
        """Return the table as CSV in full precision: mean and half interval in two columns."""
        columns: list[list[Cell]] = []
        for head, *cells in zip(self.headers, *self.rows, strict=True):
            estimates = [cell if isinstance(cell, Estimate) else None for cell in cells]
            columns.append([head, *(c.mean if isinstance(c, Estimate) else c for c in cells)])
            if any(estimates):
                halves = [e.half if e and math.isfinite(e.half) else None for e in estimates]
                columns.append([f"{head} ±", *halves])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        return text.getvalue()

    def figure(self) -> Figure:
        """Return the table as a picture."""
        cells = [[self._format_cell(cell, empty="") for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.headers, *cells, strict=True)]
        fig = style.new_figure(
            max(style.COLUMN, 0.068 * (sum(widths) + 2 * len(widths))),
            0.5 + 0.165 * (len(cells) + 1),
        )
        ax = fig.add_subplot()
        ax.axis("off")
        table = ax.table(
            cells,
            colLabels=self.headers,
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


def _latex_row(cells: Sequence[str]) -> str:
    safe = [c.replace("&", r"\&").replace("%", r"\%").replace(EMPTY, "--") for c in cells]
    return " & ".join(safe) + r" \\"
