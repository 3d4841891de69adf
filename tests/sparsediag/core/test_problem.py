"""Problems against closed forms, dense Hessians and differences; and that a net is only read."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sparsediag import Mask, Problem
from sparsediag.core.losses import default_loss

close = partial(torch.testing.assert_close, rtol=0)
every_case = pytest.mark.parametrize("name", cases.CASES)

METHODS: dict[str, Callable[[Problem], object]] = {
    "nothing": lambda p: None,
    "value": lambda p: p.value(at=p.weights + 1),
    "gradient": lambda p: p.gradient(at=p.weights + 1),
    "hvp": lambda p: p.hvp(p.weights, at=p.weights + 1),
    "outputs": lambda p: p.outputs(at=p.weights + 1),
    "digest": lambda p: p.digest,
}


class Dropping(nn.Module):
    """Dropout that evaluation mode does not turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.fc(x), 0.5, training=True)


class Counting(nn.Linear):
    """A layer that counts its calls."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Drawing(Dataset):
    """Data that draw random numbers and are the same each time."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        torch.rand(3)
        return torch.full((5,), float(i), dtype=torch.float64), i % 4


def _vector(problem: Problem, seed: int = 0) -> Tensor:
    return torch.randn(
        problem.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def _columns(problem: Problem, at: Tensor | None = None) -> Tensor:
    """The Hessian, a product at a time."""
    return torch.stack([problem.hvp(e, at) for e in torch.eye(problem.size).double()])


def _moved(problem: Problem, at: Tensor) -> Problem:
    """The problem of a net that has the weights `at`."""
    with torch.no_grad():
        for name, t in problem.split(at).items():
            problem.net.get_parameter(name).copy_(t)
    return problem.replace(net=problem.net)


def _hash(t: Tensor | None) -> str | None:
    return None if t is None else hashlib.sha256(t.detach().numpy().tobytes()).hexdigest()


def _state(net: nn.Module) -> list[object]:
    """All that a caller could notice."""
    return [
        *((n, id(p), p._version, p.requires_grad, _hash(p)) for n, p in net.named_parameters()),
        *((n, id(p.grad), _hash(p.grad)) for n, p in net.named_parameters()),
        *((n, id(b), b._version, _hash(b)) for n, b in net.named_buffers()),
        *((n, m.training, len(m._forward_hooks)) for n, m in net.named_modules()),
    ]


def _rng() -> tuple[bytes, bytes]:
    numpy = np.random.get_state()[1]  # noqa: NPY002
    return torch.random.get_rng_state().numpy().tobytes(), numpy.tobytes()


# closed forms


def test_linear_regression_in_closed_form() -> None:
    problem = cases.linear_regression()
    x, y = (torch.cat(t) for t in zip(*problem.batches, strict=True))
    net = problem.net
    misses = (x @ net.weight.T + net.bias - y).detach()
    numbers = misses.numel()  # the mean goes over samples and outputs
    assert problem.value() == pytest.approx(float(misses.square().sum()) / numbers, abs=1e-14)
    slope = torch.cat([(misses.T @ x).flatten(), misses.sum(0)]) * 2 / numbers
    close(problem.gradient(), slope, atol=1e-14)
    one = torch.eye(3).double()
    cross = torch.kron(one, x.sum(0)[:, None])
    hessian = torch.cat(
        [
            torch.cat([torch.kron(one, x.T @ x), cross], 1),
            torch.cat([cross.T, one * len(x)], 1),
        ]
    )
    close(_columns(problem), hessian * 2 / numbers, atol=1e-14)


def test_softmax_regression_in_closed_form() -> None:
    net = nn.Linear(5, 4, bias=False).double()
    nn.init.normal_(net.weight, generator=torch.Generator().manual_seed(0))
    problem = Problem(net, cases.classes((9, 3), (5,), 4))
    x, y = (torch.cat(t) for t in zip(*problem.batches, strict=True))
    p = (x @ net.weight.T).softmax(1).detach()
    assert problem.value() == pytest.approx(-float(p[range(12), y].log().mean()), abs=1e-14)
    close(problem.gradient(), ((p - F.one_hot(y, 4)).T @ x).flatten() / 12, atol=1e-14)
    hessian = sum(torch.kron(q.diag() - q.outer(q), a.outer(a)) for a, q in zip(x, p, strict=True))
    close(_columns(problem), hessian / 12, atol=1e-14)


PIECEWISE: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "relu": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
    "maximum": lambda: nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (3, 2)), nn.MaxPool1d(2)),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_piecewise_linear_loss_has_no_curvature_at_all(name: str) -> None:
    net = PIECEWISE[name]().double()
    problem = Problem(net, cases.classes((5, 3), (4,), 3), loss=lambda outputs, _: outputs.mean())
    assert problem.gradient().norm() > 0
    assert torch.equal(problem.hvp(_vector(problem)), torch.zeros(problem.size).double())


# dense Hessians and differences


@every_case
def test_value_and_gradient_of_a_plain_copy(name: str) -> None:
    problem = cases.CASES[name]()
    loss, _ = cases.plain_loss(problem)
    assert problem.value() == pytest.approx(loss.item(), abs=1e-13)
    close(problem.gradient(), cases.dense_gradient(problem), atol=1e-13)


@every_case
def test_products_with_the_dense_hessian(name: str) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    assert hessian.shape == (problem.size, problem.size)
    for seed in range(3):
        v = _vector(problem, seed)
        close(problem.hvp(v), hessian @ v, atol=1e-12)


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_hessian_of_a_mask_is_a_part_of_the_dense_one(name: str) -> None:
    problem = cases.CASES[name]()
    problem.mask.apply_(problem.net)
    dense = cases.dense_hessian(problem.replace(mask=None))
    alive = cases.living(problem)
    assert problem.size == alive.sum() < len(alive) == len(dense)
    close(_columns(problem), dense[alive][:, alive], atol=1e-12)


@every_case
def test_gradient_and_product_are_the_central_differences(name: str) -> None:
    problem = cases.CASES[name]()
    w, v, step = problem.weights, _vector(problem), 1e-5
    ahead, behind = w + step * v, w - step * v
    slope = (problem.value(ahead) - problem.value(behind)) / (2 * step)
    assert slope == pytest.approx(float(problem.gradient() @ v), abs=1e-8)
    bend = (problem.gradient(ahead) - problem.gradient(behind)) / (2 * step)
    close(problem.hvp(v), bend, atol=1e-7)


@every_case
def test_the_hessian_is_symmetric_and_linear(name: str) -> None:
    problem = cases.CASES[name]()
    u, v = _vector(problem, 1), _vector(problem, 2)
    hu, hv = problem.hvp(u), problem.hvp(v)
    assert float(u @ hv) == pytest.approx(float(v @ hu), abs=1e-12)
    close(problem.hvp(2 * u - v), 2 * hu - hv, atol=1e-12)
    assert hv.norm() > 0


@every_case
def test_elsewhere_is_what_a_net_with_those_weights_has(name: str) -> None:
    problem = cases.CASES[name]()
    w, at, v = problem.weights.clone(), problem.weights + 0.1 * _vector(problem), _vector(problem)
    there = problem.value(at), problem.gradient(at), problem.hvp(v, at)
    assert torch.equal(problem.weights, w)
    assert problem.value(at) != problem.value()
    moved = _moved(problem, at)
    assert there[0] == moved.value()
    close(there[1], moved.gradient(), atol=1e-14)
    close(there[2], moved.hvp(v), atol=1e-14)


# batches


@pytest.mark.parametrize("counts", [(96, 4), (1, 99), (50, 50), (1,) * 100])
def test_batches_count_by_their_samples(counts: tuple[int, ...]) -> None:
    whole = cases.tanh_mlp().replace(batches=cases.classes((100,), (4,), 3))
    ((x, y),) = whole.batches
    batches = list(zip(x.split(counts), y.split(counts), strict=True))
    parts = whole.replace(batches=batches)
    v = _vector(whole)
    assert parts.samples == whole.samples == 100
    assert parts.value() == pytest.approx(whole.value(), abs=1e-14)
    close(parts.gradient(), whole.gradient(), atol=1e-14)
    close(parts.hvp(v), whole.hvp(v), atol=1e-14)


def test_a_loader_is_the_list_of_its_batches() -> None:
    problem = cases.tanh_mlp()
    data = TensorDataset(*(torch.cat(t) for t in zip(*problem.batches, strict=True)))
    loaded = problem.replace(batches=DataLoader(data, batch_size=8))
    assert loaded.digest == problem.digest
    assert torch.equal(loaded.gradient(), problem.gradient())


def test_outputs_are_the_nets() -> None:
    problem = cases.masked_cnn()
    outputs = problem.outputs()
    assert [tuple(o.shape) for o in outputs] == [(7, 3), (4, 3)]
    for o, (x, _) in zip(outputs, problem.batches, strict=True):
        assert not o.requires_grad
        torch.testing.assert_close(o, problem.net(x).detach())


def test_outputs_may_be_anything_that_the_loss_takes() -> None:
    class Pair(nn.Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(x)}

    net = Pair(5, 4).double()
    batches = cases.classes((3, 2), (5,), 4)
    problem = Problem(net, batches, loss=lambda outputs, y: F.cross_entropy(outputs["logits"], y))
    plain = nn.Linear(5, 4).double()
    plain.load_state_dict(net.state_dict())
    close(problem.gradient(), Problem(plain, batches).gradient(), atol=0)


# the mask


def test_the_loss_is_that_of_the_masked_net_even_where_the_net_is_not_masked() -> None:
    problem = cases.masked_mlp()
    assert problem.replace(mask=None).value() != pytest.approx(problem.value())
    problem.mask.apply_(problem.net)
    masked = problem.replace(net=problem.net)
    assert problem.value() == masked.value()
    assert torch.equal(problem.gradient(), masked.gradient())
    assert masked.replace(mask=None).value() == problem.value()


def test_a_mask_covers_frozen_weights_too() -> None:
    problem = cases.masked_mlp()
    problem.net[0].weight.requires_grad_(False)
    before = problem.replace(net=problem.net).value()
    problem.mask.apply_(problem.net)
    assert problem.replace(net=problem.net).value() == before


def test_weights_that_lie_dead_do_not_matter() -> None:
    problem = cases.masked_mlp()
    with torch.no_grad():
        for name, alive in problem.mask.items():
            problem.net.get_parameter(name).masked_fill_(~alive, float("nan"))
    again = problem.replace(net=problem.net)
    assert again.value() == problem.value()
    assert torch.equal(again.hvp(problem.weights), problem.hvp(problem.weights))


def test_a_net_of_dead_weights_only_has_an_empty_gradient() -> None:
    net = nn.Linear(5, 4, bias=False).double()
    mask = Mask({"weight": torch.zeros(4, 5, dtype=torch.bool)})
    problem = Problem(net, cases.classes((3,), (5,), 4), mask=mask)
    assert problem.value() == pytest.approx(np.log(4))
    assert problem.size == len(problem.gradient()) == len(problem.hvp(problem.weights)) == 0


# some of the weights


@pytest.mark.parametrize("params", ["0.*", "matrices", "*.weight,4.bias"])
@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "relu_cnn"])
def test_some_of_the_weights_move_and_the_loss_stays(name: str, params: str) -> None:
    whole, hessian = cases.CASES[name](), cases.hessian_of(name)
    part = whole.view(params=params)
    places = whole.split(torch.arange(whole.size) + 1)
    chosen = torch.cat([places[n].flatten() for n in part.live.shapes])
    chosen = chosen[chosen > 0] - 1
    assert 0 < part.size == len(chosen) < whole.size
    assert torch.equal(part.weights, whole.weights[chosen])
    assert part.value() == whole.value()
    close(part.gradient(), cases.dense_gradient(whole)[chosen], atol=1e-13)
    v = _vector(part)
    close(part.hvp(v), hessian[chosen][:, chosen] @ v, atol=1e-12)
    moved = whole.weights.clone()
    moved[chosen] += v
    assert part.value(part.weights + v) == whole.value(moved)


def test_weights_that_are_held_are_masked_too() -> None:
    problem = cases.masked_mlp()
    assert problem.view(params="4.*").value() == problem.value()
    assert problem.view(params="*.bias").value() == problem.value()
    assert problem.replace(mask=None).value() != problem.value()


@pytest.mark.parametrize("params", ["layer9.*", "0.weigth"])
def test_a_name_that_no_weight_has_is_refused(params: str) -> None:
    with pytest.raises(ValueError, match=r"unknown trainable weight .*Known.*: 0\.bias"):
        cases.tanh_mlp().view(params=params)


def test_a_near_name_is_offered() -> None:
    with pytest.raises(ValueError, match=r"'0\.weigth'; did you mean '0\.weight'\?"):
        cases.tanh_mlp().replace(params="0.weigth")


def test_digest_knows_which_weights_move() -> None:
    problem = cases.tanh_mlp()
    views = ("0.*", "2.*", "0.weight", "*.weight", "*")
    assert len({problem.view(params=p).digest for p in views}) == len(views)
    assert problem.view(params="*").digest == problem.digest


# the dense view


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_dense_view_is_the_masked_net_with_its_dead_weights_moving(name: str) -> None:
    problem = cases.CASES[name]()
    weights = [p.clone() for p in problem.net.parameters()]
    dense = problem.view(dense=True)
    alive = cases.living(problem)
    assert dense.mask is None
    assert dense.size == len(alive) > problem.size
    assert dense.value() == problem.value()
    assert torch.equal(dense.weights[alive], problem.weights)
    assert (dense.weights[~alive] == 0).all()
    close(dense.gradient()[alive], problem.gradient(), atol=1e-14)
    assert dense.gradient()[~alive].norm() > 0
    masked = copy.deepcopy(problem.net)
    problem.mask.apply_(masked)
    v = _vector(dense)
    close(dense.hvp(v), cases.dense_hessian(dense.replace(net=masked)) @ v, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(weights, problem.net.parameters(), strict=True))


def test_a_dense_view_of_some_weights() -> None:
    part = cases.masked_mlp().view(params="0.weight", dense=True)
    assert part.size == 24
    assert part.value() == cases.masked_mlp().value()


def test_a_view_of_nothing_else_is_the_problem_itself() -> None:
    problem = cases.tanh_mlp()
    assert problem.view() is problem.view(dense=True) is problem


# samples that do not see each other


def test_means_over_samples_are_separable() -> None:
    assert all(make().separable for make in cases.CASES.values())


COUPLED: dict[str, Callable[[Problem], Problem]] = {
    "a maximum": lambda p: p.replace(
        loss=lambda z, y: F.cross_entropy(z, y, reduction="none").max()
    ),
    "a variance": lambda p: p.replace(loss=lambda z, _: z.var()),
    "batch norm by batches": lambda p: p.replace(batch_norm="train"),
}


@pytest.mark.parametrize("name", COUPLED)
def test_what_couples_samples_is_not_separable(name: str) -> None:
    assert not COUPLED[name](cases.relu_cnn()).separable


# the way of a batch


def test_the_way_of_a_batch_leads_from_weights_to_the_loss() -> None:
    problem = cases.masked_cnn()
    batch = problem.batches[1]
    way = problem.batch_loss(batch)
    weights = list(problem.split(problem.weights).values())
    outputs = way.outputs(weights)
    assert way.samples == len(batch[1])
    close(outputs, problem.net(batch[0]), atol=1e-14)
    close(way.loss(outputs), F.cross_entropy(outputs, batch[1]), atol=0)


# batch norm


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_in_evaluation_goes_by_the_running_statistics(mode: bool) -> None:
    problem = cases.relu_cnn()
    value = problem.value()
    problem.net.train(mode)
    assert problem.replace(net=problem.net).value() == value


def test_batch_norm_in_training_goes_by_those_of_each_batch() -> None:
    problem = cases.relu_cnn().replace(batch_norm="train")
    v = _vector(problem)
    value, gradient, product = problem.value(), problem.gradient(), problem.hvp(v)
    net = copy.deepcopy(problem.net).train()
    losses = [F.cross_entropy(net(x), y) * len(y) for x, y in problem.batches]
    mean, weights = sum(losses) / problem.samples, list(net.parameters())
    parts = torch.autograd.grad(mean, weights, create_graph=True)
    slope = torch.cat([g.flatten() for g in parts])
    bend = torch.cat([h.flatten() for h in torch.autograd.grad(slope @ v, weights)])
    assert value == pytest.approx(mean.item(), abs=1e-14)
    close(gradient, slope.detach(), atol=1e-13)
    close(product, bend, atol=1e-11)
    assert value != pytest.approx(cases.relu_cnn().value())


def test_dropout_stays_off_while_batch_norm_trains() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    problem = Problem(net.double().train(), cases.classes((9, 4), (4,), 3), batch_norm="train")
    assert problem.value() == problem.value()
    assert net[2].training


# a net is only read


@pytest.mark.parametrize("policy", ["eval", "train"])
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_the_net_and_the_generators_are_left_alone(method: str, mode: str, policy: str) -> None:
    problem = cases.masked_cnn()
    net = problem.net.train(mode == "train")
    net[1].weight.requires_grad_(False)
    net[0].weight.grad = torch.full_like(net[0].weight, 7.0)
    if mode == "mixed":
        net[4].train()
        net[7].train()
    state, rng = _state(net), _rng()
    METHODS[method](problem.replace(batch_norm=policy))
    assert _state(net) == state
    assert _rng() == rng


def test_the_net_is_left_alone_by_a_loss_that_fails() -> None:
    problem = cases.masked_cnn()
    net = problem.net.train()
    state = _state(net)

    def fail(*_: Tensor) -> Tensor:
        raise RuntimeError("no loss today")

    with pytest.raises(ValueError, match=r"^the loss failed on .*RuntimeError: no loss today$"):
        problem.replace(loss=fail)
    assert _state(net) == state


def test_the_batches_are_left_alone() -> None:
    batches = cases.classes((5, 4), (1, 6, 6), 3)
    before = [_hash(t) for batch in batches for t in batch]
    problem = cases.relu_cnn().replace(batches=batches)
    problem.hvp(problem.gradient())
    assert [_hash(t) for batch in batches for t in batch] == before


def test_a_net_that_writes_into_its_input_leaves_the_batches_alone() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4)).double()
    batches = cases.classes((6,), (5,), 4)
    before = batches[0][0].clone()
    Problem(net, batches).value()
    assert torch.equal(batches[0][0], before)


def test_a_buffer_that_is_written_in_evaluation_is_left_alone() -> None:
    net = Counting(5, 4).double()
    Problem(net, cases.classes((6,), (5,), 4)).value()
    assert net.calls == 0


class Drifting(nn.Module):
    """A net whose outputs depend on a buffer that it writes: its own, or that of a batch norm."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.fc, self.norm, self.own = nn.Linear(5, 4), nn.BatchNorm1d(4), own
        self.register_buffer("most", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        written = self.most if self.own else self.norm.running_mean
        written += z.detach().abs().amax(0)
        return self.norm(z) * (1 + self.most)


@pytest.mark.parametrize("own", [False, True])
def test_a_written_buffer_does_not_leak_into_the_next_pass(own: bool) -> None:
    net = cases._net(lambda: Drifting(own))
    before = _state(net)
    problem = Problem(net, cases.classes((6, 5), (5,), 4))
    first = problem.value(), problem.gradient(), problem.hvp(problem.weights)
    again = problem.value(), problem.gradient(), problem.hvp(problem.weights)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[2], again[2])
    assert _state(net) == before


def test_a_problem_may_be_made_in_inference_mode() -> None:
    with torch.inference_mode():
        problem = cases.residual_net()
        value, product = problem.value(), problem.hvp()
    assert value == cases.residual_net().value()
    assert torch.equal(problem.gradient(), cases.residual_net().gradient())
    assert torch.equal(product, cases.residual_net().hvp())


@pytest.mark.parametrize(
    ("policy", "copies"), [("eval", 1), ("train", 1 + 2 * 3)], ids=["eval", "train"]
)
def test_a_pass_copies_its_input_and_what_it_may_write(policy: str, copies: int) -> None:
    problem = cases.residual_net().replace(batch_norm=policy)
    with cases.Calls() as calls:
        problem.value(problem.weights)
    assert calls.names["clone"] == copies * len(problem.batches)


@pytest.mark.parametrize("shuffle", [False, True])
def test_reading_a_loader_leaves_the_generators_alone(shuffle: bool) -> None:
    net, loader = nn.Linear(5, 4).double(), DataLoader(Drawing(), 4, shuffle=shuffle)
    rng = _rng()
    with pytest.raises(ValueError, match="shuffles") if shuffle else nullcontext():
        Problem(net, loader)
    assert _rng() == rng
    next(iter(loader))
    assert _rng() != rng


def test_the_weights_are_those_of_the_construction() -> None:
    problem = cases.tanh_mlp()
    value, gradient = problem.value(), problem.gradient()
    with torch.no_grad():
        problem.net[0].weight.add_(1)
    assert problem.value() == value
    assert torch.equal(problem.gradient(), gradient)
    assert problem.replace(net=problem.net).value() != value


# identity


def test_digest_is_stable() -> None:
    assert cases.masked_cnn().digest == cases.masked_cnn().digest
    assert len({make().digest for make in cases.CASES.values()}) == len(cases.CASES)


def _rolled(problem: Problem, tensor: Tensor) -> Problem:
    with torch.no_grad():
        tensor.copy_(tensor.roll(1))
    return problem.replace(net=problem.net)


CHANGES: dict[str, Callable[[Problem], Problem]] = {
    "weight": lambda p: _rolled(p, p.net[3].weight),
    "running statistics": lambda p: _rolled(p, p.net[1].running_mean),
    "inputs": lambda p: _rolled(p, p.batches[1][0]),
    "targets": lambda p: _rolled(p, p.batches[0][1]),
    "order": lambda p: p.replace(batches=p.batches[::-1]),
    "mask": lambda p: p.replace(mask=None),
    "loss": lambda p: p.replace(loss=F.multi_margin_loss),
    "batch norm": lambda p: p.replace(batch_norm="train"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_knows_what_the_loss_depends_on(change: str) -> None:
    problem = cases.relu_cnn().replace(mask=cases.coins(cases.relu_cnn().net, 1))
    before = problem.digest
    assert problem.replace(net=problem.net).digest == before
    assert CHANGES[change](problem).digest != before


def test_digest_knows_the_frozen_weights() -> None:
    problem = cases.frozen_parameter()
    before = problem.digest
    assert _rolled(problem, problem.net[0].weight).digest != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (lambda o, y: F.cross_entropy(o, y), lambda o, y: F.cross_entropy(o / 2, y)),
    ],
)
def test_digest_knows_the_options_of_a_loss(one: Callable, other: Callable) -> None:
    problem = cases.tanh_mlp()
    digests = [problem.replace(loss=loss).digest for loss in (one, other)]
    assert digests[0] != digests[1]


def test_digest_knows_which_weights_are_alive() -> None:
    net = nn.Linear(2, 1, bias=False).double()
    nn.init.ones_(net.weight)
    batches = [(torch.ones(2, 2).double(), torch.zeros(2, 1).double())]
    masks = [Mask({"weight": torch.tensor([bits])}) for bits in ([True, False], [False, True])]
    one, other = (Problem(net, batches, loss=F.mse_loss, mask=m) for m in masks)
    assert torch.equal(one.weights, other.weights)
    assert one.digest != other.digest


def test_replace_gives_the_same_net_another_loss() -> None:
    problem = cases.masked_mlp()
    cool = problem.replace(loss=lambda outputs, y: F.cross_entropy(outputs / 200, y))
    fresh = Problem(
        problem.net,
        problem.batches,
        loss=lambda outputs, y: F.cross_entropy(outputs / 200, y),
        mask=problem.mask,
    )
    assert torch.equal(cool.gradient(), fresh.gradient())
    assert cool.value() != problem.value()
    assert problem.loss is default_loss


def test_a_problem_takes_no_writes() -> None:
    with pytest.raises(AttributeError, match="loss"):
        cases.tanh_mlp().loss = F.mse_loss  # type: ignore[misc]


# what is refused


def test_a_net_that_is_random_in_evaluation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two different losses .*something in the net is random"):
        Problem(Dropping(), cases.classes((20,), (5,), 4))


def test_ordinary_dropout_is_not_random_in_evaluation() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.9)).double().train()
    problem = Problem(net, cases.classes((20,), (5,), 4))
    assert problem.value() == Problem(net[0], problem.batches).value()


@pytest.mark.parametrize(
    ("loss", "came"),
    [
        (partial(F.cross_entropy, reduction="none"), r"\(12,\)"),
        (lambda outputs, y: outputs, r"\(12, 4\)"),
        (lambda outputs, y: 1.0, "float"),
    ],
)
def test_a_loss_that_is_not_one_number_is_refused(loss: Callable, came: str) -> None:
    with pytest.raises(ValueError, match=f"the loss returned {came}; need one number"):
        Problem(nn.Linear(5, 4).double(), cases.classes((12,), (5,), 4), loss=loss)


def test_one_number_may_have_dimensions() -> None:
    problem = cases.softmax_regression()
    boxed = problem.replace(loss=lambda o, y: F.cross_entropy(o, y)[None, None])
    assert boxed.value() == problem.value()
    assert torch.equal(boxed.gradient(), problem.gradient())


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_not_finite_is_refused(bad: str) -> None:
    net = nn.Linear(5, 4).double()
    nn.init.constant_(net.bias, float(bad))
    with pytest.raises(ValueError, match=r"the loss is nan at these weights; need a finite loss"):
        Problem(net, cases.classes((12,), (5,), 4))


def test_a_loader_that_shuffles_is_refused() -> None:
    data = TensorDataset(torch.randn(16, 5).double(), torch.arange(16) % 4)
    with pytest.raises(ValueError, match="the loader shuffles"):
        Problem(nn.Linear(5, 4).double(), DataLoader(data, batch_size=4, shuffle=True))


@pytest.mark.parametrize(
    ("batches", "message"),
    [([], "got no batches"), ((b for b in cases.classes((2,), (5,), 4)), "read only once")],
)
def test_batches_that_are_not_there_are_refused(batches: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem(nn.Linear(5, 4).double(), batches)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [(0,), (3, 0)])
def test_a_batch_without_samples_is_refused(counts: tuple[int, ...]) -> None:
    batches = cases.classes(counts, (5,), 4)
    with pytest.raises(ValueError, match=f"batch {len(counts) - 1} has no targets"):
        Problem(nn.Linear(5, 4).double(), batches)


def test_a_net_that_cannot_move_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter with requires_grad"):
        Problem(nn.Linear(5, 4).double().requires_grad_(False), cases.classes((2,), (5,), 4))


def test_a_mask_with_a_typo_is_refused() -> None:
    mask = Mask({"weigth": torch.ones(4, 5, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'weigth'; did you mean 'weight'\?"):
        Problem(nn.Linear(5, 4).double(), cases.classes((2,), (5,), 4), mask=mask)


def test_a_mask_of_another_shape_is_refused() -> None:
    mask = Mask({"weight": torch.ones(5, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"mask of 'weight' is \(5, 4\), the weight is \(4, 5\)"):
        Problem(nn.Linear(5, 4).double(), cases.classes((2,), (5,), 4), mask=mask)


def test_an_unknown_batch_norm_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_norm 'batch': need 'eval' or 'train'"):
        cases.tanh_mlp().replace(batch_norm="batch")


@pytest.mark.parametrize("size", [0, 82, 84])
def test_a_vector_of_another_length_is_refused(size: int) -> None:
    problem, v = cases.tanh_mlp(), torch.zeros(size).double()
    for ask in (problem.value, problem.gradient, problem.hvp, problem.outputs):
        with pytest.raises(ValueError, match=r"need \(83,\), one number for each live weight"):
            ask(v)
