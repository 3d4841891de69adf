"""The tables of figures/README.md are those of the code and of the stored measurements."""

import json
import re

from figures import readme, registry, verdicts

TEXT = readme.README.read_text()


def test_the_readme_is_up_to_date() -> None:
    assert readme.update(TEXT) == TEXT, "call python -m figures.readme"
    assert all(f"| [{name}]({name}.py) |" in TEXT for name in registry.names())


def test_the_claims_are_those_that_were_measured() -> None:
    found = json.loads((verdicts.MEASURED / "laptop.json").read_text())
    claims = [(name, claim.says) for name in registry.names() for claim in registry.claims(name)]
    assert [(row["item"], row["says"]) for row in found["claims"]] == claims
    assert readme.claim_table(found) in TEXT
    assert verdicts.count(found["claims"]) in TEXT


def test_files_named_in_the_readme_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (readme.README.parent / path).exists(), path
