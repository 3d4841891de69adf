"""Parts: the pieces of HTML that every section of a report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure

from sparsediag.core import html as display
from sparsediag.diagnostics.report.charts import MARKERS, Looks
from sparsediag.plotting import svg


@dataclass(frozen=True)
class Section:
    """A part of the page with a head.

    Attributes:
        id: Where a link leads.
        title: Its head.
        body: What is below it.
    """

    id: str
    title: str
    body: str

    def html(self) -> str:
        """The section as a landmark that its head names."""
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-head">'
            f'<h2 id="{self.id}-head">{escape(self.title)}</h2>{self.body}</section>'
        )


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def key(names: Iterable[str], looks: Looks) -> str:
    """The colour and the marker of every net; nothing where there is one net only."""
    told = [f"<li>{sign(name, looks)} {escape(name)}</li>" for name in names]
    return f'<ul class="key" aria-label="Key">{"".join(told)}</ul>' if len(looks) > 1 else ""


def sign(name: str, looks: Looks) -> str:
    """The marker of a net in its colour."""
    colour, marker = looks[name]
    ink = "currentColor" if colour == svg.INK else colour
    return f'<span aria-hidden="true" style="color:{ink}">{MARKERS[marker]}</span>'


def figure(title: str, drawn: Figure, *, alt: str, note: str = "") -> str:
    """A picture with its caption."""
    more = f" {escape(note)}" if note else ""
    return (
        f"<figure><figcaption><b>{escape(title)}.</b>{more}</figcaption>"
        f"{svg.inline_svg(drawn, alt=f'{title}. {alt}')}</figure>"
    )


def grid(*figures: str, columns: int = 2) -> str:
    """Pictures side by side, as many as there is room for."""
    return f'<div class="grid of{columns}">{"".join(figures)}</div>'


def numbers(tables: Mapping[str, Sequence[Mapping[str, Any]]], summary: str = "Numbers") -> str:
    """Tables behind a head that opens them."""
    inside = "".join(display.table(rows, caption=name) for name, rows in tables.items())
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>" if inside else ""


def missing(failed: Mapping[str, str]) -> str:
    """Why there is no result of some nets, a line each."""
    said = [
        f'<p class="missing"><b>{escape(name)}</b> is missing here: {escape(why)}</p>'
        for name, why in failed.items()
    ]
    return "".join(said)
