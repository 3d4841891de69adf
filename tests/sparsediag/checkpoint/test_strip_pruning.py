"""Copies of networks without hooks and parametrisations that mask."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from foreign import BATCH, Times, X, dense, parametrised, pruned, random_mask
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsediag import Mask, Problem
from sparsediag.checkpoint.strip_pruning import plain


@pytest.mark.parametrize("change", [pruned, parametrised])
def test_plain_gives_the_net_and_the_mask_and_changes_nothing(
    change: Callable[[nn.Module, Mask], nn.Module],
) -> None:
    mask = random_mask(dense())
    net = change(dense(), mask)
    out = net(X)
    out.sum().backward()  # the weights of hooks are now part of a graph
    before = copy.deepcopy(net.state_dict())
    copied, found = plain(net)
    assert found == mask
    assert sorted(copied.state_dict()) == sorted(dense().state_dict())
    torch.testing.assert_close(copied(X), out, rtol=0, atol=1e-6)
    assert all((copied.get_parameter(n)[~m] == 0).all() for n, m in mask.items())
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert torch.equal(net(X), out)
    assert type(copied[0]) is nn.Conv2d
    assert not copied[0]._forward_pre_hooks


def test_the_gradient_is_that_of_the_pruned_net() -> None:
    mask = random_mask(dense())
    net = pruned(dense(), mask)
    nn.functional.cross_entropy(net(X), BATCH[0][1]).backward()
    copied, found = plain(net)
    problem = Problem(copied, BATCH, mask=found)
    gradient = problem.split(problem.gradient())
    for name in mask:
        torch.testing.assert_close(gradient[name], net.get_parameter(f"{name}_orig").grad)


def test_plain_of_a_plain_net_is_a_copy() -> None:
    net = dense()
    copied, mask = plain(net)
    assert mask is None
    assert copied is not net
    assert torch.equal(copied(X), net(X))


def test_a_parametrisation_that_does_more_is_refused() -> None:
    class Twice(Times):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * super().forward(weight)

    net = dense()
    parametrize.register_parametrization(net[4], "weight", Twice(torch.ones(4, 12)))
    with pytest.raises(ValueError, match=r"the parametrisation of '4.weight' does more than mask"):
        plain(net)
