"""Write the two tables of `figures/README.md`: `python -m figures.readme`."""

from __future__ import annotations

import json

from figures import registry, verdicts

README = registry.HERE / "README.md"


def item_table() -> str:
    """Return a Markdown table of all figures and tables with their titles."""
    lines = ["| item | shows |", "| --- | --- |"]
    lines += [
        f"| [{name}]({name}.py) | {registry.about(name)[0].partition(': ')[2]} |"
        for name in registry.names()
    ]
    return "\n".join(lines)


def claim_table(record: verdicts.Record) -> str:
    """Return a Markdown table of all claims and their verdicts."""
    lines = ["| item | claim | paper | measured | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in record["claims"]:
        measured = verdicts.measured_margin(row)
        if "mean" in row and row["unit"] != "points":
            measured += f" {row['unit']}"
        cells = (row["item"], row["says"], verdicts.paper_margin(row), measured, row["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def update(text: str) -> str:
    """Return the text of the README with both tables as the code and `measured/` have them."""
    record = json.loads((verdicts.MEASURED / "laptop.json").read_text())
    claims = f"**{verdicts.count(record['claims'])}** of {len(record['claims'])} claims."
    for name, content in {
        "items": item_table(),
        "claims": f"{claims}\n\n{claim_table(record)}",
    }.items():
        start, rest = text.split(f"<!-- {name} -->\n")
        end = f"<!-- end of {name} -->"
        text = f"{start}<!-- {name} -->\n\n{content}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    README.write_text(update(README.read_text()))
