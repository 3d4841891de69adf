"""`python -m tests.gpu.summary [FOLDER]`: write the results of `make gpu` into the repository.

Writes the section "GPU" of `tests/bench/RESULTS.md` from the rows in FOLDER (out/gpu, or a copy of
it that was fetched from another machine), and adds the finished trainings to
`tests/gpu/kept.jsonl`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import results
from tests.bench.timing import Rows, table
from tests.gpu import trainings
from tests.gpu.__main__ import OUT, SHARES, shown

Row = dict[str, Any]
FIXED = ("section", "what", "status", "note", "took")


class Bar(NamedTuple):
    """A bar, set for an H100: a number of one row, or its ratio to that of another row."""

    text: str
    what: str
    number: str
    least: float
    over: str = ""
    most: float = float("inf")


BARS = (
    Bar("ResNet-18, batch 512, bf16, masked + ToST: 40,000 images/s or more",
        "resnet18, 512, bf16, masked + ToST", "images/s", 40_000),
    Bar("the same over our dense loop: 0.9 or more",
        "resnet18, 512, bf16, masked + ToST", "images/s", 0.9, "resnet18, 512, bf16, dense"),
    Bar("ResNet-20, batch 512, bf16, masked: 100,000 images/s or more",
        "resnet20, 512, bf16, masked", "images/s", 100_000),
    Bar("a product on ResNet-18: 2.1 gradients at most",
        "resnet18, 1024 images: product, tape", "gradients", 0, most=2.1),
    Bar("180 epochs of ResNet-18, batch 512: 4 minutes, 1.33 s each, at most",
        "resnet18, 512, bf16, masked + ToST", "epoch s", 0, most=240 / 180),
    Bar("top 5 of ResNet-18: PyHessian's time over ours: 10 or more",
        "resnet18, 100%, 512 images: PyHessian, tol 1e-6", "s", 10,
        "resnet18, 100%, 512 images: sparsediag"),
    Bar("top 5 of ResNet-18: scipy's time over ours: 2 or more",
        "resnet18, 100%, 512 images: scipy eigsh, retained graph", "s", 2,
        "resnet18, 100%, 512 images: sparsediag"),
    Bar("51 x 51 points of ResNet-18 on 10,000 images: 120 s at most",
        "resnet18, 10000 images: float32", "s for 51 x 51", 0, most=120),
)  # fmt: skip


def main(folder: Path = OUT, file: Path = results.RESULTS, kept: Path = trainings.KEPT) -> None:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    results.write("GPU", lines(rows), file)
    runs = {row["run"]: row for f in (kept, folder / "kept.jsonl") for row in trainings.read(f)}
    if runs:
        kept.write_text("".join(json.dumps(row) + "\n" for row in runs.values()))
    print(f"{len(rows)} rows in {file}, {len(runs)} trainings in {kept}")


def lines(rows: list[Row]) -> list[str]:
    """Return the section in Markdown."""
    versions: Row = next((row for row in rows if row["what"] == "versions"), {})
    about = [f"{k} {v}" for k, v in versions.items() if k not in (*FIXED, "card")]
    found = [f"Measured by `make gpu` on {versions.get('card', '?')}: {', '.join(about)}."]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    found += [f"Rows: {', '.join(f'{n} {status}' for status, n in counts.items())}.", ""]
    found += table(("bar, on an H100", "measured", "held"), bars(rows))
    for section in SHARES:
        of = [row for row in rows if row["section"] == section and row["what"] != "versions"]
        if of:
            found += ["", f"### {section}", "", *_table(of)]
    return found


def bars(rows: list[Row]) -> Rows:
    """Return the measured value of each bar, or "not measured"."""
    numbers = {row["what"]: row for row in rows if row["status"] == "ok"}
    found: Rows = []
    for bar in BARS:
        value = numbers.get(bar.what, {}).get(bar.number)
        other = numbers.get(bar.over, {}).get(bar.number) if bar.over else 1.0
        if value is None or other is None:
            found.append((bar.text, "not measured", ""))
            continue
        held = bar.least <= value / other <= bar.most
        found.append((bar.text, shown(float(value / other)), "yes" if held else "no"))
    return found


def _table(rows: list[Row]) -> list[str]:
    heads = list(dict.fromkeys(key for row in rows for key in row if key not in FIXED))
    body: Rows = []
    for row in rows:
        word = "" if row["status"] == "ok" else row["status"]
        said = ": ".join(filter(None, (word, row.get("note", "")))).replace("|", "/")
        body.append((row["what"], *(shown(row.get(key, "")) for key in heads), said))
    return table(("what", *heads, "remarks"), body)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
