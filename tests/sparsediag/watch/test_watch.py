"""Watch: the training is the same with it, and its numbers are those of the diagnostics."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_pre_hooks
from watched import Batch, Transformer, cnn, half, images, resnet, tokens

import sparsediag as sd
from sparsediag.core.autograd_graph import graph_nodes
from training.masks.rigl import Rigl

STEPS = 2
KINDS = {
    *("activations/zeros", "activations/dead", "gradient/live", "gradient/flow", "update/kept"),
    *("mask/density", "mask/turnover", "mask/survival", "mask/dead_not_zero", "probe_loss"),
    *("probe_activations/zeros", "probe_activations/dead", "probe_gradient/live"),
    *("probe_gradient/dead", "probe_gradient/flow", "eigenvalue/1", "eigenvalue/1_residual"),
}  # entries of every row


def sharded() -> nn.Module:
    """A net as FSDP leaves it: its weights are parts on several devices."""
    net = nn.Linear(2, 2)
    net.weight.device_mesh = None
    return net


Loop = Callable[[nn.Module, torch.optim.Optimizer, Callable[[Tensor], object]], object]


def plain(batch: Callable[[int], Batch], *, passes: int = 1, autocast: bool = False) -> Loop:
    """A loop as people write it."""

    def loop(net: nn.Module, optimizer: torch.optim.Optimizer, start: Any) -> Tensor:
        after = start(half(net))
        for step in range(STEPS):
            optimizer.zero_grad()
            for i in range(passes):
                x, y = batch(step + 10 * i)
                with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                    loss = F.cross_entropy(net(x), y) / passes
                loss.backward()
            optimizer.step()
            after(loss)
        return loss

    return loop


def rigl(net: nn.Module, optimizer: torch.optim.Optimizer, start: Any) -> Tensor:
    method = Rigl(density=0.5, update_interval=1, end=1.0)
    masked = method.keeper(net, half(net), optimizer, steps=STEPS, seed=0)
    after = start(lambda: masked.mask)
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = images(step)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        masked.step()
        after(loss)
    return loss


SGD = {"lr": 0.05, "momentum": 0.9}
TRAININGS: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[int], Batch], Loop]] = {
    "resnet": (resnet, lambda p: torch.optim.SGD(p, **SGD), images, plain(images)),
    "transformer": (Transformer, lambda p: torch.optim.Adam(p, 0.01), tokens, plain(tokens)),
    "bfloat16": (cnn, torch.optim.AdamW, images, plain(images, autocast=True)),
    "accumulation": (cnn, lambda p: torch.optim.SGD(p, **SGD), images, plain(images, passes=2)),
    "rigl": (cnn, lambda p: torch.optim.SGD(p, **SGD), images, rigl),
}


def train(kind: str, **options: Any) -> dict[str, Any]:
    """Train, watched if there are options, and return all that it leaves behind."""
    torch.manual_seed(0)
    make, build, batch, loop = TRAININGS[kind]
    net = make().train()
    optimizer = build(net.parameters())
    watches: list[sd.Watch] = []

    def start(mask: Any) -> Callable[[Tensor], object]:
        if not options:
            return lambda loss: None
        watch = sd.Watch(net, mask=mask, optimizer=optimizer, probe=[batch(99)], **options)
        watches.append(watch)
        return watch.step

    loss = loop(net, optimizer, start)
    state = {
        "weights": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "graph": [type(node).__name__ for node in graph_nodes([loss])],
        "rng": [torch.get_rng_state(), random.getstate(), str(np.random.get_state())],  # noqa: NPY002
        "flags": [
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        ],
    }
    for watch in watches:
        watch.close()
    lists = [
        hooks
        for m in net.modules()
        for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
    ]
    lists += [p._backward_hooks or {} for p in net.parameters()]
    state["hooks"] = [len(hooks) for hooks in [*lists, _global_optimizer_pre_hooks]]
    return state


def same(one: Any, two: Any) -> bool:
    """Whether two trees hold equal bytes."""
    if isinstance(one, Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def fail(row: dict[str, Any]) -> None:
    raise ConnectionError("the server is gone")


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_training_is_the_same(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is measured in every step, and `log` fails every time."""
    expected, file = train(kind), tmp_path / "watch.jsonl"
    watched = train(kind, every=1, file=file, log=fail)
    assert [part for part in expected if not same(expected[part], watched[part])] == []
    header, *rows = read(file)
    assert header["watch"] == 1
    assert [row["step"] for row in rows if "note" not in row] == [1, 2]
    assert rows[-1].keys() >= KINDS
    assert [line for line in caplog.messages if "ConnectionError" in line] == [
        "watch: log at step 1: ConnectionError: the server is gone"
    ]


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_weights_that_are_released_or_replaced_later() -> None:
    torch.manual_seed(0)
    net = cnn()
    net[0].requires_grad_(False)
    names = "probe_gradient,eigenvalue,update,update_curvature"
    with sd.Watch(net, probe=[images(0)], every=1, metrics=names, file=None) as watch:
        rows = []
        for classes in (3, 5):
            net[4] = nn.Linear(64, classes)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            F.cross_entropy(net(images(0)[0]), images(0)[1]).backward()
            optimizer.step()
            net[0].requires_grad_(True)
            rows.append(watch.step())
    first, second = rows
    assert first
    assert second
    assert "update_curvature" not in first  # the convolution has no update
    problem = sd.Problem(net, [images(0)])
    expected = sd.spectrum(problem, top=1).eigenvalues[0]
    assert second["eigenvalue/1"] == pytest.approx(expected, rel=1e-2)
    assert second["probe_gradient/live"] == pytest.approx(sd.gradflow(problem).flow[0], rel=1e-4)


def test_a_training_that_resumes_has_the_rows_of_a_whole_one(tmp_path: Path) -> None:
    lines, names = [], "gradient,mask,noise,critical_sharpness"
    for stops in ([6], [2, 6]):
        file = tmp_path / f"{len(stops)}.jsonl"
        torch.manual_seed(0)
        net, weights = cnn(), {"0.weight": torch.rand(4, 1, 3, 3)}
        masks = [sd.Mask.top(weights, (9 - step) / 10) for step in range(7)]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        options: dict[str, Any] = {"metrics": names, "probe": [images(9)], "file": file, "every": 2}
        for start, stop in zip([0, *stops], stops, strict=False):
            present = masks[start : start + 1]
            watch = sd.Watch(net, mask=partial(getitem, present, 0), optimizer=optimizer, **options)
            if start:
                watch.load_state_dict(torch.load(tmp_path / "state.pt"))
            for step in range(start + 1, stop + 1):
                present[:] = [masks[step]]
                masks[step].apply_(net)
                optimizer.zero_grad()
                F.cross_entropy(net(images(step)[0]), images(step)[1]).backward()
                optimizer.step()
                masks[step].apply_(net)
                watch.step()
            torch.save(watch.state_dict(), tmp_path / "state.pt")
            watch.close()
        lines.append([line | {"watch_seconds": 0} for line in read(file)[1:]])
    assert lines[0] == lines[1]
    assert lines[0][-1]["mask/survival"] == pytest.approx(3 / 9, abs=0.03)


def test_a_file_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    rows: list[dict[str, Any]] = []
    options: dict[str, Any] = {"metrics": "update", "log": rows.append}
    with sd.Watch(cnn(), file=tmp_path / "file" / "x.jsonl", every=1, **options) as watch:
        watch.step()
        watch.step()
    assert len(rows) == 2
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, ["every=0"]),
        ({"net": nn.LazyLinear(2)}, ["'weight'"]),
        ({"net": sharded()}, ["'weight'", "FSDP"]),
        ({"metrics": "gradients"}, ["'gradients'", "'gradient'"]),
        ({"metrics": ["eigenvalue"]}, ["eigenvalue", "probe="]),
        ({"metrics": "mask"}, ["mask="]),
        ({"optimizer": "adam"}, ["'str'", "torch.optim.Optimizer"]),
        ({"modules": "9*"}, ["9*"]),
        ({"mask": sd.Mask({"w": torch.ones(2, dtype=torch.bool)})}, ["'w'"]),
        ({"probe": [(torch.ones(2, 5), torch.zeros(2).long())]}, ["(2, 5)"]),
        ({"probe": [images(0)], "top": 0}, ["top=0"]),
    ],
)
def test_invalid_arguments(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        sd.Watch(**{"net": cnn(), "file": None} | options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
