"""Gradient flow against closed forms, masked copies and central differences."""

from __future__ import annotations

from pathlib import Path

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Mask, Problem, gradflow, prunable
from sparsediag.checkpoint import mask_file

Pair = tuple[Tensor, Tensor]


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3, bias=False).double()


def batch() -> Pair:
    return cases.regression((7,), (4,), 3)[0]


def mse(net: nn.Module, *pairs: Pair, mask: Mask | None = None) -> Problem:
    return Problem(net, list(pairs) or [batch()], loss=F.mse_loss, mask=mask)


# live weights


def test_the_flow_of_one_layer_is_the_norm_of_its_gradient() -> None:
    net, (x, y) = layer(), batch()
    gradient = 2 / y.numel() * (x @ net.weight.detach().T - y).T @ x
    g = gradflow(mse(net))
    assert g.names == ["weight"]
    assert g.flow[0] == pytest.approx(float(gradient.norm()), rel=1e-12)
    assert g.mean == g.flow[0]
    assert g.weight_norm[0] == pytest.approx(float(net.weight.detach().norm()), rel=1e-12)


def test_the_flow_is_without_the_gradient_at_pruned_weights() -> None:
    net, (x, y) = layer(), batch()
    alive = torch.tensor([[True, True, False, True]] * 3)
    pruned = x.clone()
    pruned[:, 2] *= 100
    one, other = (gradflow(mse(net, (x, y), mask=Mask({"weight": alive}))) for x in (x, pruned))
    assert one.flow[0] == other.flow[0] > 0
    assert gradflow(mse(net, (x, y))).flow[0] != pytest.approx(one.flow[0], rel=0.01)


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_flow_is_that_of_a_masked_copy_of_the_network(name: str) -> None:
    problem = cases.CASES[name]()
    loss, weights = cases.plain_loss(problem)
    trained = [n for n, p in problem.net.named_parameters() if p.requires_grad]
    gradients = dict(zip(trained, torch.autograd.grad(loss, weights), strict=True))
    assert problem.mask is not None
    norms = [float((gradients[n] * alive).norm()) for n, alive in problem.mask.items()]
    g = gradflow(problem)
    assert g.names == list(problem.mask)
    assert g.flow == pytest.approx(np.array(norms), rel=1e-9)
    assert g.mean == pytest.approx(np.mean(norms), rel=1e-9)


def test_two_identical_layers_have_the_mean_of_one() -> None:
    net, halves = layer(), {"one": layer(), "two": layer()}
    for half in halves.values():
        half.weight.data /= 2
    two = gradflow(mse(cases.Net(lambda net, x: net.one(x) + net.two(x), **halves)))
    one = gradflow(mse(net))
    assert two.names == ["one.weight", "two.weight"]
    assert two.mean == pytest.approx(one.mean, rel=1e-12)
    assert two.mean_per_weight == pytest.approx(one.mean_per_weight, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "masked_cnn"])
def test_the_flow_per_weight_is_over_the_root_of_the_live_weights(name: str) -> None:
    problem = cases.CASES[name]()
    mask = problem.mask or Mask.of(problem.net)
    g = gradflow(problem)
    alive = np.array([int(mask[n].sum()) for n in g.names])
    assert g.per_weight == pytest.approx(g.flow / np.sqrt(alive), rel=1e-12)
    assert g.mean_per_weight == pytest.approx(g.per_weight.mean(), rel=1e-12)


def test_a_layer_without_live_weights_has_no_flow() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    mask = Mask({"0.weight": torch.zeros(5, 4).bool(), "2.weight": torch.ones(3, 5).bool()})
    g = gradflow(mse(net, mask=mask))
    assert (g.flow[0], g.per_weight[0], g.weight_norm[0]) == (0, 0, 0)
    assert g.flow[1] > 0
    assert np.isfinite(g.mean_per_weight)


def test_batches_do_not_matter() -> None:
    net, (x, y) = layer(), batch()
    whole, parts = gradflow(mse(net)), gradflow(mse(net, (x[:6], y[:6]), (x[6:], y[6:])))
    assert parts.flow == pytest.approx(whole.flow, rel=1e-12)


# the layers


def test_layers_are_those_of_the_mask_or_all_that_one_could_cover() -> None:
    problem = cases.residual_net()
    assert gradflow(problem).names == prunable(problem.net) == ["stem.weight", "conv.weight"]
    mask = Mask({"fc.weight": torch.ones(3, 3).bool()})
    masked = Problem(problem.net, problem.batches, mask=mask)
    assert gradflow(masked).names == ["fc.weight"]
    assert gradflow(cases.frozen_parameter()).names == ["2.weight", "4.weight"]


def test_recurrent_and_attention_modules_have_flow() -> None:
    def run(net: cases.Net, x: Tensor) -> Tensor:
        a = net.lstm(net.embed(x))[0]
        return net.fc(net.norm(net.attend(a, a, a)[0]).mean(1))

    torch.manual_seed(0)
    net = cases.Net(
        run,
        embed=nn.Embedding(7, 4),
        lstm=nn.LSTM(4, 4, batch_first=True),
        attend=nn.MultiheadAttention(4, 2, batch_first=True, bias=False),
        norm=nn.LayerNorm((5, 4)),
        fc=nn.Linear(4, 3),
    ).double()
    x, y = torch.randint(7, (6, 5)), torch.tensor([0, 1, 2] * 2)
    g = gradflow(Problem(net, [(x, y)]))
    lstm, attend = ("weight_ih_l0", "weight_hh_l0"), ("in_proj_weight", "out_proj.weight")
    names = [*(f"lstm.{n}" for n in lstm), *(f"attend.{n}" for n in attend), "fc.weight"]
    assert g.names == names
    F.cross_entropy(net(x), y).backward()
    assert g.flow == pytest.approx([float(net.get_parameter(n).grad.norm()) for n in names])


def test_no_trainable_layer_is_an_error() -> None:
    net = layer()
    net.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="no convolution or linear layer is trainable"):
        gradflow(mse(nn.Sequential(net, nn.LayerNorm(3).double())))


# dead and regrown weights


@pytest.mark.parametrize("name", [*cases.MASKED, "tanh_mlp"])
def test_live_dead_and_regrown_are_parts_of_one_gradient(name: str) -> None:
    problem = cases.CASES[name]()
    before = cases.coins(problem.net, 0.2)
    g = gradflow(problem, previous_mask=before)
    assert g.names == list(problem.mask or prunable(problem.net))
    dense = problem.view(dense=True)
    gradients = dense.split(dense.gradient())
    total = np.array([float(gradients[n].norm()) for n in g.names])
    assert np.hypot(g.flow, g.dead_flow) == pytest.approx(total, rel=1e-9)
    assert (g.counts + g.dead_counts).tolist() == [gradients[n].numel() for n in g.names]
    assert g.regrown_flow.max() > 0
    assert (g.regrown_flow <= g.flow).all()
    for i, (n, alive) in enumerate((problem.mask or {}).items()):
        assert g.dead_flow[i] == pytest.approx(float((gradients[n] * ~alive).norm()), rel=1e-9)
        assert g.dead_flow[i] > 0
        assert g.dead_counts[i] == int((~alive).sum())
        assert g.dead_per_weight[i] == pytest.approx(g.dead_flow[i] / g.dead_counts[i] ** 0.5)
    plain = gradflow(problem)
    assert plain.flow.tolist() == g.flow.tolist()
    assert not plain.regrown_counts.any()
    assert np.isnan(plain.regrown_per_weight).all()


def test_the_gradient_of_a_dead_weight_is_the_slope_of_the_loss() -> None:
    net, mask = layer(), Mask({"weight": torch.tensor([[True, False, True, True]] * 3)})
    mask.apply_(net)
    slopes, step = [], 1e-6
    for i in range(3):
        values = []
        for sign in (1, -1):
            moved = layer()
            moved.weight.data = net.weight.detach().clone()
            moved.weight.data[i, 1] = sign * step
            values.append(mse(moved).value())
        slopes.append((values[0] - values[1]) / (2 * step))
    g = gradflow(mse(net, mask=mask))
    assert g.dead_flow[0] == pytest.approx(float(np.linalg.norm(slopes)), rel=1e-6)


def test_regrown_weights_are_live_now_and_were_dead_before(tmp_path: Path) -> None:
    net, (x, y) = layer(), batch()
    now = torch.tensor([[True, True, False, True]] * 3)
    before = Mask(
        {"weight": torch.tensor([[True, False, True, True], [False, True, True, True], [True] * 4])}
    )
    problem = mse(net, mask=Mask({"weight": now}))
    g = gradflow(problem, previous_mask=before)
    gradient = 2 / y.numel() * (x @ (net.weight.detach() * now).T - y).T @ x
    norm = float(torch.stack([gradient[0, 1], gradient[1, 0]]).norm())
    assert g.regrown_counts.tolist() == [2]
    assert g.regrown_flow[0] == pytest.approx(norm, rel=1e-12)
    assert g.regrown_per_weight[0] == pytest.approx(norm / 2**0.5, rel=1e-12)
    assert before.digest in g.source["options"].values()
    file = tmp_path / "before.pt"
    mask_file.save(before, file)
    for path in (file, str(file)):
        assert gradflow(problem, previous_mask=path).json() == g.json()


def test_weights_that_the_earlier_mask_does_not_cover_were_live() -> None:
    g = gradflow(cases.masked_mlp(), previous_mask=Mask({"0.weight": torch.zeros(6, 4).bool()}))
    assert g.regrown_counts.tolist() == [g.counts[0], 0, 0]
    assert g.regrown_flow[0] == g.flow[0]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("wieght", (3, 4), "'wieght'"), ("weight", (4, 3), r"\(4, 3\).* \(3, 4\)")],
)
def test_an_earlier_mask_that_does_not_fit(name: str, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradflow(mse(layer()), previous_mask=Mask({name: torch.ones(shape).bool()}))


# table and picture


def test_table_and_picture() -> None:
    g = gradflow(cases.tanh_mlp())
    rows = g.table()
    assert [row["layer"] for row in rows] == ["0.weight", "2.weight", "4.weight", "mean"]
    assert list(rows[0]) == ["layer", "live |g|", "live |g|/√n", "|w|"]
    assert rows[-1] == {
        "layer": "mean",
        "live |g|": f"{g.mean:.4g}",
        "live |g|/√n": f"{g.mean_per_weight:.4g}",
        "|w|": "",
    }
    ax = g.plot()
    live, mean = ax.get_lines()
    assert live.get_xdata().tolist() == g.per_weight.tolist()
    assert mean.get_xdata() == [g.mean_per_weight] * 2
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2", "4"]
    assert ax.yaxis_inverted()


def test_the_table_has_columns_for_dead_and_regrown_weights() -> None:
    problem = cases.masked_mlp()
    assert "dead |g|/√n" in gradflow(problem).table()[0]
    g = gradflow(problem, previous_mask=cases.coins(problem.net, 0.2))
    rows = g.table()
    assert "regrown |g|/√n" in rows[0]
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert rows[-1]["dead |g|/√n"] == f"{g.dead_per_weight.mean():.4g}"
    assert [line.get_label() for line in g.plot().get_lines()][:3] == ["live", "dead", "regrown"]


def test_the_network_is_left_alone() -> None:
    problem = cases.masked_cnn()
    net = problem.net.train()
    state = {n: t.clone() for n, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    seen: list[tuple[int, int]] = []
    gradflow(problem, previous_mask=cases.coins(net, 0.5), progress=lambda *at: seen.append(at))
    assert all(torch.equal(t, state[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert seen == [(1, 2), (2, 2)]
