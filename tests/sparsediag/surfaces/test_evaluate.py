"""Sweep: the loss itself at every place, the mask at every place, and nothing left behind."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem
from sparsediag.core.batches import Batch
from sparsediag.core.losses import num_correct
from sparsediag.surfaces import evaluate
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import Plane, plane, plane_from_vectors

every_case = pytest.mark.parametrize("name", cases.CASES)
both_statistics = pytest.mark.parametrize("statistics", ["fixed", "estimate"])
PLACES = np.array([[0.0, 0.0], [0.3, -0.7], [-1.5, 1.0], [40.0, 60.0]])


class Spy(nn.Module):
    """A net that notes how many samples came."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.net(x)


class Counting(nn.Module):
    """A net whose outputs count its calls, in a buffer, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x) * self.calls


class Doubling(nn.Module):
    """A net that writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mul_(2))


class Pair(nn.Module):
    """A net with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


def _at(on: Plane, place: np.ndarray) -> Tensor:
    return on.problem.weights + torch.from_numpy(place).to(on.directions) @ on.directions


def _moved(on: Plane, place: np.ndarray) -> nn.Module:
    """A copy of the net with the weights of a place."""
    net = copy.deepcopy(on.problem.net)
    with torch.no_grad():
        for n, w in on.problem.split(_at(on, place)).items():
            net.get_parameter(n).copy_(w)
    return net


def _digest(tensors: Iterable[Tensor]) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def _small(make: type[nn.Module], loss: Any = F.cross_entropy) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Problem(make().double(), cases.classes((5, 4), (4,), 3), loss=loss)


def _single(name: str, loss: Any = F.cross_entropy) -> Problem:
    """A case in float32."""
    exact = cases.CASES[name]()
    batches = [(x.float(), y) for x, y in exact.batches]
    return Problem(copy.deepcopy(exact.net).float(), batches, mask=exact.mask, loss=loss)


# the values


@every_case
@pytest.mark.parametrize("norm", ["filter", "none"])
def test_the_loss_is_that_of_the_problem(name: str, norm: Any) -> None:
    on = plane(cases.CASES[name](), norm=norm)
    sweep = LossEvaluator(on)
    for place in PLACES:
        assert sweep(place)[0] == pytest.approx(on.problem.value(_at(on, place)), rel=1e-12)


@every_case
def test_the_accuracy_is_a_plain_count(name: str) -> None:
    on = plane(cases.CASES[name]())
    sweep = LossEvaluator(on)
    for place in PLACES:
        accuracy, right = sweep(place)[1], 0
        if name in ("linear_regression", "tied_weights"):
            assert np.isnan(accuracy)
            continue
        for scores, (_, y) in zip(
            on.problem.outputs(_at(on, place)), on.problem.batches, strict=True
        ):
            right += sum(
                int(row.argmax()) == int(label) for row, label in zip(scores, y, strict=True)
            )
        assert accuracy == right / on.problem.samples


@pytest.mark.parametrize("dims", [1, 3])
def test_any_number_of_directions(dims: int) -> None:
    problem = cases.relu_cnn()
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(dims, problem.size, generator=g, dtype=torch.float64)
    on = plane_from_vectors(problem, vectors, [""] * dims)
    place = np.linspace(0.2, 0.5, dims)
    assert LossEvaluator(on)(place)[0] == pytest.approx(problem.value(_at(on, place)), rel=1e-12)


def test_a_place_that_cannot_be_written_to() -> None:
    sweep = LossEvaluator(plane(cases.tanh_mlp()))
    place = np.array([0.5, 0.5])
    place.flags.writeable = False
    assert sweep(place) == sweep(place.copy())


def test_batches_are_weighted_by_their_samples() -> None:
    on = plane(cases.residual_net().replace(batch_norm="train"))  # never joined
    net = _moved(on, PLACES[1]).train()
    with torch.no_grad():
        losses = [float(F.cross_entropy(net(x), y)) for x, y in on.problem.batches]
    assert LossEvaluator(on)(PLACES[1])[0] == pytest.approx(
        (6 * losses[0] + 2 * losses[1]) / 8, rel=1e-12
    )


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        (torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1, 1]), 2),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([1.0]), None),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1]]), None),
        (torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), None),
        (torch.zeros(2, 3, 4), torch.tensor([0, 1]), None),
        ((torch.tensor([[0.0, 1.0]]),), torch.tensor([1]), None),
        ({"logits": torch.tensor([[0.0, 1.0]]), "state": None}, torch.tensor([1]), 1),
        (torch.tensor([[0.0, 1.0]]), None, None),
    ],
)
def test_hits(outputs: Any, targets: Tensor, expected: int | None) -> None:
    came = float(num_correct(outputs, targets))
    assert np.isnan(came) if expected is None else came == expected


# the mask


@pytest.mark.parametrize("norm", ["filter", "none"])
@pytest.mark.parametrize("name", cases.MASKED)
def test_dead_weights_are_zero_at_every_place(name: str, norm: Any) -> None:
    problem = cases.CASES[name]()
    sweep = LossEvaluator(plane(problem, norm=norm))
    seen: list[bytes] = []

    def look(net: nn.Module, _: Any) -> None:
        weights = dict(net.named_parameters())
        assert problem.mask is not None
        for n, alive in problem.mask.items():
            assert (weights[n][~alive] == 0).all()
        seen.append(b"".join(w.numpy().tobytes() for w in weights.values()))

    problem.net.register_forward_pre_hook(look)
    places = [*PLACES[1:], np.array([1e6, -1e6]), np.array([-1e100, 1e100]), PLACES[1]]
    for place in places:
        sweep(place)
    assert len(seen) == len(places)
    assert len(set(seen)) == len(places) - 1


# no drift, nothing touched


@both_statistics
@pytest.mark.parametrize("name", ["relu_cnn", "residual_net", "masked_mlp", "tied_weights"])
def test_a_place_again_gives_the_same_bits(name: str, statistics: Any) -> None:
    on = plane(cases.CASES[name]())
    sweep = LossEvaluator(on, statistics=statistics)
    first = np.array(sweep(PLACES[1]))
    for place in np.random.default_rng(0).normal(0, 100, (50, 2)):
        sweep(place)
    assert np.array(sweep(PLACES[1])).tobytes() == first.tobytes()
    fresh = LossEvaluator(on, statistics=statistics)
    assert np.array(fresh(PLACES[1])).tobytes() == first.tobytes()


@both_statistics
@pytest.mark.parametrize("name", ["residual_net", "masked_cnn", "frozen_parameter"])
def test_the_net_and_the_global_rng_are_left_alone(name: str, statistics: Any) -> None:
    problem = cases.CASES[name]()
    net = problem.net.train()
    next(net.children()).eval()
    kept = [*net.state_dict().values(), problem.weights, *(t for b in problem.batches for t in b)]

    def state() -> tuple[object, ...]:
        return (
            _digest([*kept, torch.get_rng_state()]),
            [m.training for m in net.modules()],
            [getattr(m, "momentum", None) for m in net.modules()],
            [(p.requires_grad, p.grad, p.data_ptr()) for p in net.parameters()],
            torch.is_inference_mode_enabled(),
        )

    before = state()
    on = plane(problem)
    sweep = LossEvaluator(on, statistics=statistics)
    for place in PLACES:
        sweep(place)
    assert state() == before
    assert not any(t.is_inference() for t in net.state_dict().values())


def test_a_failure_leaves_the_modes() -> None:
    problem = cases.residual_net()
    net = problem.net.train()
    sweep = LossEvaluator(plane(problem), statistics="estimate")

    def fail(*_: object) -> None:
        raise KeyError("no luck")

    net.fc.register_forward_hook(fail)
    with pytest.raises(KeyError, match="no luck"):
        sweep(PLACES[1])
    assert all(m.training for m in net.modules())
    assert net.bn1.momentum == 0.1


@both_statistics
@pytest.mark.parametrize("make", [Counting, Doubling])
def test_a_net_that_writes_where_it_should_not(make: type[nn.Module], statistics: Any) -> None:
    problem = _small(make)
    before = _digest(t for batch in problem.batches for t in batch)
    on = plane(problem)
    sweep = LossEvaluator(on, statistics=statistics)
    first = sweep(PLACES[1])
    sweep(PLACES[2])
    assert sweep(PLACES[1]) == first
    assert first[0] == pytest.approx(problem.value(_at(on, PLACES[1])), rel=1e-12)
    assert _digest(t for batch in problem.batches for t in batch) == before
    assert not any(b.any() for b in problem.net.buffers())


# batch norm measured anew


@pytest.mark.parametrize("name", ["relu_cnn", "residual_net", "in_place_relu", "masked_cnn"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_an_estimate_is_the_mean_over_equal_chunks(
    name: str, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = cases.CASES[name]()
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    even = len(y) // chunks * chunks
    x, y = x[:even], y[:even]
    problem = problem.replace(batches=[(x[:3], y[:3]), (x[3:], y[3:])])
    monkeypatch.setitem(evaluate.CHUNK, "cpu", x[: even // chunks].numel())
    monkeypatch.setattr(evaluate, "MIN_SAMPLES", 1)
    on = plane(problem)
    sweep = LossEvaluator(on, statistics="estimate")
    for place in PLACES:
        net = _moved(on, place).train()
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.reset_running_stats()
                m.momentum = None
        with torch.no_grad():
            for part in (x[i::chunks] for i in range(chunks)):
                net(part)
            scores = net.eval()(x)
        loss, accuracy = sweep(place)
        assert loss == pytest.approx(float(F.cross_entropy(scores, y)), rel=1e-11)
        assert accuracy == float((scores.argmax(1) == y).double().mean())


def test_an_estimate_over_uneven_chunks_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.in_place_relu()
    seen: list[int] = []
    monkeypatch.setitem(evaluate.CHUNK, "cpu", 4 * 4)  # 11 samples of 4 numbers
    monkeypatch.setattr(evaluate, "MIN_SAMPLES", 1)
    on = plane(problem)
    sweep = LossEvaluator(on, statistics="estimate")
    problem.net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    came = sweep(PLACES[1])[0]
    assert seen == [4, 4, 3] * 2
    first, norm, _, last = _moved(on, PLACES[1])
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    with torch.no_grad():
        parts = [first(x)[i::3] for i in range(3)]
        mean, var = (
            sum(len(p) / 11 * f(p) for p in parts)
            for f in (lambda p: p.mean(0), lambda p: p.var(0))
        )
        hidden = (first(x) - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
        expected = float(F.cross_entropy(last(hidden.relu()), y))
    assert came == pytest.approx(expected, rel=1e-12)


def test_an_estimate_leaves_no_sample_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evaluate.CHUNK, "cpu", 4)
    on = plane(cases.in_place_relu())  # one sample has no variance
    whole = LossEvaluator(on, statistics="estimate")(PLACES[1])
    monkeypatch.setattr(evaluate, "MIN_SAMPLES", 5)
    parts = LossEvaluator(on, statistics="estimate")(PLACES[1])
    assert parts != whole
    assert parts[0] == pytest.approx(whole[0], rel=0.3)


def test_an_estimate_forgets_the_running_statistics() -> None:
    one, two = cases.residual_net(), cases.residual_net()
    two.net.bn1.running_mean.add_(3)
    two.net.bn2.running_var.mul_(5)
    two = two.replace(net=two.net)
    assert abs(one.value() - two.value()) > 0.01
    first, second = (LossEvaluator(plane(p), statistics="estimate")(PLACES[1]) for p in (one, two))
    assert first == second


def test_without_batch_norm_there_is_nothing_to_estimate() -> None:
    on = plane(cases.tanh_mlp())
    assert LossEvaluator(on, statistics="estimate")(PLACES[1]) == LossEvaluator(on)(PLACES[1])


# lower precision


def test_bfloat16_is_close_and_its_loss_is_in_float32() -> None:
    seen: set[tuple[object, ...]] = set()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        seen.add((z.dtype, torch.is_autocast_enabled("cpu")))
        return F.cross_entropy(z, y)

    problem = _single("relu_cnn", loss)
    on = plane(problem)
    exact, rough = LossEvaluator(on), LossEvaluator(on, precision="bfloat16")
    seen.clear()
    inside: set[torch.dtype] = set()
    hook = problem.net.register_forward_hook(lambda _, __, z: inside.add(z.dtype))
    came = [rough(place) for place in PLACES[:3]]
    hook.remove()
    assert seen == {(torch.float32, False)}
    assert inside == {torch.bfloat16}
    for place, (low, _) in zip(PLACES[:3], came, strict=True):
        assert low == pytest.approx(exact(place)[0], rel=0.02)
        assert low != exact(place)[0]
    assert not torch.is_autocast_enabled("cpu")


def test_outputs_that_are_no_tensor() -> None:
    def loss(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return F.cross_entropy(outputs[0], y) + F.cross_entropy(outputs[1], y)

    on = plane(_small(Pair, loss))
    came, accuracy = LossEvaluator(on)(PLACES[1])
    assert came == pytest.approx(on.problem.value(_at(on, PLACES[1])), rel=1e-12)
    assert np.isnan(accuracy)
    with pytest.raises(ValueError, match=r"precision='bfloat16': the weights are torch\.float64"):
        LossEvaluator(on, precision="bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": "estimat"}, "unknown batch-norm statistics 'estimat'; did you mean 'est"),
        ({"precision": "float16"}, r"unknown precision 'float16'.* Known: bfloat16, float32"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossEvaluator(plane(cases.tanh_mlp()), **options)


# chunks


@pytest.mark.parametrize(
    ("samples", "batch_norm", "expected"),
    [(100, "eval", [16]), (16, "eval", [16]), (6, "eval", [6, 6, 4]), (100, "train", [8, 8])],
)
def test_small_batches_are_joined_and_large_ones_split(
    samples: int, batch_norm: Any, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = cases.tanh_mlp()
    spy = Spy(exact.net)
    problem = Problem(spy, list[Batch](exact.batches), batch_norm=batch_norm)
    monkeypatch.setitem(evaluate.CHUNK, "cpu", 4 * samples)
    on = plane(problem)
    sweep = LossEvaluator(on)
    spy.seen.clear()
    came = sweep(PLACES[1])[0]
    assert spy.seen == expected
    assert came == pytest.approx(problem.value(_at(on, PLACES[1])), rel=1e-12)
