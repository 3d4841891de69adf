"""Modes: how a net is set while it is measured, and that all is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsediag.modes import exactly


@pytest.fixture
def net() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2))
    ).train()
    net[1].eval()
    return net


def _modes(net: nn.Module) -> list[bool]:
    return [m.training for m in net.modules()]


def _precision() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.allow_tf32, cudnn.benchmark


def test_everything_is_in_evaluation(net: nn.Module) -> None:
    with exactly(net):
        assert not any(_modes(net))
    with exactly(net, batch_norm="eval"):
        assert not any(_modes(net))


def test_only_batch_norms_train(net: nn.Module) -> None:
    net.eval()
    with exactly(net, batch_norm="train"):
        assert [m for m in net.modules() if m.training] == [net[1], net[3][0]]
    assert not any(_modes(net))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_all_is_put_back(net: nn.Module, precision: str, batch_norm: str, fails: bool) -> None:
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        modes, before = _modes(net), _precision()
        assert True in modes
        assert False in modes
        try:
            with exactly(net, batch_norm=batch_norm):
                assert _modes(net) != modes
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
                if fails:
                    raise KeyError("no luck")
        except KeyError:
            assert fails
        assert _modes(net) == modes
        assert _precision() == before
    finally:
        torch.set_float32_matmul_precision(own)


def test_an_exception_goes_through(net: nn.Module) -> None:
    with pytest.raises(KeyError, match="no luck"), exactly(net):
        raise KeyError("no luck")


def test_one_within_another(net: nn.Module) -> None:
    modes = _modes(net)
    with exactly(net, batch_norm="train"):
        inner = _modes(net)
        with exactly(net):
            assert not any(_modes(net))
        assert _modes(net) == inner
    assert _modes(net) == modes
