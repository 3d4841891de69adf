"""Dead weights are exactly 0 in every forward pass, under any optimiser and any way to call it."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from sparsediag.models import build
from training.config import Run
from training.keeper import MaskedOptimizer
from training.loop import fit
from training.masks.learned import Learned
from training.masks.rigl import Rigl
from training.masks.set import Set
from training.optim import Optim

RUN = {"data": "digits", "mask": {"method": "random", "density": 0.1}}
CONVOLUTIONS = {"name": "resnet20", "width": 4}
STATES = {"sgd": {"momentum_buffer"}, "adam": {"exp_avg", "exp_avg_sq"}}
TINY = Mask({"weight": torch.tensor([[True, True, False, False]])})


class Noisy(optim.SGD):
    """An optimiser that moves every weight a little, dead or not, before and after its closure."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = closure() if closure else None
        for _ in range(2):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data += 1e-6
            loss = closure() if closure else loss
        super().step()
        return loss


class Sam(optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al., 2021) around SGD, with its two usual calls."""

    def __init__(self, params: Any, lr: float, rho: float) -> None:
        super().__init__(params, {"rho": rho})
        self.base = optim.SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def first_step(self) -> None:
        (group,) = self.param_groups
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        for p in group["params"]:
            self.state[p]["before"] = p.clone()
            p.add_(group["rho"] * p.grad / norm)

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["before"])
        self.base.step()

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        closure()
        self.first_step()
        loss = closure()
        self.second_step()
        return loss


def _net() -> tuple[nn.Module, Mask]:
    torch.manual_seed(0)
    net = build("lenet300", width=16, size=8)
    scores = {name: torch.rand_like(net.get_parameter(name)) for name in prunable(net)}
    mask = Mask.top(scores, 0.2)
    mask.apply_(net)
    return net, mask


def _step(net: nn.Module, optimiser: optim.Optimizer, keeper: MaskedOptimizer) -> None:
    optimiser.zero_grad()
    F.cross_entropy(net(torch.randn(16, 64)), torch.randint(0, 10, (16,))).backward()
    keeper.step()


def _tiny() -> tuple[nn.Linear, Tensor]:
    """Weights w, and inputs for which half the squared outputs are sum(a w^2) / 2, a = 1 to 4."""
    net = nn.Linear(4, 1, bias=False).double()
    net.weight.data = torch.tensor([[3.0, 2.0, 1.0, 1.0]]).double()
    return net, torch.arange(1.0, 5).double().sqrt().diag()


def _half_square(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).square().sum() / 2


@contextmanager
def _every_forward(net: nn.Module, mask: Mask = TINY) -> Iterator[None]:
    """Check that dead weights are exactly 0 in every forward pass inside."""
    seen = []

    def look(*_: Any) -> None:
        dead = [w[~mask[name]] for name, w in mask.weights_of(net).items()]
        seen.append(any(bool((w != 0).any()) for w in dead))

    with net.register_forward_pre_hook(look):
        yield
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("model", [CONVOLUTIONS, {"name": "mlp", "width": 16}], ids=["cnn", "mlp"])
def test_dead_weights_and_their_state_are_0_after_every_step(
    name: str, model: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray: list[int] = []
    seen: set[str] = set()

    class Watch(MaskedOptimizer):
        def count(self) -> None:
            super().count()
            assert self.mask is not None
            for weight, alive in zip(self.weights, self.mask.values(), strict=True):
                state = self.optimiser.state[weight]
                held = {"weight": weight} | {
                    key: t for key, t in state.items() if t.shape == weight.shape
                }
                seen.update(held)
                stray.append(sum(int((t[~alive] != 0).sum()) for t in held.values()))

    monkeypatch.setattr("training.masks.base.MaskedOptimizer", Watch)
    optim = {"name": name, "weight_decay": 0.01, "lr": 0.01, "epochs": 2, "batch_size": 390}
    path = fit(Run.of(RUN | {"model": model, "optim": optim}), out=tmp_path, device="cpu")
    assert path.exists()
    assert len(stray) >= 2 * 3
    assert not any(stray)
    assert seen == {"weight"} | STATES[name]


def test_live_weights_and_biases_move() -> None:
    net, mask = _net()
    before = {key: t.clone() for key, t in net.state_dict().items()}
    optimiser = Optim().build(net)
    _step(net, optimiser, MaskedOptimizer(net, mask, optimiser))
    for key, weight in net.named_parameters():
        moved = weight != before[key]
        alive = mask.get(key, torch.ones_like(moved))
        assert not moved[~alive].any()
        assert moved[alive].float().mean() > 0.5


def test_gradients_are_masked() -> None:
    net, mask = _net()
    weights = dict(net.named_parameters())
    first = next(iter(mask))
    for key, weight in weights.items():
        weight.grad = None if key == first else torch.ones_like(weight)
    MaskedOptimizer(net, mask, Optim().build(net)).mask_gradients()
    assert weights.pop(first).grad is None
    for key, weight in weights.items():
        expected = mask[key].float() if key in mask else torch.ones_like(weight)
        assert torch.equal(weight.grad, expected)  # type: ignore[arg-type]


# every optimiser


@pytest.mark.parametrize(
    "make",
    [
        partial(optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.1),
        partial(optim.SGD, momentum=0.9, dampening=0.5, foreach=True),
        partial(optim.Adam, amsgrad=True, weight_decay=0.1, fused=True),
        partial(optim.AdamW, weight_decay=0.5),
        optim.Adadelta,
        optim.Adafactor,
        partial(optim.Adagrad, initial_accumulator_value=0.5),
        optim.Adamax,
        optim.ASGD,
        optim.NAdam,
        optim.RAdam,
        partial(optim.RMSprop, centered=True, momentum=0.5),
        optim.Rprop,
        optim.Muon,
        Noisy,
    ],
)
def test_live_weights_move_as_with_gradients_and_weights_that_are_masked_by_hand(make: Any) -> None:
    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 4, bias=False), torch.randn(9, 5), torch.randn(9, 4)
    mask = Mask({"weight": torch.rand(4, 5) < 0.5})
    plain = copy.deepcopy(net)
    mask.apply_(plain)
    optimiser, reference = (make(n.parameters(), lr=0.05) for n in (net, plain))
    masked = MaskedOptimizer(net, mask, optimiser)
    with _every_forward(net, mask):
        for _ in range(5):
            for n, step in ((net, masked.step), (plain, reference.step)):
                n.zero_grad()
                F.mse_loss(n(x), y).backward()
                if n is plain:
                    plain.weight.grad.mul_(mask["weight"])  # type: ignore[union-attr]
                step()
            mask.apply_(plain)
            assert torch.equal(net.weight, plain.weight)
        net(x)
    masked.assert_masked()


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_finds_the_least_squares_of_the_live_weights(search: str | None) -> None:
    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 1, bias=False).double(), torch.randn(9, 5), torch.randn(9, 1)
    x, y, alive = x.double(), y.double(), torch.tensor([True, False, True, True, False])
    mask = Mask({"weight": alive[None]})
    optimiser = optim.LBFGS(
        net.parameters(), tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn=search
    )
    masked = MaskedOptimizer(net, mask, optimiser)

    def closure() -> Tensor:
        net.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        return loss

    with _every_forward(net, mask):
        losses = [masked.step(closure).item() for _ in range(5)]
    best = torch.linalg.lstsq(x[:, alive], y).solution[:, 0]
    torch.testing.assert_close(net.weight.detach()[0, alive], best, rtol=1e-7, atol=1e-7)
    assert losses[0] > losses[-1]


@pytest.mark.parametrize("call", ["masked", "optimiser", "by hand"])
def test_sam_climbs_along_live_weights_only(call: str) -> None:
    net, x = _tiny()
    optimiser = Sam(net.parameters(), lr=0.1, rho=0.5)
    masked = MaskedOptimizer(net, TINY, optimiser)

    def closure() -> Tensor:
        net.zero_grad()
        loss = _half_square(net, x)
        loss.backward()
        return loss

    with _every_forward(net):
        if call == "by hand":
            closure()
            optimiser.first_step()
            closure()
            optimiser.second_step()
        else:
            (masked if call == "masked" else optimiser).step(closure)
    # gradient (3, 4) of norm 5, ascent by (0.3, 0.4), gradient there (3.3, 4.8)
    assert net.weight.tolist()[0] == pytest.approx([3 - 0.33, 2 - 0.48, 0, 0])


def test_every_pass_of_a_closure_sees_the_mask() -> None:
    net, x = _tiny()
    masked = MaskedOptimizer(net, TINY, Noisy(net.parameters(), lr=0.1))
    with _every_forward(net):
        masked.step(lambda: _half_square(net, x).backward())


# what reads gradients before a step


@pytest.mark.parametrize("call", ["optimiser", "masked"])
def test_a_gradient_scaler_steps_and_skips(call: str) -> None:
    net, x = _tiny()
    optimiser = optim.SGD(net.parameters(), lr=0.1)
    masked = MaskedOptimizer(net, TINY, optimiser)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for loss, expected in (
        (_half_square(net, x), [2.7, 1.6, 0, 0]),
        (_half_square(net, x) * math.inf, [2.7, 1.6, 0, 0]),
        (net.weight.sum() + net.weight[0, 3] * math.nan, [2.6, 1.5, 0, 0]),  # of a dead weight
    ):
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(masked if call == "masked" else optimiser)
        scaler.update()
        assert net.weight.tolist()[0] == pytest.approx(expected)
    assert scaler.get_scale() == 4
    masked.assert_masked()


def test_gradients_are_clipped_by_their_norm_over_live_weights() -> None:
    net, x = _tiny()
    masked = MaskedOptimizer(net, TINY, optim.SGD(net.parameters(), lr=1.0))
    _half_square(net, x).backward()
    assert nn.utils.clip_grad_norm_(net.parameters(), 1.0) == pytest.approx(5)
    masked.step()
    assert net.weight.tolist()[0] == pytest.approx([3 - 3 / 5, 2 - 4 / 5, 0, 0])


class Standardised(nn.Linear):
    """Divides each row of its weight by its standard deviation, whose gradient at 0 is nan."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / (self.weight.std(1, keepdim=True) + 1e-5))


def test_a_row_without_live_weights_may_have_a_gradient_that_is_nan() -> None:
    torch.manual_seed(0)
    net = Standardised(4, 3, bias=False)
    mask = Mask({"weight": torch.tensor([[True], [False], [True]]).expand(3, 4)})
    masked = MaskedOptimizer(net, mask, optim.Adam(net.parameters()))
    for _ in range(2):
        net.zero_grad()
        net(torch.randn(5, 4)).sum().backward()
        masked.step()
    assert net.weight.isfinite().all()
    assert torch.equal(net.weight != 0, mask["weight"])


def test_gradients_that_are_set_by_hand_are_masked_too() -> None:
    net, _ = _tiny()
    optimiser = optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    MaskedOptimizer(net, TINY, optimiser)
    net.weight.grad = torch.ones_like(net.weight)
    optimiser.step()
    assert net.weight.tolist() == [[2.5, 1.5, 0, 0]]
    assert optimiser.state[net.weight]["momentum_buffer"].tolist() == [[1, 1, 0, 0]]


def test_sparse_gradients_move_live_rows_only() -> None:
    net = nn.Embedding(3, 2, sparse=True)
    mask = Mask({"weight": torch.tensor([[True], [False], [True]]).expand(3, 2)})
    masked = MaskedOptimizer(net, mask, optim.SparseAdam(net.parameters(), lr=0.1))
    before = net.weight.detach().clone()
    net(torch.tensor([0, 1])).sum().backward()
    masked.step()
    moved = torch.tensor([[-0.1, -0.1], [0, 0], [0, 0]])
    torch.testing.assert_close(net.weight.detach() - before, moved)


# nets and optimisers


@pytest.mark.parametrize(
    "prefixes", [("", "_orig_mod."), ("module.", ""), ("", "module._orig_mod.")]
)
def test_names_with_and_without_the_prefixes_of_wrappers(prefixes: tuple[str, str]) -> None:
    net, x = _tiny()
    of_mask, of_net = prefixes
    wrapped = torch.compile(net, backend="eager") if "_orig_mod" in of_net else net
    wrapped = nn.DataParallel(wrapped) if "module" in of_net else wrapped
    assert next(name for name, _ in wrapped.named_parameters()) == f"{of_net}weight"
    mask = Mask({f"{of_mask}weight": TINY["weight"]})
    masked = MaskedOptimizer(wrapped, mask, optim.SGD(wrapped.parameters(), lr=0.1))
    for _ in range(2):
        net.zero_grad()
        _half_square(wrapped, x).backward()
        assert net.weight.grad is not None
        assert net.weight.grad[0, 2:].tolist() == [0, 0]
        masked.step()
    assert net.weight.tolist()[0] == pytest.approx([3 * 0.9**2, 2 * 0.8**2, 0, 0])


def test_layers_that_are_compiled_one_by_one() -> None:
    net = nn.Sequential(torch.compile(_tiny()[0], backend="eager"))
    Mask({"0.weight": TINY["weight"]}).apply_(net)
    assert net[0].weight.tolist() == [[3, 2, 0, 0]]


def test_several_optimisers_and_groups_added_later() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2))
    mask = Mask({f"{i}.weight": torch.rand_like(net[i].weight) < 0.5 for i in range(3)})
    muon = optim.Muon([net[0].weight], lr=0.1, weight_decay=0.1)
    noisy = Noisy([net[1].weight, net[0].bias], lr=0.1)
    masked = [MaskedOptimizer(net, mask, muon), MaskedOptimizer(net, mask, noisy)]
    noisy.add_param_group({"params": [net[2].weight], "lr": 0.2})
    before = {name: w.detach().clone() for name, w in net.named_parameters()}
    with _every_forward(net, mask):
        for _ in range(3):
            net.zero_grad()
            net(torch.randn(6, 4)).square().sum().backward()
            for m in masked:
                m.step()
        net(torch.randn(6, 4))
    assert all((net.get_parameter(name) != before[name])[m].all() for name, m in mask.items())


def test_the_state_of_a_dense_optimiser_is_masked_when_it_is_loaded() -> None:
    net, x = _tiny()
    dense = optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    _half_square(net, x).backward()
    dense.step()  # w = (2.7, 1.6, 0.7, 0.6), momentum (3, 4, 3, 4)
    optimiser = optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    masked = MaskedOptimizer(net, TINY, optimiser)
    optimiser.load_state_dict(dense.state_dict())
    loaded = optimiser.state[net.weight]["momentum_buffer"]
    assert loaded.tolist()[0] == pytest.approx([3, 4, 0, 0], rel=1e-12, abs=0)
    net.zero_grad()
    _half_square(net, x).backward()
    masked.step()
    assert net.weight.tolist()[0] == pytest.approx([2.7 - 0.42, 1.6 - 0.52, 0, 0])
    resumed = optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    resumed.load_state_dict(optimiser.state_dict())
    assert resumed.state[net.weight]["momentum_buffer"].tolist()[0] == pytest.approx(
        [4.2, 5.2, 0, 0]
    )


def test_copies_of_the_net_are_plain_and_averages_stay_masked() -> None:
    net, x = _tiny()
    masked = MaskedOptimizer(net, TINY, Noisy(net.parameters(), lr=0.1))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    _half_square(net, x).backward()
    masked.step()
    average.update_parameters(net)
    average.update_parameters(net)
    assert average.module.weight[0, 2:].tolist() == [0, 0]
    torch.save(net, file := io.BytesIO())
    file.seek(0)
    for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        other(x).sum().backward()
        assert other.weight.grad.count_nonzero() == 4


def test_the_mask_ends_with_its_optimiser_and_gives_way_to_the_next() -> None:
    net, x = _tiny()
    optimiser = optim.SGD(net.parameters(), lr=0.1)
    other = Mask({"weight": ~TINY["weight"]})
    live = {TINY: [1, 1, 0, 0], other: [0, 0, 1, 1], None: [1, 1, 1, 1]}

    def held() -> list[int]:
        net.weight.data.fill_(1)
        net.zero_grad()
        _half_square(net, x).backward()
        assert net.weight.grad is not None
        optimiser.step()
        return (net.weight.grad[0] != 0).int().tolist()

    for mask, expected in live.items():
        masked = MaskedOptimizer(net, mask, optimiser)
        assert held() == expected
    for mask, expected in live.items():
        masked.set_mask(mask)
        assert held() == expected
    masked.set_mask(TINY)
    del masked
    assert held() == [1, 1, 0, 0]
    optimiser = optim.SGD(net.parameters(), lr=0.1)
    assert held() == [1, 1, 1, 1]


# what cannot be held


def test_an_optimiser_of_copies_is_refused() -> None:
    net, _ = _tiny()
    with pytest.raises(ValueError, match=r"none of the 1 weights .* net\.parameters\(\)"):
        MaskedOptimizer(net, TINY, optim.SGD(copy.deepcopy(net).parameters()))
    assert net.weight.count_nonzero() == 4


def test_an_optimiser_of_the_head_may_leave_a_masked_backbone_alone() -> None:
    net = nn.Sequential(_tiny()[0], nn.Linear(1, 2).double())
    mask = Mask({"0.weight": TINY["weight"]})
    masked = MaskedOptimizer(net, mask, optim.SGD(net[1].parameters()))
    net(torch.ones(1, 4).double()).sum().backward()
    masked.step()
    assert net[0].weight.tolist() == [[3, 2, 0, 0]]


class Lookahead(optim.Optimizer):
    """A wrapper that is no torch optimiser but in name, as several libraries have them."""

    def __init__(self, inner: optim.Optimizer) -> None:
        self.inner, self.param_groups = inner, inner.param_groups
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
            p.data = slow.lerp_(p.data, 0.5).clone()


def test_a_wrapper_without_hooks_is_refused_and_may_wrap_a_masked_optimiser() -> None:
    net, x = _tiny()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"Lookahead runs no hooks .* torch\.optim\.Optimizer"):
        MaskedOptimizer(net, TINY, Lookahead(sgd))
    assert net.weight.count_nonzero() == 4
    masked = MaskedOptimizer(net, TINY, sgd)
    outer = Lookahead(sgd)
    with _every_forward(net):
        for _ in range(2):
            net.zero_grad()
            _half_square(net, x).backward()
            outer.step()
        net(x)
    masked.assert_masked()
    assert net.weight.tolist()[0] == pytest.approx([3 * 0.95**2, 2 * 0.9**2, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_net_may_be_moved_later(dtype: torch.dtype) -> None:
    net, x = _tiny()
    masked = MaskedOptimizer(net, TINY, optim.SGD(net.parameters(), lr=0.5))
    net.to(dtype)
    (net(x.to(dtype)).square().sum() / 2).backward()
    masked.step()
    masked.assert_masked()
    assert net.weight.tolist()[0] == pytest.approx([1.5, 0, 0, 0], abs=0.02)
    assert net.weight[0, 2:].tolist() == [0, 0]


def test_a_weight_without_entries() -> None:
    net = nn.Sequential(_tiny()[0], nn.Linear(1, 1, bias=False).double())
    net[1].weight = nn.Parameter(net[1].weight[:0])
    empty = torch.ones(0, 1, dtype=torch.bool)
    mask = Mask({"0.weight": TINY["weight"], "1.weight": empty})
    masked = MaskedOptimizer(net, mask, optim.SGD(net.parameters()))
    net(torch.ones(1, 4).double()).sum().backward()
    masked.step()
    masked.assert_masked()


@pytest.mark.parametrize("size", [1e-6, 1e-30])
def test_weights_that_are_written_between_steps_are_reported_once(size: float) -> None:
    net, x = _tiny()
    masked = MaskedOptimizer(net, TINY, optim.SGD(net.parameters(), lr=0.1))
    net.weight.data[0, 3] += size
    _half_square(net, x).backward()
    masked.step()
    assert net.weight[0, 3] == 0
    with pytest.raises(RuntimeError, match=f"dead weights .* {size:.3g} in total"):
        masked.assert_masked()
    masked.assert_masked()


def test_a_training_with_an_optimiser_that_moves_every_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optim, "build", lambda _, net: Noisy(net.parameters(), lr=0.01))
    run = Run.of(RUN | {"model": CONVOLUTIONS, "optim": {"epochs": 1, "batch_size": 390}})
    saved = Checkpoint.load(fit(run, out=tmp_path, device="cpu"))
    assert saved.mask is not None
    assert all(not saved.weights[name][~m].any() for name, m in saved.mask.items())


def test_without_a_mask_nothing_is_held() -> None:
    net, _ = _net()
    optimiser = Noisy(net.parameters(), lr=0.1)
    keeper = MaskedOptimizer(net, None, optimiser)
    before: list[Tensor] = [p.clone() for p in net.parameters()]
    _step(net, optimiser, keeper)
    keeper.assert_masked()
    assert not any(map(torch.equal, before, net.parameters()))


# masks that move


@pytest.mark.parametrize("kind", [Rigl, Set])
def test_a_mask_that_moves_takes_a_closure_and_needs_dense_gradients(kind: type[Rigl]) -> None:
    net, x = _tiny()
    method = kind(density=0.5, update_interval=1, drop_fraction=1.0, end=1.0)
    optimiser = optim.SGD(net.parameters(), lr=0.1)
    masked = method.keeper(net, TINY, optimiser, steps=100, seed=0, steps_taken=1)

    def closure() -> Tensor:
        net.zero_grad()
        loss = (net(x) - 1).square().sum() / 2
        loss.backward()
        return loss

    net.weight.data[0, 1] = 1e-3
    assert masked.step(closure).item() > 0
    assert masked.mask is not None
    assert masked.mask.alive == 2
    if kind is Rigl:  # gradient -sqrt(a) at dead weights: the last one is the largest
        assert masked.mask["weight"].tolist() == [[True, False, False, True]]


def test_gates_take_no_closure() -> None:
    net, _ = _net()
    masked = Learned().keeper(net, None, optim.SGD(net.parameters()), steps=1, seed=0)
    with pytest.raises(ValueError, match="no closure"):
        masked.step(lambda: None)
