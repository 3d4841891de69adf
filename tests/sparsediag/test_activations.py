"""Shares of zeros against closed forms, and which blocks they are taken of."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor, nn

from sparsediag import Activations, Problem, activations, models
from sparsediag.models import MODELS, GhostReLU

FLAT = torch.linspace(-1, 1, 100_001)
BELL = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).float()


class Through(nn.Module):
    """The input through one activation; the weight is 1 and is there to make a problem."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.weight * x)


class Twice(Through):
    """Its activation sees the input first, and then its negative."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.weight * x) + self.act(-x)


class Shared(nn.Module):
    """One activation behind layers of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.two(self.act(self.one(x))))


class Idle(Through):
    """It has an activation that it does not use."""

    def __init__(self) -> None:
        super().__init__(nn.ReLU())
        self.idle = nn.ReLU()


class OwnStages(nn.Module):
    """It calls something of its own `stages`."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(2, 3), nn.ReLU())])

    def forward(self, x: Tensor) -> Tensor:
        return self.stages[0](x)


class Breaking(Through):
    """It works until it is told to break."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.broken:
            raise RuntimeError("broken")
        return out


def of(net: nn.Module, *batches: Tensor, threshold: float = 0.01) -> Activations:
    pairs = [(x, torch.zeros(len(x), dtype=torch.long)) for x in batches]
    return activations(Problem(net, pairs), threshold=threshold)


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in net.modules())


# closed forms


def test_nothing_in_is_all_zero() -> None:
    a = of(Through(nn.ReLU()), torch.zeros(3, 4))
    assert (a.zeros.tolist(), a.small.tolist(), a.dead.tolist()) == ([1], [1], [1])


def test_relu_of_a_uniform_input() -> None:
    a = of(Through(nn.ReLU()), FLAT[:, None])
    assert a.small == pytest.approx(0.505, abs=2e-5)
    assert a.zeros == pytest.approx(0.5, abs=2e-5)


def test_swish_of_a_gaussian_input() -> None:
    a = of(Through(nn.SiLU()), BELL[:, None])
    assert a.small == pytest.approx(0.0160, abs=5e-5)
    assert a.zeros == 0


def test_the_threshold_itself_counts_as_small() -> None:
    a = of(Through(nn.ReLU()), torch.tensor([[0.5, -0.5, 0.6, 0.4]]), threshold=0.5)
    assert a.small == 0.75
    assert a.threshold == 0.5
    assert "|a| <= 0.5" in a.table()[0]


def test_every_number_counts_the_same_whatever_the_batches() -> None:
    x = torch.tensor([[-1.0, -1, -1], [1, -1, 1], [1, 1, 1], [1, 1, -1]])
    uneven, whole = of(Through(nn.ReLU()), x[:1], x[1:]), of(Through(nn.ReLU()), x)
    assert uneven.zeros == whole.zeros == 5 / 12
    assert uneven.small == whole.small


def test_both_calls_of_a_module_count() -> None:
    assert of(Twice(nn.ReLU()), torch.ones(3, 2)).zeros == 0.5
    assert of(Twice(nn.ReLU()), torch.ones(3, 2)).dead == 0


def test_a_module_called_at_different_widths() -> None:
    a = of(Shared(), torch.randn(5, 2))
    assert a.names == ["act"]
    assert 0 <= a.zeros[0] <= 1


# dead channels


def test_dead_units_of_a_linear_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    nn.init.zeros_(net[0].weight)
    net[0].bias.data = torch.tensor([1.0, -1.0, 2.0, 0.0])
    a = of(net, torch.randn(5, 2), torch.randn(3, 2))
    assert a.dead == 0.5
    assert a.zeros == 0.5


def test_a_channel_that_lives_at_one_place_of_one_sample_is_alive() -> None:
    x = torch.full((4, 3, 5, 5), -1.0)
    x[3, 1, 4, 2] = 1
    a = of(Through(nn.Sequential(nn.ReLU(), Pooled())), x[:1], x[1:])
    assert a.dead == pytest.approx(2 / 3)
    assert a.zeros == 299 / 300


class Pooled(nn.Module):
    """The mean over the places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# which blocks


def test_blocks_of_a_resnet18_and_the_last_of_each_stage() -> None:
    a = of(models.build("resnet18", width=4), torch.randn(3, 3, 8, 8))
    assert a.names == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert a.stage_last == [False, True] * 4
    assert [row["block"] for row in a.table()][:2] == ["layer1.0", "layer1.1 *"]


def test_blocks_of_a_resnet_are_taken_after_the_addition() -> None:
    net, x = models.build("resnet20", width=4).eval(), torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        out = net.layer1(net.act1(net.bn1(net.conv1(x))))
    a = of(net, x)
    assert a.zeros[a.names.index("layer1.2")] == float((out == 0).double().mean())


def test_activation_layers_of_any_other_net() -> None:
    net = nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 5), GhostReLU(), nn.Linear(5, 3), nn.LeakyReLU()
    )
    a = of(net, torch.randn(9, 2))
    assert a.names == ["1", "3", "5"]
    assert a.stage_last == [False] * 3


@pytest.mark.parametrize("name", MODELS)
def test_every_built_in_net_has_blocks(name: str) -> None:
    net = models.build(name, width=4, size=8, channels=1)
    a = of(net, torch.randn(6, 1, 8, 8))
    assert sum(a.stage_last) == len(net.stages)
    assert a.stage_last[-1]
    assert len(a.names) == len(a.zeros) == len(a.small) == len(a.dead)
    assert (a.zeros <= a.small).all()
    assert 0 < a.small.max() <= 1
    assert a.dead.min() >= 0


@pytest.mark.parametrize("net", [nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))])
def test_a_net_without_activations_says_so(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"no activation layer; need a module such as nn\.ReLU"):
        of(net, torch.randn(3, 2))


def test_an_activation_that_is_never_used() -> None:
    assert "act" in of(Idle(), torch.randn(3, 2)).names


def test_a_net_with_stages_of_its_own() -> None:
    assert of(OwnStages(), torch.randn(3, 2)).names == ["stages.0.1"]


# the net is left alone


def test_hooks_are_removed() -> None:
    net = Through(nn.ReLU())
    of(net, torch.randn(3, 2))
    assert hooks(net) == 0


def test_hooks_are_removed_when_the_forward_pass_breaks() -> None:
    net = Breaking(nn.ReLU())
    problem = Problem(net, [(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))])
    net.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        activations(problem)
    assert hooks(net) == 0


def test_the_net_and_the_global_rng_are_left_alone() -> None:
    problem = cases.relu_cnn()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    activations(problem)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_progress_counts_batches() -> None:
    seen: list[tuple[int, int]] = []
    activations(cases.relu_cnn(), progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_picture_has_a_line_for_each_share_and_rings_the_last_blocks() -> None:
    ax = of(models.build("resnet18", width=4), torch.randn(3, 3, 8, 8)).plot()
    *shares, rings = ax.get_lines()
    assert [len(line.get_xdata()) for line in shares] == [8, 8, 8]
    assert list(rings.get_xdata()) == [1, 3, 5, 7]
