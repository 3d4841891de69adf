"""Paths through masked networks, against a list of all of them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from sparsediag.diagnostics.connectivity import Paths, dead_units, paths
from sparsediag.models import Ghost, build

Path = list[tuple[str, tuple[int, ...]]]  # the weights on a path, by name and index
SEEDS = range(5)


def _coins(net: nn.Module, density: float, seed: int) -> Mask:
    draw = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    return Mask({n: torch.rand(p.shape, generator=draw) < density for n, p in weights.items()})


def _listed(every: Iterable[Path], mask: Mask) -> Paths:
    """The expected result of `paths`, from all paths of the dense network."""
    alive = {name: m.numpy() for name, m in mask.items()}
    left = [path for path in every if all(alive[name][at] for name, at in path)]
    on = Counter(name for name, _ in {edge for path in left for edge in path})
    return Paths(
        float(len(left)),
        {name: on[name] for name in mask},
        {name: int(m.sum()) for name, m in mask.items()},
    )


# perceptrons


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _paths_of_mlp(*widths: int) -> Iterator[Path]:
    for nodes in itertools.product(*map(range, widths)):
        pairs = enumerate(itertools.pairwise(nodes))
        yield [(f"{2 * i}.weight", (out, into)) for i, (into, out) in pairs]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("density", [0.2, 0.4, 0.7, 1.0])
def test_the_paths_of_a_perceptron_are_those_of_the_list(density: float, seed: int) -> None:
    widths = (4, 5, 3, 4, 2)
    net = _mlp(*widths)
    mask = _coins(net, density, seed)
    found = paths(net, mask, torch.Size([4]))
    assert found == _listed(_paths_of_mlp(*widths), mask)
    assert found.used.keys() == found.alive.keys() == mask.keys()


def test_the_paths_of_a_dense_perceptron_are_the_product_of_its_widths() -> None:
    widths = (7, 6, 5, 4, 3)
    net = _mlp(*widths)
    found = paths(net, _coins(net, 2.0, 0), torch.Size([7]))
    assert found.count == math.prod(widths)
    assert found.log10 == math.log10(math.prod(widths))
    assert found.used == found.alive
    assert found.empty == []


def test_weights_that_the_mask_leaves_out_are_alive() -> None:
    net = _mlp(3, 4, 2)
    only = Mask({"2.weight": _coins(net, 0.5, 0)["2.weight"]})
    found = paths(net, only, torch.Size([3]))
    assert found.count == 3 * only.alive
    assert found.used == {"2.weight": only.alive}


@pytest.mark.parametrize("name", ["0.weight", "2.weight", "4.weight"])
def test_an_empty_layer_leaves_no_path(name: str) -> None:
    net = _mlp(3, 4, 4, 2)
    full = _coins(net, 2.0, 0)
    mask = Mask({**full, name: torch.zeros_like(full[name])})
    found = paths(net, mask, torch.Size([3]))
    assert (found.count, found.log10, found.empty) == (0, -math.inf, [name])
    assert set(found.used.values()) == {0}
    assert found.alive == {n: int(m.sum()) for n, m in mask.items()}


def test_a_mask_may_cut_all_paths_without_an_empty_layer() -> None:
    into, out = torch.zeros(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    into[0, 0] = out[0, 1] = True
    found = paths(_mlp(2, 2, 2), Mask({"0.weight": into, "2.weight": out}), torch.Size([2]))
    assert (found.count, found.log10, found.empty) == (0, -math.inf, [])
    assert found.used == {"0.weight": 0, "2.weight": 0}
    assert found.alive == {"0.weight": 1, "2.weight": 1}


# convolutions


def _paths_of_cnn() -> Iterator[Path]:
    """All paths of the net of the next test: outputs, pixels, channels and taps."""
    taps = list(itertools.product(range(2), range(2)))
    for out in range(2):
        for channel, y, x in itertools.product(range(2), range(2), range(2)):
            last = ("5.weight", (out, 4 * channel + 2 * y + x))
            for c, (dy, dx) in itertools.product(range(2), taps):
                middle = ("2.weight", (channel, c, dy, dx))
                for c0, first in itertools.product(range(2), taps):
                    yield [("0.weight", (c, c0, *first)), middle, last]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_the_paths_of_a_cnn_are_those_of_the_list(density: float, seed: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 2, 2),
        nn.ReLU(),
        nn.Conv2d(2, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    mask = _coins(net, density, seed)
    assert paths(net, mask, torch.Size([2, 4, 4])) == _listed(_paths_of_cnn(), mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_and_strides_leave_the_pixels_that_there_are(seed: int) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8, 1))
    mask = _coins(net, 0.5, seed)
    every: list[Path] = [
        [("0.weight", (c, 0, dy, dx)), ("2.weight", (0, 4 * c + 2 * y + x))]
        for c, y, x, dy, dx in itertools.product(range(2), range(2), range(2), range(3), range(3))
        if 0 <= 2 * y + dy - 1 < 3 and 0 <= 2 * x + dx - 1 < 3
    ]
    assert paths(net, mask, torch.Size([1, 3, 3])) == _listed(every, mask)


def test_an_average_pool_takes_a_share_and_a_max_pool_one() -> None:
    for pool, count in ((nn.AvgPool2d(2), 1.0), (nn.MaxPool2d(2), 1.0), (nn.Identity(), 4.0)):
        net = nn.Sequential(nn.Conv2d(1, 1, 1), pool)
        assert paths(net, _coins(net, 2.0, 0), torch.Size([1, 2, 2])).count == count


# shortcuts


def _residual() -> nn.Module:
    """Two linear layers around a shortcut."""

    def run(net: Any, x: Tensor) -> Tensor:
        h = F.relu(net.stem(x))
        return net.fc(F.relu(net.b(F.relu(net.a(h))) + h))

    layers = {"stem": (3, 4), "a": (4, 3), "b": (3, 4), "fc": (4, 2)}
    return cases.Net(run, **{name: nn.Linear(*sizes) for name, sizes in layers.items()})


def _paths_of_residual() -> Iterator[Path]:
    for x, h, k, o in itertools.product(range(3), range(4), range(4), range(2)):
        stem, fc = ("stem.weight", (h, x)), ("fc.weight", (o, k))
        if h == k:
            yield [stem, fc]
        for j in range(3):
            yield [stem, ("a.weight", (j, h)), ("b.weight", (k, j)), fc]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("density", [0.2, 0.4, 0.7, 1.0])
def test_a_shortcut_adds_its_paths_to_those_of_the_block(density: float, seed: int) -> None:
    net = _residual()
    mask = _coins(net, density, seed)
    found = paths(net, mask, torch.Size([3]))
    assert found == _listed(_paths_of_residual(), mask)
    stem, a, b, fc = (mask[f"{n}.weight"].double() for n in ("stem", "a", "b", "fc"))
    assert found.count == float((fc @ (b @ a + torch.eye(4).double()) @ stem).sum())


def test_an_emptied_branch_leaves_the_shortcut() -> None:
    net = _residual()
    full = _coins(net, 2.0, 0)
    found = paths(
        net, Mask({**full, "a.weight": torch.zeros_like(full["a.weight"])}), torch.Size([3])
    )
    assert found.count == 3 * 4 * 2
    assert found.empty == ["a.weight"]
    assert found.used == {"stem.weight": 12, "a.weight": 0, "b.weight": 0, "fc.weight": 8}


# norms, activations, values and ghosts do not matter


@pytest.mark.parametrize("sign", [-1e3, 1e3])
def test_values_of_weights_and_biases_do_not_matter(sign: float) -> None:
    net = _mlp(4, 5, 3)
    mask = _coins(net, 0.6, 0)
    for p in net.parameters():
        nn.init.constant_(p, sign)
    assert paths(net, mask, torch.Size([4])) == _listed(_paths_of_mlp(4, 5, 3), mask)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm([4, 3, 3]),
        *(nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.Tanh(), nn.Mish()),
        *(nn.Sigmoid(), nn.ELU(), nn.Softplus()),
    ],
    ids=str,
)
def test_norms_and_activations_are_removed(layer: nn.Module) -> None:
    def net(middle: nn.Module) -> nn.Module:
        layers = (nn.Conv2d(1, 4, 2), middle, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
        return nn.Sequential(*layers)

    for name, value in layer.state_dict().items():
        value.fill_(3 if "var" in name else -2)
    plain = net(nn.Identity())
    mask, size = _coins(plain, 0.5, 0), torch.Size([1, 4, 4])
    assert paths(net(layer), mask, size) == paths(plain, mask, size)
    assert paths(plain, mask, size).count > 0


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "kind"), [("mlp", "identity_bn"), ("mlp", "identity"), ("resnet20", "conv1x1_bn")]
)
def test_ghosts_are_removed(name: str, kind: str, strength: float) -> None:
    options: dict[str, Any] = {"width": 4, "channels": 1}
    options |= {"size": 4} if name == "mlp" else {}
    plain, size = build(name, **options), torch.Size([1, 4, 4])
    ghostly = build(name, **options, activation="ghost", skips=kind)
    ghosts = [m for m in ghostly.modules() if isinstance(m, Ghost)]
    for ghost in ghosts:
        ghost.fade(strength)
    all_coins = _coins(plain, 0.5, 0)
    mask = Mask({n: all_coins[n] for n in prunable(plain)})
    found = paths(ghostly, mask, size)
    assert found == paths(plain, mask, size)
    assert found.count > 0
    assert all(ghost.strength == pytest.approx(strength) for ghost in ghosts)


# the caller's


def test_the_net_and_the_rng_are_left_alone() -> None:
    net = build("resnet20", width=4, channels=1, activation="ghost", skips="identity_bn").train()
    net.get_submodule("layer1.0.bn1").eval()
    net.get_parameter("fc.bias").requires_grad_(False)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    moving = [p.requires_grad for p in net.parameters()]
    kinds, rng = [type(m) for m in net.modules()], torch.get_rng_state()
    mask = _coins(net, 0.5, 0)
    digest = mask.digest
    found = paths(net, mask, torch.Size([1, 8, 8]))
    assert found == paths(net, mask, torch.Size([1, 8, 8]))
    after = net.state_dict()
    assert all(torch.equal(t, after[n]) and t.dtype == after[n].dtype for n, t in before.items())
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == moving
    assert [type(m) for m in net.modules()] == kinds
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert mask.digest == digest


def test_a_mask_that_does_not_fit_is_refused() -> None:
    net = _mlp(3, 4, 2)
    wrong = Mask({"0.weight": torch.ones(3, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'0.weight' is \(3, 4\), the weight is \(4, 3\)"):
        paths(net, wrong, torch.Size([3]))
    astray = Mask({"0.weigth": torch.ones(4, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'0.weigth'; did you mean '0.weight'"):
        paths(net, astray, torch.Size([3]))


# dead units


@pytest.mark.parametrize(
    ("rows", "dead"),
    [
        ([[1, 1, 1], [1, 1, 1]], (0, 0)),
        ([[0, 0, 0], [1, 1, 1]], (1, 0)),
        ([[1, 0, 0], [1, 0, 0]], (0, 2)),
        ([[0, 1, 0], [0, 0, 0]], (1, 2)),
        ([[0, 0, 0], [0, 0, 0]], (2, 3)),
    ],
)
def test_dead_units_are_empty_rows_and_columns(
    rows: list[list[int]], dead: tuple[int, int]
) -> None:
    alive = torch.tensor(rows).bool()
    assert dead_units({"w": alive}, "w") == dead
    kernels = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    kernels[:, :, 1, 0] = alive  # one tap is enough
    assert dead_units({"w": kernels}, "w") == dead
    assert dead_units(Mask({"v": alive.t(), "w": alive}), "v") == dead[::-1]


def test_more_paths_than_a_float_holds() -> None:
    net = nn.Sequential(*[nn.Linear(1000, 1000, bias=False)] * 110)
    mask = Mask({"0.weight": torch.ones(1000, 1000, dtype=torch.bool)})
    found = paths(net, mask, torch.Size([1000]))
    assert found.count == found.log10 == float("inf")
    assert found.used == {"0.weight": 1_000_000}


def test_a_mask_of_a_bias_opens_no_path() -> None:
    net = nn.Linear(2, 2)
    mask = Mask(
        {"weight": torch.zeros(2, 2, dtype=torch.bool), "bias": torch.tensor([True, False])}
    )
    found = paths(net, mask, torch.Size([2]))
    assert (found.count, found.used) == (0.0, {"weight": 0, "bias": 1})
    assert dead_units(mask, "bias") == (1, 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients_change_nothing(mode: Callable[[], Any]) -> None:
    net = _mlp(3, 4, 2)
    mask = _coins(net, 0.6, 0)
    with mode():
        found = paths(net, mask, torch.Size([3]))
    assert found == _listed(_paths_of_mlp(3, 4, 2), mask)


def test_dead_units_of_weights_that_are_not_out_first() -> None:
    transposed = nn.ConvTranspose2d(4, 3, 2)
    alive = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    alive[:, :2] = False  # two outputs
    mask = {"weight": alive}
    assert dead_units(mask, "weight") == (0, 2)
    assert dead_units(mask, "weight", transposed) == (2, 0)
    assert dead_units(mask, "weight", nn.Conv2d(3, 4, 2)) == (0, 2)
