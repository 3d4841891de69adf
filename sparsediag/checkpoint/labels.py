"""Short labels of checkpoints."""

from __future__ import annotations

import re
from pathlib import Path


def short_labels(files: list[Path]) -> list[str]:
    """Return short distinct labels: file stems, or folder names without a run's hash.

    >>> short_labels([Path("a/best.pt"), Path("b/best.pt")])
    ['a', 'b']
    """
    stems, folders = [f.stem for f in files], [f.resolve().parent.name for f in files]
    short = [re.sub(r"-[0-9a-f]{10}$", "", folder) for folder in folders]
    for labels in (stems, short, folders, [str(f) for f in files]):
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f"got {files[0]} twice; give different checkpoints")
