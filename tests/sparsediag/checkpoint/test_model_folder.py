"""Folders with one network, and folders of which a file has to be made first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign import X, dense, make, pruned, random_mask, write
from safetensors.torch import save_file

from sparsediag import Checkpoint, CheckpointError
from sparsediag.checkpoint import mask_file

MASK = random_mask(dense())


def shard(folder: Path, ending: str) -> Path:
    """Write a pruned net as two files and an index, as Hugging Face's library does."""
    state, stem = (
        pruned(dense(), MASK).state_dict(),
        "pytorch_model" if ending == "bin" else "model",
    )
    names = {n: f"{stem}-0000{1 + n.startswith('4')}-of-00002.{ending}" for n in state}
    for file in set(names.values()):
        part = {n: t for n, t in state.items() if names[n] == file}
        (torch.save if ending == "bin" else save_file)(part, folder / file)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}, indent=2))
    (folder / "config.json").write_text("{}")
    return index


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_shards_are_one_network(tmp_path: Path, ending: str) -> None:
    index, net = shard(tmp_path, ending), dense()
    MASK.apply_(net)
    for path in (index, tmp_path):
        checkpoint = Checkpoint.load(path)
        assert checkpoint.mask == MASK == mask_file.load(path)
        assert torch.equal(checkpoint.build(model=make)(X), net(X))
    missing = next(tmp_path.glob("*-00002-of-00002*"))
    missing.unlink()
    with pytest.raises(
        CheckpointError, match=f"names 2 files, and {missing.name} is not beside it"
    ):
        Checkpoint.load(tmp_path)


def test_one_file_in_a_folder(tmp_path: Path) -> None:
    save_file(dense().state_dict(), tmp_path / "model.safetensors")
    write(tmp_path / "training_args.bin", {"lr": 0.1})
    assert torch.equal(Checkpoint.load(tmp_path).build(model=make)(X), dense()(X))


def test_a_folder_of_other_files_names_one(tmp_path: Path) -> None:
    write(tmp_path / "net.pth", dense().state_dict())
    with pytest.raises(CheckpointError, match=r"is a folder; give .*, such as .*net\.pth$"):
        Checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(CheckpointError, match=r"config\.json is no index of shards.* weight_map"):
        Checkpoint.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"weight_map": {"a": "config.json"}}')
    with pytest.raises(CheckpointError, match="names an index as a shard"):
        Checkpoint.load(tmp_path / "config.json")


@pytest.mark.filterwarnings("ignore")  # from torch.distributed
def test_the_way_to_read_a_distributed_checkpoint(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import format_utils

    dcp.save({"model": dense().state_dict()}, checkpoint_id=tmp_path / "step", no_dist=True)
    (part,) = (tmp_path / "step").glob("*.distcp")
    for path in (tmp_path / "step", part):
        with pytest.raises(CheckpointError, match="dcp_to_torch") as caught:
            Checkpoint.load(path)
        assert f"{tmp_path / 'step'} NEW.pt" in str(caught.value)
    format_utils.dcp_to_torch_save(tmp_path / "step", tmp_path / "new.pt")  # what it runs
    assert torch.equal(Checkpoint.load(tmp_path / "new.pt").build(model=make)(X), dense()(X))


def test_the_way_to_read_the_parts_of_deepspeed(tmp_path: Path) -> None:
    parts = tmp_path / "global_step3"
    parts.mkdir()
    converter = tmp_path / "zero_to_fp32.py"
    converter.touch()
    for folder in (tmp_path, parts):
        with pytest.raises(CheckpointError, match=f"python {converter} {tmp_path} NEW_FOLDER"):
            Checkpoint.load(folder)
    empty = {n: torch.empty(0) if t.dim() else t for n, t in dense().state_dict().items()}
    checkpoint = Checkpoint.load(write(parts / "mp_rank_00_model_states.pt", {"module": empty}))
    with pytest.raises(CheckpointError, match=r"'0.weight' is \(0,\) .* zero_to_fp32.py"):
        checkpoint.build(model=make)
