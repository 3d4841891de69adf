"""Damaged, malicious and other files: one line says why, and nothing in a file is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import BATCH, X, dense, random_mask, write
from PIL import Image

from sparsediag import Checkpoint, CheckpointError, Problem, activations
from sparsediag.checkpoint import mask_file

Reader = Callable[[Path], object]


class Harmful:
    """Unpickling this creates a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.sentinel,)


@pytest.fixture(params=[Checkpoint.load, mask_file.load], ids=["checkpoint", "mask"])
def refused(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Return the message, which must be one line that names the file."""

    def message(path: Path, error: type[Exception] = CheckpointError) -> str:
        with pytest.raises(error) as caught:
            request.param(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None
        return str(caught.value)

    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ckpt.pt"


def save(path: Path) -> bytes:
    """Write a sparse checkpoint."""
    net, mask = dense(), random_mask(dense())
    mask.apply_(net)
    Checkpoint.of(net, mask=mask, model="mine", options={}).save(path)
    return path.read_bytes()


def test_a_missing_file_and_a_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused(tmp_path / "none.pt", FileNotFoundError)
    assert message.endswith("no such file; need a file with the weights of a network")
    assert "is a folder; it holds no file of weights" in refused(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.pt").touch()
    assert refused(tmp_path).endswith(f"such as {tmp_path / 'runs' / 'best.pt'}")
    assert "did you mean" in refused(tmp_path / "runs" / "bst.pt", FileNotFoundError)


@pytest.mark.parametrize(
    "content", [b"hello there\n", b"", b"\x89PNG\r\n\x1a\n", b"\n\n\n", b"\x80\x02nonsense"]
)
def test_a_file_of_another_kind(refused: Callable[..., str], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    message = refused(path)
    assert f"not a torch checkpoint (it starts with {content[:5]!r}); give a file" in message


def test_a_picture_a_zip_and_a_result(refused: Callable[..., str], path: Path) -> None:
    Image.new("L", (2, 2)).save(path, format="PNG")
    assert "it starts with b'\\x89PNG" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    message = refused(path)
    assert "is a zip archive of other files, such as ['hello.txt']; unpack it" in message
    activations(Problem(dense(), BATCH)).save(path.with_suffix(".npz"))
    message = refused(path.with_suffix(".npz"))
    assert message.endswith("is a result; give the checkpoint it was made from")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program(refused: Callable[..., str], path: Path) -> None:
    torch.jit.trace(dense(), X).save(path)
    message = refused(path)
    assert "is a TorchScript program; save the weights" in message
    (command,) = re.findall(r"torch\.save\(.*\)", message)
    exec(command.replace("NEW.pt", str(new := path.with_name("new.pt"))), {"torch": torch})
    assert torch.equal(Checkpoint.load(new).build(model=dense)(X), dense()(X))


@pytest.mark.parametrize(
    ("payload", "kind"), [([1, 2], "list"), (torch.ones(3), "Tensor"), ("mask", "str")]
)
def test_a_file_without_names(
    refused: Callable[..., str], path: Path, payload: Any, kind: str
) -> None:
    message = refused(write(path, payload))
    assert message.endswith(f"holds a {kind}; need a dict of tensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.6, 0.9, 0.98, 0.9999])
def test_a_file_that_is_cut_short(refused: Callable[..., str], path: Path, share: float) -> None:
    content = save(path)
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or cut short" in (message := refused(path)) or "it starts with" in message


@pytest.mark.parametrize("bit", [0, 4, 7])
def test_a_flipped_bit_is_noticed_or_harmless(path: Path, bit: int) -> None:
    content, before = save(path), Checkpoint.load(path)
    for place in range(2, len(content), 41):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            after = Checkpoint.load(path)
        except CheckpointError:
            continue
        assert all(torch.equal(after.weights[n], t) for n, t in before.weights.items())
        assert (after.mask, after.made_by) == (before.mask, before.made_by)


def test_a_flipped_bit_of_a_mask_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mask.pt"
    mask_file.save(random_mask(dense()), path)
    content = path.read_bytes()
    bits = mask_file.load(path).pack()["bits"].numpy().tobytes()
    at = content.index(bits) + len(bits) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"mask.pt is damaged or cut short"):
        mask_file.load(path)


@pytest.mark.parametrize(
    "change", [{"format": "1"}, {"live": {}}, {"mask": {}, "surplus": 1}, {"dense": [1]}]
)
def test_a_payload_that_save_did_not_write(path: Path, change: dict[str, Any]) -> None:
    save(path)
    write(path, torch.load(path, weights_only=True) | change)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt"):
        Checkpoint.load(path)


def test_a_newer_format_names_the_version_to_install(
    refused: Callable[..., str], path: Path
) -> None:
    save(path)
    newer = {"format": 2, "made_by": {"sparsediag": "9.8.7"}}
    message = refused(write(path, torch.load(path, weights_only=True) | newer))
    assert "has format 2, this version reads up to 1; install sparsediag 9.8.7 or later" in message


@pytest.mark.parametrize("payload", [torch.relu, {"hyper_parameters": Namespace(act=torch.relu)}])
def test_pickled_objects(refused: Callable[..., str], path: Path, payload: Any) -> None:
    message = refused(write(path, payload))
    assert "holds pickled Python objects, and reading them would run code (" in message
    assert "torch.save(net.state_dict(), path)" in message
    assert "Checkpoint.of(net, model=...).save(path)" in message


@pytest.mark.parametrize("disguise", ["alone", "among the fields", "old format", "bare pickle"])
def test_code_in_a_file_is_never_run(
    refused: Callable[..., str], path: Path, tmp_path: Path, disguise: str
) -> None:
    sentinel = tmp_path / "was run"
    harmful: Any = Harmful(sentinel)
    if disguise == "among the fields":
        save(path)
        harmful = torch.load(path, weights_only=True) | {"run": harmful}
    if disguise == "bare pickle":
        path.write_bytes(pickle.dumps(harmful))
    else:
        torch.save(harmful, path, _use_new_zipfile_serialization=disguise != "old format")
    refused(path)
    assert not sentinel.exists()
    if disguise == "bare pickle":  # it would have done harm
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert sentinel.exists()


def test_arrays_of_numpy(refused: Callable[..., str], tmp_path: Path) -> None:
    state, mask = dense().state_dict(), random_mask(dense())
    path = tmp_path / "net.npz"
    np.savez(path, **{n: t.numpy() for n, t in state.items()}, note=np.array("text"))
    checkpoint = Checkpoint.load(path)
    assert checkpoint.made_by["file"] == "npz"
    assert torch.equal(checkpoint.build(model=dense)(X), dense()(X))
    np.savez_compressed(path, **{n: m.numpy() for n, m in mask.items()})
    assert mask_file.load(path) == mask
    np.savez(path, net=np.array([dense()], dtype=object))
    assert "holds Python objects" in refused(path)
    np.save(tmp_path / "net.npy", np.ones(3))
    assert "one array of numpy" in refused(tmp_path / "net.npy")


@pytest.mark.filterwarnings("ignore")  # from torch.export
def test_an_exported_program(refused: Callable[..., str], path: Path) -> None:
    torch.export.save(torch.export.export(dense(), (X,)), path)
    message = refused(path)
    assert "is a program of torch.export" in message
    (command,) = re.findall(r"torch\.save\(.*\)", message)
    exec(command.replace("NEW.pt", str(new := path.with_name("new.pt"))), {"torch": torch})
    assert torch.equal(Checkpoint.load(new).build(model=dense)(X), dense()(X))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (pickle.dumps({"a": 1}), "torch.save(pickle.load(open("),
    ],
)
def test_a_hint_for_what_is_no_checkpoint(
    refused: Callable[..., str], path: Path, content: bytes, hint: str
) -> None:
    path.write_bytes(content)
    assert hint in refused(path)


def test_a_pickle_of_another_protocol(refused: Callable[..., str], path: Path) -> None:
    torch.save(dense().state_dict(), path, pickle_protocol=4)
    message = refused(path)
    assert "cannot be read; torch" in message
    assert "UnpicklingError" in message
