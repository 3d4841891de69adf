"""Tables and pictures as HTML: what they say, how they are aligned, and that none clash."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sparsediag.core import html as display
from sparsediag.plotting import style as plotting
from sparsediag.plotting.svg import INK, inline_svg

ROWS = [
    {"net": "a<b", "loss": "1.25e-05", "angle": "<0.3°", "mostly in": "fc (30%)", "x": ""},
    {"net": "b", "loss": "-0.5", "angle": "?", "mostly in": "conv1 (7%)", "x": "12"},
]


def drawn(title: str = "rise") -> Figure:
    fig = plotting.new_figure()
    with plotting.style():
        ax = fig.add_subplot()
        ax.plot([0, 1], [0.123456, 4], "o-", color="black", label=title)
        ax.fill_between([0, 1], [0, 0], [1, 1])
        ax.set(title=title, xlabel="μ & more")
    return fig


def inside(html: str) -> ET.Element:
    """The SVG of a picture, which must be well-formed."""
    svg = html[html.index("<svg") : html.index("</svg>") + len("</svg>")]
    return ET.fromstring(svg)


def test_a_table_has_a_head_for_every_column_and_row() -> None:
    found = ET.fromstring(display.table(ROWS, caption="Nets & more"))
    assert found.find(".//caption").text == "Nets & more"  # type: ignore[union-attr]
    assert [h.text for h in found.iterfind(".//thead//th[@scope='col']")] == list(ROWS[0])
    assert [h.text for h in found.iterfind(".//tbody//th[@scope='row']")] == ["a<b", "b"]
    cells = [[c.text or "" for c in row.iterfind("td")] for row in found.iterfind(".//tbody/tr")]
    assert cells == [list(row.values())[1:] for row in ROWS]
    assert (found.get("tabindex"), found.get("role")) == ("0", "region")


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    found = ET.fromstring(display.table(ROWS))
    for part in ("thead//th", "tbody/tr[1]/td", "tbody/tr[2]/td"):
        kinds = [cell.get("class") for cell in found.iterfind(f".//{part}")][-4:]
        assert kinds == ["n", "n", None, "n"]


def test_the_best_is_brought_out_and_nothing_else() -> None:
    found = ET.fromstring(display.table(ROWS, best={(1, "loss")}))
    assert [c.text for c in found.iterfind(".//td[@class='n best']")] == ["-0.5"]


def test_no_rows_are_no_table() -> None:
    assert display.table([]) == ""


def test_a_picture_says_what_it_shows_and_follows_the_text_around_it() -> None:
    html = inline_svg(drawn(), alt='it "rises" & falls')
    svg = inside(html)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == 'it "rises" & falls'
    assert "rise" in "".join(svg.itertext())
    assert INK not in html
    assert "#ffffff" not in html  # the background is the page's
    assert "font-family" not in html


def test_names_inside_of_pictures_are_their_own_and_lead_somewhere() -> None:
    html = [inline_svg(drawn(title), alt="x") for title in ("one", "two")]
    ids = [re.findall(r' id="([^"]*)"', text) for text in html]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for own, text in zip(ids, html, strict=True):
        assert len(set(own)) == len(own)
        used = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text))
        assert {a or b for a, b in used} <= set(own)


def test_the_same_picture_is_the_same_text_and_small() -> None:
    texts = [inline_svg(drawn(), alt="x") for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(texts[0]) < 12_000


def test_places_in_a_picture_are_rounded_and_words_are_not() -> None:
    fig = drawn("pi = 3.14159265")
    svg = inside(inline_svg(fig, alt="x"))
    assert "pi = 3.14159265" in "".join(svg.itertext())
    paths = [e.get("d", "") for e in svg.iter() if e.tag.endswith("path")]
    assert not any(re.search(r"\.\d{3}", path) for path in paths)


def test_the_settings_of_the_caller_stay() -> None:
    before = dict(mpl.rcParams)
    inline_svg(drawn(), alt="x")
    assert dict(mpl.rcParams) == before


def test_contours_keep_their_colours() -> None:
    fig, x = plotting.new_figure(), np.linspace(-1, 1, 9)
    with plotting.style():
        plotting.plot_contours(fig.add_subplot(), x, x, 1 + x[:, None] ** 2 + x**2)
    html = inline_svg(fig, alt="x")
    assert len(set(re.findall(r"fill: (#[0-9a-f]{6})", html))) > 10


@pytest.mark.parametrize("title", ["a <b>", "plain"])
def test_a_page_may_not_use_the_network(title: str) -> None:
    text = display.page(title, "<main>x</main>", style="p {}", head="<meta name=k>")
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "default-src 'none'" in text
    assert f"<title>{title.replace('<', '&lt;').replace('>', '&gt;')}</title>" in text
    assert text.index("<meta name=k>") < text.index("<style>")
