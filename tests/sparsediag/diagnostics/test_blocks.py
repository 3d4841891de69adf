"""Spectra of diagonal blocks against the blocks of the dense Hessian."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch

from sparsediag import Blocks, Mask, Problem, Result, blocks, models, spectrum


def _block(problem: Problem, hessian: torch.Tensor, holds: Callable[[str], bool]) -> np.ndarray:
    """Eigenvalues of a diagonal block of the dense Hessian, the largest first."""
    weights = {n: p for n, p in problem.net.named_parameters() if p.requires_grad}
    rows = torch.cat([torch.full((p.numel(),), holds(n)) for n, p in weights.items()])
    rows = rows[cases.living(problem)]
    return np.linalg.eigvalsh(hessian[rows][:, rows].numpy())[::-1]


@pytest.mark.parametrize("by", ["stage", "layer", "tensor"])
@pytest.mark.parametrize("name", ["tanh_mlp", "residual_net", "masked_cnn"])
def test_the_eigenvalues_are_those_of_the_dense_blocks(name: str, by: Any) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    found = blocks(problem, by=by, top=2, tol=1e-7)
    tensors = list(problem.live.shapes)
    of = {n: n if by == "tensor" else n.rpartition(".")[0] for n in tensors}
    assert found.names == list(dict.fromkeys(of.values()))
    for block, count, values in zip(found.names, found.counts, found.eigenvalues, strict=True):
        expected = _block(problem, hessian, lambda n, block=block: of[n] == block)
        assert count == len(expected)
        np.testing.assert_allclose(values[: len(expected)], expected[:2], rtol=0, atol=1e-10)
    assert all(found.converged)
    assert np.nanmax(found.residuals) < 1e-6
    assert sum(found.counts) == problem.size


@pytest.mark.parametrize("which", ["smallest", "magnitude"])
def test_other_ends(which: Any) -> None:
    problem, hessian = cases.relu_cnn(), cases.hessian_of("relu_cnn")
    found = blocks(problem, which=which, tol=1e-9)
    for block, (value,) in zip(found.names, found.eigenvalues, strict=True):
        values = _block(problem, hessian, lambda n, block=block: n.startswith(f"{block}."))
        best = np.argmin(values) if which == "smallest" else np.argmax(np.abs(values))
        assert value == pytest.approx(values[best], abs=1e-10)


def test_the_dense_hessian_has_larger_eigenvalues_than_its_blocks() -> None:
    whole = spectrum(cases.tanh_mlp(), top=1, tol=1e-9).eigenvalues[0]
    found = blocks(cases.tanh_mlp(), tol=1e-9).eigenvalues
    assert found.max() < whole - 1e-3


def _net(name: str, **options: Any) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = models.build(name, channels=1, classes=3, **options).double().eval()
    return Problem(net, cases.classes((4, 4), (1, 8, 8), 3))


def test_a_net_of_ours_names_its_stages() -> None:
    problem = _net("resnet20", width=4)
    found = blocks(problem, by="stage", tol=1e-2)
    heads = [n for n in found.names if not n.startswith("stage ")]
    stages = [n for n in found.names if n.startswith("stage ")]
    assert stages == ["stage 1", "stage 2", "stage 3"]
    assert set(heads) == {n.partition(".")[0] for n in problem.live.shapes} - {
        "layer1",
        "layer2",
        "layer3",
    }
    counts = dict(zip(found.names, found.counts, strict=True))
    live = problem.live.counts()
    for i in (1, 2, 3):
        expected = sum(c for n, c in live.items() if n.startswith(f"layer{i}."))
        assert counts[f"stage {i}"] == expected
    (second,) = found.eigenvalues[found.names.index("stage 2")]
    alone = spectrum(problem, top=1, params="layer2.*", tol=1e-2).eigenvalues[0]
    assert second == pytest.approx(alone, rel=1e-3)


def test_stages_with_two_digits_are_kept_apart() -> None:
    problem = _net("mlp", hidden=[5] * 12, size=8)
    found = blocks(problem, by="stage", tol=0.3)
    live = problem.live.counts()
    counts = dict(zip(found.names, found.counts, strict=True))
    assert len(problem.net.stages) > 10
    for i, modules in enumerate(problem.net.stages):
        mine = [n for n in live if any(n.startswith(f"{m}.") for m in modules)]
        assert counts[f"stage {i + 1}"] == sum(live[n] for n in mine)
    assert sum(found.counts) == problem.size


def test_blocks_without_live_weights_are_left_out() -> None:
    problem = cases.relu_cnn()
    alive = {n: torch.ones_like(p, dtype=torch.bool) for n, p in problem.net.named_parameters()}
    alive["0.weight"][:] = False
    mask = Mask({n: a for n, a in alive.items() if a.dim() > 1})
    found = blocks(problem.replace(mask=mask))
    assert found.names == ["1", "3", "4", "7"]
    assert found.counts == [6, 56, 4, 9]


def test_a_block_with_fewer_weights_has_no_more_eigenvalues() -> None:
    found = blocks(cases.relu_cnn(), by="tensor", top=4)
    small = found.names.index("4.bias")
    assert np.isnan(found.eigenvalues[small]).tolist() == [False, False, True, True]
    assert np.isnan(found.residuals[small]).tolist() == [False, False, True, True]
    plain = json.loads(json.dumps(found.json(), allow_nan=False))
    assert plain["eigenvalues"][small][2:] == [None, None]
    row = found.table()[small]
    assert "nan" not in row["residual"]


def test_products_include_those_of_the_certificates() -> None:
    problem = cases.tanh_mlp()
    parts = [spectrum(problem, top=2, params=f"{i}.*", mode="tape") for i in (0, 2, 4)]
    found = blocks(problem, top=2, mode="tape")
    assert found.products == sum(s.products + s.checks["products"] for s in parts)
    assert found.weight_norms.tolist() == [s.weight_norm for s in parts]
    assert found.eigenvalues.tolist() == [s.eigenvalues.tolist() for s in parts]


def test_blocks_that_have_not_converged_say_so() -> None:
    found = blocks(cases.residual_net(), by="stage", tol=1e-12, max_matvecs=3)
    assert found.converged.count(False) >= 2
    verdicts = [row["verdict"] for row in found.table()]
    expected = ["converged" if ok else "NOT converged" for ok in found.converged]
    assert verdicts == expected


def test_the_table_and_the_picture_name_every_block() -> None:
    found = blocks(cases.tanh_mlp())
    rows = found.table()
    assert [row["block"] for row in rows] == ["0", "2", "4"]
    assert [float(row["eigenvalue"]) for row in rows] == pytest.approx(
        found.eigenvalues[:, 0], rel=1e-4
    )
    ax = found.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "2", "4"]
    assert ax.get_xlabel() == "top eigenvalue"
    points = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(points[:, 0], found.eigenvalues[:, 0])
    low, high = ax.get_ylim()
    assert low > high  # the first block on top
    assert found.plot(ax) is ax


def test_progress_counts_the_blocks() -> None:
    seen: list[tuple[int, int]] = []
    blocks(cases.tanh_mlp(), progress=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_file_gives_the_same_blocks_back(tmp_path: Path) -> None:
    found = blocks(cases.masked_cnn(), top=3)
    back = Result.load(found.save(tmp_path / "blocks.npz"))
    assert isinstance(back, Blocks)
    for field in dataclasses.fields(Blocks):
        here, there = getattr(found, field.name), getattr(back, field.name)
        if isinstance(here, np.ndarray):
            np.testing.assert_array_equal(here, there)
        else:
            assert here == there
    assert back.source["options"]["by"] == "layer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "layers"}, "'layers'; did you mean 'layer'?"),
        ({"top": 0}, "top=0: need 1 eigenvalue or more"),
        ({"tol": 0.0}, "tol=0.0: need a positive relative residual"),
        ({"which": "largst"}, "did you mean 'largest'?"),
        ({"matrix": "hesian"}, "unknown matrix 'hesian'; did you mean 'hessian'?"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        blocks(cases.tanh_mlp(), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
