"""Watch in a distributed training: one row a step, of the whole batch."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from watched import half, images

import sparsediag as sd


def make() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ).double()


def train(net: torch.nn.Module, file: Path, rank: int = 0, ranks: int = 1) -> None:
    """Train on a part of each batch."""
    mask = half(make())
    mask.apply_(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    probe = [(x.double(), y) for x, y in [images(99)]]
    with sd.Watch(net, mask=mask, optimizer=optimizer, probe=probe, every=1, file=file) as watch:
        for step in range(3):
            x, y = (t[rank::ranks] for t in images(step))
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x.double()), y)
            loss.backward()
            optimizer.step()
            mask.apply_(net)
            row = watch.step(loss, epoch=step / 3)
            assert (row is None) == (rank > 0)


def work(rank: int, folder: Path) -> None:
    """Train as one of two processes."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    net = DistributedDataParallel(make())
    train(net, folder / "two.jsonl", rank, 2)
    with sd.Watch(net, mask=half(make()), metrics="mask", every=1, file=None) as watch:
        broken = "a loss in words" if rank == 0 else 1.0
        assert (watch.step(broken) is None) == (rank > 0)  # and no process waits for the other
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_give_the_rows_of_one(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    train(make(), tmp_path / "one.jsonl")
    one, two = (
        [*map(json.loads, (tmp_path / name).read_text().splitlines())][1:]
        for name in ("one.jsonl", "two.jsonl")
    )
    assert [row["step"] for row in two] == [1, 2, 3]
    for alone, together in zip(one, two, strict=True):
        alone = {key: v for key, v in alone.items() if key != "watch_seconds" and v is not None}
        assert {key: together[key] for key in alone} == pytest.approx(alone, rel=1e-6)
