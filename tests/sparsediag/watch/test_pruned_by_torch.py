"""Watch of nets whose weights are masked in each pass: by `prune`, or by a parametrisation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from watched import cnn, images

import sparsediag as sd
from training.keeper import MaskedOptimizer

STEPS = 2
ORIGINALS = {"prune": "weight_orig", "parametrisation": "parametrizations.weight.original"}


class Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def prune_net(net: nn.Module, kind: str) -> sd.Mask:
    """Prune the net by torch; return the mask by the names of the plain net."""
    weights = {name: net.get_parameter(name).abs() for name in ("0.weight", "4.weight")}
    mask = sd.Mask.top(weights, 0.5, scope="layer")
    for name, m in mask.items():
        layer = net.get_submodule(name.removesuffix(".weight"))
        if kind == "prune":
            prune.custom_from_mask(layer, "weight", m)
        else:
            parametrize.register_parametrization(layer, "weight", Masked(m))
    return mask


def train(net: nn.Module, stepper: Any, **options: Any) -> list[dict[str, Any]]:
    """Train in a plain loop, watched if there are options; return the rows."""
    rows: list[dict[str, Any]] = []
    watch = sd.Watch(net, every=1, log=rows.append, file=None, **options) if options else None
    for step in range(STEPS):
        net.zero_grad()
        loss = F.cross_entropy(net(images(step)[0]), images(step)[1])
        loss.backward()
        stepper.step()
        if watch:
            weights = [vars(m).get("weight") for m in net.modules()]
            watch.step(loss)
            assert all(
                w is vars(m).get("weight") for w, m in zip(weights, net.modules(), strict=True)
            )
    return rows


@pytest.mark.parametrize("kind", ORIGINALS)
def test_the_training_is_the_same_and_the_numbers_are_those_of_the_plain_net(kind: str) -> None:
    torch.manual_seed(0)
    plain = cnn().double()
    pruned = copy.deepcopy(plain)
    mask = prune_net(pruned, kind)
    unwatched = copy.deepcopy(plain)
    prune_net(unwatched, kind)
    options: dict[str, Any] = {"probe": [(images(9)[0].double(), images(9)[1])]}
    originals = sd.Mask({n.replace("weight", ORIGINALS[kind]): m for n, m in mask.items()})
    given = {} if kind == "prune" else {"mask": originals}  # that of `prune` is found
    torch.set_default_dtype(torch.float64)
    try:
        optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
        found = train(pruned, optimizer, optimizer=optimizer, **given, **options)
        train(unwatched, torch.optim.SGD(unwatched.parameters(), lr=0.1))
        inner = torch.optim.SGD(plain.parameters(), lr=0.1)
        masked = MaskedOptimizer(plain, mask, inner)
        expected = train(plain, masked, optimizer=inner, mask=mask, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, pruned.state_dict().values(), unwatched.state_dict().values()))
    left_out = {"mask/dead_not_zero", "probe_gradient/dead"}
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys() - left_out
        for name in row.keys() - {"watch_seconds", "eigenvalue/1_residual"}:
            tolerance = 1e-2 if name == "eigenvalue/1" else 1e-6  # from another first vector
            assert row[name] == pytest.approx(other[name], rel=tolerance), name


def test_weights_pruned_within_the_training_count() -> None:
    net = cnn()
    prune.random_unstructured(net[0], "weight", 0.5)
    rows: list[dict[str, Any]] = []
    options: dict[str, Any] = {"probe": [images(9)], "metrics": "mask,probe_loss", "file": None}
    with sd.Watch(net, every=1, log=rows.append, **options) as watch:
        watch.step()
        prune.random_unstructured(net[0], "weight", 0.5)
        prune.random_unstructured(net[4], "weight", 0.25)
        net(images(0)[0])
        watch.step()
        loss = F.cross_entropy(net.eval()(images(9)[0]), images(9)[1])
    assert [row["mask/density"] for row in rows] == [0.5, (9 + 144) / (36 + 192)]
    assert rows[1]["probe_loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("kind", ORIGINALS)
def test_a_mask_by_the_names_of_the_plain_net_is_refused(kind: str) -> None:
    net = cnn()
    mask = prune_net(net, kind)
    with pytest.raises(ValueError, match=rf"'0\.weight'.*'0\.{ORIGINALS[kind]}'"):
        sd.Watch(net, mask=mask, file=None)


def test_a_mask_of_some_of_the_pruned_weights_is_refused() -> None:
    net = cnn()
    mask = prune_net(net, "prune")
    some = sd.Mask({"0.weight_orig": mask["0.weight"]})
    with pytest.raises(ValueError, match=r"'4'.*strip_pruning"):
        sd.Watch(net, mask=some, probe=[images(0)], file=None)
