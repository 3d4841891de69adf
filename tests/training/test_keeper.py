"""Dead weights and their optimiser state are 0 after every step, or an error says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from sparsediag.models import build
from training.config import Run
from training.keeper import MaskedOptimizer
from training.loop import fit
from training.optim import Optim

RUN = {"data": "digits", "mask": {"method": "random", "density": 0.1}}
CONVOLUTIONS = {"name": "resnet20", "width": 4}
STATES = {"sgd": {"momentum_buffer"}, "adam": {"exp_avg", "exp_avg_sq"}}


class Noisy(torch.optim.SGD):
    """An optimiser that moves every weight a little, dead or not."""

    size = 1e-6

    def step(self) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data += self.size


def _net() -> tuple[nn.Module, Mask]:
    torch.manual_seed(0)
    net = build("lenet300", width=16, size=8)
    scores = {name: torch.rand_like(net.get_parameter(name)) for name in prunable(net)}
    mask = Mask.top(scores, 0.2)
    mask.apply_(net)
    return net, mask


def _step(net: nn.Module, optimiser: torch.optim.Optimizer, keeper: MaskedOptimizer) -> None:
    optimiser.zero_grad()
    F.cross_entropy(net(torch.randn(16, 64)), torch.randint(0, 10, (16,))).backward()
    keeper.step()


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("model", [CONVOLUTIONS, {"name": "mlp", "width": 16}], ids=["cnn", "mlp"])
def test_dead_weights_and_their_state_are_0_after_every_step(
    name: str, model: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray: list[int] = []
    seen: set[str] = set()

    class Watch(MaskedOptimizer):
        def check(self) -> None:
            super().check()
            for weight, dead in zip(self.weights, self.dead, strict=True):
                state = self.optimiser.state[weight]
                held = {"weight": weight} | {
                    key: t for key, t in state.items() if t.shape == weight.shape
                }
                seen.update(held)
                stray.append(sum(int((t[dead.bool()] != 0).sum()) for t in held.values()))

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


@pytest.mark.parametrize("size", [1e-6, 1e-30])
def test_an_optimiser_that_moves_dead_weights_is_reported_once(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noisy, "size", size)
    net, mask = _net()
    optimiser = Noisy(net.parameters(), lr=0.1)
    keeper = MaskedOptimizer(net, mask, optimiser)
    _step(net, optimiser, keeper)
    assert net.get_parameter("fc.weight")[~mask["fc.weight"]].any()
    with pytest.raises(RuntimeError, match=r"dead weights or their optimiser state moved, by \d"):
        keeper.assert_masked()
    keeper.assert_masked()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_state_of_dead_weights_is_reported_even_where_the_weights_are_0(name: str) -> None:
    net, mask = _net()
    optimiser = Optim(name=name).build(net)  # type: ignore[arg-type]
    keeper = MaskedOptimizer(net, mask, optimiser)
    F.cross_entropy(net(torch.randn(16, 64)), torch.randint(0, 10, (16,))).backward()
    optimiser.step()  # with gradients that nobody masked
    mask.apply_(net)
    keeper.check()
    with pytest.raises(RuntimeError, match="optimiser state moved"):
        keeper.assert_masked()


def test_a_training_with_a_broken_optimiser_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optim, "build", lambda _, net: Noisy(net.parameters(), lr=0.01))
    run = Run.of(RUN | {"model": CONVOLUTIONS, "optim": {"epochs": 1, "batch_size": 390}})
    with pytest.raises(RuntimeError, match="dead weights or their optimiser state moved"):
        fit(run, out=tmp_path, device="cpu")
    assert not list(tmp_path.rglob("*.pt"))


def test_without_a_mask_nothing_is_held() -> None:
    net, _ = _net()
    optimiser = Noisy(net.parameters(), lr=0.1)
    keeper = MaskedOptimizer(net, None, optimiser)
    before: list[Tensor] = [p.clone() for p in net.parameters()]
    _step(net, optimiser, keeper)
    keeper.assert_masked()
    assert not any(map(torch.equal, before, net.parameters()))
