"""A captured step: replays do what eager steps do, or the training goes on eagerly and says so.

A CUDA graph needs a GPU (`make gpu`). Here "recording" returns the work itself, so that a replay
computes the same; what is tested is when a step is recorded, replayed, run eagerly or given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.captured import WARMUP_STEPS, CapturedStep, Work
from training.config import Run
from training.loop import fit
from training.step import Step
from training.tweaks import TWEAKS, Tweak

TABLE: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "lenet300", "width": 20},
    "mask": {"method": "random", "density": 0.2},
    "optim": {"epochs": 4, "batch_size": 128, "lr": 0.05},
    "record": {"gradient_flow": True},
}
CHANGES: dict[str, dict[str, Any]] = {
    "dense": {"mask": {"method": "dense"}},
    "masked": {},
    "crops": {"augment": "crop_flip"},
    "rigl": {"mask": {"method": "rigl", "density": 0.2, "update_interval": 4}},
    "set": {"mask": {"method": "set", "density": 0.2, "update_interval": 4}},
    "tost": {"tweaks": ["ghost_neurons", "ghost_skips", "smoothing"]},
    "adam": {"optim": TABLE["optim"] | {"name": "adam", "lr": 0.001}},
    "watched": {"record": {"watch_every": 18, "watch_metrics": "gradient,activations,noise"}},
}


def _replaying(
    monkeypatch: pytest.MonkeyPatch, record: Callable[[Work], Work]
) -> list[CapturedStep]:
    """Let trainings record their steps by `record`; return what they record with."""
    made: list[CapturedStep] = []

    def on(device: torch.device, step: Step, *, compiled: bool) -> CapturedStep:
        made.append(CapturedStep(step, record))
        return made[-1]

    monkeypatch.setattr("training.loop.CapturedStep.on", on)
    return made


def _bytes(run: Run, out: Path) -> list[bytes]:
    folder = fit(run, out=out, device="cpu").parent
    files = [(folder / name).read_bytes() for name in ("best.pt", "last.pt", "history.jsonl")]
    if run.record.watch_every:
        _, *rows = map(json.loads, (folder / "watch.jsonl").read_text().splitlines())
        assert [row["step"] for row in rows if "note" not in row] == [18, 36]
        assert rows[-1].keys() >= {
            "gradient/live",
            "activations/zeros",
            "loss",
            "noise/scale_not_converged",
        }
        files += [json.dumps(row | {"watch_seconds": 0}).encode() for row in rows]
    return files


@pytest.mark.parametrize("change", CHANGES)
def test_a_training_by_replays_ends_with_the_bytes_of_an_eager_one(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.of(TABLE | CHANGES[change])
    expected = _bytes(run, tmp_path / "eager")
    replays: list[None] = []

    def record(work: Work) -> Work:
        def replay() -> None:
            replays.append(None)
            work()

        return replay

    _replaying(monkeypatch, record)
    assert _bytes(run, tmp_path / "replayed") == expected
    assert len(replays) >= 4 * 6 - WARMUP_STEPS  # less smaller batches and moves of a mask


def test_a_step_is_recorded_anew_when_its_constants_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Work] = []

    def record(work: Work) -> Work:
        recorded.append(work)
        return work

    _replaying(monkeypatch, record)
    optim = TABLE["optim"] | {"epochs": 6, "lr_milestones": [0.5]}
    fit(Run.of(TABLE | {"optim": optim}), out=tmp_path, device="cpu")
    assert len(recorded) == 2  # one for each rate
    recorded.clear()
    tweaks = {"ghost_neurons": {"until": 0.5}, "smoothing": {"alpha": 0.2}}
    fit(Run.of(TABLE | {"optim": optim, "tweaks": tweaks}), out=tmp_path, device="cpu")
    assert len(recorded) == 4  # three steepnesses, and then ReLU at the lower rate


@pytest.mark.parametrize("wrong", ["nothing", "twice", "error"])
def test_a_replay_that_is_wrong_is_given_up(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.of(TABLE)
    expected = _bytes(run, tmp_path / "eager")

    def record(work: Work) -> Work:
        if wrong == "error":
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return (lambda: None) if wrong == "nothing" else (lambda: (work(), work())[0])

    made = _replaying(monkeypatch, record)
    why = "operation not permitted when" if wrong == "error" else "a replay differs"
    with pytest.warns(UserWarning, match=why):
        assert _bytes(run, tmp_path / "replayed") == expected
    assert [captured.given_up for captured in made] == [True]


def test_a_step_that_cannot_be_recorded_says_why() -> None:
    run = Run.of(TABLE | {"mask": {"method": "learned"}})
    net = torch.nn.Linear(2, 2)
    keeper = run.mask.keeper(net, None, run.optim.build(net), steps=1, seed=0)
    step = Step(lambda *pick: (pick[0], pick[0]), net, keeper)
    for compiled, why in ((False, "every step draws new gates"), (True, "is compiled")):
        with pytest.warns(UserWarning, match=why):
            captured = CapturedStep.on(torch.device("cuda"), step, compiled=compiled)
        assert captured.given_up
    assert CapturedStep.on(torch.device("cpu"), step, compiled=True).given_up  # without a word


@pytest.mark.parametrize("name", TWEAKS)
def test_epochs_of_one_phase_have_the_same_steps(name: str) -> None:
    """Whatever a tweak sets from an epoch is in its phase; a new tweak has the epoch itself."""
    tweak = TWEAKS[name]()
    constants = {
        "ghost_neurons": lambda e: tweak.gate(e, 20),  # type: ignore[attr-defined]
        "ghost_skips": lambda e: tweak.gate(e, 20),  # type: ignore[attr-defined]
        "smoothing": lambda e: tweak.strength(e, 20),  # type: ignore[attr-defined]
        "rescale": lambda e: None,
        "distillation": lambda e: None,
    }[name]
    assert [tweak.phase(e, 20) for e in range(20)] == [constants(e) for e in range(20)]
    assert Tweak().phase(3, 20) == 3
