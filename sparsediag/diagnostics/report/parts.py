"""Pieces of HTML that the sections of a report share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure

from sparsediag.core import html as display
from sparsediag.diagnostics.report.charts import MARKERS, LineStyles
from sparsediag.plotting import svg


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: Anchor of the section.
        title: Its heading.
        body: HTML below the heading.
    """

    id: str
    title: str
    body: str

    def html(self, foot: str = "") -> str:
        """Return the section as HTML, labelled by its heading; `foot` is a line below it."""
        below = f'<p class="foot">{escape(foot)}</p>' if foot else ""
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-head">'
            f'<h2 id="{self.id}-head">{escape(self.title)}</h2>{self.body}{below}</section>'
        )


def text(words: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(words)}</p>"


def legend(names: Iterable[str], line_styles: LineStyles) -> str:
    """Return a legend of colours and markers; empty for a single network."""
    items = [f"<li>{marker(name, line_styles)} {escape(name)}</li>" for name in names]
    return (
        f'<ul class="key" aria-label="Legend">{"".join(items)}</ul>' if len(line_styles) > 1 else ""
    )


def marker(name: str, line_styles: LineStyles) -> str:
    """Return the marker of a network in its colour."""
    colour, marker = line_styles[name]
    ink = "currentColor" if colour == svg.INK else colour
    return f'<span aria-hidden="true" style="color:{ink}">{MARKERS[marker]}</span>'


def figure(title: str, picture: Figure, *, alt: str, note: str = "") -> str:
    """Return a picture with its caption."""
    more = f" {escape(note)}" if note else ""
    return (
        f"<figure><figcaption><b>{escape(title)}.</b>{more}</figcaption>"
        f"{svg.inline_svg(picture, alt=f'{title}. {alt}')}</figure>"
    )


def grid(*figures: str, columns: int = 2) -> str:
    """Return pictures side by side, as many as fit."""
    return f'<div class="grid of{columns}">{"".join(figures)}</div>'


def number_tables(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], summary: str = "Numbers"
) -> str:
    """Return tables that are folded under a heading."""
    inside = "".join(display.table(rows, caption=name) for name, rows in tables.items())
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>" if inside else ""


def missing(failed: Mapping[str, str]) -> str:
    """Return a line for each network without a result, with the reason."""
    lines = [
        f'<p class="missing"><b>{escape(name)}</b> has no result here: {escape(reason)}</p>'
        for name, reason in failed.items()
    ]
    return "".join(lines)
