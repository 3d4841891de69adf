"""Modes: how a net is set while it is measured, and that all is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sparsediag as sd
from sparsediag.core.evaluation import (
    OLDER,
    OPERATIONS,
    PARENTS,
    deterministic_cudnn,
    deterministic_eval,
    full_precision,
)
from sparsediag.diagnostics import DIAGNOSTICS


@pytest.fixture
def net() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2))
    ).train()
    net[1].eval()
    return net


def _modes(net: nn.Module) -> list[bool]:
    return [m.training for m in net.modules()]


def _precision() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.allow_tf32, cudnn.benchmark


def test_everything_is_in_evaluation(net: nn.Module) -> None:
    with deterministic_eval(net):
        assert not any(_modes(net))
    with deterministic_eval(net, batch_norm="eval"):
        assert not any(_modes(net))


def test_only_batch_norms_train(net: nn.Module) -> None:
    net.eval()
    with deterministic_eval(net, batch_norm="train"):
        assert [m for m in net.modules() if m.training] == [net[1], net[3][0]]
    assert not any(_modes(net))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_all_is_put_back(net: nn.Module, precision: str, batch_norm: str, fails: bool) -> None:
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        modes, before = _modes(net), _precision()
        assert True in modes
        assert False in modes
        try:
            with deterministic_eval(net, batch_norm=batch_norm):
                assert _modes(net) != modes
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
                if fails:
                    raise KeyError("no luck")
        except KeyError:
            assert fails
        assert _modes(net) == modes
        assert _precision() == before
    finally:
        torch.set_float32_matmul_precision(own)


def test_an_exception_goes_through(net: nn.Module) -> None:
    with pytest.raises(KeyError, match="no luck"), deterministic_eval(net):
        raise KeyError("no luck")


def test_one_within_another(net: nn.Module) -> None:
    modes = _modes(net)
    with deterministic_eval(net, batch_norm="train"):
        inner = _modes(net)
        with deterministic_eval(net):
            assert not any(_modes(net))
        assert _modes(net) == inner
    assert _modes(net) == modes


# precision: torch has an older and a newer interface, and reading the older one fails when mixed

cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
BEFORE: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "all tf32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "all ieee": lambda: setattr(torch.backends, "fp32_precision", "ieee"),
    "matmul tf32": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "cudnn tf32": lambda: setattr(cudnn, "fp32_precision", "tf32"),
    "conv ieee": lambda: setattr(cudnn.conv, "fp32_precision", "ieee"),
    "rnn ieee": lambda: setattr(cudnn.rnn, "fp32_precision", "ieee"),
    "mkldnn bf16": lambda: setattr(mkldnn.matmul, "fp32_precision", "bf16"),
    "older high": lambda: torch.set_float32_matmul_precision("high"),
    "older medium": lambda: torch.set_float32_matmul_precision("medium"),
    "older off": lambda: setattr(cudnn, "allow_tf32", False),
    "both": lambda: (
        torch.set_float32_matmul_precision("high"),
        setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    ),
}


def _settings() -> list[Any]:
    """Everything that decides on precision, as it can be read."""
    readings: list[Any] = [torch._C._get_fp32_precision_getter(*o) for o in PARENTS + OPERATIONS]
    for get, _, _ in OLDER:
        try:
            readings.append(get())
        except RuntimeError:
            readings.append("mixed")
    autocast = [torch.is_autocast_enabled(d) for d in ("cpu", "cuda")]
    return [*readings, *autocast, cudnn.enabled, cudnn.deterministic, cudnn.benchmark]


@pytest.fixture
def clean() -> Iterator[None]:
    older = [get() for get, _, _ in OLDER]
    newer = {o: torch._C._get_fp32_precision_getter(*o) for o in PARENTS + OPERATIONS}
    yield
    for (_, set_, _), own in zip(OLDER, older, strict=True):
        set_(own)
    for owner, precision in newer.items():
        torch._C._set_fp32_precision_setter(*owner, precision)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", BEFORE)
def test_whatever_was_set_is_ieee_inside_and_back_after(before: str, fails: bool) -> None:
    BEFORE[before]()
    settings = _settings()
    try:
        with deterministic_eval(nn.Linear(1, 1)):
            inside = {torch._C._get_fp32_precision_getter(*o) for o in OPERATIONS}
            if fails:
                raise KeyError("no luck")
    except KeyError:
        assert fails
    assert inside == {"ieee"}
    assert _settings() == settings
    torch.backends.fp32_precision = "none"  # what is inherited must still be inherited
    inherited = [torch._C._get_fp32_precision_getter(*o) for o in OPERATIONS]
    BEFORE[before]()
    torch.backends.fp32_precision = "none"
    assert inherited == [torch._C._get_fp32_precision_getter(*o) for o in OPERATIONS]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("before", BEFORE)
def test_a_spectrum_can_be_taken_whatever_was_set(before: str) -> None:
    problem = _float_problem()
    expected = sd.spectrum(problem, top=1).eigenvalues
    BEFORE[before]()
    assert np.array_equal(sd.spectrum(problem, top=1).eigenvalues, expected)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("before", [b for b in BEFORE if b not in ("conv ieee", "rnn ieee")])
def test_a_network_that_switches_cudnn_off_by_itself_can_be_measured(before: str) -> None:
    class Own(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with cudnn.flags(enabled=False):
                return super().forward(x)

    BEFORE[before]()
    Own(2, 2)(torch.ones(1, 2))
    problem = sd.Problem(Own(2, 2), [(torch.ones(1, 2), torch.tensor([0]))])
    assert sd.gradflow(problem).mean > 0


def test_flags_of_torch_that_are_frozen_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `torch.backends.disable_global_flags()`, which torch's test helpers call."""
    monkeypatch.setattr(torch.backends.m, "__allow_nonbracketed_mutation_flag", False)
    with pytest.raises(RuntimeError, match="disable_global_flags"):
        cudnn.deterministic = True
    before = _settings()
    with deterministic_eval(nn.LSTM(1, 1)):
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == (False, True, False)
    with deterministic_cudnn():
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == (True, True, False)
    assert _settings() == before
    assert sd.gradflow(_float_problem()).mean > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_off_inside_and_on_again_after(dtype: torch.dtype) -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype):
        with full_precision():
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == dtype
        with pytest.raises(KeyError), full_precision():
            raise KeyError("no luck")
        assert (x @ x).dtype == dtype


def _float_problem() -> sd.Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 8, 8, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        )
    return sd.Problem(net, [(x, torch.randint(0, 10, (64,), generator=generator))])


SHORT: dict[str, dict[str, Any]] = {
    "spectrum": {"top": 2, "density": True},
    "blocks": {"top": 1},
    "landscape": {"points": 3},
    "inputscape": {"points": 3},
    "perturbation": {"points": 3},
    "trace": {"tol": 0.5},
}


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_no_diagnostic_is_less_exact_within_autocast_and_low_precision(name: str) -> None:
    """An outer autocast made a gradient 6 % wrong; "medium" is bfloat16 on some processors."""
    problem = _float_problem()
    measure = getattr(sd, name)
    expected = measure(problem, **SHORT.get(name, {}))
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", torch.bfloat16):
        result = measure(problem, **SHORT.get(name, {}))
    arrays = {k: v for k, v in vars(expected).items() if isinstance(v, np.ndarray)}
    assert arrays
    for key, value in arrays.items():
        assert np.array_equal(getattr(result, key), value, equal_nan=value.dtype.kind == "f"), key


@pytest.mark.parametrize("kind", ["gradient", "eigenvectors"])
def test_no_plane_is_less_exact_within_autocast(kind: str) -> None:
    problem = _float_problem()
    expected = sd.plane(problem, kind).directions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sd.plane(problem, kind).directions, expected)


def test_the_loss_its_gradient_and_its_products_are_as_exact_within_autocast() -> None:
    problem = _float_problem()
    expected = problem.value(), problem.gradient(), problem.hvp()
    with torch.autocast("cpu", torch.bfloat16):
        inside = problem.value(), problem.gradient(), problem.hvp()
        again = _float_problem()  # made inside
    assert inside[0] == expected[0] == again.value()
    assert torch.equal(inside[1], expected[1])
    assert torch.equal(inside[2], expected[2])
