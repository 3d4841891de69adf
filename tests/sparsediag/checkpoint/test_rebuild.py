"""Networks of the user, and checkpoints that do not record theirs."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign import X, dense, load, make, parametrised, pruned, random_mask
from torch import nn

from sparsediag import Checkpoint, CheckpointError, Mask


@pytest.mark.parametrize("change", [pruned, parametrised])
def test_the_net_computes_what_the_masked_net_of_torch_computes(
    tmp_path: Path, change: Callable[[nn.Module, Mask], nn.Module]
) -> None:
    net = change(dense(), random_mask(dense()))
    checkpoint = load(tmp_path, net.state_dict())
    torch.testing.assert_close(checkpoint.build(model=make)(X), net(X), rtol=0, atol=1e-6)
    # a net that is made with hooks and parametrisations of its own is made plain first
    ones = Mask({n: torch.ones_like(m) for n, m in random_mask(dense()).items()})
    built = checkpoint.build(model=change(dense(), ones))
    assert torch.equal(built(X), checkpoint.build(model=make)(X))


def locked() -> nn.Module:
    net = make()
    net.lock = threading.Lock()  # type: ignore[assignment]
    return net


def test_a_net_that_cannot_be_copied(tmp_path: Path) -> None:
    checkpoint = load(tmp_path, dense().state_dict())
    assert torch.equal(checkpoint.build(model=locked)(X), dense()(X))
    net = locked()
    before = copy.deepcopy(net.state_dict())
    for model in (net, lambda: net, lambda: nn.Sequential(net)):
        with pytest.raises(ValueError, match="cannot be copied: TypeError: cannot pickle"):
            checkpoint.build(model=model)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_a_net_that_a_function_gives_again_is_not_changed(tmp_path: Path) -> None:
    net = make()
    before = copy.deepcopy(net.state_dict())
    assert load(tmp_path, dense().state_dict()).build(model=lambda: net) is not net
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_net_without_shapes(tmp_path: Path) -> None:
    checkpoint = load(tmp_path, {"0.weight": torch.full((2, 3), 2.0)})
    with pytest.raises(ValueError, match=r"^'0.weight' of <lambda> has no shape yet; give the"):
        checkpoint.build(model=lambda: nn.Sequential(nn.LazyLinear(2, bias=False)))


def test_our_own_files_under_a_foreign_label(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    mask.apply_(net)
    Checkpoint.of(net, mask=mask, model="mine", options={"depth": 2}).save(tmp_path / "net.pt")
    depths = []

    def mine(depth: int) -> nn.Module:
        depths.append(depth)
        return make()

    checkpoint = Checkpoint.load(tmp_path / "net.pt")
    assert torch.equal(checkpoint.build(model=mine)(X), net(X))
    assert torch.equal(checkpoint.build(model=mine, model_options={"depth": 3})(X), net(X))
    assert torch.equal(checkpoint.build(model=make)(X), net(X))  # which takes no depth
    assert depths == [2, 3]
    with pytest.raises(CheckpointError, match=r"unknown model 'mine'.* Give it: --model file.py"):
        checkpoint.build()
    with pytest.raises(ValueError, match="options of a model given without one"):
        checkpoint.build(model_options={"depth": 2})


def test_a_foreign_file_says_what_it_lacks_and_is_kept_as_ours(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    checkpoint = load(tmp_path, pruned(net, mask).state_dict())
    with pytest.raises(CheckpointError, match=r"9 tensors \(.*\) given without .* --model file.py"):
        checkpoint.build()
    checkpoint.save(tmp_path / "ours.pt")
    again = Checkpoint.load(tmp_path / "ours.pt")
    assert (again.mask, again.made_by) == (checkpoint.mask, checkpoint.made_by)
    assert torch.equal(again.build(model=make)(X), checkpoint.build(model=make)(X))
