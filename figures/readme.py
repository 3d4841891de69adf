"""Write the tables of the two README files: `python -m figures.readme`."""

from __future__ import annotations

from pathlib import Path

from figures import registry, verdicts
from figures.rule import OUTCOMES
from figures.verdicts import Finding
from sparsediag.plotting.tables import EMPTY

README = registry.HERE / "README.md"
FRONT = registry.HERE.parent / "README.md"


def item_table() -> str:
    """Return a Markdown table of all figures and tables with their titles."""
    lines = ["| item | shows |", "| --- | --- |"]
    lines += [
        f"| [{name}]({name}.py) | {registry.about(name)[0].partition(': ')[2]} |"
        for name in registry.names()
    ]
    return "\n".join(lines)


def claim_table(findings: list[Finding]) -> str:
    """Return a Markdown table of all claims, where they were judged, and their verdicts."""
    lines = ["| item | claim | paper | measured | scale | verdict |", "| --- " * 6 + "|"]
    for (item, says), claim, scale, row in findings:
        measured, count = verdicts.measured_margin(row), len(row["effects"])
        if "mean" in row and row["unit"] != "points":
            measured += f" {row['unit']}"
        where = "computed" if claim.exact else f"{scale}, {count} seeds" if scale else EMPTY
        cells = (item, says, verdicts.paper_margin(claim), measured, where, row["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary_table(findings: list[Finding]) -> str:
    """Return a Markdown table of the number of claims of each paper by verdict."""
    lines = [f"| paper | claims | {' | '.join(OUTCOMES)} |", "| --- " * 6 + "|"]
    for folder, paper in registry.PAPERS.items():
        rows = [row for (item, _), _, _, row in findings if item.startswith(f"{folder}/")]
        if rows:
            numbers = map(str, (len(rows), *verdicts.count(rows).values()))
            lines.append(f"| {paper.title} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def update(path: Path) -> str:
    """Return the text of a README with its tables as the code and `measured/` have them."""
    findings = verdicts.findings(map(verdicts.judged, verdicts.measured_records()))
    tables = {
        "items": item_table(),
        "claims": claim_table(findings),
        "verdicts": summary_table(findings),
    }
    text = path.read_text()
    for name, content in tables.items():
        head, marker, rest = text.partition(f"<!-- {name} -->\n")
        if marker:
            end = f"<!-- end of {name} -->"
            text = f"{head}{marker}\n{content}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for readme in (README, FRONT):
        readme.write_text(update(readme))
