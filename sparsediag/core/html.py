"""HTML tables and pages for a notebook or a browser, in light and dark themes.

Text and lines take the colour of the surrounding text, so the theme need not be known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
.sd { overflow-x: auto; max-width: 100%; }
.sd table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4em 0;
  background: none; color: inherit; }
.sd caption { text-align: left; font-weight: 600; padding: .2em 0; color: inherit; }
.sd th, .sd td { text-align: left; vertical-align: baseline; padding: .25em .75em .25em 0;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, .3); background: none; }
.sd thead th { border-bottom-color: rgba(128, 128, 128, .9); vertical-align: bottom; }
.sd tbody th { font-weight: 400; }
.sd .name { min-width: 9rem; }
.sd .n { text-align: right; white-space: nowrap; }
.sd thead .n { white-space: normal; }
.sd .best { font-weight: 700; }
.sd svg { display: block; max-width: 100%; height: auto; }
"""
CONTENT_POLICY = (  # nothing from outside the page; plotly needs eval
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:"
)
LONG = 16  # letters of the name of a row
NUMBER = re.compile(r"[-+±<>~\s\N{MINUS SIGN}]*(\d|\.\d|nan|inf|[?\N{EN DASH}]?$)")


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    caption: str = "",
    best: Collection[tuple[int, str]] = (),
) -> str:
    """Return rows with the same keys as an HTML table that screen readers can read.

    Columns of numbers are aligned to the right. The first column names the rows.

    Args:
        rows: Column head -> value, as in `Result.table`.
        caption: Of the table.
        best: Row numbers and heads of the values to highlight.

    >>> table([{"net": "a<b", "loss": 0.25}])[:57]
    '<div class="sd" tabindex="0" role="region" aria-label="ta'
    >>> "a&lt;b" in table([{"net": "a<b", "loss": 0.25}])
    True
    """
    if not rows:
        return ""
    heads = list(rows[0])
    numbers = {h for h in heads[1:] if all(NUMBER.match(str(row[h])) for row in rows)}
    css = {head: ' class="n"' if head in numbers else "" for head in heads}
    if max(len(str(row[heads[0]])) for row in rows) > LONG:  # may break, but not at every word
        css[heads[0]] = ' class="name"'
    top = "".join(f'<th scope="col"{css[head]}>{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row"{css[heads[0]]}>{escape(str(row[heads[0]]))}</th>'
        + "".join(
            f'<td class="n best">{escape(str(row[head]))}</td>'
            if (i, head) in best
            else f"<td{css[head]}>{escape(str(row[head]))}</td>"
            for head in heads[1:]
        )
        + "</tr>"
        for i, row in enumerate(rows)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="sd" tabindex="0" role="region" aria-label="{escape(caption or "table")}">'
        f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def fragment(*parts: str) -> str:
    """Join tables and pictures into one piece of HTML for a notebook, with their style."""
    return f"<style>{STYLE}</style>{''.join(parts)}"


def page(title: str, body: str, *, style: str, head: str = "") -> str:
    """Return a complete page that neither needs nor may use the network.

    Args:
        title: Title of the browser tab.
        body: HTML of the body.
        style: CSS, added after that of tables and pictures.
        head: More HTML for the head, before the style.

    >>> page("results", "<main></main>", style="")[:31]
    '<!doctype html>\\n<html lang="en"'
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{head}'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )
