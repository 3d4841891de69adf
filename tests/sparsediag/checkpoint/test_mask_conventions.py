"""Conventions of other tools: the mask is found, checked, and never guessed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign import (
    BATCH,
    Payload,
    X,
    beside,
    dense,
    load,
    make,
    masked,
    parametrised,
    pruned,
    random_mask,
    write,
)
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsediag import Checkpoint, CheckpointError, Mask, Problem
from sparsediag.checkpoint import mask_conventions, mask_file


def short(net: nn.Module, mask: Mask) -> Payload:
    masks = {name.removesuffix(".weight"): m for name, m in mask.items()}
    return {"epoch": 3, "state_dict": net.state_dict(), "mask": masks}


CONVENTIONS: dict[str, tuple[Callable[[nn.Module, Mask], Payload], str]] = {
    "prune": (
        lambda net, mask: dict(pruned(net, mask).state_dict()),
        "weight_orig and weight_mask (torch.nn.utils.prune)",
    ),
    "parametrisation": (
        lambda net, mask: dict(parametrised(net, mask).state_dict()),
        "a binary tensor in a parametrisation (torch.nn.utils.parametrize)",
    ),
    "mask": (lambda net, mask: beside(net, mask, "mask"), "mask beside weight"),
    "weight_mask": (
        lambda net, mask: beside(net, mask, "weight_mask"),
        "weight_mask beside weight",
    ),
    "dict": (
        lambda net, mask: {"model": net.state_dict(), "masks": dict(mask)},
        "a dict of masks",
    ),
    "dict of layers": (short, "a dict of masks"),
    "dicts in a dict": (
        lambda net, mask: {
            "model": net.state_dict(),
            "masks": {n[:1]: {"weight": m.numpy(), "bias": None} for n, m in mask.items()},
        },
        "a dict of masks",
    ),
    "deep inside": (
        lambda net, mask: {
            "run": {"net": net.state_dict()},
            "pruner": {"state": [1], "weight_masks": {**{n: m.char() for n, m in mask.items()}}},
            "optimizer": {"masks": {"4": torch.zeros(2)}},
        },
        "a dict of masks",
    ),
    "masks of layers": (
        lambda net, mask: {
            "model": net.state_dict(),
            "mask": {n[:1]: {"mask": m.double()} for n, m in mask.items()},
        },
        "a dict of masks",
    ),
    "a list": (
        lambda net, mask: {"model": net.state_dict(), "pruner": {"keep_masks": [*mask.values()]}},
        "a list of masks (in the order of the weights)",
    ),
    "a list with the batch norm": (
        lambda net, mask: {
            "model": net.state_dict(),
            "mask": [mask["0.weight"].byte().numpy(), None, mask["4.weight"].byte().numpy()],
        },
        "a list of masks (in the order of the weights)",
    ),
    "a list of dicts": (
        lambda net, mask: {
            "model": net.state_dict(),
            "masks": [{n: m.float().to_sparse()} for n, m in mask.items()],
        },
        "a dict of masks",
    ),
    "numbered": (
        lambda net, mask: {"model": net.state_dict(), "masks": dict(enumerate(mask.values()))},
        "a list of masks (in the order of the weights)",
    ),
    "a number for each layer": (
        lambda net, mask: {
            "model": net.state_dict(),
            "mask": [*mask.values()],
            "linear_layers_mask": [0, 1],
        },
        "a list of masks (in the order of the weights)",
    ),
}


@pytest.mark.parametrize("folded", [False, True], ids=["held", "zero"])
@pytest.mark.parametrize(("keep", "told"), CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_mask_is_found_and_the_net_is_the_same(
    tmp_path: Path, keep: Callable[[nn.Module, Mask], Payload], told: str, folded: bool
) -> None:
    net, mask = dense(), random_mask(dense())
    reference = masked(net, mask)
    path = write(tmp_path / "net.pt", keep(copy.deepcopy(reference if folded else net), mask))
    checkpoint = Checkpoint.load(path)
    dead = mask.size - mask.alive
    proof = "in the file 0 of them were 0, they are held at 0 here"
    assert checkpoint.made_by["mask"] == (
        f"{told} of 2 tensors; {dead} of {mask.size} weights dead; "
        f"{'all of them exactly 0 in the file' if folded else proof}"
    )
    assert checkpoint.mask == mask == mask_file.load(path)
    assert sorted(checkpoint.weights) == sorted(net.state_dict())
    assert all((checkpoint.weights[name][~m] == 0).all() for name, m in mask.items())
    built = checkpoint.build(model=make)
    assert torch.equal(built(X), reference(X))
    problem = checkpoint.problem(model=make, data=BATCH, device="cpu")
    assert problem.mask == mask
    assert problem.digest == Problem(reference, BATCH, mask=mask).digest


def test_pruning_twice_and_of_a_bias(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 5))
    prune.random_unstructured(net[0], "weight", 0.5)
    prune.ln_structured(net[0], "weight", 0.4, n=2, dim=0)
    prune.l1_unstructured(net[0], "bias", 2)
    checkpoint = load(tmp_path, net.state_dict())
    assert checkpoint.mask is not None
    assert list(checkpoint.mask.table()) == [
        ("0.weight", int(net[0].weight_mask.sum()), 30),
        ("0.bias", 3, 5),
    ]
    built = checkpoint.build(model=lambda: nn.Sequential(nn.Linear(6, 5)))
    assert torch.equal(built(torch.eye(6)), net(torch.eye(6)))


def test_two_conventions_that_agree(tmp_path: Path) -> None:
    mask = random_mask(dense())
    payload = {"state_dict": pruned(dense(), mask).state_dict(), "mask": dict(mask)}
    assert load(tmp_path, payload).mask == mask


REFUSED: dict[str, tuple[Callable[[nn.Module, Mask], Payload], str]] = {
    "upside down": (
        lambda net, mask: beside(masked(net, mask), Mask({n: ~m for n, m in mask.items()}), "mask"),
        "upside down: every weight that it keeps is 0, 19 that it drops are not; need 1 for alive",
    ),
    "another shape": (
        lambda net, mask: {"model": net.state_dict(), "masks": {"4": torch.ones(4, 1)}},
        "the mask 'of 4' is (4, 1), '4.weight' is (4, 12)",
    ),
    "not binary": (
        lambda net, mask: {
            n: 0.5 * t if "mask" in n else t for n, t in pruned(net, mask).state_dict().items()
        },
        "the mask '0.weight_mask' holds other values than 0 and 1",
    ),
    "disagreement": (
        lambda net, mask: {
            "model": pruned(net, mask).state_dict(),
            "masks": {n: ~m for n, m in mask.items()},
        },
        "'0.weight' has two masks that disagree: weight_orig and weight_mask",
    ),
    "no such weight": (
        lambda net, mask: {"model": net.state_dict(), "masks": {"fc": mask["4.weight"]}},
        "the mask names 'fc', which is no weight in the file",
    ),
    "a list in another order": (
        lambda net, mask: {"model": net.state_dict(), "mask": [*mask.values()][::-1]},
        "a list of 2 masks fits the 2 matrices in no way; need an entry for each, None for what",
    ),
    "a list of lists": (
        lambda net, mask: {"model": net.state_dict(), "masks": [[m] for m in mask.values()]},
        "'masks' is a list of list; need a dict of name -> tensor, or a list of tensors",
    ),
    "scores": (
        lambda net, mask: {"model": net.state_dict(), "masks": {"4": torch.randn(4, 12)}},
        "'of 4' holds other values than 0 and 1; if they are scores, the training's code makes",
    ),
}


@pytest.mark.parametrize(("make_it", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mask_that_cannot_be(
    tmp_path: Path, make_it: Callable[[nn.Module, Mask], Payload], message: str
) -> None:
    """The file can be read, and used without the mask; who asks for the mask is told."""
    net, mask = dense(), random_mask(dense())
    path = write(tmp_path / "net.pt", make_it(net, mask))
    checkpoint = Checkpoint.load(path)
    assert message in checkpoint.made_by["fault"]
    assert (checkpoint.mask, checkpoint.made_by["mask"]) == (None, "none that can be used")
    for use in (
        checkpoint.build,
        lambda **how: checkpoint.problem(data=BATCH, device="cpu", **how),
    ):
        with pytest.raises(CheckpointError, match=f"{re.escape(message)}.*: --mask none$"):
            use(model=make)
    problem = checkpoint.problem(model=make, data=BATCH, mask="none", device="cpu")
    assert torch.equal(problem.net.state_dict()["4.weight"], checkpoint.weights["4.weight"])
    assert (checkpoint.weights["4.weight"] != 0).any()
    with pytest.raises(CheckpointError, match=f"{re.escape(message)}.* holds no mask$"):
        mask_file.load(path)


@pytest.mark.parametrize(
    "odd",
    [{"4.weight_mask": torch.ones(3)}, {"x": torch.ones(4, 4), "x_mask": torch.ones(4)}],
    ids=["shape", "attention"],
)
def test_what_is_named_like_a_mask_and_is_none(tmp_path: Path, odd: Payload) -> None:
    path = write(tmp_path / "net.pt", {**dense().state_dict(), **odd})
    checkpoint = Checkpoint.load(path)
    (at,) = (name for name in odd if name.endswith("mask"))
    assert checkpoint.made_by["mask"].startswith(
        f"none; '{at}' is not of 0 and 1 in the shape of '"
    )
    assert "fault" not in checkpoint.made_by
    odd.pop("x", None)
    lines: list[str] = []
    checkpoint = Checkpoint.load(write(path, {**dense().state_dict(), **odd}))
    assert torch.equal(checkpoint.build(model=make)(X), dense()(X))
    checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[-1] == f"file: left out, as make has no place for it: '{at}'"


def test_a_buffer_of_the_name_mask_is_not_taken_for_one(tmp_path: Path) -> None:
    soft = torch.full((4, 12), 0.5)
    state = dense().state_dict() | {"4.mask": soft, "attention.mask": torch.ones(2, 2).tril()}
    checkpoint = load(tmp_path, state)
    assert checkpoint.mask is None
    assert (
        checkpoint.made_by["mask"] == "none; '4.mask' is not of 0 and 1 in the shape of '4.weight'"
    )
    assert torch.equal(checkpoint.weights["4.mask"], soft)


def test_other_parametrisations_are_left_alone(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))

    net = normed()
    checkpoint = load(tmp_path, net.state_dict())
    assert checkpoint.mask is None
    assert torch.equal(checkpoint.build(model=normed)(torch.eye(4)), net(torch.eye(4)))


def test_few_zeros_are_no_hint_and_none_are_no_mask(tmp_path: Path) -> None:
    net = dense()
    net[4].weight.data[0, :3] = 0
    checkpoint = load(tmp_path, net.state_dict())
    assert checkpoint.made_by["mask"] == "none"
    whole = Checkpoint.load(write(tmp_path / "whole.pt", dense().state_dict()))
    with pytest.raises(CheckpointError, match="no weight is exactly 0"):
        whole.problem(model=make, data=BATCH, mask="zeros", device="cpu")


def test_openlth(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    state = {f"model.{n}": t for n, t in net.state_dict().items()}
    buffers = {f"mask_{n.replace('.', '___')}": m.float() for n, m in mask.items()}
    checkpoint = load(tmp_path, state | buffers)
    assert checkpoint.made_by["mask"].startswith(
        "mask_... with ___ for dots (OpenLTH) of 2 tensors"
    )
    assert torch.equal(checkpoint.build(model=make)(X), masked(net, mask)(X))


def test_a_list_for_some_of_the_weights_must_fit_in_one_way() -> None:
    weights = {n: torch.ones(2, 2) for n in "abc"} | {"d": torch.ones(3, 2)}
    square, tall = torch.eye(2), torch.ones(3, 2)
    for masks, names in {
        (square, square, square): "abc",
        (square, square, square, tall): "abcd",
        (None, square, None, tall): "bd",
        (tall,): "d",
        (square, tall): "",
        (square,): "",
        (tall, square): "",
    }.items():
        mask = mask_conventions.read_masks([[*masks]], weights)
        assert list(mask.mask or {}) == list(names)
        way = "more than one" if masks[0] is square else "no"
        assert mask.mask or f"fits the 4 matrices in {way} way" in mask.fault


@pytest.mark.parametrize("name", ["4.mask_scores", "4.scores", "4.popup_scores"])
def test_scores_are_no_mask(tmp_path: Path, name: str) -> None:
    """The net that computes with them gets them; another one is not taken for the trained net."""

    class Scored(nn.Linear):
        def __init__(self) -> None:
            super().__init__(12, 4)
            self.register_parameter(name[2:], nn.Parameter(torch.zeros(4, 12)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            best = self.get_parameter(name[2:]) > 0
            return nn.functional.linear(x, self.weight * best, self.bias)

    def scored() -> nn.Module:
        net = make()
        net[4] = Scored()
        return net.eval()

    scores, mask = torch.randn(4, 12), random_mask(dense())
    checkpoint = load(tmp_path, dense().state_dict() | {name: scores})
    assert f"none; '{name}' holds scores, not a mask" in checkpoint.made_by["mask"]
    with pytest.raises(CheckpointError, match=f"'{name}' holds scores; .*: --mask FILE, or none"):
        checkpoint.build(model=make)
    own = {"4.weight": scores > 0}
    assert torch.equal(checkpoint.build(model=scored)(X), masked(dense(), Mask(own))(X))
    mask_file.save(mask, tmp_path / "mask.pt")
    for choice, expected in {"none": dense(), tmp_path / "mask.pt": masked(dense(), mask)}.items():
        problem = checkpoint.problem(model=make, data=BATCH, mask=choice, device="cpu")
        assert torch.equal(problem.net(X), expected(X))


def test_what_is_named_like_scores_and_is_none() -> None:
    weight, other = torch.ones(2, 3), torch.ones(4)
    names = {"fc.weight": weight, "fc.scores": other, "head.scores": weight, "score.weight": weight}
    assert not any(mask_conventions.is_score(n, names) for n in names)
    parametrised = {f"fc.parametrizations.weight.{n}": weight for n in ("original", "0.scores")}
    assert [n for n in parametrised if mask_conventions.is_score(n, parametrised)] == [
        "fc.parametrizations.weight.0.scores"
    ]
