"""Where a training begins: rewound weights, masks that let nothing through, masks of others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsediag import Checkpoint, Mask, prunable
from sparsediag.checkpoint import mask_file
from sparsediag.core.errors import CheckpointError, ConfigError
from sparsediag.data import datasets
from sparsediag.models import build
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.masks.random import Random
from training.setup import Disconnected, Start, finished, start

State = dict[str, Tensor]
CONVOLUTIONS = {"name": "resnet20", "width": 4}
PERCEPTRON = {"name": "mlp", "width": 12}


def run_of(mask: Any = None, model: dict[str, Any] = PERCEPTRON, **table: Any) -> Run:
    optim = {"epochs": 4, "batch_size": 390} | table.pop("optim", {})
    return Run.of({"data": "digits", "mask": mask or {}, "model": model, "optim": optim} | table)


def magnitude(density: float = 0.5) -> dict[str, Any]:
    return {"method": "magnitude", "density": density}


def file_of(run: Run, out: Path, name: str = "last.pt") -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu").with_name(name))


def begin(run: Run, out: Path) -> Start:
    return start(run, datasets.load(run.data), out=out, device=torch.device("cpu"))


def folders(out: Path) -> set[str]:
    return {folder.name for folder in (out / "runs").iterdir()}


def net_of(model: dict[str, Any] = PERCEPTRON, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(**model, channels=1, size=8)


def mask_of(net: nn.Module, density: float = 0.5) -> Mask:
    return Mask.top({n: torch.rand_like(net.get_parameter(n)) for n in prunable(net)}, density)


def assert_begins_at(start: State, origin: State, mask: Mapping[str, Tensor]) -> None:
    """Live weights and all buffers as they were, dead weights exactly 0."""
    assert start.keys() == origin.keys()
    for name, t in origin.items():
        alive = mask.get(name, torch.ones_like(t, dtype=torch.bool))
        assert torch.equal(start[name], torch.where(alive, t, torch.zeros_like(t)))


# rewinding


LOTTERY = {"method": "lottery", "density": 0.64}
THREE = {"epochs": 3}


@pytest.mark.parametrize(
    ("table", "file", "epochs"),
    [
        ({"rewind": 0.5}, "epoch-002.pt", 2),
        ({"mask": {"method": "random"}, "rewind": 0.5}, "epoch-002.pt", 2),
        ({"mask": magnitude(), "rewind": 1.0}, "last.pt", 4),
        (
            {"mask": magnitude(0.3), "model": CONVOLUTIONS, "rewind": 0.34, "optim": THREE},
            "epoch-001.pt",
            1,
        ),
        (
            {"mask": magnitude(0.3), "model": CONVOLUTIONS, "rewind": 0.6, "optim": THREE},
            "epoch-002.pt",
            2,
        ),
        ({"mask": LOTTERY, "rewind": 1.0, "optim": {"epochs": 1}}, "last.pt", 1),
    ],
    ids=["dense", "random", "magnitude-1", "cnn-1", "cnn-2", "lottery-1"],
)
def test_a_rewound_run_starts_with_the_weights_of_an_epoch_of_another(
    table: dict[str, Any], file: str, epochs: int, tmp_path: Path, starts: list[State]
) -> None:
    run = run_of(**table)
    end = file_of(run, tmp_path)
    origin, name = run.rewound()
    assert name == file
    checkpoint = Checkpoint.load(tmp_path / "runs" / origin.id / name)
    assert len(checkpoint.history) == epochs
    weights = checkpoint.weights
    assert all(t.any() for key, t in weights.items() if key.endswith("running_mean"))
    assert_begins_at(starts[-1], weights, end.mask or {})
    assert [row["epoch"] for row in end.history] == list(range(1, run.optim.epochs + 1))
    assert folders(tmp_path) == {run.id, *(needed.id for needed in with_prerequisites(run))}


def test_a_run_without_a_way_back_shares_the_dense_training_of_its_mask() -> None:
    run = run_of(magnitude(), rewind=1.0)
    assert run.before() == (run.plain(),) == (run.rewound()[0],)
    lottery = run_of(LOTTERY, rewind=1.0)
    assert lottery.before() == (lottery.rewound()[0],)


def test_the_mask_does_not_depend_on_the_way_back(tmp_path: Path) -> None:
    masks = [
        file_of(run_of(magnitude(), rewind=rewind), tmp_path).mask for rewind in (0.0, 0.5, 1.0)
    ]
    assert masks[0] is not None
    assert masks[0] == masks[1] == masks[2]


def test_the_rounds_of_a_lottery_are_not_rewound_with_it() -> None:
    run = run_of(LOTTERY, rewind=0.5)
    (first,) = map(run.prerequisite, run.mask.before())
    assert first.rewind == 0
    assert first.mask.density == pytest.approx(0.8)
    assert first == run_of(LOTTERY).before()[0]
    assert first.before() == (replace(run, rewind=0.0).plain(),)
    assert run.rewound()[0] == replace(run.plain(), record=run.rewound()[0].record)


@pytest.mark.parametrize("rewound", [False, True])
def test_a_lottery_starts_where_it_is_rewound_to(
    rewound: bool, tmp_path: Path, starts: list[State]
) -> None:
    run = run_of(LOTTERY | {"rewound": rewound}, rewind=0.5, optim={"epochs": 2})
    end = file_of(run, tmp_path)
    (first,) = map(run.prerequisite, run.mask.before())
    assert first.rewind == (0.5 if rewound else 0.0)
    earlier = file_of(first, tmp_path)
    assert end.mask is not None
    assert earlier.mask is not None
    assert (end.mask | earlier.mask) == earlier.mask
    dense, name = run.rewound()
    assert_begins_at(starts[-1], file_of(dense, tmp_path, name).weights, end.mask)
    vanilla = replace(run, rewind=0.0)
    assert (file_of(vanilla, tmp_path).mask == end.mask) == (not rewound)


def test_what_a_tweak_adds_begins_as_it_always_does(tmp_path: Path, starts: list[State]) -> None:
    tweaks = ["ghost_skips", "ghost_neurons"]
    run = run_of(magnitude(), CONVOLUTIONS, rewind=0.5, tweaks=tweaks, optim={"epochs": 2})
    end = file_of(run, tmp_path)
    dense, name = run.rewound()
    assert dense.tweaks == {}
    origin = file_of(dense, tmp_path, name).weights
    assert end.mask is not None
    added = starts[-1].keys() - origin.keys()
    assert added
    plain = net_of(CONVOLUTIONS | {"skips": "identity_bn", "activation": "ghost"}).state_dict()
    assert all(torch.equal(starts[-1][key], plain[key]) for key in added)
    assert_begins_at({key: starts[-1][key] for key in origin}, origin, end.mask)


# going on


@pytest.mark.parametrize("rewind", [0.25, 0.5])
def test_a_run_goes_on_in_the_schedule(rewind: float, tmp_path: Path) -> None:
    run = run_of(
        magnitude(), rewind=rewind, resume_schedule=True, optim={"lr_milestones": [0.5, 0.75]}
    )
    rows: list[dict[str, Any]] = []
    for earlier in run.before():
        fit(earlier, out=tmp_path, device="cpu")
    fit(run, out=tmp_path, device="cpu", on_epoch=rows.append)
    k = round(4 * rewind)
    assert [row["epoch"] for row in rows] == list(range(k + 1, 5))
    assert [row["lr"] for row in rows] == [run.optim.rate(e) for e in range(k, 4)]
    end = file_of(run, tmp_path)
    dense, name = run.rewound()
    assert end.history[:k] == file_of(dense, tmp_path, name).history
    assert [row["epoch"] for row in end.history] == [1, 2, 3, 4]
    assert end.step == end.steps
    assert next(row["epoch"] for row in end.history if row.get("best")) > k


def test_with_every_weight_alive_and_nothing_reset_but_momentum_it_is_the_dense_run(
    tmp_path: Path,
) -> None:
    optim = {"momentum": 0.0}  # a fresh optimiser is the old one then
    run = run_of({"method": "random"}, rewind=0.5, resume_schedule=True, optim=optim)
    end, dense = file_of(run, tmp_path), file_of(run.plain(), tmp_path)
    assert end.mask is not None
    assert all(torch.equal(t, end.weights[name]) for name, t in dense.weights.items())


# masks that let nothing through

SEVERED = {"method": "synflow", "density": 0.02, "steps": 1}


def test_a_mask_without_a_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    message = "no path is left from the input to the output: nothing is left of layers.0.fc.weight"
    with pytest.raises(Disconnected, match=message) as refused:
        fit(run_of(SEVERED), out=tmp_path, device="cpu")
    assert "Use a larger mask.density or another mask.method" in str(refused.value)
    assert "on_disconnected = 'warn'" in str(refused.value)
    assert isinstance(refused.value, ConfigError)
    assert not list(tmp_path.iterdir())


def test_only_the_run_itself_is_refused(tmp_path: Path) -> None:
    run = run_of(magnitude(0.002), optim={"epochs": 1})
    with pytest.raises(Disconnected, match=r"layers\.0\.fc\.weight"):
        fit(run, out=tmp_path, device="cpu")
    assert folders(tmp_path) == {run.plain().id}


MIDDLE = ["layers.1.fc.weight", "layers.3.fc.weight"]


def impose(mask: Mask, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A method that always gives this mask."""
    monkeypatch.setattr(Random, "start", lambda *_, **__: mask)
    return {"method": "random"}


@pytest.mark.parametrize("empty", [False, True])
def test_a_mask_without_a_path_says_where(
    empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = {name: torch.zeros(12, 12, dtype=torch.bool) for name in MIDDLE}
    message = f"nothing is left of {', '.join(MIDDLE)} at"
    if not empty:
        mask[MIDDLE[0]][0, 0] = mask[MIDDLE[1]][1, 1] = True
        mask["layers.2.fc.weight"] = torch.eye(12, dtype=torch.bool)
        message = "the live weights do not join up"
    with pytest.raises(Disconnected, match=re.escape(message)):
        fit(run_of(impose(Mask(mask), monkeypatch)), out=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_severed_net_trains_where_it_is_told_to(tmp_path: Path) -> None:
    run = run_of(SEVERED, on_disconnected="warn", optim={"epochs": 1})
    with pytest.warns(UserWarning, match="no path is left from the input to the output"):
        end = file_of(run, tmp_path)
    assert end.mask is not None
    assert not end.mask["layers.0.fc.weight"].any()
    assert not end.weights["layers.0.fc.weight"].any()
    assert finished(tmp_path / "runs" / run.id)


def test_an_emptied_branch_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "layer1.1.conv1.weight"
    mask = Mask({name: torch.zeros(4, 4, 3, 3, dtype=torch.bool)})
    run = run_of(impose(mask, monkeypatch), CONVOLUTIONS, optim={"epochs": 1})
    with pytest.warns(UserWarning, match=f"the mask empties {name}; the net trains on by"):
        end = file_of(run, tmp_path)
    assert not end.weights[name].any()
    assert finished(tmp_path / "runs" / run.id)


# masks of others


def pruned(net: nn.Module, path: Path) -> Mask:
    """Save the state that `torch.nn.utils.prune` leaves, and return its mask."""
    layers = {name: net.get_submodule(name.removesuffix(".weight")) for name in prunable(net)}
    for layer in layers.values():
        prune.l1_unstructured(layer, "weight", amount=0.5)
    torch.save(net.state_dict(), path)
    return Mask({name: layer.weight_mask.bool() for name, layer in layers.items()})  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["mask", "checkpoint", "prune", "zeros", "list"])
def test_a_run_begins_with_the_mask_in_a_file(kind: str, tmp_path: Path) -> None:
    net, path = net_of(seed=5), tmp_path / "mask.pt"
    table: dict[str, Any] = {"method": "file", "path": str(path)}
    mask = mask_of(net)
    if kind == "mask":
        mask_file.save(mask, path)
    elif kind == "checkpoint":
        mask.apply_(net)
        Checkpoint.of(net, mask=mask, model="mlp", options={}).save(path)
    elif kind == "prune":
        mask = pruned(net, path)
    elif kind == "list":
        torch.save([m.numpy() for m in mask.values()], path)
    else:
        mask.apply_(net)
        torch.save(net.state_dict(), path)
        table["zeros"] = True
    begun = begin(run_of(table), tmp_path)
    assert begun.mask == mask
    assert_begins_at(begun.net.state_dict(), net_of().state_dict(), mask)


@pytest.mark.parametrize(
    ("sparse", "zeros", "hint"),
    [(True, False, "; its weights hold zeros: zeros = true"), (False, True, "")],
)
def test_zeros_are_dead_only_where_it_is_said(
    sparse: bool, zeros: bool, hint: str, tmp_path: Path
) -> None:
    net, path = net_of(), tmp_path / "net.pt"
    if sparse:
        mask_of(net).apply_(net)
    torch.save(net.state_dict(), path)
    with pytest.raises(CheckpointError, match=re.escape(f"{path} holds no mask{hint}") + "$"):
        begin(run_of({"method": "file", "path": str(path), "zeros": zeros}), tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fc.weight", (10, 13), "mask of 'fc.weight' is (10, 13), the weight is (10, 12)"),
        ("fc.weigth", (10, 12), "'fc.weigth'; did you mean 'fc.weight'?"),
    ],
)
def test_a_mask_of_another_net_is_refused(
    name: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mask.pt"
    mask_file.save(Mask({name: torch.ones(shape, dtype=torch.bool)}), path)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        begin(run_of(f"file:{path}"), tmp_path)
    assert str(refused.value).startswith(f"{path} does not fit the net: ")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape("nowhere.pt: no such file")):
        begin(run_of(f"file:{tmp_path / 'nowhere.pt'}"), tmp_path)


def test_a_rewound_run_takes_the_mask_of_a_file(tmp_path: Path) -> None:
    path, mask = tmp_path / "mask.pt", mask_of(net_of())
    mask_file.save(mask, path)
    run = run_of(f"file:{path}", rewind=0.5, optim={"epochs": 2})
    (dense,) = run.before()
    origin = file_of(dense, tmp_path, "epoch-001.pt").weights
    assert_begins_at(begin(run, tmp_path).net.state_dict(), origin, mask)


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "random"])
def test_a_mask_is_that_of_the_plain_net_whatever_the_tweaks(method: str, tmp_path: Path) -> None:
    mask = {"method": method, "density": 0.3}
    one, other = (
        begin(run_of(mask, CONVOLUTIONS, tweaks=tweaks), tmp_path).mask
        for tweaks in ([], ["ghost_neurons", "ghost_skips"])
    )
    assert one == other


def test_a_moving_mask_counts_the_steps_that_lie_behind_it(tmp_path: Path) -> None:
    mask = {"method": "rigl", "density": 0.5, "update_interval": 1}
    run = run_of(mask, rewind=0.5, resume_schedule=True, optim={"epochs": 4, "batch_size": 390})
    taken = []
    keep = run.mask.keeper

    def watched(*args: Any, **kwargs: Any) -> Any:
        taken.append(kwargs["steps_taken"])
        return keep(*args, **kwargs)

    object.__setattr__(run.mask, "keeper", watched)
    fit(run, out=tmp_path, device="cpu")
    assert taken == [2 * 3]


def test_rewinding_and_magnitude_share_their_dense_run() -> None:
    run = run_of({"method": "magnitude", "density": 0.5}, rewind=0.5, tweaks=["distillation"])
    (dense,) = run.before()
    assert dense.record.checkpoint_epochs == (2,)


def test_rounds_of_a_lottery_may_collapse_where_the_run_may() -> None:
    run = run_of({"method": "lottery", "density": 0.1}, on_disconnected="warn")
    assert run.before()[0].on_disconnected == "warn"
