"""Signal propagation against closed forms, and against gradients and cosines by autograd."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, models
from sparsediag.diagnostics.signal import Signal, signal


def linear(*weights: Tensor) -> nn.Sequential:
    """Linear layers without biases, in float64."""
    layers = []
    for w in weights:
        layers.append(nn.Linear(w.shape[1], w.shape[0], bias=False).double())
        layers[-1].weight.data = w.double()
    return nn.Sequential(*layers)


def inputs(count: int = 6, width: int = 4) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0)).double()


def of(net: nn.Module, *batches: Tensor, modules: str | None = "*") -> Signal:
    """With half the squared output as each sample's loss: its gradient there is the output."""
    pairs = [(x, None) for x in batches]
    return signal(
        Problem(net, pairs, loss=lambda z, _: z.square().sum() / (2 * len(z))), modules=modules
    )


def turned(width: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=g).double()).Q


def mean_cosine(rows: Tensor) -> float:
    pairs = itertools.combinations([row for row in rows.flatten(1) if row.any()], 2)
    return float(torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean())


# closed forms


def test_orthogonal_weights_keep_everything() -> None:
    x = inputs()
    s = of(linear(*(turned(4, seed) for seed in range(5))), x)
    size = float(x.square().mean().sqrt())
    assert s.names == list("01234")
    assert s.rms == pytest.approx(size, rel=1e-12)
    assert s.gradient == pytest.approx(size, rel=1e-12)
    assert s.cosine == pytest.approx(mean_cosine(x), abs=1e-12)
    assert s.gains[1:] == pytest.approx(1)
    assert s.gradient_gains[:-1] == pytest.approx(1)
    assert np.isnan([s.gains[0], s.gradient_gains[-1]]).all()


def test_scaled_weights_scale_there_and_back() -> None:
    s = of(linear(*(0.5 * turned(4, seed) for seed in range(4))), inputs())
    assert s.gains[1:] == pytest.approx(0.5)
    assert s.gradient_gains[:-1] == pytest.approx(0.5)
    (line,) = s.remarks()
    assert line.startswith("from 0 to 3 ")
    assert line.count("0.125") == 2


def test_zero_weights_end_the_signal_and_the_gradient() -> None:
    s = of(linear(turned(4, 0), torch.zeros(4, 4), turned(4, 1)), inputs())
    assert (s.rms[0] > 0, s.rms[1], s.rms[2]) == (True, 0, 0)
    assert s.gradient.tolist() == [0, 0, 0]
    assert np.isnan(s.cosine).tolist() == [False, True, True]
    (line,) = s.remarks()
    assert line.startswith("the output of 1 is 0")
    assert s.plot().get_lines()


def test_a_layer_of_rank_one_tells_samples_apart_by_their_sign_only() -> None:
    x = inputs().abs()
    s = of(linear(torch.ones(3, 4)), x)
    assert s.cosine == pytest.approx(1)
    assert s.remarks()[-1].startswith("mean cosine 1.0000 at 0: ")
    signs = torch.tensor([1.0, 1, -1, 1, -1, -1]).double()
    s = of(linear(torch.ones(3, 4)), x * signs[:, None])
    assert s.cosine == pytest.approx((6 - 9) / 15)  # of 15 pairs, 6 agree


def test_a_bias_makes_samples_alike() -> None:
    net = linear(torch.eye(4), torch.eye(4))
    net[1].bias = nn.Parameter(torch.full((4,), 100.0).double())
    s = of(net, inputs())
    assert s.cosine[0] < 0.5 < 0.999 < s.cosine[1]


def test_relu_halves_the_squares_and_closes_angles_as_theory_has_it() -> None:
    # the arc-cosine kernel of wide layers (Cho and Saul, 2009): angles t between Gaussian
    # pre-activations become cos = (sin t + (pi - t) cos t) / pi
    g = torch.Generator().manual_seed(0)
    width = 4000
    w = torch.randn(width, 30, generator=g).double() * (2 / width) ** 0.5
    x = torch.randn(2, 30, generator=g).double()
    net = nn.Sequential(*linear(w), nn.ReLU())
    s = of(net, x)
    t = np.arccos(mean_cosine(x))
    assert s.cosine[0] == pytest.approx(np.cos(t), abs=0.05)
    assert s.cosine[1] == pytest.approx((np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi, abs=0.03)
    assert s.rms[1] / s.rms[0] == pytest.approx(0.5**0.5, rel=0.03)


# by hand


@pytest.mark.parametrize("name", ["tanh_mlp", "relu_cnn", "residual_net", "masked_cnn"])
def test_sizes_cosines_and_gradients_are_those_of_a_plain_pass(name: str) -> None:
    problem = cases.CASES[name]()
    s = signal(problem, modules="*")
    net, kept = _copy(problem), {}
    for module in s.names:
        net.get_submodule(module).register_forward_hook(
            lambda m, args, out, module=module: kept.update({module: out}) or out.retain_grad()
        )
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    problem.loss(net(x), y).backward()
    assert s.names == list(kept)
    for i, out in enumerate(kept.values()):
        assert s.rms[i] == pytest.approx(float(out.detach().square().mean().sqrt()), rel=1e-9)
        assert s.cosine[i] == pytest.approx(mean_cosine(out.detach()), abs=1e-9)
        slope = len(x) * out.grad
        assert s.gradient[i] == pytest.approx(float(slope.square().mean().sqrt()), rel=1e-9)


def _copy(problem: Problem) -> nn.Module:
    net = copy.deepcopy(problem.net).eval()
    if problem.mask:
        problem.mask.apply_(net)
    return net


def test_activations_in_place_change_nothing() -> None:
    problem = cases.in_place_relu()
    changed = signal(problem, modules="*")
    net = _copy(problem)
    net[2].inplace = False
    plain = signal(Problem(net, problem.batches), modules="*")
    for field in ("rms", "cosine", "gradient"):
        assert getattr(changed, field) == pytest.approx(getattr(plain, field), rel=1e-12)


def test_batches_do_not_matter() -> None:
    x, net = inputs(7), linear(turned(4, 0), turned(4, 1)[:3])
    whole, parts = of(net, x), of(net, x[:4], x[4:5], x[5:])
    for field in ("rms", "cosine", "gradient"):
        assert getattr(parts, field) == pytest.approx(getattr(whole, field), rel=1e-12)


def test_all_calls_of_a_module_count() -> None:
    net = cases.Net(lambda net, x: net.layer(net.layer(x)), layer=linear(2 * torch.eye(4))[0])
    x = inputs()
    s = of(net, x)
    size = float(x.square().mean().sqrt())
    assert s.rms[0] == pytest.approx(size * ((2**2 + 4**2) / 2) ** 0.5)
    assert s.gradient[0] == pytest.approx(size * ((8**2 + 4**2) / 2) ** 0.5)
    assert s.cosine[0] == pytest.approx(mean_cosine(x))


def test_frozen_layers_have_a_gradient_and_layers_before_any_weight_have_none() -> None:
    net, x = nn.Sequential(nn.Flatten(), *linear(turned(4, 0), turned(4, 1))), inputs()
    net[1].weight.requires_grad_(False)
    s = of(net, x)
    size = float(x.square().mean().sqrt())
    assert s.names == ["0", "1", "2"]
    assert s.gradient[1:] == pytest.approx([size, size])
    assert np.isnan(s.gradient[0])
    assert [p.requires_grad for p in net.parameters()] == [False, True]


def test_a_module_outside_the_loss_has_no_gradient() -> None:
    aside, over = linear(turned(4, 0), turned(4, 1))
    net = cases.Net(lambda net, x: (net.aside(x), net.over(x))[1], aside=aside, over=over)
    assert of(net, inputs()).gradient[0] == 0


def test_outputs_without_a_row_for_each_sample_have_no_cosine() -> None:
    net = cases.Net(
        lambda net, x: x + net.table(torch.arange(5)).sum(0), table=nn.Embedding(5, 4).double()
    )
    s = of(net, inputs())
    assert np.isnan(s.cosine[0])
    assert s.rms[0] > 0
    assert s.gradient[0] > 0


class Several(nn.Module):
    """Returns 6 x and what that is computed from, 3 x, in a nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.three = linear(3 * torch.eye(4))[0]

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        part = self.three(x)
        return 2 * part, {"part": part, "ids": torch.arange(4)}


@pytest.mark.parametrize(
    ("use", "squares", "numbers"),
    [
        (lambda outputs: outputs[0], 36, 24),
        (lambda outputs: outputs[1]["part"], 9, 24),
        (lambda outputs: torch.cat([outputs[0], outputs[1]["part"]], dim=1), 45, 48),
    ],
)
def test_of_several_outputs_those_count_that_the_loss_depends_on(
    use: Any, squares: float, numbers: int
) -> None:
    x = inputs()
    s = of(cases.Net(lambda net, x: use(net.layer(x)), layer=Several()), x, modules="layer")
    size = (squares * float(x.square().sum()) / numbers) ** 0.5
    assert (s.rms[0], s.gradient[0]) == pytest.approx((size, size))
    assert s.cosine[0] == pytest.approx(mean_cosine(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("samples", [2, 5])  # as many as layers, or more
def test_a_recurrent_layer_of_which_the_last_state_is_used(
    kind: type[nn.RNNBase], samples: int
) -> None:
    torch.manual_seed(0)
    layer = kind(3, 4, num_layers=2, batch_first=True).double()
    x = torch.randn(samples, 6, 3).double()
    state = layer(x)[1]
    h = (state[0] if kind is nn.LSTM else state).detach()

    def run(net: cases.Net, x: Tensor) -> Tensor:
        state = net.layer(x)[1]
        return (state[0] if kind is nn.LSTM else state).transpose(0, 1)

    s = of(cases.Net(run, layer=layer).double(), x, modules=None)
    size = float(h.square().mean().sqrt())
    assert s.names == ["layer"]
    assert (s.rms[0], s.gradient[0]) == pytest.approx((size, size))
    assert s.cosine[0] == pytest.approx(mean_cosine(h.transpose(0, 1)))


def test_a_cell_passes_both_its_states_on() -> None:
    torch.manual_seed(0)
    cell, x = nn.LSTMCell(4, 3).double(), inputs()
    states = torch.cat(cell(x), dim=1).detach()
    s = of(cases.Net(lambda net, x: torch.cat(net.cell(x), dim=1), cell=cell), x, modules="cell")
    size = float(states.square().mean().sqrt())
    assert (s.rms[0], s.gradient[0]) == pytest.approx((size, size))


def test_packed_sequences() -> None:
    torch.manual_seed(0)
    layer, x = nn.GRU(4, 3, batch_first=True).double(), inputs()[:, None]
    net = cases.Net(
        lambda net, x: net.layer(nn.utils.rnn.pack_padded_sequence(x, [1] * 6, True))[0].data,
        layer=layer,
    )
    size = float(layer(x)[0].detach().square().mean().sqrt())
    s = of(net, x, modules="layer")
    assert (s.rms[0], s.gradient[0]) == pytest.approx((size, size))


# the modules


def test_blocks_of_built_in_nets() -> None:
    net = models.build("resnet18", width=4)
    problem = Problem(net, [(torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2]))])
    assert signal(problem).names == [name for stage in net.stages for name in stage]


def test_activation_layers_or_else_layers_with_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    assert of(net, inputs(), modules=None).names == ["1"]
    assert of(linear(torch.eye(4), torch.eye(4)), inputs(), modules=None).names == ["0", "1"]


def test_weight_layers_where_no_activation_layer_is_called() -> None:
    one, two = linear(turned(4, 0), turned(4, 1))
    net = cases.Net(lambda net, x: net.two(F.relu(net.one(x))), one=one, two=two, act=nn.ReLU())
    found = of(net, inputs(), modules=None)
    assert found.names == ["one", "two"]
    assert found.rms.tolist() == of(net, inputs(), modules="one,two").rms.tolist()


def test_layers_of_gpt2_count() -> None:
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D
    net = nn.Sequential(layer(5, 4), nn.Linear(5, 3)).double()
    assert of(net, inputs(), modules=None).names == ["0", "1"]


def test_a_transformer_of_tokens() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation=nn.GELU())
    net = cases.Net(
        lambda net, x: net.fc(net.encoder(x).mean(1)),
        encoder=nn.TransformerEncoder(layer, 2),
        fc=nn.Linear(8, 3),
    )
    batches = [(torch.randn(n, t, 8), torch.randint(3, (n,))) for n, t in ((4, 5), (3, 7))]
    problem = Problem(net, batches)
    s = signal(problem)
    assert s.names == [f"encoder.layers.{i}.activation" for i in range(2)]
    assert np.isfinite([s.rms, s.cosine, s.gradient]).all()
    every = signal(problem, modules="*")
    norms = [i for i, name in enumerate(every.names) if name.endswith("norm2")]
    assert every.rms[norms] == pytest.approx(1, rel=1e-3)
    assert (every.gradient > 0).all()


def test_no_module_to_look_at() -> None:
    with pytest.raises(ValueError, match=r"no module .*modules='\*'"):
        of(cases.Net(lambda net, x: net.weight * x).double(), inputs(), modules=None)
    with pytest.raises(ValueError, match="unknown module 'fc'"):
        of(linear(torch.eye(4)), inputs(), modules="fc")


# the caller's network


def test_the_network_and_the_global_rng_are_left_alone() -> None:
    problem = cases.relu_cnn()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    seen: list[tuple[int, int]] = []
    signal(problem, progress=lambda *at: seen.append(at))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training and not m._forward_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_hooks_are_removed_when_the_loss_fails() -> None:
    broken = False

    def loss(z: Tensor, _: None) -> Tensor:
        if broken:
            raise RuntimeError("broken")
        return z.square().mean()

    net = linear(torch.eye(4), torch.eye(4))
    problem = Problem(net, [(inputs(), None)], loss=loss)
    broken = True
    with pytest.raises(RuntimeError, match="broken"):
        signal(problem)
    assert not any(m._forward_hooks for m in net.modules())


def test_table_and_picture() -> None:
    s = signal(cases.tanh_mlp())
    rows = s.table()
    assert [row["module"] for row in rows] == ["1", "3"]
    assert (rows[0]["/ previous"], rows[1]["/ next"]) == ("", "")
    assert rows[1]["/ previous"] == f"{s.rms[1] / s.rms[0]:.3g}"
    ax = s.plot()
    for panel, values in zip(ax.figure.axes, (s.rms, s.gradient, s.cosine), strict=True):
        (line,) = panel.get_lines()
        assert line.get_xdata().tolist() == values.tolist()
    assert ax is ax.figure.axes[0]
    assert ax.yaxis_inverted()
    assert s.plot(measure="cosine").get_xlabel() == "mean cosine"


# samples


def test_time_steps_are_not_taken_for_samples() -> None:
    def run(net: cases.Net, x: Tensor) -> Tensor:
        rows = net.layer.batch_first
        a = net.layer(x if rows else x.transpose(0, 1))[0]
        return net.fc(a[:, -1] if rows else a[-1])

    torch.manual_seed(0)
    first, second = (
        cases.Net(run, layer=nn.GRU(3, 4, batch_first=batch_first), fc=nn.Linear(4, 2))
        for batch_first in (True, False)
    )
    second.load_state_dict(first.state_dict())
    for time in (4, 8, 5):
        x, y = torch.randn(4, time, 3), torch.tensor([0, 1, 1, 0])
        rows, columns = (signal(Problem(net, [(x, y)]), modules="*") for net in (first, second))
        with torch.no_grad():
            assert rows.cosine[0] == pytest.approx(mean_cosine(first.layer(x)[0]), abs=1e-6)
        assert np.isnan(columns.cosine).tolist() == [True, False]
        assert columns.cosine[1] == pytest.approx(rows.cosine[1], rel=1e-4)
        assert columns.rms == pytest.approx(rows.rms, rel=1e-5)
    assert signal(Problem(first, [(x, y)])).names == ["layer"]


@pytest.mark.parametrize("counts", [(6,), (1, 5)])
def test_the_gradient_of_a_sample_is_the_same_for_a_sum(counts: tuple[int, ...]) -> None:
    net, y = nn.Linear(4, 3).double(), torch.tensor([0, 1, 2] * 2)
    batches = list(zip(inputs().split(counts), y.split(counts), strict=True))
    mean, total = (
        signal(Problem(net, batches, loss=nn.CrossEntropyLoss(reduction=kind)))
        for kind in ("mean", "sum")
    )
    assert total.gradient == pytest.approx(mean.gradient)
    assert mean.separable
    assert total.separable
    assert mean.remarks() == total.remarks() == []


def test_a_loss_that_couples_samples_is_remarked() -> None:
    net, batches = nn.Linear(4, 3).double(), [(inputs(), torch.tensor([0, 1, 2] * 2))]
    result = signal(Problem(net, batches, loss=lambda z, _: z.var()))
    assert not result.separable
    (line,) = result.remarks()
    assert "independent samples" in line
