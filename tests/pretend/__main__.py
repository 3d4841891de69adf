"""`python -m tests.pretend NAME ...`: run scenarios on the pretend GPU; what was seen, as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from tests.pretend import gpu


def main(names: list[str]) -> None:
    """Run the scenarios in turn; what raises in them, raises."""
    torch.set_num_threads(1)
    ledger = gpu.on()
    from tests.pretend.scenarios import SCENARIOS, Book
    from training import captured

    captured.cuda_graph = lambda work: work  # a replay does it all again, and is looked at
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*every step draws new gates")
    seen = {}
    for name in names:
        book = Book(ledger)
        ledger.mismatches.clear()
        with tempfile.TemporaryDirectory() as out:
            SCENARIOS[name](book, Path(out))
        seen[name] = {"rows": book.rows, "mismatches": list(ledger.mismatches)}
    print(json.dumps(seen, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
