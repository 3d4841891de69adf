"""Names in which tools have put the names of their wrappers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign import BATCH, X, dense, load, make, masked, pruned, random_mask, write
from torch import Tensor, nn

from sparsediag.checkpoint.wrapper_names import rename

WRAPPERS = ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"]


class Wrapped(nn.Module):
    """A wrapper that keeps the wrapped module under a name."""

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, inner)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.get_submodule(self.name)(x)
        return output


def wrapped(name: str) -> nn.Sequential:
    net = make()
    net[4], net[0] = Wrapped(net[4], name), Wrapped(Wrapped(net[0], "_orig_mod"), name)
    return net.eval()


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("outer", ["", "_orig_mod._fsdp_wrapped_module.", "model."])
def test_a_wrapper_in_the_file_or_in_the_net(tmp_path: Path, name: str, outer: str) -> None:
    mask = random_mask(dense())
    state = pruned(dense(), mask).state_dict()
    inner = {n.replace("4.", f"4.{name}.").replace("0.", f"0.{name}._orig_mod."): n for n in state}
    files = [{f"{outer}{n}": state[old] for n, old in inner.items()}, state]
    for payload in files:
        for model in (make, lambda: wrapped(name)):
            problem = load(tmp_path, payload).problem(model=model, data=BATCH, device="cpu")
            assert torch.equal(problem.net(X), masked(dense(), mask)(X))
            expected = (
                mask if model is make else rename(mask, dict(wrapped(name).named_parameters()))
            )
            assert dict(problem.mask or {}).keys() == expected.keys()


def test_a_mask_with_other_wrappers_than_the_weights(tmp_path: Path) -> None:
    mask = random_mask(dense())
    masks = {n.replace("4.", "4.module."): m for n, m in mask.items()}
    beside = load(tmp_path, {"model": dense().state_dict(), "masks": masks})
    assert beside.mask == mask
    checkpoint = load(tmp_path, {f"module.{n}": t for n, t in dense().state_dict().items()})
    path = write(tmp_path / "mask.pt", {f"_orig_mod.{n}": m for n, m in masks.items()})
    problem = checkpoint.problem(model=make, data=BATCH, mask=path, device="cpu")
    assert problem.mask == mask


def test_names_that_are_two_without_their_wrappers_are_kept() -> None:
    state = {"a.weight": 1, "a.module.weight": 2}
    assert rename(state, ["a.weight"]) == state
    assert rename({"a.weight": 1}, state) == {"a.weight": 1}
