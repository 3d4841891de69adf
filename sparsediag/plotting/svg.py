"""SVG of a figure for a page: it takes the font and the colour of the text around it."""

from __future__ import annotations

import hashlib
import io
import re
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from sparsediag.plotting import style as plotting

INK, GRID = "#000000", "#e6e6e6"  # of the house style; they follow the text around the picture


def inline_svg(figure: Figure, *, alt: str) -> str:
    """Return a figure as inline SVG that takes the font and colour of the text around it.

    Args:
        figure: Of matplotlib, best made within `plotting.style()`.
        alt: What it shows, in a sentence, for who cannot see it.

    >>> from sparsediag.plotting import style as plotting
    >>> inline_svg(plotting.new_axes().figure, alt="nothing yet")[:44]
    '<div class="sd"><svg role="img" aria-label="'
    """
    text = io.StringIO()
    with plotting.style(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparsediag"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return f'<div class="sd">{_inline(text.getvalue(), alt)}</div>'


def _inline(svg: str, alt: str) -> str:
    """Return matplotlib's SVG for the inside of a page: unique ids, fewer digits."""
    box = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" (viewBox="[^"]*")', svg)
    assert box
    inside = svg[svg.index("</metadata>") + len("</metadata>") :]
    inside = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inside, count=1, flags=re.DOTALL)
    inside = re.sub(r'<g id="[^"]*"', "<g", inside)
    inside = re.sub(r'font-family: [^;"]*;? ?', "", inside)
    inside = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", inside)
    inside = re.sub(r' d="[^"]*"', _rounded, inside)
    inside = re.sub(r">\s+<", "><", inside)
    inside = inside.replace(f"stroke: {GRID}", "stroke: currentColor; stroke-opacity: 0.13")
    inside = inside.replace(INK, "currentColor")
    prefix = f"p{hashlib.sha256((inside + alt).encode()).hexdigest()[:8]}-"
    inside = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", inside)
    return (
        f'<svg role="img" aria-label="{escape(alt)}" width="{box[1]}pt" {box[2]} '
        'fill="currentColor" stroke-linejoin="round" xmlns:xlink="http://www.w3.org/1999/xlink">'
        + inside.strip()
    )


def _rounded(path: re.Match[str]) -> str:
    return " " + " ".join(re.sub(r"(\.\d\d)\d+", r"\1", path[0]).split())
