"""Tables as Markdown, LaTeX, CSV, HTML and a picture."""

from sparsediag.core.estimate import Estimate
from sparsediag.plotting.tables import Table

TABLE = Table(
    "accuracy (%)",
    ("kind & so on", "paper", "here"),
    (
        ("a", 71.12, Estimate.of([70.0, 71.0, 72.0])),
        ("b", None, Estimate.of([3.0])),
        ("c", 1.0, None),
    ),
)


def test_a_table_as_markdown_latex_and_csv() -> None:
    assert TABLE.markdown().splitlines()[2:] == [
        "| a | 71.12 | 71.00 ± 2.48 |",
        "| b | – | 3.00 |",  # noqa: RUF001
        "| c | 1.00 | – |",  # noqa: RUF001
    ]
    latex = TABLE.latex().splitlines()
    assert latex[0] == r"\begin{tabular}{lrr}"
    assert latex[2] == r"kind \& so on & paper & here \\"
    assert latex[4] == r"a & 71.12 & 71.00 $\pm$ 2.48 \\"
    assert latex[5] == r"b & -- & 3.00 \\"
    rows = TABLE.csv().splitlines()
    assert rows[0] == "kind & so on,paper,here,here ±"
    assert rows[1].startswith("a,71.12,71.0,2.484")
    assert rows[2:] == ["b,,3.0,", "c,1.0,,"]


def test_a_table_as_html_names_its_rows_and_columns() -> None:
    text = TABLE.html()
    assert text.count('<th scope="col"') == 3
    assert '<th scope="row">a</th><td class="n">71.12</td><td class="n">71.00 ± 2.48</td>' in text
    assert "kind &amp; so on" in text


def test_a_table_as_a_picture_has_every_cell() -> None:
    (ax,) = TABLE.figure().axes
    cells = ax.tables[0].get_celld()
    assert cells[1, 2].get_text().get_text() == "71.00 ± 2.48"
    assert cells[0, 0].get_text().get_text() == "kind & so on"
    assert ax.get_title(loc="left") == "accuracy (%)"
