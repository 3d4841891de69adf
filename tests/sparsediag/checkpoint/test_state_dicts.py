"""Files of others: the mask is found, proved, and the net computes what it computed there."""

from __future__ import annotations

import argparse
import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from sparsediag import Checkpoint, CheckpointError, Mask, Problem
from sparsediag.checkpoint import mask_file
from sparsediag.checkpoint.strip_pruning import plain

X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(2))
BATCH = [(X, torch.arange(5) % 4)]
Payload = dict[str, Any]


class Times(nn.Module):
    """A parametrisation that masks."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class MaskedLinear(nn.Linear):
    """A layer that masks itself, by a buffer."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


def make() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
    )


def dense() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def coins(net: nn.Module, density: float = 0.3) -> Mask:
    chance = torch.Generator().manual_seed(1)
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    return Mask({n: torch.rand(p.shape, generator=chance) < density for n, p in weights.items()})


def masked(net: nn.Module, mask: Mask) -> nn.Module:
    twin = copy.deepcopy(net)
    mask.apply_(twin)
    return twin


def pruned(net: nn.Module, mask: Mask) -> nn.Module:
    for name, m in mask.items():
        module, _, weight = name.rpartition(".")
        prune.custom_from_mask(net.get_submodule(module), weight, m)
    return net


def parametrised(net: nn.Module, mask: Mask) -> nn.Module:
    for name, m in mask.items():
        module, _, weight = name.rpartition(".")
        parametrize.register_parametrization(net.get_submodule(module), weight, Times(m))
    return net


def beside(net: nn.Module, mask: Mask, end: str) -> Payload:
    state = dict(net.state_dict())
    return state | {f"{name.removesuffix('weight')}{end}": m.float() for name, m in mask.items()}


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
}


def written(path: Path, payload: Payload) -> Path:
    torch.save(payload, path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# conventions


@pytest.mark.parametrize("folded", [False, True], ids=["held", "zero"])
@pytest.mark.parametrize(("keep", "told"), CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_mask_is_found_and_the_net_is_the_same(
    tmp_path: Path, keep: Callable[[nn.Module, Mask], Payload], told: str, folded: bool
) -> None:
    net, mask = dense(), coins(dense())
    reference = masked(net, mask)
    path = written(tmp_path / "net.pt", keep(copy.deepcopy(reference if folded else net), mask))
    kept = Checkpoint.load(path)
    dead = mask.size - mask.alive
    proof = "in the file 0 of them were 0, they are held at 0 here"
    assert kept.made_by["mask"] == (
        f"{told} of 2 tensors; {dead} of {mask.size} weights dead; "
        f"{'all of them exactly 0 in the file' if folded else proof}"
    )
    assert kept.mask == mask == mask_file.load(path)
    assert sorted(kept.weights) == sorted(net.state_dict())
    assert all((kept.weights[name][~m] == 0).all() for name, m in mask.items())
    built = kept.build(model=make)
    assert torch.equal(built(X), reference(X))
    problem = kept.problem(model=make, data=BATCH, device="cpu")
    assert problem.mask == mask
    assert problem.digest == Problem(reference, BATCH, mask=mask).digest


@pytest.mark.parametrize("change", [pruned, parametrised])
def test_the_net_computes_what_the_masked_net_of_torch_computes(
    tmp_path: Path, change: Callable[[nn.Module, Mask], nn.Module]
) -> None:
    net = change(dense(), coins(dense()))
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    torch.testing.assert_close(kept.build(model=make)(X), net(X), rtol=0, atol=1e-6)
    # a net that is made with hooks and parametrisations of its own is made plain first
    ones = Mask({n: torch.ones_like(m) for n, m in coins(dense()).items()})
    built = kept.build(model=change(dense(), ones))
    assert torch.equal(built(X), kept.build(model=make)(X))


def test_pruning_twice_and_of_a_bias(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 5))
    prune.random_unstructured(net[0], "weight", 0.5)
    prune.ln_structured(net[0], "weight", 0.4, n=2, dim=0)
    prune.l1_unstructured(net[0], "bias", 2)
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    assert kept.mask is not None
    assert list(kept.mask.table()) == [
        ("0.weight", int(net[0].weight_mask.sum()), 30),
        ("0.bias", 3, 5),
    ]
    built = kept.build(model=lambda: nn.Sequential(nn.Linear(6, 5)))
    assert torch.equal(built(torch.eye(6)), net(torch.eye(6)))


def test_a_net_with_masks_in_its_buffers_gets_them(tmp_path: Path) -> None:
    net = nn.Sequential(MaskedLinear(6, 5), nn.ReLU(), MaskedLinear(5, 2))
    mask = coins(net, 0.5)
    for name, m in mask.items():
        net.get_submodule(name.removesuffix(".weight")).mask.copy_(m)
    path = written(tmp_path / "net.pt", net.state_dict())
    fresh = nn.Sequential(MaskedLinear(6, 5), nn.ReLU(), MaskedLinear(5, 2))
    kept = Checkpoint.load(path)
    assert kept.mask == mask
    built = kept.build(model=fresh)
    assert torch.equal(built(torch.eye(6)), net(torch.eye(6)))
    assert torch.equal(built[0].mask, net[0].mask)
    assert (fresh[0].mask == 1).all()  # the net that came stays as it was
    data = [(torch.eye(6), torch.arange(6) % 2)]
    problem = kept.problem(model=fresh, data=data, mask="none", device="cpu")
    assert problem.mask is None


def test_two_conventions_that_agree(tmp_path: Path) -> None:
    mask = coins(dense())
    payload = {"state_dict": pruned(dense(), mask).state_dict(), "mask": dict(mask)}
    assert Checkpoint.load(written(tmp_path / "net.pt", payload)).mask == mask


# zeros


def test_zeros_are_a_mask_only_when_asked(tmp_path: Path) -> None:
    net, mask = dense(), coins(dense())
    mask.apply_(net)
    path = written(tmp_path / "net.pt", net.state_dict())
    kept = Checkpoint.load(path)
    assert kept.mask is None
    share = 1 - mask.alive / mask.size
    assert kept.made_by["mask"] == f"none; {share:.0%} of the weights are exactly 0: --mask zeros"
    told: list[str] = []
    for asked, expected in {None: None, "none": None, "zeros": mask}.items():
        problem = kept.problem(model=make, data=BATCH, mask=asked, device="cpu", note=told.append)
        assert problem.mask == expected
    assert told[1] == "mask: none, as asked"
    assert told[2].startswith("mask: exact zeros of 2 tensors")


def test_few_zeros_are_no_hint_and_none_are_no_mask(tmp_path: Path) -> None:
    net = dense()
    net[4].weight.data[0, :3] = 0
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    assert kept.made_by["mask"] == "none"
    whole = Checkpoint.load(written(tmp_path / "whole.pt", dense().state_dict()))
    with pytest.raises(CheckpointError, match="no weight is exactly 0"):
        whole.problem(model=make, data=BATCH, mask="zeros", device="cpu")


def test_a_mask_of_another_file(tmp_path: Path) -> None:
    net, mask = dense(), coins(dense())
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    mask_file.save(mask, tmp_path / "mask.pt")
    told: list[str] = []
    problem = kept.problem(
        model=make, data=BATCH, mask=tmp_path / "mask.pt", device="cpu", note=told.append
    )
    assert problem.digest == Problem(masked(net, mask), BATCH, mask=mask).digest
    assert told == [
        f"mask: {tmp_path / 'mask.pt'} of 2 tensors; {mask.size - mask.alive} of {mask.size} "
        "weights dead; in the file 0 of them were 0, they are held at 0 here"
    ]
    mask_file.save(Mask({"5.weight": mask["4.weight"]}), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt does not fit the net: unknown weight"):
        kept.problem(model=make, data=BATCH, mask=tmp_path / "other.pt", device="cpu")


# what the weights lie in


@pytest.mark.parametrize("key", [None, "state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_keys_and_wrappers(tmp_path: Path, key: str | None, before: str, old: bool) -> None:
    net, mask = dense(), coins(dense())
    state = {f"{before}{n}": t for n, t in pruned(copy.deepcopy(net), mask).state_dict().items()}
    payload = {"epoch": 3, "optimizer": {"lr": 0.1}, key: state} if key else state
    torch.save(payload, tmp_path / "net.pt", _use_new_zipfile_serialization=not old)
    kept = Checkpoint.load(tmp_path / "net.pt")
    assert kept.mask == mask
    assert kept.made_by["file"] == ("state dict" + (f", under '{key}'" if key else ""))
    assert torch.equal(kept.build(model=make)(X), masked(net, mask)(X))


@pytest.mark.parametrize("key", ["params", "model_state", "generator"])
def test_other_keys(tmp_path: Path, key: str) -> None:
    payload = {
        key: dense().state_dict(),
        "optimizer": {"state": {"4.weight": {"exp_avg": torch.ones(4, 12)}}},
        "rng": {"torch": torch.get_rng_state()},
        "step": torch.tensor(3.0),
    }
    kept = Checkpoint.load(written(tmp_path / "net.pt", payload))
    assert kept.made_by == {"file": f"state dict, under '{key}'", "mask": "none"}
    assert torch.equal(kept.build(model=make)(X), dense()(X))


def test_another_net_beside_it_is_told(tmp_path: Path) -> None:
    state, lines = dense().state_dict(), list[str]()
    ema = {n: t + 1 for n, t in state.items()}
    kept = Checkpoint.load(written(tmp_path / "net.pt", {"model_ema": ema, "model": state}))
    kept.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines == ["mask: none", "file: state dict, under 'model'; not read: 'model_ema'"]
    message = refused(written(tmp_path / "gan.pt", {"generator": state, "discriminator": ema}))
    assert "several nets are in it, 'generator', 'discriminator'; save one of them" in message


def test_sparse_tensors_are_made_dense(tmp_path: Path) -> None:
    net = masked(dense(), coins(dense()))
    state = net.state_dict()
    state["4.weight"] = state["4.weight"].to_sparse()
    kept = Checkpoint.load(written(tmp_path / "net.pt", state))
    assert torch.equal(kept.build(model=make)(X), net(X))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_says_what_it_is(tmp_path: Path) -> None:
    torch.jit.trace(dense(), X).save(tmp_path / "net.pt")
    assert "is a TorchScript program; save the weights" in refused(tmp_path / "net.pt")


def test_an_average_of_weights(tmp_path: Path) -> None:
    net = torch.optim.swa_utils.AveragedModel(dense())
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    assert torch.equal(kept.build(model=make)(X), dense()(X))


def test_safetensors(tmp_path: Path) -> None:
    safe = pytest.importorskip("safetensors.torch")
    net, mask = dense(), coins(dense())
    path = tmp_path / "net.safetensors"
    safe.save_file(pruned(copy.deepcopy(net), mask).state_dict(), path)
    kept = Checkpoint.load(path)
    assert kept.made_by["file"] == "safetensors"
    assert kept.mask == mask == mask_file.load(path)
    assert torch.equal(kept.build(model=make)(X), masked(net, mask)(X))
    path.write_bytes(path.read_bytes()[:-9])
    assert "is damaged or cut short" in refused(path)


@pytest.mark.filterwarnings("ignore")  # from the imports of Lightning
def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    net, mask = dense(), coins(dense())

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.model = pruned(copy.deepcopy(net), mask)
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))

        def forward(self, x: Tensor) -> Any:
            return self.model(x)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(accelerator="cpu", **quiet)
    trainer.strategy.connect(module := Module())
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    kept = Checkpoint.load(tmp_path / "net.ckpt")
    assert kept.made_by["file"] == f"Lightning {lightning.__version__}, under 'state_dict'"
    built = kept.build(model=make)  # the inner net: without `model.`, and the criterion's weight
    assert torch.equal(built(X), masked(net, mask)(X))
    problem = kept.problem(model=make, data=BATCH, device="cpu")
    assert problem.mask == mask
    whole = kept.problem(model=Module, data=BATCH, device="cpu")
    assert whole.value() == problem.value()
    assert list(whole.mask or ()) == [f"model.{name}" for name in mask]
    assert torch.equal(module(X), whole.outputs()[0])


def test_a_lightning_file_with_objects_says_what_to_do(tmp_path: Path) -> None:
    payload = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": dense().state_dict(),
        "hyper_parameters": argparse.Namespace(lr=0.1),
    }
    message = refused(written(tmp_path / "net.ckpt", payload))
    assert "would run code (argparse.Namespace)" in message
    assert "torch.save(net.state_dict(), path)" in message


# into the net


def test_tied_weights_stay_tied_and_one_name_is_enough(tmp_path: Path) -> None:
    def tied() -> nn.ModuleDict:
        net = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
        net["b"].weight = net["a"].weight
        return net

    one = {"b.weight": torch.arange(9.0).view(3, 3)}
    built = Checkpoint.load(written(tmp_path / "net.pt", one)).build(model=tied)
    assert built["a"].weight is built["b"].weight
    assert torch.equal(built["a"].weight, one["b.weight"])


def embedding() -> nn.ModuleDict:
    net = nn.ModuleDict({"e": nn.Linear(3, 3, bias=False), "h": nn.Linear(3, 3, bias=False)})
    net["h"].weight = net["e"].weight
    return net


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    state = {"e.weight": torch.rand(3, 3), "h.weight": torch.rand(3, 3)}
    kept = Checkpoint.load(written(tmp_path / "net.pt", state))
    message = "'e.weight' and 'h.weight' are one tensor in embedding, and differ in the file"
    with pytest.raises(CheckpointError, match=message):
        kept.build(model=embedding)
    nan = torch.full((3, 3), torch.nan)
    kept = Checkpoint.load(written(tmp_path / "net.pt", dict.fromkeys(state, nan)))
    assert kept.build(model=embedding)["e"].weight.isnan().all()


@pytest.mark.parametrize("own", [True, False], ids=["beside", "file"])
def test_a_mask_by_another_name_of_a_tied_weight(tmp_path: Path, own: bool) -> None:
    values, alive = torch.arange(1.0, 10.0).view(3, 3), torch.eye(3).bool()
    state = {"e.weight": values, "h.weight": values}
    payload = {"model": state, "masks": {"h.weight": alive}}
    kept = Checkpoint.load(written(tmp_path / "net.pt", payload if own else state))
    mask_file.save(Mask({"h.weight": alive}), tmp_path / "mask.pt")

    class Net(nn.ModuleDict):
        def forward(self, x: Tensor) -> Any:
            return self["h"](self["e"](x))

    data = [(torch.eye(3), torch.arange(3))]
    asked = None if own else tmp_path / "mask.pt"
    problem = kept.problem(
        model=lambda: Net(embedding()), data=data, mask=asked, loss=None, device="cpu"
    )
    assert problem.mask == Mask({"e.weight": alive})
    assert torch.equal(problem.net["h"].weight, values * alive)


def test_a_mask_outside_of_the_net_is_told(tmp_path: Path) -> None:
    """Of a whole net with a backbone and a neck, the backbone alone is filled."""
    whole = nn.ModuleDict({"backbone": dense(), "neck": nn.Linear(2, 2)})
    neck = torch.eye(2).bool()
    for mask in ({}, {f"backbone.{n}": m for n, m in coins(dense()).items()}):
        payload = {"model": whole.state_dict(), "masks": {**mask, "neck.weight": neck}}
        kept, lines = Checkpoint.load(written(tmp_path / "net.pt", payload)), list[str]()
        problem = kept.problem(model=make, data=BATCH, device="cpu", note=lines.append)
        assert problem.mask == (coins(dense()) if mask else None)
        dead, size = (coins(dense()).size - coins(dense()).alive, coins(dense()).size)
        inner = f"the file's mask of 2 tensors; {dead} of {size} weights dead" if mask else "none"
        left = "left out, as they are outside of 'backbone.': 'neck.weight'"
        assert lines == [f"mask: {inner}; {left}"]


@pytest.mark.parametrize("change", [{"4.weight": None}, {"4.weight": torch.ones(4, 5)}])
def test_a_mask_file_for_weights_that_do_not_fit(
    tmp_path: Path, change: dict[str, Tensor | None]
) -> None:
    state = {n: t for n, t in {**dense().state_dict(), **change}.items() if t is not None}
    kept = Checkpoint.load(written(tmp_path / "net.pt", state))
    mask_file.save(coins(dense()), tmp_path / "mask.pt")
    with pytest.raises(CheckpointError, match=r"^weights do not fit make: .*'4.weight'"):
        kept.problem(model=make, data=BATCH, mask=tmp_path / "mask.pt", device="cpu")


def test_buffers_of_other_versions_are_left_out(tmp_path: Path) -> None:
    others = {
        "embeddings.position_ids": torch.arange(4)[None],
        "h.0.attn.bias": torch.ones(1, 1, 4, 4).tril(),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "rotary_emb.inv_freq": torch.ones(2) / 3,
    }
    kept = Checkpoint.load(written(tmp_path / "net.pt", {**dense().state_dict(), **others}))
    lines: list[str] = []
    kept.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[1:] == [
        "file: left out, as make has no place for it: 'embeddings.position_ids', and 3 more"
    ]
    weight = {"h.0.attn.bias": torch.ones(4)}
    kept = Checkpoint.load(written(tmp_path / "net.pt", {**dense().state_dict(), **weight}))
    with pytest.raises(CheckpointError, match=r"the model has no 'h.0.attn.bias'"):
        kept.build(model=make)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    net = dense().to(dtype)
    kept, lines = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict())), list[str]()
    assert kept.weights["4.weight"].dtype == dtype
    problem = kept.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[1:] == ["file: its numbers of 16 bits are float32 here"]
    assert torch.equal(problem.net(X), net.float()(X))


# what makes the net


def locked() -> nn.Module:
    net = make()
    net.lock = threading.Lock()  # type: ignore[assignment]
    return net


def test_a_net_that_cannot_be_copied(tmp_path: Path) -> None:
    kept = Checkpoint.load(written(tmp_path / "net.pt", dense().state_dict()))
    assert torch.equal(kept.build(model=locked)(X), dense()(X))
    net = locked()
    before = copy.deepcopy(net.state_dict())
    for model in (net, lambda: net, lambda: nn.Sequential(net)):
        with pytest.raises(ValueError, match="cannot be copied: TypeError: cannot pickle"):
            kept.build(model=model)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_a_net_that_a_function_gives_again_stays_as_it_was(tmp_path: Path) -> None:
    kept, net = Checkpoint.load(written(tmp_path / "net.pt", dense().state_dict())), make()
    before = copy.deepcopy(net.state_dict())
    assert kept.build(model=lambda: net) is not net
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_net_without_shapes(tmp_path: Path) -> None:
    kept = Checkpoint.load(written(tmp_path / "net.pt", {"0.weight": torch.full((2, 3), 2.0)}))
    with pytest.raises(ValueError, match=r"^'0.weight' of <lambda> has no shape yet; give the"):
        kept.build(model=lambda: nn.Sequential(nn.LazyLinear(2, bias=False)))


def test_precision_and_frozen_weights_are_kept(tmp_path: Path) -> None:
    net = dense().double()
    made = make()
    made[0].weight.requires_grad_(False)
    before, rng = copy.deepcopy(made.state_dict()), torch.random.get_rng_state()
    built = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict())).build(model=made)
    assert built[4].weight.dtype == torch.float64
    assert not built[0].weight.requires_grad
    assert torch.equal(built(X.double()), net(X.double()))
    assert made.training
    assert all(torch.equal(t, before[n]) for n, t in made.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)


def test_a_counter_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in dense().state_dict().items() if "num_batches" not in n}
    built = Checkpoint.load(written(tmp_path / "net.pt", state)).build(model=make)
    assert torch.equal(built(X), dense()(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"4.bias": None, "4.weight": None}, "the file holds no '4.weight', and 1 more"),
        ({"4.bias": torch.ones(5)}, r"'4.bias' is \(5,\) in the file, \(4,\) in the model"),
        ({"5.bias": torch.ones(5)}, "the model has no '5.bias'"),
    ],
    ids=["missing", "shape", "unknown"],
)
@pytest.mark.parametrize("before", ["", "model."])
def test_weights_that_do_not_fit(
    tmp_path: Path, change: dict[str, Tensor | None], message: str, before: str
) -> None:
    state = {n: t for n, t in {**dense().state_dict(), **change}.items() if t is not None}
    kept = Checkpoint.load(
        written(tmp_path / "net.pt", {f"{before}{n}": t for n, t in state.items()})
    )
    with pytest.raises(CheckpointError, match=f"^weights do not fit make: {message}$"):
        kept.build(model=make)


def test_a_net_that_is_there_twice(tmp_path: Path) -> None:
    state = {f"{p}.{n}": t for p in ("net1", "ema") for n, t in dense().state_dict().items()}
    kept = Checkpoint.load(written(tmp_path / "net.pt", state))
    with pytest.raises(CheckpointError, match=r"twice, under 'net1.' and 'ema.'; save one of them"):
        kept.build(model=make)


def test_our_own_files_under_a_foreign_label(tmp_path: Path) -> None:
    net, mask = dense(), coins(dense())
    mask.apply_(net)
    Checkpoint.of(net, mask=mask, model="mine", options={"depth": 2}).save(tmp_path / "net.pt")
    depths = []

    def mine(depth: int) -> nn.Module:
        depths.append(depth)
        return make()

    kept = Checkpoint.load(tmp_path / "net.pt")
    assert torch.equal(kept.build(model=mine)(X), net(X))
    assert torch.equal(kept.build(model=mine, model_options={"depth": 3})(X), net(X))
    assert torch.equal(kept.build(model=make)(X), net(X))  # which takes no depth
    assert depths == [2, 3]
    with pytest.raises(CheckpointError, match=r"unknown model 'mine'.* Give it: --model file.py"):
        kept.build()
    with pytest.raises(ValueError, match="options of a model came without one"):
        kept.build(model_options={"depth": 2})


def test_a_foreign_file_says_what_it_lacks_and_is_kept_as_ours(tmp_path: Path) -> None:
    net, mask = dense(), coins(dense())
    kept = Checkpoint.load(written(tmp_path / "net.pt", pruned(net, mask).state_dict()))
    with pytest.raises(CheckpointError, match=r"9 tensors \(.*\) came without .* --model file.py"):
        kept.build()
    kept.save(tmp_path / "ours.pt")
    again = Checkpoint.load(tmp_path / "ours.pt")
    assert (again.mask, again.made_by) == (kept.mask, kept.made_by)
    assert torch.equal(again.build(model=make)(X), kept.build(model=make)(X))


# what contradicts itself


def _inverted(net: nn.Module, mask: Mask) -> Payload:
    mask.apply_(net)
    return beside(net, Mask({n: ~m for n, m in mask.items()}), "mask")


REFUSED: dict[str, tuple[Callable[[nn.Module, Mask], Payload], str]] = {
    "upside down": (
        _inverted,
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
    "a list": (
        lambda net, mask: {"model": net.state_dict(), "mask": list(mask.values())},
        "'mask' is a list; need a dict of name -> tensor",
    ),
}


@pytest.mark.parametrize(("make_it", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mask_that_cannot_be(
    tmp_path: Path, make_it: Callable[[nn.Module, Mask], Payload], message: str
) -> None:
    """The file can be read, and used without the mask; who asks for the mask is told."""
    net, mask = dense(), coins(dense())
    path = written(tmp_path / "net.pt", make_it(net, mask))
    kept = Checkpoint.load(path)
    assert message in kept.made_by["fault"]
    assert (kept.mask, kept.made_by["mask"]) == (None, "none that can be used")
    for use in (kept.build, lambda **how: kept.problem(data=BATCH, device="cpu", **how)):
        with pytest.raises(CheckpointError, match=f"{re.escape(message)}.*: --mask none$"):
            use(model=make)
    problem = kept.problem(model=make, data=BATCH, mask="none", device="cpu")
    weights = {n.removesuffix("_orig"): t for n, t in net.state_dict().items()}
    assert all(torch.equal(t, weights[n]) for n, t in problem.net.state_dict().items())
    with pytest.raises(CheckpointError, match=f"{re.escape(message)}.* holds no mask$"):
        mask_file.load(path)


def test_masks_alone_are_no_net(tmp_path: Path) -> None:
    mask = coins(dense())
    assert "masks and no weights; give it as --mask" in refused(
        written(tmp_path / "others.pt", dict(mask))
    )
    mask_file.save(mask, tmp_path / "ours.pt")
    assert "masks and no weights; give it as --mask" in refused(tmp_path / "ours.pt")


@pytest.mark.parametrize(
    "odd",
    [{"4.weight_mask": torch.ones(3)}, {"x": torch.ones(4, 4), "x_mask": torch.ones(4)}],
    ids=["shape", "attention"],
)
def test_what_is_named_like_a_mask_and_is_none(tmp_path: Path, odd: Payload) -> None:
    path = written(tmp_path / "net.pt", {**dense().state_dict(), **odd})
    kept = Checkpoint.load(path)
    (at,) = (name for name in odd if name.endswith("mask"))
    assert kept.made_by["mask"].startswith(f"none; '{at}' is not of 0 and 1 in the shape of '")
    assert "fault" not in kept.made_by
    odd.pop("x", None)
    lines: list[str] = []
    kept = Checkpoint.load(written(path, {**dense().state_dict(), **odd}))
    assert torch.equal(kept.build(model=make)(X), dense()(X))
    kept.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[-1] == f"file: left out, as make has no place for it: '{at}'"


def test_a_buffer_of_the_name_mask_is_not_taken_for_one(tmp_path: Path) -> None:
    soft = torch.full((4, 12), 0.5)
    state = dense().state_dict() | {"4.mask": soft, "attention.mask": torch.ones(2, 2).tril()}
    kept = Checkpoint.load(written(tmp_path / "net.pt", state))
    assert kept.mask is None
    assert kept.made_by["mask"] == "none; '4.mask' is not of 0 and 1 in the shape of '4.weight'"
    assert torch.equal(kept.weights["4.mask"], soft)


def test_other_parametrisations_are_left_alone(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))

    net = normed()
    kept = Checkpoint.load(written(tmp_path / "net.pt", net.state_dict()))
    assert kept.mask is None
    assert torch.equal(kept.build(model=normed)(torch.eye(4)), net(torch.eye(4)))


# in memory


@pytest.mark.parametrize("change", [pruned, parametrised])
def test_plain_gives_the_net_and_the_mask_and_changes_nothing(
    change: Callable[[nn.Module, Mask], nn.Module],
) -> None:
    mask = coins(dense())
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
    mask = coins(dense())
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
