"""A command whose reader has gone ends without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparsediag.core.process import CLOSED_PIPE


@pytest.mark.parametrize("module", ["sparsediag", "training"])
def test_a_reader_that_has_gone_is_no_error(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:  # type: ignore[call-overload]
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (1, CLOSED_PIPE)  # rich ends with 1
