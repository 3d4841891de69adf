"""The loss on planes of pixels: closed forms, dense Hessians, and signs that nets share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, Result
from sparsediag.diagnostics import inputscape as module
from sparsediag.diagnostics.inputscape import Inputscape, inputscape

AXES = ("gradient", "random", "eigenvectors")
every_plane = pytest.mark.parametrize("axes", AXES)


def flat(make: Any = lambda: nn.Linear(4, 3)) -> nn.Module:
    return cases._net(lambda: nn.Sequential(nn.Flatten(), make()))


def tanh() -> nn.Module:
    return flat(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


def relu() -> nn.Module:
    return flat(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))


def small(make: Any = tanh, counts: tuple[int, ...] = (3, 2)) -> Problem:
    return Problem(make(), cases.classes(counts, (1, 2, 2), 3))


def stacked(problem: Problem) -> tuple[Tensor, Tensor]:
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    return x, y


def inner(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * targets).flatten(1).sum(1).mean()


class Seen:
    """The inputs of a net at the points of the plane, (points, points, images, ...)."""

    def __init__(self, problem: Problem, **options: Any) -> None:
        inputs: list[Tensor] = []
        hook = problem.net.register_forward_pre_hook(lambda _, x: inputs.append(x[0].clone()))
        self.result = inputscape(problem, **options)
        hook.remove()
        points = self.result.axes.shape[1]
        x = torch.stack(inputs[-(points**2) :])
        self.inputs = x.view(points, points, *x.shape[1:])
        middle = points // 2
        self.x = self.inputs[middle, middle]
        step = float(self.result.axes[0, -1]) / 255
        self.u = (self.inputs[-1, middle] - self.x) / step
        self.v = (self.inputs[middle, -1] - self.x) / step


# the centre


@every_plane
@pytest.mark.parametrize("make", [cases.relu_cnn, cases.residual_net, cases.masked_cnn])
def test_the_centre_is_the_clean_loss_of_each_image(make: Any, axes: Any) -> None:
    problem = make()
    x, y = stacked(problem)
    clean = F.cross_entropy(problem.net(x), y, reduction="none").detach().numpy()
    found = inputscape(problem, axes=axes, points=3)
    assert found.centre == pytest.approx(clean, rel=1e-12)
    assert found.loss[:, 1, 1] == pytest.approx(clean, rel=1e-12)
    assert found.centre.mean() == pytest.approx(problem.value(), rel=1e-12)


def test_dead_weights_are_dead() -> None:
    problem = cases.masked_mlp()
    assert inputscape(problem, points=2).centre.mean() == pytest.approx(problem.value(), rel=1e-12)
    dense = inputscape(Problem(problem.net, problem.batches), points=2)
    assert abs(dense.centre.mean() - problem.value()) > 1e-3


def test_the_images_are_the_first_ones() -> None:
    problem = small(counts=(3, 2, 4))
    every, first = inputscape(problem, points=3), inputscape(problem, points=3, count=4)
    assert first.loss.shape == (4, 3, 3)
    assert first.loss == pytest.approx(every.loss[:4], rel=1e-12)
    assert first.slopes == pytest.approx(every.slopes[:4], rel=1e-12)


@every_plane
def test_chunks_do_not_matter(axes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inputscape(small(), axes=axes, points=3)
    monkeypatch.setitem(module.CHUNK, "cpu", 8)
    parts = inputscape(small(), axes=axes, points=3)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)
    assert parts.gradients == pytest.approx(whole.gradients, rel=1e-12)


# closed forms


def test_a_linear_loss_rises_by_the_sum_of_the_sizes_of_its_gradient() -> None:
    net = flat()
    x, t = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(net, [(x.view(5, 1, 2, 2), t[:, :3])], loss=inner)
    found = inputscape(problem, points=5, span=51.0, clamp=np.inf)
    slopes = (t[:, :3] @ net[1].weight).abs().sum(1).detach().numpy()
    assert found.slopes == pytest.approx(slopes, rel=1e-12)
    rise = found.loss[:, :, 2] - found.centre[:, None]
    assert rise == pytest.approx(np.outer(slopes, [-0.2, -0.1, 0, 0.1, 0.2]), abs=1e-12)


@every_plane
def test_a_squared_loss_is_its_second_order_model(axes: Any) -> None:
    net = flat()
    w = net[1].weight.detach()
    (x, t), *_ = cases.regression((5,), (1, 2, 2), 3)
    problem = Problem(net, [(x, t)], loss=F.mse_loss)
    seen = Seen(problem, axes=axes, points=3, span=100.0, clamp=np.inf)
    gradient = 2 / 3 * (net(x).detach() - t) @ w
    hessian = 2 / 3 * w.T @ w
    for i, a in enumerate(seen.result.axes[0] / 255):
        for j, b in enumerate(seen.result.axes[1] / 255):
            step = (a * seen.u + b * seen.v).flatten(1).expand(5, 4)
            rise = (gradient * step).sum(1) + ((step @ hessian) * step).sum(1) / 2
            there = seen.result.centre + rise.numpy()
            assert seen.result.loss[:, i, j] == pytest.approx(there, abs=1e-10)
    assert np.abs(seen.result.loss[:, 0, 2] - seen.result.loss[:, 2, 0]).min() > 1e-6
    assert seen.result.gradients == pytest.approx(gradient.norm(dim=1).numpy(), rel=1e-12)


# directions


def test_the_first_direction_is_the_sign_of_each_images_own_gradient() -> None:
    problem = small()
    x, y = stacked(problem)
    leaf = x.clone().requires_grad_()
    F.cross_entropy(problem.net(leaf), y, reduction="sum").backward()
    seen = Seen(problem, points=3)
    torch.testing.assert_close(seen.u, leaf.grad.sign(), rtol=0, atol=1e-9)
    assert seen.result.gradients == pytest.approx(leaf.grad.flatten(1).norm(dim=1).numpy())
    assert seen.result.slopes == pytest.approx(leaf.grad.flatten(1).abs().sum(1).numpy())


@pytest.mark.parametrize("axes", ["gradient", "random"])
def test_random_signs_are_shared_by_images_nets_and_calls(axes: Any) -> None:
    one, again, other = (Seen(small(m), axes=axes, points=3) for m in (tanh, tanh, relu))
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.inputs[1], other.inputs[1])
    assert torch.equal(one.inputs, other.inputs) == (axes == "random")
    torch.testing.assert_close(one.v, one.v[:1].expand_as(one.v))
    seeded = Seen(small(), axes=axes, points=3, seed=1)
    assert not torch.equal(one.v, seeded.v)


def test_random_directions_are_signs_and_orthogonal() -> None:
    problem = cases.relu_cnn()
    signs, pair = Seen(problem, points=3).v, Seen(problem, axes="random", points=3)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    torch.testing.assert_close(pair.u.abs(), torch.ones_like(signs))
    u, v = pair.u[0].flatten(), pair.v[0].flatten()
    assert abs(float(u @ v)) < 1e-9
    assert float(v.norm()) == pytest.approx(6)
    assert 0 < float(signs.sum((1, 2, 3))[0].abs()) < 30
    assert not torch.equal(u, signs[0].flatten())


def dense(problem: Problem, k: int, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of the loss of image k in its pixels, (4,) and (4, 4)."""
    x, y = (part[k : k + 1] for part in stacked(problem))

    def loss(pixels: Tensor) -> Tensor:
        return F.cross_entropy(problem.net(x + pixels.view_as(x) / std), y)

    zero = torch.zeros(4, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, zero)
    return gradient, torch.autograd.functional.hessian(loss, zero)


@pytest.mark.parametrize("std", [1.0, 0.25])
@pytest.mark.parametrize("make", [tanh, relu])
def test_eigenvectors_are_those_of_the_dense_hessian(make: Any, std: float) -> None:
    problem = small(make)
    given = torch.full((1, 1, 1), std)
    seen = Seen(problem, axes="eigenvectors", points=3, std=given)
    for k in range(5):
        gradient, hessian = dense(problem, k, std)
        values, vectors = torch.linalg.eigh(hessian)
        assert seen.result.eigenvalues[k] == pytest.approx(values.flip(0)[:2].numpy(), rel=1e-6)
        for found, exact in zip((seen.u, seen.v), (vectors[:, -1], vectors[:, -2]), strict=True):
            uphill = exact * torch.sign(gradient @ exact)
            torch.testing.assert_close(found[k].flatten() * std, 2 * uphill, rtol=0, atol=1e-5)


def test_the_curvature_of_a_relu_net_is_that_of_the_softmax() -> None:
    problem = small(relu)
    x, _ = stacked(problem)
    found = inputscape(problem, axes="eigenvectors", points=2).eigenvalues
    for k in range(5):
        slopes = torch.autograd.functional.jacobian(problem.net, x[k : k + 1]).view(3, 4)
        p = problem.net(x[k : k + 1]).softmax(1).detach()[0]
        bent = slopes.T @ (p.diag() - p.outer(p)) @ slopes
        assert found[k] == pytest.approx(torch.linalg.eigvalsh(bent).flip(0)[:2].numpy(), rel=1e-6)


def test_a_linear_loss_has_no_curvature() -> None:
    problem = Problem(flat(), cases.regression((3,), (1, 2, 2), 3), loss=inner)
    found = inputscape(problem, axes="eigenvectors", points=2)
    assert found.eigenvalues.tolist() == [[0, 0]] * 3
    assert found.remarks() == ["3 of 64 images: the problem has no more"]


@pytest.mark.parametrize(("dtype", "hidden"), [(torch.float64, 0), (torch.float32, 3)])
def test_curvature_that_rounding_hides_is_said_so(dtype: torch.dtype, hidden: int) -> None:
    net = relu()
    net[1][2].bias.data[1] = 20.0  # sure of class 1
    (x, y), *_ = cases.classes((3,), (1, 2, 2), 3)
    problem = Problem(net.to(dtype), [(x.to(dtype), torch.ones_like(y))])
    found = inputscape(problem, axes="eigenvectors", points=2, count=3)
    assert np.isnan(found.eigenvalues).any(axis=1).sum() == hidden
    lines = [line for line in found.remarks() if "3 of 3 images have eigenvectors" in line]
    assert len(lines) == len(found.remarks()) == bool(hidden)
    assert np.isfinite(found.loss).all()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.scaled_dot_product_attention(x, x, x).mean((1, 2)))


def test_eigenvectors_of_a_net_with_attention() -> None:
    problem = Problem(cases._net(Attention), cases.classes((3,), (1, 2, 2), 3))
    found = inputscape(problem, axes="eigenvectors", points=2)
    for k in range(3):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            values = torch.linalg.eigvalsh(dense(problem, k)[1])
        assert found.eigenvalues[k] == pytest.approx(values.flip(0)[:2].numpy(), rel=1e-6)


# units


@every_plane
def test_the_plane_is_one_of_pixels_and_not_of_inputs(axes: Any) -> None:
    half = torch.full((1, 1, 1), 0.5)
    pixels = inputscape(small(), axes=axes, points=5, span=8.0, std=half)
    inputs = inputscape(small(), axes=axes, points=5, span=16.0)
    assert pixels.loss == pytest.approx(inputs.loss, rel=1e-12)
    assert pixels.gradients == pytest.approx(2 * inputs.gradients, rel=1e-12)
    assert pixels.slopes == pytest.approx(2 * inputs.slopes, rel=1e-12)
    assert pixels.eigenvalues == pytest.approx(4 * inputs.eigenvalues, rel=1e-9)
    assert pixels.axes.tolist() == [[-8, -4, 0, 4, 8]] * 2
    assert pixels.source["options"]["std"] == [0.5]


def test_each_channel_has_its_own_std() -> None:
    net = cases._net(lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
    problem = Problem(net, cases.classes((3,), (2, 2, 2), 3))
    std = torch.tensor([0.5, 0.2]).view(2, 1, 1)
    seen = Seen(problem, axes="random", points=3, span=51.0, std=std)
    moves = (seen.inputs[2, 1] - seen.x).abs()
    assert moves[:, 0].numpy() == pytest.approx(np.full((3, 2, 2), 0.4))
    assert moves[:, 1].numpy() == pytest.approx(np.full((3, 2, 2), 1.0))
    x, y = stacked(problem)
    leaf = x.clone().requires_grad_()
    F.cross_entropy(net(leaf), y, reduction="sum").backward()
    exact = (leaf.grad / std).flatten(1).norm(dim=1).numpy()
    assert inputscape(problem, points=2, std=std).gradients == pytest.approx(exact)


def test_the_clamp_cuts_the_planes_and_not_the_clean_losses() -> None:
    free, cut = (inputscape(small(), points=3, clamp=c) for c in (np.inf, 0.9))
    assert (free.loss > 0.9).any()
    assert (free.loss < 0.9).any()
    assert cut.loss.tolist() == np.minimum(free.loss, 0.9).tolist()
    assert cut.centre.tolist() == free.centre.tolist()


def test_an_overflow_is_at_the_clamp_or_not_a_number() -> None:
    net = flat()
    found = inputscape(Problem(net, cases.classes((2,), (1, 2, 2), 3)), points=2, span=1e300)
    assert (np.isnan(found.loss) | (found.loss <= 8)).all()


# what is the caller's


@every_plane
def test_nothing_of_the_callers_is_changed(axes: Any) -> None:
    problem = cases.in_place_relu() if axes == "gradient" else cases.masked_cnn()
    net = problem.net.train()
    next(net.parameters()).requires_grad_(False)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    data = [(x.clone(), y.clone()) for x, y in problem.batches]
    rng = torch.get_rng_state()
    inputscape(problem, axes=axes, points=3)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert all(p.grad is None for p in net.parameters())
    for (x, y), (a, b) in zip(problem.batches, data, strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)
        assert not x.requires_grad


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        found = inputscape(small(), axes="eigenvectors", points=3)
    assert found.loss == pytest.approx(inputscape(small(), axes="eigenvectors", points=3).loss)


# refusals


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)).repeat(2, 1)


def alike() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), tanh()).double()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 1}, "points=1: need at least 2"),
        ({"span": 0.0}, "span=0.0: need a positive number"),
        ({"axes": "gradients"}, "unknown axes 'gradients'; did you mean 'gradient'"),
        ({"count": 0}, "count=0, clamp=8.0: need 1 image or more"),
        ({"clamp": 0.0}, "count=64, clamp=0.0: need 1 image or more, a positive clamp"),
        ({"clamp": float("nan")}, "count=64, clamp=nan"),
        ({"std": torch.ones(1)}, r"std has shape \(1,\); need positive numbers, \(1, 1, 1\)"),
        ({"std": torch.ones(3, 1, 1)}, r"std has shape \(3, 1, 1\); need"),
        ({"std": torch.zeros(1, 1, 1)}, r"std has shape \(1, 1, 1\); need positive numbers"),
        ({"std": torch.full((1, 1, 1), torch.nan)}, r"std has shape \(1, 1, 1\); need positive"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        inputscape(small(), **options)


def test_images_that_see_each_other_are_refused() -> None:
    data = cases.classes((5,), (1, 6, 6), 3)
    net = cases.relu_cnn().net
    with pytest.raises(ValueError, match=r"^batch_norm='train'"):
        inputscape(Problem(net, data, batch_norm="train"))
    with pytest.raises(ValueError, match=r"^batch_norm='eval'"):
        inputscape(small(alike))


def test_images_of_two_shapes_are_refused() -> None:
    net = cases._net(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)))
    data = cases.classes((2,), (1, 2, 2), 3) + cases.classes((2,), (1, 4, 4), 3)
    with pytest.raises(
        ValueError, match=r"2, 2\), \(1, 4, 4\)\]; need floating-point images of on"
    ):
        inputscape(Problem(net, data))


def test_words_are_refused() -> None:
    net = cases._net(lambda: nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3)))
    problem = Problem(net, [(torch.arange(8).view(2, 4), torch.tensor([0, 2]))])
    with pytest.raises(ValueError, match=r"^torch.int64 \[\(4,\)\]; need floating-point images"):
        inputscape(problem)


def test_outputs_that_are_no_rows_are_refused() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets.repeat(2))

    problem = Problem(cases._net(Twice), cases.classes((3,), (1, 2, 2), 3), loss=loss)
    with pytest.raises(ValueError, match=r"^outputs \(6, 3\) for 3 images; need"):
        inputscape(problem)


# the result


@every_plane
def test_a_result_survives_its_file(axes: Any, tmp_path: Path) -> None:
    found = inputscape(small(), axes=axes, points=3, std=torch.ones(1, 1, 1), seed=4)
    again = Result.load(found.save(tmp_path / "planes.npz"))
    assert isinstance(again, Inputscape)
    for name in ("loss", "axes", "centre", "gradients", "slopes", "eigenvalues"):
        assert getattr(again, name).tolist() == getattr(found, name).tolist()
    assert (again.source, again.labels, again.clamp) == (found.source, found.labels, found.clamp)
    expected = {"axes": axes, "count": 64, "points": 3, "span": 16.0, "clamp": 8.0, "seed": 4}
    assert found.source["options"] == expected | {"std": [1.0]}
    assert found.eigenvalues.shape == ((5, 2) if axes == "eigenvectors" else (0, 2))


def made() -> Inputscape:
    """Two images, the second at the clamp over 3 of 4 points."""
    found = inputscape(small(), points=2, count=2, clamp=2.0)
    loss = np.array([[[1.0, 0.5], [0.25, 0.25]], [[2.0, 2.0], [1.0, 2.0]]])
    return replace(found, loss=loss, centre=np.array([0.5, 4.0]), gradients=np.array([3.0, 0.0]))


def test_the_table() -> None:
    assert [tuple(row.values()) for row in made().table()] == [
        ("loss of the images", "2.25"),
        ("mean rise on the plane", "-0.125"),
        ("highest - lowest loss", "0.875"),
        ("gradient norm", "1.5"),
        ("images that reach the clamp", "50%"),
    ]
    assert made().mean.tolist() == [[1.5, 1.25], [0.625, 1.125]]


def test_the_remarks() -> None:
    clamped, still = made().remarks()
    assert made().provenance.startswith("Sequential: 2 samples")
    assert clamped.startswith("1 of 2 images are at the clamp (2) on more than half of the plane")
    assert still.startswith("1 of 2 images have no gradient")
    assert inputscape(small(), points=2, count=small().samples).remarks() == []
    hidden = replace(made(), eigenvalues=np.array([[3.0, np.nan], [2.0, 1.0]]))
    assert hidden.remarks()[-1].startswith("1 of 2 images have eigenvectors that rounding errors")


@every_plane
def test_the_picture_and_the_surface_have_the_names_of_the_axes(axes: Any) -> None:
    found = inputscape(small(), axes=axes, points=3)
    ax = found.plot()
    assert [ax.get_xlabel(), ax.get_ylabel()] == found.labels
    assert ax.get_xlim() == (-16, 16)
    figure = found.surface()
    scene = figure.layout.scene
    assert [scene.xaxis.title.text, scene.yaxis.title.text] == found.labels
    assert scene.zaxis.title.text == "loss"
    assert pytest.approx(found.mean, rel=5e-3) == np.asarray(figure.data[0].text, float).T


def test_progress_counts_all_points() -> None:
    seen: list[tuple[int, int]] = []
    inputscape(small(), points=3, progress=lambda *at: seen.append(at))
    assert seen == [(i, 9) for i in range(1, 10)]
