"""Tapes against double backward: every rule by itself, then nets that do odd things."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparsediag import Curvature, Problem, models
from sparsediag.core.batch_loss import BatchLoss
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.curvature.bn_folding import Folded
from sparsediag.curvature.recorder import CannotRecord
from sparsediag.curvature.tape import Tape
from sparsediag.curvature.tape_rules import Add, Affine, Convolution, Local, Relu

Net = Callable[..., Tensor]


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed + 10 * len(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64)


def _bent(z: Tensor) -> Tensor:
    """A loss with slopes and curvatures that differ from one output to the next."""
    gains = torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype).view_as(z)
    return (gains * z.sin()).sum()


def _double(
    batch: BatchLoss, weights: Sequence[Tensor], along: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Gradient and product by two backward passes."""
    leaves = [w.clone().requires_grad_() for w in weights]
    loss = batch.loss(batch.outputs(leaves))
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    total = sum((s * d).sum() for s, d in zip(slopes, along, strict=True))
    if not total.requires_grad:
        return [list(slopes), [torch.zeros_like(w) for w in weights]]
    return [list(slopes), list(torch.autograd.grad(total, leaves, materialize_grads=True))]


def _close(came: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    one, two = (torch.cat([t.detach().flatten() for t in ts]) for ts in (came, expected))
    assert [t.shape for t in came] == [t.shape for t in expected]
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12 * max(1.0, float(two.norm())))


def _check(function: Net, *weights: Tensor, loss: Net = _bent) -> set[type]:
    """Compare a tape with double backward; the rules that it took."""
    batch = BatchLoss(lambda ws: function(*ws), loss, 1)
    tape = Tape(batch, list(weights))
    for seed in (1, 2):
        along = [_drawn(*w.shape, seed=seed) for w in weights]
        gradient, product = _double(batch, weights, along)
        _close(tape.gradient, gradient)
        _close(tape.product(along), product)
    return {type(rule) for _, rule, _ in tape.steps}


def _some(function: Net, tensors: Sequence[Tensor], active: Sequence[int]) -> set[type]:
    """`_check` with only some of the arguments as weights."""

    def partly(*weights: Tensor) -> Tensor:
        row = list(tensors)
        for i, w in zip(active, weights, strict=True):
            row[i] = w
        return function(*row)

    return _check(partly, *(tensors[i] for i in active))


def _subsets(n: int) -> list[tuple[int, ...]]:
    return [c for k in range(1, n + 1) for c in itertools.combinations(range(n), k)]


# rules by themselves

SHAPES: dict[str, dict] = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 1},
    "dilation": {"dilation": 2},
    "groups": {"groups": 2},
    "all": {"stride": 2, "padding": 2, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("active", _subsets(3), ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution(dims: int, shape: str, active: tuple[int, ...]) -> None:
    op = partial((F.conv1d, F.conv2d, F.conv3d)[dims - 1], **SHAPES[shape])
    groups = SHAPES[shape].get("groups", 1)
    kernel = [2] * dims
    tensors = [_drawn(2, 4, *[4] * dims), _drawn(4, 4 // groups, *kernel), _drawn(4)]
    assert Convolution in _some(op, tensors, active)


@pytest.mark.parametrize("active", _subsets(3), ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dims", [1, 2])
def test_transposed_convolution(dims: int, shape: str, active: tuple[int, ...]) -> None:
    op = partial((F.conv_transpose1d, F.conv_transpose2d)[dims - 1], **SHAPES[shape])
    groups = SHAPES[shape].get("groups", 1)
    tensors = [_drawn(2, 4, *[4] * dims), _drawn(4, 6 // groups, *[2] * dims), _drawn(6)]
    assert Convolution in _some(op, tensors, active)


@pytest.mark.parametrize("active", _subsets(2), ids=str)
@pytest.mark.parametrize("op", [F.conv2d, F.conv_transpose2d])
def test_convolution_without_bias(op: Net, active: tuple[int, ...]) -> None:
    assert Convolution in _some(op, [_drawn(2, 3, 4, 4), _drawn(3, 3, 2, 2)], active)


@pytest.mark.parametrize("active", _subsets(3), ids=str)
@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_batch_norm_in_evaluation(dims: int, active: tuple[int, ...]) -> None:
    mean, var = _drawn(3, seed=4), _drawn(3, seed=5).square() + 0.5

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, scale, shift, eps=0.01)

    assert Affine in _some(norm, [_drawn(4, 3, *[2] * dims), _drawn(3), _drawn(3, seed=1)], active)


def _normed(op: Net, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A convolution without a bias and the batch norm after it."""
    z = op(x, w)
    mean, var = (_drawn(z.shape[1], seed=i) for i in (4, 5))
    return F.batch_norm(z, mean, var.square() + 0.5, scale, shift, eps=0.01)


def _to_fold(dims: int, groups: int) -> list[Tensor]:
    """Its image, weight, scale and shift."""
    kernel = [4, 4 // groups, *[2] * dims]
    return [_drawn(2, 4, *[4] * dims), _drawn(*kernel), _drawn(4, seed=2), _drawn(4, seed=3)]


@pytest.mark.parametrize("active", [(0, 1, 2, 3), (1, 2, 3)], ids=["image", "no image"])
@pytest.mark.parametrize("shape", [*SHAPES, "depthwise"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_folded_convolution(dims: int, shape: str, active: tuple[int, ...]) -> None:
    options = {**SHAPES, "depthwise": {"groups": 4, "padding": 1}}[shape]
    op = partial((F.conv1d, F.conv2d, F.conv3d)[dims - 1], **options)
    rules = _some(partial(_normed, op), _to_fold(dims, options.get("groups", 1)), active)
    assert Folded in rules
    assert not rules & {Convolution, Affine}


@pytest.mark.parametrize("still", _subsets(4), ids=str)
def test_folded_convolution_whose_inputs_do_not_change(still: tuple[int, ...]) -> None:
    tensors = _to_fold(2, 2)
    op = partial(_normed, partial(F.conv2d, groups=2))

    def way(*ts: Tensor) -> Tensor:  # the slope of a floor is 0
        return op(*(torch.floor(3 * t) if i in still else t.exp() for i, t in enumerate(ts)))

    assert Folded in _check(way, *tensors)


@pytest.mark.parametrize("active", [a for a in _subsets(4) if not {1, 2, 3} <= {*a}], ids=str)
def test_a_convolution_of_which_a_part_is_frozen_is_not_folded(active: tuple[int, ...]) -> None:
    assert Folded not in _some(partial(_normed, F.conv2d), _to_fold(2, 1), active)


def test_a_transposed_convolution_is_not_folded() -> None:
    rules = _check(partial(_normed, F.conv_transpose2d), *_to_fold(2, 1))
    assert {Convolution, Affine} <= rules


def test_a_convolution_that_others_read_is_not_folded() -> None:
    def way(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        z = F.conv2d(x, w)
        return _normed(lambda *_: z, x, w, scale, shift) * z

    assert Folded not in _check(way, *_to_fold(2, 1))


def test_the_launches_of_a_product() -> None:
    net = models.build("resnet20", width=4)
    problem = Problem(net, [(torch.randn(2, 3, 32, 32), torch.arange(2))])
    curvature, v = Curvature(problem, mode="tape"), torch.ones(problem.size)
    with cases.Calls() as calls:
        curvature(v)
    folded, relus = 21, 19
    assert calls.names["convolution"] + calls.names["convolution_backward"] == 5 * folded - 3
    assert calls.launches <= 20 * folded + 2 * relus + 70


def test_batch_norm_without_scale_and_shift() -> None:
    mean, var = _drawn(3, seed=4), _drawn(3, seed=5).square() + 0.5
    _check(lambda x: F.batch_norm(x, mean, var), _drawn(4, 3, 2))
    _check(lambda x, scale: F.batch_norm(x, mean, var, scale), _drawn(4, 3, 2), _drawn(3))


@pytest.mark.parametrize("active", _subsets(3), ids=str)
def test_batch_norm_in_training(active: tuple[int, ...]) -> None:
    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.batch_norm(x, torch.zeros(3).double(), torch.ones(3).double(), scale, shift, True)

    rules = _some(norm, [_drawn(5, 3, 2), _drawn(3), _drawn(3, seed=1)], active)
    assert Affine not in rules


def test_relu() -> None:
    assert Relu in _check(F.relu, _drawn(4, 5))
    assert Relu in _check(lambda w: F.relu(w * 2, inplace=True), _drawn(4, 5))


def test_relu_has_no_slope_at_zero() -> None:
    tape = Tape(BatchLoss(lambda ws: F.relu(ws[0] * 1), _bent, 1), [torch.zeros(3).double()])
    assert (tape.gradient[0] == 0).all()
    assert (tape.product([torch.ones(3).double()])[0] == 0).all()


@pytest.mark.parametrize("active", _subsets(2), ids=str)
def test_add(active: tuple[int, ...]) -> None:
    assert Add in _some(torch.add, [_drawn(3, 4), _drawn(3, 4, seed=1)], active)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (2, 3, 4)])
def test_add_with_broadcasting(shape: tuple[int, ...]) -> None:
    assert Add not in _check(lambda a, b: a + b, _drawn(3, 4), _drawn(*shape))
    assert Add not in _check(lambda a, b: b + a, _drawn(3, 4), _drawn(*shape))


def test_add_with_a_factor_or_a_number() -> None:
    _check(lambda a, b: torch.add(a, b, alpha=-3), _drawn(3, 4), _drawn(3, 4, seed=1))
    _check(lambda a: (a + 2) * (1 + a), _drawn(3, 4))


def test_a_tensor_added_to_itself() -> None:
    assert Add in _check(lambda a: a + a, _drawn(3, 4))
    assert Local in _check(lambda a: a * a, _drawn(3, 4))


STILL: dict[str, tuple[Net, list[tuple[int, ...]]]] = {
    "convolution": (F.conv1d, [(2, 3, 4), (3, 3, 2), (3,)]),
    "norm": (
        lambda x, s, b: F.batch_norm(x, _drawn(3), torch.ones(3).double(), s, b),
        [(4, 3, 2), (3,), (3,)],
    ),
    "add": (torch.add, [(3, 4), (3, 4)]),
    "matrices": (torch.matmul, [(3, 4), (4, 2)]),
}


@pytest.mark.parametrize("name", STILL)
def test_inputs_that_do_not_change_with_the_weights(name: str) -> None:
    function, shapes = STILL[name]
    tensors = [_drawn(*s, seed=i) for i, s in enumerate(shapes)]
    for still in _subsets(len(tensors)):
        # the slope of a floor is 0
        _check(
            lambda *ts, still=still: function(
                *(torch.floor(3 * t) if i in still else t for i, t in enumerate(ts))
            ),
            *tensors,
        )


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T, -1) @ v


def _pooled(w: Tensor) -> Tensor:
    z, places = F.max_pool1d(w, 2, return_indices=True)
    return F.max_unpool1d(z.square(), places, 2) * w


def _in_place_add(a: Tensor, b: Tensor) -> Tensor:
    z = a * 2
    z += b
    return z * a


def _in_place_chain(a: Tensor, b: Tensor) -> Tensor:
    z = a * 2
    z += b
    z.relu_()
    return z * a


def _looked_at(a: Tensor) -> Tensor:
    z = a * a
    seen = z.exp()
    z.mul_(a)
    return z * seen


def _chunks(w: Tensor) -> Tensor:
    a, b = w.chunk(2, 1)
    return a * b.sigmoid()


def _split(w: Tensor) -> Tensor:
    a, _, b = w.split([1, 2, 1], 1)
    return a.exp() * b


def _unbound(w: Tensor) -> Tensor:
    a, b, c = w.unbind(0)
    return a * b + b * c.tanh()


def _in_place(name: str, *args: object) -> Net:
    return lambda a: getattr(a.square() + 0.5, name)(*args) * a.sum()


def _complex(function: Net) -> Net:
    """A function of complex tensors as one of real tensors, whose last axis is of length 2."""
    return lambda *ts: torch.view_as_real(
        function(*map(torch.view_as_complex, ts)).resolve_conj().resolve_neg()
    )


OPERATIONS: dict[str, tuple[Net, list[tuple[int, ...]]]] = {
    "in-place power": (_in_place("pow_", 3), [(3, 4)]),
    "in-place square": (_in_place("square_"), [(3, 4)]),
    "in-place polygamma": (_in_place("polygamma_", 1), [(3, 4)]),
    "in-place lerp": (lambda a, b: (a * b).lerp_(b, 0.3) * a, [(3, 4), (3, 4)]),
    "in-place copy": (lambda a, b: (a * 1).copy_(b) * a, [(3, 4), (4,)]),
    "in-place transpose": (lambda a: (a * 1).transpose_(0, 1).exp() @ a, [(3, 4)]),
    "in-place fill": (lambda a: (a * 1).masked_fill_(a > 0, 2.0) * a, [(3, 4)]),
    "sum of two precisions": (lambda a, b: (a.float() + b) * b, [(3, 4), (3, 4)]),
    "spectrum of a signal": (lambda a: torch.fft.rfft(a).abs(), [(3, 5)]),
    "filter of a signal": (lambda a, b: torch.fft.irfft(torch.fft.rfft(a) * b, 4), [(4,), (3,)]),
    "complex product": (_complex(lambda a, b: a @ b.mH), [(3, 4, 2), (2, 4, 2)]),
    "complex inverse": (_complex(torch.linalg.pinv), [(4, 3, 2)]),
    "complex in place": (_complex(lambda a: (a * a).mul_(a.conj()).imag * a), [(3, 4, 2)]),
    "sum of real and complex": (_complex(lambda a: a * (a.real + a)), [(3, 4, 2)]),
    "matrices": (torch.matmul, [(3, 4), (4, 2)]),
    "linear": (F.linear, [(3, 4), (2, 4), (2,)]),
    "chunk": (_chunks, [(3, 4)]),
    "split": (_split, [(3, 4)]),
    "unbind": (_unbound, [(3, 4)]),
    "max pool": (_pooled, [(2, 3, 6)]),
    "maximum": (lambda w: w.max(1).values * w.sum(1), [(3, 4)]),
    "sort": (lambda w: w.sort(1).values.cumsum(1), [(3, 4)]),
    "layer norm": (lambda w, s, b: F.layer_norm(w, (4,), s, b), [(3, 4), (4,), (4,)]),
    "group norm": (lambda w, s, b: F.group_norm(w, 2, s, b), [(3, 4, 2), (4,), (4,)]),
    "instance norm": (F.instance_norm, [(2, 3, 4)]),
    "cat": (lambda a, b: torch.cat([a, b.exp(), a]), [(3, 4), (2, 4)]),
    "stack": (lambda a, b: torch.stack([a * b, b]).prod(0), [(3, 4), (3, 4)]),
    "softmax": (_softmax, [(3, 4), (3, 4), (3, 4)]),
    "gelu": (F.gelu, [(3, 4)]),
    "index": (lambda a: a[torch.tensor([0, 2, 0])] ** 3, [(3, 4)]),
    "where": (lambda a, b: torch.where(a > 0, a * b, b), [(3, 4), (3, 4)]),
    "in-place add": (_in_place_add, [(3, 4), (3, 4)]),
    "in-place add, then relu": (_in_place_chain, [(3, 4), (3, 4)]),
    "in-place after a look": (_looked_at, [(3, 4)]),
    "detached": (lambda a: a.detach() * a + a.exp().detach(), [(3, 4)]),
    "norm": (lambda a: a / a.norm(dim=1, keepdim=True), [(3, 4)]),
    "transposed view": (lambda a: a.T.reshape(2, 6) @ a.view(6, 2), [(3, 4)]),
    "variance": (lambda a: a.var(1), [(3, 4)]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    function, shapes = OPERATIONS[name]
    _check(function, *(_drawn(*s, seed=i) for i, s in enumerate(shapes)))


def test_weights_that_the_loss_does_not_depend_on() -> None:
    _check(lambda a, b, c: a * (b * 0 + 1), _drawn(3), _drawn(3, seed=1), _drawn(2))


def test_steps_that_lead_nowhere_are_dropped() -> None:
    def idle(a: Tensor, b: Tensor) -> Tensor:
        (a @ b).sin()
        return a * 2

    tape = Tape(BatchLoss(lambda ws: idle(*ws), _bent, 1), [_drawn(3), _drawn(3)])
    assert len(tape.steps) == len(
        Tape(BatchLoss(lambda ws: ws[0] * 2, _bent, 1), [_drawn(3)]).steps
    )


def test_a_loss_that_is_linear_has_a_product_of_zeros() -> None:
    _check(lambda a, b: a.sum() + 3 * b.sum(), _drawn(3), _drawn(2), loss=lambda z: z)
    _check(lambda a, b: a @ b, _drawn(2, 3), _drawn(3), loss=torch.sum)


def test_a_loss_without_weights_cannot_be_recorded() -> None:
    with pytest.raises(CannotRecord, match="does not depend on the weights"):
        Tape(BatchLoss(lambda ws: torch.ones(3), torch.sum, 1), [_drawn(3)])


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda a: F.dropout(a * 1), "bernoulli_.* random"),
        (lambda a: torch.native_dropout(a, 0.5, True)[0], "native_dropout.* random"),
        (lambda a: F.rrelu(a, training=True), "rrelu_with_noise .* noise"),
        (_complex(lambda a: torch.linalg.eigh(a @ a.mH)[1].abs() + 0j), "_linalg_eigh.* phase"),
    ],
)
def test_operations_without_a_second_derivative_of_their_own(function: Net, match: str) -> None:
    with torch.random.fork_rng(), pytest.raises(CannotRecord, match=match):
        _check(function, _drawn(3, 3, 2))


@pytest.mark.parametrize(
    "function", [lambda a: torch.sparse.mm((a * 1).to_sparse(), a.T), _complex(torch.sgn)]
)
def test_memory_is_counted_where_tensors_have_none_of_their_own(function: Net) -> None:
    """Sparse tensors, and the zeros that the derivative of a complex sign keeps."""
    batch, weights = BatchLoss(lambda ws: function(*ws), _bent, 1), [_drawn(3, 2)]
    tape, double = Tape(batch, weights), DoubleBackward(batch, weights)
    assert min(tape.nbytes, double.nbytes) >= 3 * 2 * 8
    _close(tape.product(weights), double.product(weights))


def _written_view(a: Tensor) -> Tensor:
    z = a * 2
    z[:, 0].mul_(a[:, 1])
    return z


def _written_base(a: Tensor) -> Tensor:
    z = a * 2
    part = z[:, 0]
    z.mul_(3)
    return part * a[:, 1]


def _written_still(a: Tensor) -> Tensor:
    z = torch.zeros(3, 4, dtype=a.dtype)
    z[:, 1] = a[:, 0]
    return z.square() + a


@pytest.mark.parametrize("function", [_written_view, _written_base, _written_still])
def test_what_others_look_at_is_not_written_unseen(function: Net) -> None:
    with pytest.raises(CannotRecord, match="in place"):
        _check(function, _drawn(3, 4))


def test_a_tape_leaves_its_weights_alone() -> None:
    w = _drawn(3, 4)
    before = w.clone()
    tape = Tape(BatchLoss(lambda ws: _in_place_add(ws[0], ws[0]), _bent, 1), [w])
    tape.product([w])
    assert torch.equal(w, before)
    assert not w.requires_grad
    first, again = (tape.product([w])[0] for _ in range(2))
    assert torch.equal(first, again)


def test_a_tape_keeps_what_it_needs() -> None:
    w = _drawn(30, 40)
    assert Tape(BatchLoss(lambda ws: F.relu(ws[0]), torch.sum, 1), [w]).nbytes >= w.numel() * 8


# whole nets, each judged against a plain copy


class Lambda(nn.Module):
    """A net of layers a, b and c, and a way through them."""

    def __init__(self, way: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.way, self.layers = way, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x, *self.layers)


class Sign(torch.autograd.Function):
    """The sign, with the slope of the identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return slope


def _resnet(x: Tensor, a: nn.Module, norm: nn.Module, b: nn.Module) -> Tensor:
    z = norm(a(x))
    z += x
    z = F.relu(z, inplace=True)
    return b(z)


def _blind(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    z = a(x).tanh()
    with torch.no_grad():
        scale = z.square().mean(1, keepdim=True)
    return b(z / scale)


def _into_view(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    z = a(x)
    z[:, 0] = z[:, 1].tanh() * 2
    return b(z.sin())


def _into_zeros(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    z = torch.zeros(len(x), 4, dtype=x.dtype)
    z[:, 1:] = a(x)[:, 1:].tanh()
    return b(z)


def _lstm(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    h = c = torch.zeros(len(x), 4, dtype=x.dtype)
    for _ in range(3):
        h, c = a(x, (h, c))
    return b(h)


def _gru(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    h = torch.zeros(len(x), 4, dtype=x.dtype)
    for _ in range(3):
        h = a(x, h)
    return b(h)


def _attention(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    q, k, v = a(x.view(-1, 4, 1)).chunk(3, 2)
    return b(F.scaled_dot_product_attention(q, k, v).mean(1))


def _heads(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
    z = a(x.view(-1, 4, 1))
    return c(b(z, z, z, need_weights=False)[0].mean(1))


def _spectral(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return b(torch.fft.fft(a(x)).abs())


def _fc(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet block": lambda: Lambda(_resnet, _fc(4, 4), nn.BatchNorm1d(4), _fc(4, 3)),
    "detached": lambda: Lambda(
        lambda x, a, b: b(a(x).tanh() * a(x).detach()), _fc(4, 4), _fc(4, 3)
    ),
    "used twice": lambda: Lambda(lambda x, a, b: b(a(a(x).tanh()).tanh()), _fc(4, 4), _fc(4, 3)),
    "attention": lambda: Lambda(_attention, _fc(1, 6), _fc(2, 3)),
    "layer norm": lambda: nn.Sequential(_fc(4, 5), nn.LayerNorm(5), nn.GELU(), _fc(5, 3)),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), _fc(12, 3)
    ),
}
# what a tape cannot see: it has to notice
HIDDEN: dict[str, Callable[[], nn.Module]] = {
    "no_grad": lambda: Lambda(_blind, _fc(4, 4), _fc(4, 3)),
    "straight through": lambda: Lambda(
        lambda x, a, b: b(Sign.apply(a(x)) * a(x).tanh()), _fc(4, 4), _fc(4, 3)
    ),
    "into a view": lambda: Lambda(_into_view, _fc(4, 4), _fc(4, 3)),
    "into zeros": lambda: Lambda(_into_zeros, _fc(4, 4), _fc(4, 3)),
}
ODD: dict[str, Callable[[], nn.Module]] = {
    "multi-head": lambda: Lambda(
        _heads, _fc(1, 4), nn.MultiheadAttention(4, 2, batch_first=True), _fc(4, 3)
    ),
    "lstm cell": lambda: Lambda(_lstm, nn.LSTMCell(4, 4), _fc(4, 3)),
    "gru cell": lambda: Lambda(_gru, nn.GRUCell(4, 4), _fc(4, 3)),
    "complex": lambda: Lambda(_spectral, _fc(4, 4), _fc(4, 3)),
}


def _problem(make: Callable[[], nn.Module], **options: str) -> Problem:
    return Problem(cases._net(make), cases.classes((7, 4), (4,), 3), **options)


def _agrees(problem: Problem, curvature: Curvature) -> None:
    names = list(problem.live.shapes)
    with sdpa_kernel(SDPBackend.MATH):
        for seed in (1, 2):
            v = _drawn(problem.size, seed=seed)
            loss, weights = cases.plain_loss(problem)
            slopes = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            slope = torch.cat([s.flatten() for s in slopes])
            bend = torch.autograd.grad(slope @ v, weights, materialize_grads=True)
            _close([curvature.gradient], [slope])
            _close([curvature(v)], [problem.join(dict(zip(names, bend, strict=True)))])


@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
@pytest.mark.parametrize("name", NETS)
def test_nets(name: str, mode: str) -> None:
    problem = _problem(NETS[name])
    _agrees(problem, Curvature(problem, mode=mode))


@pytest.mark.parametrize("mode", ["auto", "retained"])
@pytest.mark.parametrize("name", [*HIDDEN, *ODD])
def test_odd_nets(name: str, mode: str) -> None:
    problem = _problem((HIDDEN | ODD)[name])
    curvature = Curvature(problem, mode=mode)
    _agrees(problem, curvature)
    assert curvature.mode == "retained" or name in ODD


@pytest.mark.parametrize("name", HIDDEN)
def test_a_tape_refuses_what_it_cannot_see(name: str) -> None:
    with pytest.raises(ValueError, match=r"'tape' cannot do this network: .*mode='auto'"):
        Curvature(_problem(HIDDEN[name]), mode="tape")


@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
def test_an_embedding(mode: str) -> None:
    net = cases._net(lambda: nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 3)))
    words = torch.randint(5, (9, 4), generator=torch.Generator().manual_seed(0))
    problem = Problem(net, [(words, torch.arange(9) % 3)])
    _agrees(problem, Curvature(problem, mode=mode))


@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("name", ["relu_cnn", "residual_net", "in_place_relu"])
def test_frozen_parts_of_every_layer(name: str, frozen: str, mode: str) -> None:
    problem = cases.CASES[name]()
    for part, p in problem.net.named_parameters():
        p.requires_grad_(not part.endswith(frozen))
    problem = Problem(problem.net, problem.batches)
    _agrees(problem, Curvature(problem, mode=mode))


@pytest.mark.parametrize("mode", ["tape", "retained", "auto"])
def test_a_loss_that_is_linear_in_all_weights(mode: str) -> None:
    net = cases._net(lambda: nn.Linear(4, 3))
    problem = Problem(net, cases.classes((5, 3), (4,), 3), loss=lambda z, _: z.mean())
    curvature = Curvature(problem, mode=mode)
    assert torch.equal(curvature(_drawn(problem.size)), torch.zeros(problem.size).double())
    _close([curvature.gradient], [cases.dense_gradient(problem)])
    assert curvature.gradient.norm() > 0
