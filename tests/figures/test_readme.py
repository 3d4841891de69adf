"""The tables of both README files are those of the code and of the stored measurements."""

import re
from pathlib import Path

import pytest

from figures import readme, registry, verdicts

TEXT = readme.README.read_text()


@pytest.mark.parametrize("path", [readme.README, readme.FRONT], ids=["figures", "front"])
def test_the_readme_is_up_to_date(path: Path) -> None:
    assert readme.update(path) == path.read_text(), "call python -m figures.readme"


def test_every_item_and_every_claim_is_there_with_where_it_was_judged() -> None:
    assert all(f"| [{name}]({name}.py) |" in TEXT for name in registry.names())
    stored = {r["scale"]: r for r in map(verdicts.judged, verdicts.measured_records())}
    for (item, says), claim, scale, row in verdicts.findings(stored.values()):
        where = "computed" if claim.exact else f"{scale}, {len(row['effects'])} seeds"
        assert f"| {item} | {says} |" in TEXT
        if scale or claim.exact:
            assert f"| {where} | {row['verdict']} |" in TEXT
        else:
            assert row["verdict"] == "not run"


def test_stored_records_are_what_the_rule_says_today() -> None:
    for record in verdicts.measured_records():
        assert verdicts.judged(record) == record, "call python -m figures.merge"
        assert record["machines"], "hardware, versions and commands"
        assert all(row["effects"] or row["verdict"] == "not run" for row in record["claims"])


def test_files_named_in_the_readme_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (readme.README.parent / path).exists(), path
