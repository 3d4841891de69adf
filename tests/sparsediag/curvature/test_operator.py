"""Curvature: products in every mode against explicit matrices, and what is refused or doubted."""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import weakref
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache, partial

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from sparsediag import Curvature, Mask, Problem
from sparsediag.core.filter_norms import filter_norms

every_case = pytest.mark.parametrize("name", cases.CASES)
both_modes = pytest.mark.parametrize("mode", ["tape", "retained"])


class Spy(nn.Module):
    """A net that notes how many samples came."""

    def __init__(self, net: nn.Module, seen: list[int]) -> None:
        super().__init__()
        self.net, self.seen = net, seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.net(x)


def _vector(problem: Problem, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(problem.size, generator=g, dtype=torch.float64)


def _columns(curvature: Curvature) -> Tensor:
    """The matrix, a product at a time."""
    eye = torch.eye(curvature.problem.size, dtype=curvature.problem.weights.dtype)
    return torch.stack([curvature(e) for e in eye], 1)


def _close(came: Tensor, expected: Tensor, rtol: float = 1e-12) -> None:
    scale = max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(came, expected, rtol=0, atol=rtol * scale)


def _agree(curvature: Curvature, matrix: Tensor, rtol: float = 1e-12) -> None:
    assert matrix.shape == (curvature.problem.size,) * 2
    for seed in range(2):
        v = _vector(curvature.problem, seed)
        _close(curvature(v), matrix @ v, rtol)


def _parts(problem: Problem, counts: tuple[int, ...]) -> Problem:
    """The same samples in other batches."""
    x, y = (torch.cat(t) for t in zip(*problem.batches, strict=True))
    return problem.replace(batches=list(zip(x.split(counts), y.split(counts), strict=True)))


def _spied(problem: Problem, seen: list[int]) -> Problem:
    return problem.replace(net=Spy(problem.net, seen), mask=None)


def _counts(problem: Problem, **options: object) -> list[int]:
    """The samples that go through the net together in a product."""
    seen: list[int] = []
    curvature = Curvature(_spied(problem, seen), memory=0, mode="retained", **options)
    seen.clear()
    curvature(torch.ones(problem.size).double())
    return seen


# the Hessian


WAYS = [*itertools.product(("tape", "retained"), (1, 3, None)), ("auto", 3)]


@pytest.mark.parametrize(("mode", "chunk"), WAYS)
@every_case
def test_products_and_gradient_are_the_dense_ones(name: str, mode: str, chunk: int | None) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    curvature = Curvature(problem, mode=mode, chunk=chunk)
    assert curvature.mode in ({"tape", "retained"} if mode == "auto" else {mode})
    _agree(curvature, hessian)
    _close(curvature.gradient, cases.dense_gradient(problem))
    _close(curvature.gradient, problem.gradient())


@pytest.mark.parametrize("name", ["masked_cnn", "tied_weights"])
def test_the_compiled_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # tracing is what a network can break; code generation takes half a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    problem = cases.CASES[name]()
    curvature = Curvature(problem, mode="compiled", chunk=3)
    _agree(curvature, cases.hessian_of(name))
    _close(curvature.gradient, cases.dense_gradient(problem))
    with pytest.raises(ValueError, match=r"for the Hessian only; use mode='auto'"):
        Curvature(problem, mode="compiled", matrix="fisher")


@both_modes
@pytest.mark.parametrize("name", cases.MASKED)
def test_the_matrix_of_a_mask_is_a_part_of_the_dense_one(name: str, mode: str) -> None:
    problem = cases.CASES[name]()
    problem.mask.apply_(problem.net)
    dense = cases.dense_hessian(problem.replace(mask=None))
    alive = cases.living(problem)
    assert 0 < alive.sum() < len(alive)
    _close(_columns(Curvature(problem, mode=mode)), dense[alive][:, alive], rtol=1e-10)


@both_modes
@pytest.mark.parametrize("name", cases.MASKED)
def test_the_dense_view_is_the_matrix_over_all_weights_of_the_masked_net(
    name: str, mode: str
) -> None:
    problem = cases.CASES[name]()
    net = copy.deepcopy(problem.net)
    problem.mask.apply_(net)
    dense = cases.dense_hessian(Problem(net, problem.batches))
    assert len(dense) > problem.size
    _agree(Curvature(problem.view(dense=True), mode=mode), dense, rtol=1e-10)


GLOBS = ("0.*", "*.weight", "matrices", "0.weight, 4.bias", "*.bias,matrices", "*")


def _chosen(problem: Problem, globs: str) -> Tensor:
    """Which live weights the globs name, (size,) bool."""
    wanted = [g.strip() for g in globs.split(",")]
    marks = {
        n: torch.ones(s)
        if any(fnmatchcase(n, g) for g in wanted) or ("matrices" in wanted and len(s) > 1)
        else torch.zeros(s)
        for n, s in problem.live.shapes.items()
    }
    return problem.join(marks) > 0


@both_modes
@pytest.mark.parametrize("globs", GLOBS)
@pytest.mark.parametrize("name", ["tanh_mlp", "relu_cnn", "masked_mlp"])
def test_some_of_the_weights_give_a_block(name: str, globs: str, mode: str) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    chosen = _chosen(problem, globs)
    part = problem.view(params=globs)
    assert part.size == chosen.sum() > 0
    curvature = Curvature(part, mode=mode, chunk=5)
    _agree(curvature, hessian[chosen][:, chosen])
    _close(curvature.gradient, cases.dense_gradient(problem)[chosen])


def test_a_net_of_dead_weights_only_has_an_empty_matrix() -> None:
    net = nn.Linear(5, 4, bias=False).double()
    mask = Mask({"weight": torch.zeros(4, 5, dtype=torch.bool)})
    problem = Problem(net, cases.classes((3,), (5,), 4), mask=mask)
    for mode in ("tape", "retained", "auto"):
        curvature = Curvature(problem, mode=mode)
        assert len(curvature(problem.weights)) == len(curvature.gradient) == 0


# Gauss-Newton and Fisher


@cache
def _explicit(name: str) -> dict[str, Tensor]:
    """Both matrices of a classifier, over the live weights, a sample at a time."""
    problem = cases.CASES[name]()
    net = copy.deepcopy(problem.net).eval()
    if problem.mask:
        problem.mask.apply_(net)
    own = {n: p.detach() for n, p in net.named_parameters() if p.requires_grad}
    alive = cases.living(problem)
    newton, fisher = 0, 0
    for x, y in problem.batches:
        for a, t in zip(x, y, strict=True):
            z = net(a[None])[0].detach()
            rows = jacrev(lambda w, a=a: functional_call(net, w, (a[None],))[0])(own)
            jacobian = torch.cat([rows[n].reshape(len(z), -1) for n in own], 1)[:, alive]
            p = z.softmax(0)
            newton += jacobian.T @ (p.diag() - p.outer(p)) @ jacobian
            slope = jacobian.T @ (p - F.one_hot(t, len(z)))
            fisher += slope.outer(slope)
    return {"gauss-newton": newton / problem.samples, "fisher": fisher / problem.samples}


@both_modes
@pytest.mark.parametrize("chunk", [3, None])
@pytest.mark.parametrize("matrix", ["gauss-newton", "fisher"])
@pytest.mark.parametrize("name", ["softmax_regression", "tanh_mlp", "masked_mlp", "residual_net"])
def test_gauss_newton_and_fisher(name: str, matrix: str, chunk: int | None, mode: str) -> None:
    problem = cases.CASES[name]()
    curvature = Curvature(problem, matrix=matrix, mode=mode, chunk=chunk)
    _agree(curvature, _explicit(name)[matrix])
    _close(curvature.gradient, cases.dense_gradient(problem))


@both_modes
@pytest.mark.parametrize("matrix", ["gauss-newton", "fisher"])
def test_they_are_symmetric_and_bend_up_only(matrix: str, mode: str) -> None:
    came = _columns(Curvature(cases.masked_mlp(), matrix=matrix, mode=mode))
    _close(came, came.T)
    values = torch.linalg.eigvalsh(came)
    assert values[0] > -1e-12 * values[-1]
    assert values[-1] > 0
    assert torch.linalg.eigvalsh(cases.hessian_of("masked_mlp"))[0] < -1e-3


@both_modes
def test_gauss_newton_of_a_linear_regression_is_its_hessian(mode: str) -> None:
    problem = cases.linear_regression()
    curvature = Curvature(problem, matrix="gauss-newton", mode=mode)
    _close(_columns(curvature), cases.hessian_of("linear_regression"))


@both_modes
def test_fisher_of_a_regression_is_the_mean_of_outer_products(mode: str) -> None:
    problem = cases.tied_weights()
    slopes = [
        Problem(problem.net, [(a[None], t[None])], loss=F.mse_loss).gradient()
        for x, y in problem.batches
        for a, t in zip(x, y, strict=True)
    ]
    curvature = Curvature(problem, matrix="fisher", mode=mode)
    _close(_columns(curvature), sum(s.outer(s) for s in slopes) / len(slopes))


class Named(nn.Linear):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x)}


def _named() -> Problem:
    return Problem(
        cases._net(lambda: Named(5, 4)),
        cases.classes((9, 3), (5,), 4),
        loss=lambda z, y: F.cross_entropy(z["logits"], y),
    )


@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
def test_the_hessian_of_a_net_whose_output_is_a_dict(mode: str) -> None:
    hessian = _columns(Curvature(_named(), mode=mode))
    _close(hessian, cases.hessian_of("softmax_regression"))


@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
@pytest.mark.parametrize("matrix", ["gauss-newton", "fisher"])
def test_an_output_that_is_not_a_tensor_is_refused(matrix: str, mode: str) -> None:
    with pytest.raises(ValueError, match="output"):
        Curvature(_named(), matrix=matrix, mode=mode)


class Tokens(nn.Module):
    """A net that puts the three tokens of a sample in rows of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(-1, 2))


@both_modes
def test_fisher_of_outputs_in_rows_by_token_goes_by_samples_or_is_refused(mode: str) -> None:
    net = cases._net(Tokens)
    x = cases.classes((5,), (3, 2), 4)[0][0]
    y = torch.arange(15).view(5, 3) % 4
    problem = Problem(net, [(x, y)], loss=lambda z, t: F.cross_entropy(z, t.flatten()))
    slopes = [
        problem.replace(batches=[(a[None], t[None])]).gradient() for a, t in zip(x, y, strict=True)
    ]
    expected = sum(s.outer(s) for s in slopes) / len(slopes)
    try:
        came = _columns(Curvature(problem, matrix="fisher", mode=mode))
    except ValueError:
        return
    _close(came, expected)


# memory, batches and chunks


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "fisher"])
@both_modes
def test_without_memory_the_product_is_the_same(mode: str, matrix: str) -> None:
    problem = cases.relu_cnn()
    v = _vector(problem)
    kept, anew = (Curvature(problem, mode=mode, matrix=matrix, memory=m, chunk=5) for m in (1, 0))
    assert kept.nbytes > 0
    assert anew.nbytes == 0
    assert torch.equal(kept(v), anew(v))
    assert torch.equal(kept.gradient, anew.gradient)


@both_modes
def test_what_fits_is_kept(mode: str) -> None:
    problem = cases.tanh_mlp()
    whole = Curvature(problem, mode=mode, chunk=4, memory=1)
    budget = 0.6 * whole.nbytes
    some = Curvature(problem, mode=mode, chunk=4, memory=budget / 2**30)
    assert 0 < some.nbytes <= budget
    v = _vector(problem)
    assert torch.equal(some(v), whole(v))


@both_modes
@pytest.mark.parametrize("counts", [(96, 4), (1, 99), (50, 50), (1,) * 100])
def test_batches_count_by_their_samples(counts: tuple[int, ...], mode: str) -> None:
    whole = cases.tanh_mlp().replace(batches=cases.classes((100,), (4,), 3))
    parts = _parts(whole, counts)
    hessian, v = cases.dense_hessian(whole), _vector(whole)
    for chunk in (None, 30):
        _close(Curvature(parts, mode=mode, chunk=chunk)(v), hessian @ v)


def test_small_batches_go_together() -> None:
    problem = cases.tanh_mlp().replace(batches=cases.classes((3,) * 10, (4,), 3))
    assert _counts(problem) == [24, 6]  # at most eight times what the caller thought of
    assert _counts(problem, chunk=7) == [6] * 5
    assert _counts(problem, chunk=2) == [2, 1] * 10


def test_a_chunk_is_as_many_images_as_fill_the_processor() -> None:
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), []
    batches = [(torch.zeros(130, 3, 32, 32), torch.arange(130) % 2)]
    problem = Problem(Spy(net, seen), batches, params="*.bias")
    curvature = Curvature(problem, memory=0, mode="retained")
    seen.clear()
    curvature(torch.ones(2))
    assert seen == [128, 2]


class Limited(nn.Module):
    """A net that runs out of memory with more than some samples, once that is set."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.most, self.seen = net, None, []

    def forward(self, x: Tensor) -> Tensor:
        if self.most is not None and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(len(x))
        return self.net(x)


def _limited(**options: object) -> tuple[Problem, Limited]:
    net = Limited(cases.tanh_mlp().net)
    problem = Problem(net, cases.classes((16, 16), (4,), 3), **options)
    return problem, net


@pytest.mark.parametrize("memory", [0, None])
@both_modes
def test_chunks_are_halved_until_they_fit(mode: str, memory: float | None) -> None:
    problem, net = _limited()
    gradient, v = problem.gradient(), _vector(problem)
    expected = problem.hvp(v)
    assert problem.separable
    net.most = 5
    net.seen.clear()
    curvature = Curvature(problem, mode=mode, memory=memory)
    _close(curvature(v), expected)
    _close(curvature.gradient, gradient)
    assert 4 in net.seen
    assert curvature.nbytes > 0 or memory == 0


@both_modes
def test_chunks_are_halved_in_a_product(mode: str) -> None:
    problem, net = _limited()
    v = _vector(problem)
    curvature = Curvature(problem, mode=mode, memory=0)
    before = curvature(v)
    net.most = 3
    _close(curvature(v), before)
    assert net.seen[-1] == 2


@pytest.mark.parametrize("most", [0, 3], ids=["nothing fits", "the probe does not"])
def test_too_little_memory_for_a_probe_is_said(most: int) -> None:
    problem, net = _limited()
    assert problem.separable
    net.most = most
    net.train()
    with pytest.raises(torch.OutOfMemoryError, match=r"cpu .* 4 samples .*--batch.*--memory"):
        Curvature(problem)
    assert net.training


def test_a_batch_that_does_not_fit_and_cannot_be_parted_is_said() -> None:
    problem, net = _limited(batch_norm="train")
    assert not problem.separable
    net.most = 15
    with pytest.raises(torch.OutOfMemoryError, match=r"out of memory: cpu .* 16 samples"):
        Curvature(problem)


summed = partial(F.cross_entropy, reduction="sum")


@both_modes
@pytest.mark.parametrize("counts", [(9,), (4, 5), (6, 3), (1, 8), (2, 6, 1)])
def test_a_sum_is_the_same_in_all_batches_and_chunks(counts: tuple[int, ...], mode: str) -> None:
    problem = _parts(Problem(cases.tanh_mlp().net, cases.classes((9,), (4,), 3)), counts)
    problem = problem.replace(loss=summed)
    curvature, v = Curvature(problem, mode=mode, chunk=2), _vector(problem)
    _close(curvature(v), cases.dense_hessian(problem) @ v)
    _close(curvature.gradient, cases.dense_gradient(problem))
    assert curvature.doubts == []
    assert max(_counts(problem, chunk=2)) == 2
    fisher = Curvature(problem, mode=mode, matrix="fisher", chunk=2)
    _close(fisher(v), 9 * Curvature(problem.replace(loss=F.cross_entropy), matrix="fisher")(v))


def test_a_small_loss_does_not_hide_a_sum() -> None:
    net = cases.tanh_mlp().net
    inputs = [x for x, _ in cases.classes((8, 4), (4,), 3)]
    batches = [(x.float(), net(x).detach().float() + 1e-4) for x in inputs]
    problem = Problem(net.float(), batches, loss=partial(F.mse_loss, reduction="sum"))
    v = _vector(problem).float()
    _close(Curvature(problem, mode="retained")(v), problem.hvp(v), rtol=1e-5)


def test_means_raise_no_doubts() -> None:
    assert all(Curvature(make(), mode="tape").doubts == [] for make in cases.CASES.values())


@both_modes
@pytest.mark.parametrize("name", ["relu_cnn", "residual_net", "in_place_relu"])
def test_batch_norm_by_batches_keeps_the_batches(name: str, mode: str) -> None:
    problem = cases.CASES[name]()
    if name == "in_place_relu":
        problem = _parts(problem, (7, 4))
    problem = problem.replace(batch_norm="train")
    counts = [len(y) for _, y in problem.batches]
    assert len(counts) > 1
    assert _counts(problem, chunk=1) == counts
    curvature, v = Curvature(problem, mode=mode, chunk=1), _vector(problem)
    net = copy.deepcopy(problem.net).train()
    losses = [F.cross_entropy(net(x), y) * len(y) for x, y in problem.batches]
    weights = list(net.parameters())
    parts = torch.autograd.grad(sum(losses) / sum(counts), weights, create_graph=True)
    slope = torch.cat([g.flatten() for g in parts])
    bend = torch.cat([h.flatten() for h in torch.autograd.grad(slope @ v, weights)])
    _close(curvature(v), bend, rtol=1e-11)
    _close(curvature.gradient, slope.detach())
    assert curvature.doubts == []


# units of filters


@both_modes
@pytest.mark.parametrize("name", ["tanh_mlp", "relu_cnn", "masked_cnn"])
def test_units_of_filters_are_on_both_sides(name: str, mode: str) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    d = filter_norms(problem)
    assert len(d.unique()) > 3
    curvature = Curvature(problem, norm="filter", mode=mode)
    _close(_columns(curvature), d[:, None] * hessian * d)
    _close(curvature.gradient, d * cases.dense_gradient(problem))


def test_units_of_filters_do_not_see_the_scale_of_a_filter() -> None:
    def made(factor: float) -> Problem:
        net = cases._net(
            lambda: nn.Sequential(
                nn.Linear(4, 5, bias=False),
                nn.BatchNorm1d(5, eps=1e-30),
                nn.Tanh(),
                nn.Linear(5, 3),
            )
        )
        with torch.no_grad():
            net[0].weight[2] *= factor
            net[1].running_mean[2] *= factor
            net[1].running_var[2] *= factor**2
        return Problem(net, cases.classes((12,), (4,), 3))

    one, other = made(1.0), made(8.0)
    assert one.value() == pytest.approx(other.value(), abs=1e-14)
    spectra = {
        norm: [torch.linalg.eigvalsh(_columns(Curvature(p, norm=norm))) for p in (one, other)]
        for norm in ("filter", "none")
    }
    _close(*spectra["filter"])
    assert not torch.allclose(*spectra["none"], rtol=0.1)


# how it behaves


def _hash(t: Tensor | None) -> str | None:
    return None if t is None else hashlib.sha256(t.detach().numpy().tobytes()).hexdigest()


def _state(net: nn.Module) -> list[object]:
    """All that a caller could notice."""
    return [
        *((n, id(p), p._version, p.requires_grad, _hash(p)) for n, p in net.named_parameters()),
        *((n, id(p.grad), _hash(p.grad)) for n, p in net.named_parameters()),
        *((n, id(b), b._version, _hash(b)) for n, b in net.named_buffers()),
        *((n, m.training, len(m._forward_hooks)) for n, m in net.named_modules()),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.is_grad_enabled(),
        torch.random.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002
        torch.backends.cuda.flash_sdp_enabled(),
    ]


@pytest.mark.parametrize("matrix", ["hessian", "fisher"])
@pytest.mark.parametrize("policy", ["eval", "train"])
@pytest.mark.parametrize("mode", ["auto", "tape", "retained"])
def test_the_callers_world_is_left_alone(mode: str, policy: str, matrix: str) -> None:
    if policy == "train":
        matrix = "hessian"
    problem = cases.masked_cnn()
    net = problem.net.train()
    net[4].eval()
    net[1].weight.requires_grad_(False)
    net[0].weight.grad = torch.full_like(net[0].weight, 7.0)
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        state = _state(net)
        problem = problem.replace(batch_norm=policy)
        data = [_hash(t) for batch in problem.batches for t in batch]
        weights = problem.weights.clone()
        v = _vector(problem)
        before = v.clone()
        curvature = Curvature(problem, mode=mode, matrix=matrix, memory=0, norm="filter")
        curvature(v)
        assert _state(net) == state
        assert [_hash(t) for batch in problem.batches for t in batch] == data
        assert torch.equal(problem.weights, weights)
        assert torch.equal(v, before)
    finally:
        torch.set_float32_matmul_precision(own)


@both_modes
def test_gradients_may_be_off_around_it(mode: str) -> None:
    problem, v = cases.tanh_mlp(), _vector(cases.tanh_mlp())
    with torch.no_grad():
        product = Curvature(problem, mode=mode)(v)
    _close(product, cases.hessian_of("tanh_mlp") @ v)
    assert not product.requires_grad


@both_modes
def test_a_product_again_is_the_same_to_the_bit(mode: str) -> None:
    problem = cases.residual_net()
    curvature, u, v = Curvature(problem, mode=mode), _vector(problem), _vector(problem, 1)
    first = curvature(v)
    kept = first.clone()
    curvature(u)
    assert torch.equal(curvature(v), kept)
    assert torch.equal(first, kept)
    assert curvature.products == 3


def test_the_weights_are_those_of_the_construction() -> None:
    problem = cases.tanh_mlp()
    v = _vector(problem)
    curvatures = [Curvature(problem, mode="tape", memory=m) for m in (0, 1)]
    with torch.no_grad():
        problem.net[0].weight.add_(1)
    for curvature in curvatures:
        _close(curvature(v), cases.hessian_of("tanh_mlp") @ v)


@both_modes
@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "fisher"])
@pytest.mark.parametrize("name", ["tanh_mlp", "residual_net", "masked_cnn"])
def test_float32_agrees_with_float64(name: str, matrix: str, mode: str) -> None:
    exact = cases.CASES[name]()
    batches = [(x.float(), y) for x, y in exact.batches]
    rough = Problem(copy.deepcopy(exact.net).float(), batches, mask=exact.mask)
    v = _vector(exact)
    one, two = (Curvature(p, matrix=matrix, mode=mode) for p in (rough, exact))
    came = one(v.float())
    assert came.dtype == torch.float32
    _close(came.double(), two(v), rtol=1e-4)
    _close(one.gradient.double(), two.gradient, rtol=1e-4)


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix": "hesian"}, r"unknown matrix 'hesian'; did you mean 'hessian'\?"),
        ({"norm": "filtr"}, r"unknown norm 'filtr'; did you mean 'filter'\?"),
        ({"norm": "layer"}, r"unknown norm 'layer'.*Known: filter, none"),
        ({"mode": "retaind"}, r"unknown mode of products 'retaind'; did you mean 'retained'\?"),
        ({"mode": "fastest"}, r"'fastest'.*auto, compiled, retained, tape"),
        ({"mode": "forward"}, r"'forward'.*auto, compiled, retained, tape"),
        ({"memory": -1}, r"memory=-1: need 0 GiB or more"),
        ({"memory": float("nan")}, r"memory=nan: need 0 GiB or more"),
        ({"chunk": 0}, r"chunk=0: need 1 sample or more"),
        ({"chunk": -3}, r"chunk=-3: need 1 sample or more"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curvature(cases.tanh_mlp(), **options)


@pytest.mark.parametrize("size", [0, 1, 82, 84])
@pytest.mark.parametrize("norm", ["none", "filter"])
def test_a_vector_of_another_length_is_refused(norm: str, size: int) -> None:
    curvature = Curvature(cases.tanh_mlp(), norm=norm, mode="tape")
    with pytest.raises(ValueError, match=r"need \(83,\), one number for each live weight"):
        curvature(torch.zeros(size).double())


def test_a_mode_that_disagrees_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import sparsediag.curvature.engines as module

    class Wrong(module.Tape):
        def product(self, *args: object) -> list[Tensor]:
            return [p * 1.001 for p in super().product(*args)]

    monkeypatch.setitem(module.ENGINES, "tape", Wrong)
    assert Curvature(cases.tanh_mlp()).mode == "retained"
    with pytest.raises(ValueError, match=r"mode 'tape' cannot .* off by 1\.0e-03; use mode='auto'"):
        Curvature(cases.tanh_mlp(), mode="tape")


def test_a_failure_of_the_net_comes_through_and_leaves_the_modes() -> None:
    net = cases.tanh_mlp().net.train()
    calls: list[Callable] = []

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if calls:
            raise KeyError("no loss today")
        return F.cross_entropy(z, y)

    problem = Problem(net, cases.classes((4,), (4,), 3), loss=loss)
    calls.append(loss)
    with pytest.raises(KeyError, match="no loss today"):
        Curvature(problem)
    assert net.training


# nets that are particular


def test_a_product_that_is_over_is_forgotten() -> None:
    from sparsediag.core.double_backward import DoubleBackward

    problem = cases.relu_cnn()
    kept = DoubleBackward(
        problem.batch_loss(problem.batches[0]), list(problem.split(problem.weights).values())
    )
    slope = weakref.ref(kept._gradient[0])
    assert kept.nbytes > 0
    del kept
    gc.collect()
    assert slope() is None


def test_half_precision_is_refused() -> None:
    x, y = cases.classes((4,), (4,), 3)[0]
    problem = Problem(nn.Linear(4, 3).bfloat16(), [(x.bfloat16(), y)])
    with pytest.raises(ValueError, match="bfloat16; need float32 or float64"):
        Curvature(problem)


def test_a_fisher_matrix_of_samples_that_see_each_other_is_refused() -> None:
    problem = cases.relu_cnn().replace(batch_norm="train")
    with pytest.raises(ValueError, match="separate samples"):
        Curvature(problem, matrix="fisher")
