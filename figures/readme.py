"""Write the two tables of `figures/README.md`: `python -m figures.readme`."""

from __future__ import annotations

import inspect
import json
import re

from figures import items, verdicts

README = items.HERE / "README.md"


def item_table() -> str:
    """Return a Markdown table of all figures and tables with their titles."""
    lines = ["| item | shows |", "| --- | --- |"]
    for name in items.names():
        title = inspect.cleandoc(items.item(name).__doc__ or "").partition("\n\n")[0]
        lines.append(f"| [{name}]({name}.py) | {' '.join(title.split())} |")
    return "\n".join(lines)


def update(text: str) -> str:
    """Return the README with both tables made anew from the code and `measured/laptop.json`."""
    found = json.loads((verdicts.MEASURED / "laptop.json").read_text())
    claims = f"**{verdicts.tally(found['claims'])}** of {len(found['claims'])} claims."
    claims += f"\n\n{verdicts.markdown(found)}"
    for name, table in {"items": item_table(), "claims": claims}.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    README.write_text(update(README.read_text()))
