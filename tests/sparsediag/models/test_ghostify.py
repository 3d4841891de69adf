"""Ghosts in any net: the same as those of the built-in nets, and gone without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from sparsediag import Mask, Problem, prunable
from sparsediag.models import SKIPS, GhostReLU, GhostSkip, build, ghostify

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


def fade(net: nn.Module, strength: float) -> None:
    for module in net.modules():
        if isinstance(module, GhostReLU | GhostSkip):
            module.fade(strength)


def outputs(net: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = net.eval()(X)
    return found


@pytest.mark.parametrize("kind", [kind for kind in SKIPS if kind != "conv1x1_bn"])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "vgg16_bn", "vgg16"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_plain_net_with_ghosts_is_the_built_in_net_with_ghosts(
    name: str, kind: str, strength: float
) -> None:
    torch.manual_seed(0)
    ours = build(name, width=8, activation="ghost", skips=kind)
    plain = build(name, width=8)
    plain.load_state_dict({n: ours.state_dict()[n] for n in plain.state_dict()})
    ghostify(plain, X, skips=kind)
    fade(ours, strength)
    fade(plain, strength)
    assert torch.equal(outputs(ours), outputs(plain))


def test_a_torchvision_resnet_gets_a_skip_around_each_of_its_16_convolutions() -> None:
    net = resnet()
    ghostify(net, X)
    assert sum(isinstance(m, GhostSkip) for m in net.modules()) == 16
    assert sum(isinstance(m, GhostReLU) for m in net.modules()) == 9
    assert not any(type(m) is nn.ReLU for m in net.modules())


@pytest.mark.parametrize("train", [True, False])
def test_at_strength_0_it_is_the_plain_net_bit_for_bit(train: bool) -> None:
    net, plain = resnet(), resnet()
    ghostify(net, X)
    fade(net, 0.0)
    assert torch.equal(net.train(train)(X), plain.train(train)(X))


def test_weights_keep_their_names_and_ghosts_are_not_pruned() -> None:
    net, plain = resnet(), resnet()
    ghostify(net, X, skips="conv1x1_bn")
    own = {name for name, _ in net.named_parameters() if ".ghost." not in name}
    assert own == {name for name, _ in plain.named_parameters()}
    assert prunable(net) == prunable(plain)
    mask = Mask.top({n: net.get_parameter(n).abs() for n in prunable(net)}, 0.1)
    mask.apply_(net)
    assert all(bool(p.any()) for n, p in net.named_parameters() if n.endswith("ghost.conv.weight"))


def test_modes_statistics_and_the_rng_are_left_alone() -> None:
    net = resnet().train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    ghostify(net, X)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(m.training for m in net.modules())
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in before.items())


def test_a_copy_has_ghosts_of_its_own() -> None:
    net = resnet()
    ghostify(net, X)
    twin = copy.deepcopy(net)
    fade(twin, 0.0)
    assert not torch.equal(outputs(net), outputs(twin))
    assert torch.equal(outputs(twin), outputs(resnet()))


def test_its_loss_has_gradients_and_curvature() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    )
    net.append(nn.Flatten()).append(nn.Linear(4 * 14 * 14, 10))
    ghostify(net, X)
    problem = Problem(net.double(), [(X.double(), torch.arange(4))])
    v = torch.ones_like(problem.weights)
    ahead, behind = (problem.gradient(problem.weights + s * 1e-5 * v) for s in (1, -1))
    torch.testing.assert_close(problem.hvp(v), (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "net", [nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), nn.Sequential(nn.Conv2d(3, 4, 3))]
)
def test_a_net_without_a_place_for_ghosts_is_refused(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="no 3x3 convolution after its first"):
        ghostify(net, X)


def test_ghosts_come_once() -> None:
    net = resnet()
    ghostify(net, X)
    with pytest.raises(ValueError, match="has ghosts already; build a new one"):
        ghostify(net, X)


def test_an_activation_that_is_used_twice_becomes_one_ghost() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), relu), nn.Sequential(nn.Linear(2, 2), relu))
    ghostify(net, torch.zeros(1, 2))
    assert isinstance(net[0][1], GhostReLU)
    assert net[0][1] is net[1][1]


class Odd(nn.Module):
    """A stride of two kinds, and one norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.flat = nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.flat(self.norm(self.stem(x))))
        out: Tensor = self.norm(self.conv(x))
        return out


def test_what_has_no_place_for_a_skip_gets_none() -> None:
    net = Odd()
    ghostify(net, X)
    assert [n for n, m in net.named_modules() if isinstance(m, GhostSkip)] == ["conv.ghost"]
    assert net(X).shape == (4, 4, 8, 16)
