"""The signature that is read from a diagnostic's source is that of its function."""

from __future__ import annotations

import inspect
import typing

import pytest

from sparsediag.cli.options import cli_type
from sparsediag.cli.signatures import signature_of
from sparsediag.diagnostics import DIAGNOSTICS, load_diagnostic
from sparsediag.diagnostics.traits import traits_of


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_a_signature_read_from_the_source_is_that_of_the_function(name: str) -> None:
    found, function = signature_of(name), load_diagnostic(name)
    keywords = inspect.signature(function).parameters.values()
    hints, traits = typing.get_type_hints(function), traits_of(function)
    assert found.docstring == inspect.getdoc(function)
    assert {key: default for key, (_, default) in found.keywords.items()} == {
        p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY
    }
    for key, (hint, _) in found.keywords.items():
        assert cli_type(hint) == cli_type(hints[key])
    assert found.hidden == set(traits.from_checkpoint)
    for trait in ("history", "run", "several", "compare"):
        assert (trait in found.traits) == bool(getattr(traits, trait))
