"""The command of each diagnostic, built from its function's signature and docstring."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docstring_parser import parse

from sparsediag.cli.options import NAMES, SHARED, Options, cli_type, option, set_signature
from sparsediag.cli.signatures import Signature, signature_of
from sparsediag.diagnostics import DIAGNOSTICS

OTHERS = "Further checkpoints, for a line or plane through two or three networks."
COMPARE = option(
    "compare", bool, "Compute each network by itself on common axes, and compare.", negative=""
)


def __getattr__(name: str) -> Callable[..., int]:
    """Return the command of a diagnostic, built when it is asked for (PEP 562)."""
    if name not in DIAGNOSTICS:
        raise AttributeError(f"module 'sparsediag.cli.commands' has no attribute '{name}'")
    signature = signature_of(name)

    def command(checkpoint: Path, *others: Path, **values: Any) -> int:
        run = importlib.import_module("sparsediag.cli.diagnose").run  # imports torch
        exit_code: int = run(name, [checkpoint, *others], values, defaults)
        return exit_code

    options = own_options(signature)
    if "compare" in signature.traits:
        options["compare"] = (COMPARE, False)
    if "several" in signature.traits:
        options["names"] = (NAMES, None)
    options |= SHARED
    defaults = {key: default for key, (_, default) in options.items()}
    others = OTHERS if "several" in signature.traits else None
    takes_run = not signature.traits.isdisjoint(("history", "run", "several"))
    set_signature(command, options, others=others, takes_run=takes_run)
    command.__name__ = name
    return command


def own_options(signature: Signature) -> Options:
    """Return the keywords of a diagnostic that the command line takes, with their help texts."""
    descriptions = {p.arg_name: p.description for p in parse(signature.docstring).params}
    return {
        key: (option(key, kind, descriptions.get(key), show=key not in signature.hidden), default)
        for key, (hint, default) in signature.keywords.items()
        if (kind := cli_type(hint))
    }
