"""Distillation: its gradient in closed form, its limits, and a teacher that stays as it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsediag import Checkpoint
from sparsediag.data import datasets
from sparsediag.models import build
from training.config import Run
from training.loop import fit
from training.prerequisite import Prerequisite
from training.setup import finished, start
from training.tweaks import Objective, TrainingContext, cross_entropy
from training.tweaks.distillation import Distillation, distillation_loss
from training.tweaks.smoothing import Smoothing

SAMPLES, CLASSES = 6, 5
LABELS = torch.arange(SAMPLES) % CLASSES


def logits(seed: int, scale: float = 2.0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return scale * torch.randn(SAMPLES, CLASSES, dtype=torch.float64, generator=chance)


def slope_of(value: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    outputs = outputs.clone().requires_grad_()
    return torch.autograd.grad(value(outputs), outputs)[0]


def objective(taught: Tensor, **options: Any) -> Objective:
    """The loss with a teacher whose outputs are always the same."""
    return Distillation(**options).loss(cross_entropy, 0, 10, lambda inputs: taught)


def teacher_of(**options: Any) -> tuple[nn.Module, Checkpoint]:
    """A student of the teacher's kind, and the teacher's checkpoint."""
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(build("resnet20", width=2, channels=1, size=8))
    about = {"model": "resnet20", "options": {"width": 2, "channels": 1}, "data": "digits"}
    return nets[0], Checkpoint.of(nets[1], **about)


# closed forms


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 100.0])
def test_a_student_that_is_the_teacher_has_no_loss_and_no_slope(temperature: float) -> None:
    same = logits(0)
    assert distillation_loss(same, same, temperature).item() == pytest.approx(0, abs=1e-12)
    assert slope_of(lambda z: distillation_loss(z, same, temperature), same).abs().max() < 1e-14
    shifted = same + torch.arange(float(SAMPLES))[:, None]  # softmax does not see it
    assert distillation_loss(shifted, same, temperature).item() == pytest.approx(0, abs=1e-9)


@given(st.floats(0.1, 20), st.integers(0, 1000))
def test_the_loss_is_a_divergence(temperature: float, seed: int) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    q, p = ((z / temperature).softmax(1) for z in (teacher, student))
    expected = temperature**2 * (q * (q.log() - p.log())).sum() / SAMPLES
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected.item())
    assert expected > 0


@given(st.floats(0.1, 20), st.integers(0, 1000))
def test_the_slope_is_t_times_the_difference_of_the_softened_outputs(
    temperature: float, seed: int
) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    p, q = ((z / temperature).softmax(1) for z in (student, teacher))
    slope = slope_of(lambda z: distillation_loss(z, teacher, temperature), student)
    expected = temperature**2 * (p - q) / temperature / SAMPLES
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("temperature", [1e2, 1e3, 1e4])
def test_at_a_high_temperature_the_slope_is_the_difference_of_the_centred_outputs(
    temperature: float,
) -> None:
    student, teacher = logits(0), logits(1)
    gap = student - teacher
    expected = (gap - gap.mean(1, keepdim=True)) / CLASSES / SAMPLES
    slope = slope_of(lambda z: distillation_loss(z, teacher, temperature), student)
    assert (slope - expected).abs().max() < 10 * expected.abs().max() / temperature


# its share


def test_without_a_share_it_is_the_loss_that_it_wraps() -> None:
    for options in ({}, {"label_smoothing": 0.1}):
        value = objective(logits(1), alpha=0.0)(logits(0), LABELS, torch.zeros(1), **options)
        assert torch.equal(value, F.cross_entropy(logits(0), LABELS, **options))


def test_with_the_whole_share_labels_have_no_part() -> None:
    loss = objective(logits(1), alpha=1.0, temperature=3.0)
    one, other = (loss(logits(0), y, torch.zeros(1)) for y in (LABELS, LABELS.flip(0)))
    assert torch.equal(one, other)
    assert torch.equal(one, distillation_loss(logits(0), logits(1), 3.0))
    slopes = [slope_of(lambda z, y=y: loss(z, y, None), logits(0)) for y in (LABELS, LABELS * 0)]
    assert torch.equal(*slopes)


@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_two_losses_are_mixed_by_the_share(share: float, seed: int) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    value = objective(teacher, alpha=share)(student, LABELS, torch.zeros(1))
    own, taught = F.cross_entropy(student, LABELS), distillation_loss(student, teacher, 4.0)
    assert value.item() == pytest.approx(((1 - share) * own + share * taught).item())


@pytest.mark.parametrize("first", ["smoothing", "distillation"])
def test_beside_smoothing_the_labels_are_smooth_in_either_order(first: str) -> None:
    tweaks = [(Smoothing(0.2), None), (Distillation(alpha=0.3), lambda inputs: logits(1))]
    loss: Objective = cross_entropy
    for tweak, kept in tweaks if first == "smoothing" else reversed(tweaks):
        loss = tweak.loss(loss, 0, 10, kept)
    own = F.cross_entropy(logits(0), LABELS, label_smoothing=0.2)
    expected = 0.7 * own + 0.3 * distillation_loss(logits(0), logits(1), 4.0)
    value = loss(logits(0), LABELS, torch.zeros(1))
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature .*: need a positive number"):
        Distillation(temperature=temperature)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"alpha .*: need a number from 0 to 1"):
        Distillation(alpha=share)


# the teacher


def test_the_teacher_sees_the_images_of_the_student_in_evaluation_mode() -> None:
    student, checkpoint = teacher_of()
    tweak, x = Distillation(alpha=1.0), torch.rand(SAMPLES, 1, 8, 8)
    teacher = tweak.start(TrainingContext(student, None, iter(()), (checkpoint,)))
    assert not any(m.training for m in teacher.modules())
    outputs = student(x)
    value = tweak.loss(cross_entropy, 0, 10, teacher)(outputs, LABELS, x)
    assert torch.equal(value, distillation_loss(outputs, checkpoint.build()(x), 4.0))


def test_the_teacher_has_no_slope_and_stays_as_it_is() -> None:
    student, checkpoint = teacher_of()
    tweak = Distillation()
    teacher = tweak.start(TrainingContext(student.train(), None, iter(()), (checkpoint,)))
    before = copy.deepcopy(teacher.state_dict())
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    for seed in range(3):
        x = torch.randn(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        tweak.loss(cross_entropy, 0, 10, teacher)(student(x), LABELS, x).backward()
        optimiser.step()
    assert all(w.grad is None for w in teacher.parameters())
    assert not any(m.training for m in teacher.modules())
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())
    assert all(torch.equal(t, before[n]) for n, t in checkpoint.weights.items())
    assert student.training


# in the training loop


def run_of(tweaks: Any, **table: Any) -> Run:
    model = {"name": "mlp", "width": 12}
    optim = {"epochs": 3, "batch_size": 390}
    mask = {"method": "random", "density": 0.5}
    return Run.of(
        {"data": "digits", "model": model, "optim": optim, "mask": mask, "tweaks": tweaks} | table
    )


def last(run: Run, out: Path, **options: Any) -> Checkpoint:
    return Checkpoint.load(fit(run, out=out, device="cpu", **options).with_name("last.pt"))


def test_the_teacher_is_the_plain_run() -> None:
    run = run_of(["ghost_neurons", "smoothing", "distillation"])
    assert Distillation().before() == (Prerequisite(),)
    assert run.before() == (run.plain(),)
    (teacher,) = run.before()
    assert (teacher.tweaks, teacher.mask.density) == ({}, 1)
    assert (teacher.model, teacher.optim, teacher.seed) == (run.model, run.optim, run.seed)


def test_a_mask_and_a_teacher_from_the_same_run_need_it_once() -> None:
    run = run_of(["distillation"], mask={"method": "magnitude", "density": 0.5})
    assert run.before() == (run.plain(),)


def test_the_teacher_of_a_run_is_its_trained_net(tmp_path: Path) -> None:
    run = run_of(["distillation"])
    dense = last(run.plain(), tmp_path)
    begun = start(run, datasets.load("digits"), out=tmp_path, device=torch.device("cpu"))
    state = begun.tweak_states["distillation"].state_dict()
    assert all(torch.equal(t, dense.weights[n]) for n, t in state.items())
    assert any(not torch.equal(t, dense.weights[n]) for n, t in begun.net.state_dict().items())


def test_a_run_with_it_trains_and_is_the_same_twice(tmp_path: Path) -> None:
    run = run_of(["distillation"])
    one = last(run, tmp_path / "one")
    taught = (tmp_path / "one" / "runs" / run.plain().id / "last.pt").read_bytes()
    torch.rand(3)
    other = last(run, tmp_path / "other")
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]
    assert all(torch.equal(t, other.weights[n]) for n, t in one.weights.items())
    bare = last(replace(run, tweaks={}), tmp_path / "one")
    assert any(not torch.equal(t, bare.weights[n]) for n, t in one.weights.items())
    none = last(replace(run, tweaks={"distillation": Distillation(alpha=0.0)}), tmp_path / "one")
    assert all(torch.equal(t, bare.weights[n]) for n, t in none.weights.items())
    assert (tmp_path / "one" / "runs" / run.plain().id / "last.pt").read_bytes() == taught


def test_an_interrupted_run_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.SAVE_EVERY", 0.0)
    run = run_of(["distillation"])

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = last(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        last(run, tmp_path / "cut", on_epoch=stop)
    cut = last(run, tmp_path / "cut")
    assert finished(tmp_path / "cut" / "runs" / run.id)
    assert all(torch.equal(t, cut.weights[n]) for n, t in whole.weights.items())
