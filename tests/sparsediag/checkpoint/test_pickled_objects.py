"""Objects beside the weights: what is plain in them is read, and nothing that they name is run."""

from __future__ import annotations

import copy
import datetime
import decimal
import functools
import os
import subprocess
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from foreign import X, dense, make, masked, pruned, random_mask, write
from torch import Tensor, nn

from sparsediag import Checkpoint, CheckpointError
from sparsediag.checkpoint import mask_file, safe_load


class Colour(Enum):
    RED = 1


class Attributes(dict):  # type: ignore[type-arg]
    pass


@dataclass(slots=True)
class Slots:
    lr: float = 0.1


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def create(path: str) -> None:
    Path(path).touch()


ROW = np.arange(6.0).reshape(2, 3)
PLAIN: dict[str, tuple[Any, Any]] = {  # what torch reads itself is not here
    "a number": (np.float64(0.5), 0.5),
    "float32": (np.float32(0.5), 0.5),
    "an integer": (np.int64(-3), -3),
    "a boolean": (np.bool_(True), True),
    "a text": (np.str_("lr"), "lr"),
    "an array": (ROW, torch.tensor(ROW)),
    "columns first": (np.asfortranarray(ROW), torch.tensor(ROW)),
    "big-endian": (ROW.astype(">f4"), torch.tensor(ROW, dtype=torch.float32)),
    "booleans": (ROW > 2, torch.tensor(ROW > 2)),
    "bytes": (ROW.astype(np.uint8), torch.tensor(ROW, dtype=torch.uint8)),
    "no rows": (np.zeros((0, 3)), torch.zeros(0, 3, dtype=torch.float64)),
    "a namespace": (Namespace(lr=0.1, mask=ROW), {"lr": 0.1, "mask": torch.tensor(ROW)}),
    "names": (SimpleNamespace(lr=[np.float64(1)]), {"lr": [1.0]}),
    "a dict with attributes": (Attributes(lr=0.1), {"lr": 0.1}),
    "a default dict": (defaultdict(list, lr=(0.1,)), {"lr": (0.1,)}),
    "slots": (Slots(), {"lr": 0.1}),
    "a queue": (deque([1, 2], 3), [1, 2]),
}
OPAQUE = [
    Path("/data"),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    decimal.Decimal("0.1"),
    Colour.RED,
    torch.amp.grad_scaler.OptState.READY,
    functools.partial(int, "2"),
    nn.ReLU,
    np.random.default_rng(0),
    np.array([None, "text"], dtype=object),
    np.datetime64("2026-01-01"),
    range(3),
    slice(1, 2),
]


def same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype == other.dtype and torch.equal(value, other)
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[k], other[k]) for k in value)
    return type(value) is type(other) and bool(value == other)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_plain_values_are_read(tmp_path: Path, old: bool) -> None:
    for name, (value, expected) in PLAIN.items():
        torch.save({"x": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
        assert same(safe_load.load_dict(tmp_path / "x.pt")["x"], expected), name


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_objects_beside_the_weights_do_no_harm(tmp_path: Path, old: bool) -> None:
    state, path = dense().state_dict(), tmp_path / "net.pt"
    keys = ({Colour.RED: 1}, {Path("/data")})  # alone: torch makes no dicts of a subclass and these
    many = [v for v in (*OPAQUE, *PLAIN.values()) if v is not PLAIN["slots"]]
    if old:  # that format keeps the source of the class
        many.remove(nn.ReLU)
    for value in [*many, *keys, many]:
        payload = {"args": value, "state_dict": state}
        torch.save(payload, path, _use_new_zipfile_serialization=not old)
        assert torch.equal(Checkpoint.load(path).build(model=make)(X), dense()(X)), value


def test_a_pickled_network_is_its_weights(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    net.register_buffer("cache", torch.ones(2), persistent=False)
    for payload in (net, {"model": nn.DataParallel(net), "ema": None, "args": Namespace(lr=0.1)}):
        checkpoint = Checkpoint.load(write(tmp_path / "net.pt", payload))
        assert checkpoint.weights.keys() == net.state_dict().keys()
        assert torch.equal(checkpoint.build(model=make)(X), net(X))
    path = write(tmp_path / "net.pt", pruned(copy.deepcopy(net), mask))
    assert mask_file.load(path) == mask
    assert torch.equal(Checkpoint.load(path).build(model=make)(X), masked(net, mask)(X))


# the name of a function of this file is not known to be harmful; it is not called either
HARMFUL: dict[str, tuple[Callable[[str], Calls], bool]] = {
    "a method": (lambda path: Calls(Path.touch, Path(path)), True),
    "a shell": (lambda path: Calls(os.system, f"touch '{path}'"), True),
    "a process": (lambda path: Calls(subprocess.check_call, ["touch", path]), True),
    "a text": (lambda path: Calls(eval, f"open({path!r}, 'w').close()"), True),
    "another function": (lambda path: Calls(create, path), False),
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_code_beside_harmless_objects_is_never_run(tmp_path: Path, name: str, old: bool) -> None:
    harmful, is_refused = HARMFUL[name]
    sentinel, path = tmp_path / "was run", tmp_path / "net.pt"
    payload = {
        "state_dict": dense().state_dict(),
        "args": Namespace(lr=np.float64(0.1), out=Path("/x"), hook=harmful(str(sentinel))),
    }
    torch.save(payload, path, _use_new_zipfile_serialization=not old)
    for load in (Checkpoint.load, mask_file.load):
        if is_refused:
            with pytest.raises(CheckpointError, match=r"would run code \(\w+\.\w+\)") as caught:
                load(path)
            assert "\n" not in str(caught.value)
        elif load is Checkpoint.load:
            assert "4.weight" in Checkpoint.load(path).weights
        assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists()


@pytest.fixture
def two_processes() -> Iterator[Any]:
    """Pretend that this process is the first of two; return their mesh."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # from the imports of torch.distributed
@pytest.mark.parametrize("imported", [True, False])
def test_a_distributed_tensor(tmp_path: Path, two_processes: Any, imported: bool) -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    state = dense().state_dict()

    def save(placement: Any) -> Path:
        whole = OrderedDict(state)
        whole["4.weight"] = DTensor.from_local(state["4.weight"], two_processes, [placement])
        return write(tmp_path / "net.pt", {"state_dict": whole, "args": Namespace(lr=0.1)})

    allowed = torch.serialization.get_safe_globals()
    try:
        if not imported:
            torch.serialization.clear_safe_globals()
        copied = Checkpoint.load(save(Replicate()))
        assert torch.equal(copied.build(model=make)(X), dense()(X))
        with pytest.raises(CheckpointError, match=r"\(4, 12\) of a DTensor of \(8, 12\)") as caught:
            Checkpoint.load(save(Shard(0)))
        assert "full_state_dict=True" in str(caught.value)
    finally:
        torch.serialization.add_safe_globals(allowed)
