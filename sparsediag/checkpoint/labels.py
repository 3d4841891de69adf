"""Labels of checkpoints, as short as tells them apart."""

from __future__ import annotations

import re
from pathlib import Path


def names(files: list[Path]) -> list[str]:
    """Return short distinct labels: file stems, or folder names without a run's hash.

    >>> names([Path("a/best.pt"), Path("b/best.pt")])
    ['a', 'b']
    """
    stems, folders = [f.stem for f in files], [f.resolve().parent.name for f in files]
    short = [re.sub(r"-[0-9a-f]{10}$", "", folder) for folder in folders]
    for told in (stems, short, folders, [str(f) for f in files]):
        if len(set(told)) == len(told):
            return told
    raise ValueError(f"{files[0]} came twice; give different checkpoints")
