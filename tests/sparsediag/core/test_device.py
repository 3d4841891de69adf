"""Which device a name stands for, with and without GPUs."""

from __future__ import annotations

import pytest
import torch

from sparsediag.core.device import select_device


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (1, "cuda"), (4, "cuda")])
def test_auto_is_a_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str
) -> None:
    gpus(monkeypatch, count)
    assert select_device() == select_device("auto") == torch.device(device)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpus(monkeypatch, 2)
    assert select_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpus(monkeypatch, 0)
    with pytest.raises(ValueError, match="is not available; use --device cpu"):
        select_device(name)


def test_a_gpu_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match="cuda:2 was asked for; there are 2 GPUs"):
        select_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1"])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}': need auto, cpu, cuda or cuda:N"):
        select_device(name)


@pytest.mark.parametrize("name", ["meta", "mps", "xpu"])
def test_a_kind_of_device_that_is_not_here(name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}': need auto, cpu, cuda or cuda:N"):
        select_device(name)
