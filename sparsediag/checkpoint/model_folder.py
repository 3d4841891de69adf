"""Folders that hold one network: those of Hugging Face, whole or in shards."""

from __future__ import annotations

import json
from pathlib import Path

from sparsediag.core.errors import CheckpointError

STEMS = ("model", "pytorch_model", "diffusion_pytorch_model")
ENDINGS = (".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin")
DISTRIBUTED = (
    "make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
)


def is_model_folder(path: Path) -> bool:
    """Return whether a path is a folder with the weights of one network, and not of a run."""
    return path.is_dir() and any((path / f"{s}{e}").exists() for s in STEMS for e in ENDINGS)


def weights_file(folder: Path) -> Path:
    """Return the file with the weights, or the index of its shards.

    Raises:
        CheckpointError: If there is none; says what to do with a folder of another kind.
    """
    for name in [f"{stem}{ending}" for ending in ENDINGS for stem in STEMS]:
        if (folder / name).exists():
            return folder / name
    if (folder / ".metadata").exists():
        raise CheckpointError(
            f"{folder} is a distributed checkpoint; {DISTRIBUTED} {folder} NEW.pt"
        )
    for directory in (folder, folder.parent):
        if (converter := directory / "zero_to_fp32.py").exists():
            raise CheckpointError(
                f"{folder} is a checkpoint of DeepSpeed; make one file of it: "
                f"python {converter} {directory} NEW_FOLDER"
            )
    raise CheckpointError(f"{folder} is a folder; {_advice(folder)}")


def _advice(folder: Path) -> str:
    """Return what to give in place of a folder: a file of weights in it."""
    patterns = [f"*.{ending}" for ending in ("safetensors", "pt", "pth", "ckpt")]
    deeper = ["*/best.pt", "*/*/best.pt"]  # the runs in a training's --out
    for pattern in patterns + deeper:
        if files := sorted(folder.glob(pattern)):
            return f"give a file in it, such as {files[0]}"
    return "it holds no file of weights; give a checkpoint"


def shard_files(index: Path) -> list[Path]:
    """Return the files that an index names.

    Args:
        index: A JSON file with the entry `weight_map`: the name of each tensor -> its file.

    Raises:
        CheckpointError: If it is no such index, or a file is missing.
    """
    try:
        entries = json.loads(index.read_text())
        names = list(dict.fromkeys(Path(name).name for name in entries["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(
            f"{index} is no index of shards, which has a weight_map; give the file with the weights"
        ) from None
    files = [index.parent / name for name in names]
    if any(name.endswith(".json") for name in names):
        raise CheckpointError(f"{index} names an index as a shard; give the files with the weights")
    if missing := [file.name for file in files if not file.exists()]:
        raise CheckpointError(
            f"{index} names {len(files)} files, and {missing[0]} is not beside it; get it too"
        )
    return files
