"""Nets of many forms through every diagnostic and pruning score.

The right values are differences of the loss of a plain copy, which is called as any module: no
gradient of autograd and no `functional_call` is trusted.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import Net
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import grad, jacrev, jvp, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import sparsediag as sd
from training.masks import grasp, snip, synflow

pytestmark = [  # torch's own about these nets; plain calls give them too
    pytest.mark.filterwarnings(f"ignore:.*{text}")
    for text in (
        ".*torch.jit.* is deprecated",
        "None of the inputs have",
        "Full backward hook",
        "SynFlow",
    )
]
BATCHES = cases.classes((4,), (4,), 3)
X, Y = BATCHES[0]


def _body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def _of(run: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(lambda net, x: run(net.body, x), body=_body())


def _checkpointed(*, reentrant: bool, first: bool = False) -> Callable[[], nn.Module]:
    def run(net: Any, x: Tensor) -> Tensor:
        x = x if first else net.lift(x)
        return net.out(checkpoint(net.body, x, use_reentrant=reentrant)) * net.weight

    body = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    return lambda: Net(run, lift=nn.Linear(4, 4), body=body, out=nn.Linear(3, 3))


def _forces(body: nn.Module, x: Tensor) -> Tensor:
    x.requires_grad_()
    return torch.autograd.grad(body(x).square().sum(), x, create_graph=True)[0][:, :3]


def _with_inputs(body: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    return body(x.requires_grad_()), x


def _residual(outputs: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
    """A physics-informed loss: that of du/dx = u."""
    u, x = outputs
    (slope,) = torch.autograd.grad(u[:, 0].sum(), x, create_graph=True)
    return (slope[:, 0] - u[:, 0]).square().mean()


def _backward(body: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(body(x).sum(), x, create_graph=True)
    return body(x) + slope[:, :3]


def _jvp(body: nn.Module, x: Tensor) -> Tensor:
    value, tangent = jvp(body, (x,), (torch.ones_like(x),))
    return value + tangent


def _in_place(body: nn.Module, x: Tensor) -> Tensor:
    x.mul_(2)
    hidden = body[0](x)
    hidden[:, 0] = hidden[:, 1] * 2
    filled = torch.zeros_like(x[:, :3])
    filled[:] = body[2](hidden.tanh_())
    return filled


def _weightless() -> nn.Module:
    net = Net(lambda net, x: net.body(x) * net.weight, body=_body(), idle=nn.Linear(2, 2))
    net.none = nn.Parameter(torch.zeros(0, 3))
    return net


def _complex() -> nn.Module:
    net = Net(lambda net, x: net.body((net.phase * x).real) * net.weight, body=_body())
    phase = torch.polar(torch.ones(4).double(), torch.arange(4).double())
    net.phase = nn.Parameter(phase, requires_grad=False)
    return net


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    net[2].weight = net[0].weight
    return net


def _layer(change: Callable[[nn.Linear], Any], size: int = 3) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, size), nn.Tanh(), nn.Linear(size, 3))
        change(net[0])
        return net.eval()

    return make


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).mT


def _hooked(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda _m, _x, out: 2 * out)
    layer.register_full_backward_hook(lambda *_: None)


def _script(trace: bool) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = _body().double()
        return torch.jit.trace(net, X) if trace else torch.jit.script(net)

    return make


@dataclass
class Output:
    logits: Tensor
    hidden: Any = None


class Entries(OrderedDict[str, Any]):
    """Outputs that are read as attributes too, as Hugging Face's are."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Standardised(nn.Linear):
    """Weight standardisation whose derivative at an empty row is 0 / 0."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean(1, keepdim=True)
        deviation = w.square().mean(1, keepdim=True).sqrt()
        return F.linear(x, w / (deviation + 0.1), self.bias)


class Deviation(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / (self.weight.std(1, keepdim=True) + 0.1), self.bias)


class Cleaned(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight / self.weight.norm(dim=1, keepdim=True)
        return F.linear(x, w.nan_to_num(), self.bias)


def _normed(layer: type[nn.Linear]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer(4, 3), nn.Tanh(), nn.Linear(3, 3))


EMPTY_ROW = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
FORMS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "unused layers": (_weightless, {}),
    "forces": (_of(_forces), {}),
    "forces that turn gradients on": (_of(_backward), {}),
    "a differential equation": (_of(_with_inputs), {"loss": _residual}),
    "vmap": (_of(lambda body, x: vmap(body)(x)), {}),
    "grad": (_of(lambda body, x: vmap(grad(lambda v: body(v).sum()))(x)[:, :3]), {}),
    "jacrev": (_of(lambda body, x: body(x) + vmap(jacrev(body))(x).sum(-1)), {}),
    "jvp": (_of(_jvp), {}),
    "reentrant checkpoint": (_checkpointed(reentrant=True), {}),
    "reentrant checkpoint of the input": (_checkpointed(reentrant=True, first=True), {}),
    "checkpoint": (_checkpointed(reentrant=False), {}),
    "checkpointed blocks": (
        _of(lambda body, x: checkpoint_sequential(body, 2, x, use_reentrant=False)), {},
    ),
    "script": (_script(trace=False), {}),
    "trace": (_script(trace=True), {}),
    "script inside": (lambda: nn.Sequential(_script(trace=False)(), nn.Linear(3, 3).double()), {}),
    "complex weights that are fixed": (_complex, {}),
    "tied weights": (_tied, {}),
    "in place": (_of(_in_place), {}),
    "hooks": (_layer(_hooked), {}),
    "parametrisation": (
        _layer(lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()), 4),
        {},
    ),
    "spectral norm": (_layer(parametrizations.spectral_norm), {}),
    "weight norm": (_layer(parametrizations.weight_norm), {}),
    "orthogonal": (_layer(parametrizations.orthogonal, 4), {}),
    "dict": (_of(lambda body, x: body(x)), {"wrap": lambda z: {"logits": z, "hidden": z}}),
    "tuple": (
        _of(lambda body, x: body(x)),
        {"wrap": lambda z: (z, {"hidden": z}), "loss": lambda z, y: F.cross_entropy(z[0], y)},
    ),
    "dataclass": (_of(lambda body, x: body(x)), {"wrap": Output}),
    "entries": (
        _of(lambda body, x: body(x)),
        {"wrap": lambda z: Entries(logits=z), "loss": lambda z, y: F.cross_entropy(z.logits, y)},
    ),
    "an empty row, sqrt": (_normed(Standardised), {"mask": {"0.weight": EMPTY_ROW}}),
    "an empty row, std": (_normed(Deviation), {"mask": {"0.weight": EMPTY_ROW}}),
    "an empty row, 0 / 0": (_normed(Cleaned), {"mask": {"0.weight": EMPTY_ROW}}),
}  # fmt: skip


def _wrapped(net: nn.Module, wrap: Callable[[Tensor], Any]) -> nn.Module:
    run = net.run
    net.run = lambda *args: wrap(run(*args))
    return net


def _problem(form: str) -> sd.Problem:
    make, options = FORMS[form]
    options = dict(options)
    net = make() if "complex" in form else cases._net(make)
    if "complex" in form:
        net = Net(net.run, body=net.body.double()).double()
        net.phase = make().phase
    if "wrap" in options:
        net = _wrapped(net, options.pop("wrap"))
    if "mask" in options:
        options["mask"] = sd.Mask(options["mask"])
    return sd.Problem(net, BATCHES, **options)


class PlainLoss:
    """The loss of a copy of the net at other weights, by an ordinary forward pass."""

    def __init__(self, problem: sd.Problem) -> None:
        self.problem, self.net = problem, copy.deepcopy(problem.net).eval()

    def __call__(self, weights: Tensor) -> float:
        parameters = dict(self.net.named_parameters())
        for name, w in self.problem.split(weights).items():
            parameters[name].data.copy_(w)
        outputs = self.net(X.clone())
        return self.problem.loss(outputs, Y).item()

    def derivatives(self, v: Tensor, h: float = 1e-3) -> tuple[float, float]:
        """Return the first and the second derivative along a vector, to fourth order."""
        w = self.problem.weights
        up, down, up2, down2 = (self(w + t * v) for t in (h, -h, 2 * h, -2 * h))
        first = (8 * (up - down) - (up2 - down2)) / (12 * h)
        second = (16 * (up + down) - (up2 + down2) - 30 * self(w)) / (12 * h**2)
        return first, second


THOROUGH = ("forces", "vmap", "checkpoint", "script", "an empty row, sqrt")  # one of a kind


@pytest.mark.parametrize("form", FORMS)
def test_every_diagnostic_has_the_values_of_plain_differences(form: str) -> None:
    problem = _problem(form)
    before = {n: t.clone() for n, t in problem.net.state_dict().items()}
    plain, w = PlainLoss(problem), problem.weights
    v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0)).double()
    v /= v.norm()
    slope, bend = plain.derivatives(v)
    assert problem.value() == pytest.approx(plain(w), abs=1e-14)
    assert float(problem.gradient() @ v) == pytest.approx(slope, abs=1e-9)
    assert float(problem.hvp(v) @ v) == pytest.approx(bend, abs=1e-6)
    moved = problem.gradient(w + 0.1 * v) @ v  # away from the weights that the net holds
    up, down = plain(w + 0.1001 * v), plain(w + 0.0999 * v)
    assert float(moved) == pytest.approx((up - down) / 2e-4, abs=1e-6)
    top = sd.spectrum(problem, top=1)
    assert top.converged
    _, along = plain.derivatives(torch.from_numpy(top.vectors[0]))
    assert top.eigenvalues[0] == pytest.approx(along, rel=1e-3)
    on = sd.plane(problem, dims=1)
    ends = [plain(w + t * on.directions[0]) for t in (-1, 0, 1)]
    seen = sd.landscape(on, points=3, curvature=True)
    np.testing.assert_allclose(seen.loss, ends, rtol=0, atol=1e-12)
    unit = on.directions[0] / on.directions[0].norm()
    assert seen.curvature[0] == pytest.approx(plain.derivatives(unit)[1], abs=1e-6)
    if form in THOROUGH:
        assert sd.perturbation(problem, points=3, along=top).agrees.all()
        assert np.isfinite(sd.gradflow(problem).flow).all()
    for name, value in snip.scores(problem).items():
        direct = problem.split(problem.gradient() * w)[name].abs()
        torch.testing.assert_close(value, direct)
    assert all(torch.equal(t, before[n]) for n, t in problem.net.state_dict().items())
    assert all(p.grad is None for p in problem.net.parameters())


SCRIPTS = ("script", "trace", "script inside")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_observed_and_scored(form: str) -> None:
    problem = _problem(form)
    if form in SCRIPTS:
        for diagnostic in (sd.activations, sd.signal):
            with pytest.raises(ValueError, match="TorchScript, whose layers cannot be observed"):
                diagnostic(problem)
    else:
        assert len(sd.activations(problem, modules="*").names) > 0
        assert np.isfinite(sd.signal(problem, modules="*").rms).all()
    if problem.loss is _residual:  # a row of the outputs is no function of a row of the inputs
        with pytest.raises(ValueError, match="the part of the outputs that is one image's"):
            sd.inputscape(problem, points=3, count=1)
    elif problem.mask is None:
        seen = sd.inputscape(problem, points=3, count=1)
        outputs = copy.deepcopy(problem.net).eval()(X[:1].clone())
        assert seen.centre[0] == pytest.approx(problem.loss(outputs, Y[:1]).item(), abs=1e-14)
    if problem.loss is not _residual:  # outputs / temperature are no function of the inputs
        assert all(t.isfinite().all() for t in grasp.scores(problem).values())
    assert synflow.Synflow(density=0.5, steps=2).start(problem, [], seed=0).density <= 0.5


@pytest.mark.parametrize("form", ["dict", "tuple", "dataclass", "entries"])
def test_grasp_divides_the_logits_wherever_they_are(form: str) -> None:
    bare = sd.Problem(cases._net(_of(lambda body, x: body(x))), BATCHES)
    for name, score in grasp.scores(_problem(form), temperature=3.0).items():
        torch.testing.assert_close(score, grasp.scores(bare, temperature=3.0)[name])


# layers that the loss does not use


def test_layers_that_the_loss_does_not_use_have_no_curvature() -> None:
    problem = _problem("unused layers")
    idle = problem.view(params="idle.*")
    assert not idle.gradient().any()
    assert not idle.hvp(torch.ones(idle.size).double()).any()
    by_layer = sd.blocks(problem, by="layer")
    assert by_layer.eigenvalues[by_layer.names.index("idle"), 0] == 0
    for matrix in ("gauss-newton", "fisher"):
        assert sd.spectrum(idle, top=1, matrix=matrix).eigenvalues[0] == 0
    assert sd.trace(idle).trace == 0


@pytest.mark.parametrize(
    "cut",
    [
        lambda body, x: body(x).detach(),
        lambda body, x: F.one_hot(body(x).argmax(1), 3).to(x),
        lambda body, x: _detached_forces(body, x),
    ],
    ids=["detach", "argmax", "create_graph"],
)
def test_a_gradient_that_is_cut_off_is_not_taken_for_zero(cut: Any) -> None:
    net = cases._net(
        lambda: Net(lambda net, x: net.out(cut(net.body, x)), body=_body(), out=nn.Linear(3, 3))
    )
    with pytest.raises(ValueError, match=r"has no gradient: .*create_graph=True"):
        sd.Problem(net, BATCHES, params="body.*").gradient()


def _detached_forces(body: nn.Module, x: Tensor) -> Tensor:
    x.requires_grad_()
    return torch.autograd.grad(body(x).square().sum(), x, create_graph=body.training)[0][:, :3]


# nets without a second derivative


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh().square())


def _ctc(z: Tensor, y: Tensor) -> Tensor:
    scores = z.log_softmax(-1).expand(5, *z.shape)
    n = len(y)
    return F.ctc_loss(scores, 1 + y[:, None] % 2, torch.full((n,), 5), torch.ones(n).long())


@pytest.mark.parametrize("kind", ["once", "ctc", "bfloat16", "float16"])
def test_what_has_no_second_derivative_has_a_landscape(kind: str) -> None:
    net, batches, options = cases._net(_body), BATCHES, {}
    if kind == "once":
        body = net
        net = Net(lambda net, x: net.body[2](Once.apply(net.body[0](x))), body=body).double()
    if kind == "ctc":
        options = {"loss": _ctc}
    if "float" in kind:
        dtype = getattr(torch, kind)
        net, batches = net.to(dtype), [(X.to(dtype), Y)]
    problem = sd.Problem(net, batches, params="body.*" if kind == "once" else None, **options)
    seen = sd.landscape(problem, points=3, curvature=True)
    assert np.isfinite(seen.loss).all()
    assert seen.loss[1, 1] == pytest.approx(problem.value(), rel=1e-2)
    assert np.isfinite(sd.gradflow(problem).flow).all()
    if kind == "once":  # the tape has its second derivative, and differences agree with it
        top = sd.spectrum(problem, top=1)
        bend = PlainLoss(problem).derivatives(torch.from_numpy(top.vectors[0]))[1]
        assert top.converged
        assert top.eigenvalues[0] == pytest.approx(bend, rel=1e-3)
        with pytest.raises(ValueError, match=r"differentiated twice: .*@once_diff"):
            problem.hvp()
        return
    assert np.isnan(seen.curvature).all()
    assert any(line.startswith("no curvature along the axes: ") for line in seen.doubts)
    match = "need float32 or float64" if "float" in kind else "differentiated twice: .*ctc"
    for diagnostic in (sd.spectrum, sd.trace, sd.blocks, sd.perturbation):
        with pytest.raises(ValueError, match=match):
            diagnostic(problem)


# rows that the mask empties


def test_a_net_that_divides_an_empty_row_by_its_norm_is_refused_with_the_cause() -> None:
    net = cases._net(lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))))
    mask = sd.Mask({"0.parametrizations.weight.original1": EMPTY_ROW})
    with pytest.raises(ValueError, match=r"loss is nan .* mask empties rows of 0\.param.*norm"):
        sd.Problem(net, BATCHES, mask=mask)


def test_complex_weights_that_move_are_refused_with_a_way_out() -> None:
    net = _complex().double()
    net.phase.requires_grad_(True)
    with pytest.raises(ValueError, match=r"'phase' is complex; .*params="):
        sd.Problem(net, BATCHES)
    assert sd.Problem(net, BATCHES, params="body.*").hvp().isfinite().all()
