"""Mask statistics against counts by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor, nn

from sparsediag import Checkpoint, Mask, Result, prunable
from sparsediag.diagnostics.census import Census, census
from sparsediag.diagnostics.connectivity import paths
from sparsediag.models import build
from sparsediag.plotting import style

LENET = {"size": 4, "width": 3, "classes": 2}  # weights of (3, 16), (3, 3) and (2, 3)
NAMES = ["layers.0.fc.weight", "layers.1.fc.weight", "fc.weight"]


def _checkpoint(
    masks: dict[str, Tensor] | None,
    model: str = "lenet300",
    options: dict[str, Any] = LENET,
    label: str | None = None,
) -> Checkpoint:
    """A checkpoint of a net with a mask."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build(model, **options)
    mask = None if masks is None else Mask(masks)
    if mask is not None:
        mask.apply_(net)
    return Checkpoint.of(net, mask=mask, model=label or model, options=options)


def _coins(
    density: float, seed: int, model: str = "lenet300", options: dict[str, Any] = LENET
) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        net = build(model, **options)
    draw = torch.Generator().manual_seed(seed)
    shapes = {name: net.get_parameter(name).shape for name in prunable(net)}
    return {n: torch.rand(s, generator=draw) < density for n, s in shapes.items()}


def _by_hand() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two masks that share 4 of 8 weights of a layer, 1 of 3 of the next, and have no third."""
    one, other = (_coins(-1, 0) for _ in range(2))
    one[NAMES[0]][0, :6] = True
    other[NAMES[0]][0, 2:8] = True
    one[NAMES[1]][0, 0] = one[NAMES[1]][1, 1] = True
    other[NAMES[1]][0, 0] = other[NAMES[1]][0, 1] = True
    return one, other


# counts


@pytest.mark.parametrize("seed", range(3))
def test_live_shared_and_dead_are_counted(seed: int) -> None:
    masks = {f"net {i}": _coins(0.3, 10 * seed + i) for i in range(3)}
    found = census({name: _checkpoint(m) for name, m in masks.items()})
    assert found.names == list(masks)
    assert found.weights == NAMES
    assert found.sizes.tolist() == [48, 9, 6]
    for i, one in enumerate(masks.values()):
        for k, name in enumerate(NAMES):
            rows = one[name].tolist()
            assert found.alive[i, k] == sum(map(sum, rows))
            assert found.filters[i, k] == sum(not any(row) for row in rows)
            assert found.channels[i, k] == sum(not any(c) for c in zip(*rows, strict=True))
            for j, other in enumerate(masks.values()):
                both = zip(one[name].flatten(), other[name].flatten(), strict=True)
                assert found.shared[i, j, k] == sum(bool(a) and bool(b) for a, b in both)


def test_filters_and_channels_of_a_convolution_are_counted() -> None:
    options = {"width": 2, "channels": 1}
    masks = _coins(2, 0, "resnet20", options)
    masks["layer1.0.conv1.weight"][0] = False
    masks["layer1.0.conv2.weight"][:, 1] = False
    masks["layer3.0.conv1.weight"][:3] = False
    masks["layer3.0.conv1.weight"][3, :, 0, 1:] = False
    found = census({"net": _checkpoint(masks, "resnet20", options)})
    dead = {
        name: (int(f), int(c))
        for name, f, c in zip(found.weights, found.filters[0], found.channels[0], strict=True)
        if f or c
    }
    assert dead == {
        "layer1.0.conv1.weight": (1, 0),
        "layer1.0.conv2.weight": (0, 1),
        "layer3.0.conv1.weight": (3, 0),
    }


@pytest.mark.parametrize(
    ("model", "options", "size"),
    [
        ("lenet300", LENET, (1, 4, 4)),
        ("lenet300", LENET | {"channels": 3}, (3, 4, 4)),
        ("mlp", {"width": 3}, (1, 28, 28)),
        ("resnet20", {"width": 2}, (3, 32, 32)),
        ("resnet20", {"width": 2, "channels": 1}, (1, 32, 32)),
    ],
)
def test_paths_are_those_of_the_images_of_the_network(
    model: str, options: dict[str, Any], size: tuple[int, int, int]
) -> None:
    masks = _coins(0.5, 0, model, options)
    found = census({"net": _checkpoint(masks, model, options)})
    expected = paths(build(model, **options), Mask(masks), torch.Size(size))
    assert found.used[0].tolist() == list(expected.used.values())
    assert found.log_paths.tolist() == [expected.log10]
    assert (found.used <= found.alive).all()


def test_all_weights_of_a_dense_network_are_live() -> None:
    found = census({"dense": _checkpoint(None), "half": _checkpoint(_coins(0.5, 0))})
    assert found.weights == NAMES
    assert found.alive[0].tolist() == found.used[0].tolist() == found.sizes.tolist()
    assert not found.filters[0].any()
    assert not found.channels[0].any()
    assert found.log_paths[0] == pytest.approx(math.log10(16 * 3 * 3 * 2))
    assert found.shared[0, 1].tolist() == found.alive[1].tolist()
    assert found.overlap[0, 1] == found.alive[1].sum() / 63


def test_masks_may_hold_their_weights_in_any_order() -> None:
    masks = _coins(0.5, 0)
    found = census({"a": _checkpoint(masks), "b": _checkpoint(dict(reversed(masks.items())))})
    assert found.weights == NAMES
    for part in (found.alive, found.filters, found.channels):
        assert part[0].tolist() == part[1].tolist()
    assert found.overlap.tolist() == [[1, 1], [1, 1]]


# overlap


def test_the_overlap_of_two_masks_is_what_is_counted_by_hand() -> None:
    one, other = _by_hand()
    found = census({"one": _checkpoint(one), "other": _checkpoint(other)})
    assert found.overlaps[0, 1, :2].tolist() == [4 / 8, 1 / 3]
    assert found.overlap[0, 1] == 5 / 11
    assert np.isnan(found.overlaps[:, :, 2]).all()  # both empty


def test_the_overlap_is_symmetric_and_one_with_itself() -> None:
    found = census({f"{i}": _checkpoint(_coins(0.5, i)) for i in range(4)})
    assert (found.alive > 0).all()
    assert np.array_equal(found.overlap, found.overlap.T)
    assert np.array_equal(found.overlaps, found.overlaps.swapaxes(0, 1))
    assert (found.overlap.diagonal() == 1).all()
    assert (found.overlap[~np.eye(4, dtype=bool)] < 0.6).all()
    assert (found.overlaps.diagonal() == 1).all()


def test_the_overlap_of_disjoint_and_of_empty_masks() -> None:
    masks = _coins(0.5, 0)
    rest = {name: ~m for name, m in masks.items()}
    disjoint = census({"one": _checkpoint(masks), "rest": _checkpoint(rest)})
    assert disjoint.overlap.tolist() == [[1, 0], [0, 1]]
    empty = census({"a": _checkpoint(_coins(-1, 0)), "b": _checkpoint(_coins(-1, 0))})
    assert np.isnan(empty.overlap).all()
    assert np.isnan(empty.overlaps).all()
    assert empty.log_paths.tolist() == [-math.inf, -math.inf]


# networks that differ, and custom networks


def test_networks_of_different_weights_are_refused() -> None:
    wide, conv = LENET | {"width": 4}, {"width": 2}
    one, two = _checkpoint(_coins(0.5, 0)), _checkpoint(_coins(0.5, 0, options=wide), options=wide)
    with pytest.raises(ValueError, match=r"'layers.0.fc.weight' is \(3, 16\) in a, \(4, 16\) in b"):
        census({"a": one, "b": two})
    other = _checkpoint(_coins(0.5, 0, "resnet20", conv), "resnet20", conv)
    with pytest.raises(ValueError, match=r"'conv1.weight' is \(2, 3, 3, 3\) in a, missing in b"):
        census({"a": other, "b": _checkpoint(None)})
    with pytest.raises(ValueError, match="no checkpoint"):
        census({})


def test_a_network_that_cannot_be_built_is_counted_without_its_paths() -> None:
    masks = _coins(0.4, 0)
    custom = _checkpoint(masks, label="my network")
    found = census({"known": _checkpoint(masks), "custom": custom})
    for part in (found.alive, found.filters, found.channels):
        assert part[0].tolist() == part[1].tolist()
    assert found.overlap.tolist() == [[1, 1], [1, 1]]
    assert np.isnan(found.used).tolist() == [[False] * 3, [True] * 3]
    assert np.isnan(found.log_paths).tolist() == [False, True]
    rows = found.table()
    assert (rows[1]["on a path"], rows[1]["paths"]) == ("", "")
    assert rows[1]["live"] == rows[0]["live"]
    assert found.remarks() == []
    assert [row["on a path"] for row in census({"custom": custom}).layers()] == ["", "", ""]


def test_a_custom_network_tells_the_order_of_the_dimensions_of_its_weights() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 3, 2), nn.Conv2d(3, 2, 1))
    first = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    first[:, 0] = False
    mask = Mask({"0.weight": first, "1.weight": torch.ones(2, 3, 1, 1, dtype=torch.bool)})
    mask.apply_(net)
    checkpoint = Checkpoint.of(net, mask=mask, model="custom", options={})
    built = census({"custom": checkpoint}, built={"custom": net})
    assert (built.filters.tolist(), built.channels.tolist()) == ([[1, 0]], [[0, 0]])
    assert census({"custom": checkpoint}).channels.tolist() == [[1, 0]]


# tables and remarks


def _cut_off() -> Census:
    """One net with dead ends, and one without its last layer."""
    full = {n: torch.ones_like(m) for n, m in _coins(0, 0).items()}
    ends = {n: m.clone() for n, m in full.items()}
    ends[NAMES[1]][0] = False  # one of three units has no input
    ends[NAMES[0]][:, 5] = False
    without = {**full, NAMES[2]: torch.zeros_like(full[NAMES[2]])}
    return census({"ends": _checkpoint(ends), "without": _checkpoint(without)})


def test_the_table_has_a_row_for_each_network() -> None:
    ends, without = _cut_off().table()
    assert ends == {
        "net": "ends",
        "live": "57",  # 45 + 6 + 6
        "density": "90.48%",
        "on a path": "87.30%",  # 45 + 6 + 4
        "paths": "1.80e2",  # 15 * 3 * 2 * 2
        "dead filters": "1",
        "dead channels": "1",
        "IoU with ends": "1.000",
        "IoU with without": "0.810",  # 51 of 63
    }
    assert without["paths"] == "none"
    assert without["on a path"] == "0.00%"
    assert without["dead filters"] == "2"
    assert without["dead channels"] == "3"


def test_the_table_of_one_large_network() -> None:
    (row,) = census({"mlp": _checkpoint(None, "mlp", {})}).table()
    assert (row["live"], row["paths"]) == ("119,400", "7.84e13")
    assert not any("IoU" in key for key in row)


def test_the_layers_of_one_network() -> None:
    full = {n: torch.ones_like(m) for n, m in _coins(0, 0).items()}
    full[NAMES[1]][0] = False
    rows = census({"net": _checkpoint(full)}).layers()
    assert [row["weight"] for row in rows] == NAMES
    assert rows[1] == {
        "weight": "layers.1.fc.weight",
        "size": "9",
        "live": "6",
        "density": "66.67%",
        "on a path": "6",
        "dead filters": "1",
        "dead channels": "0",
    }
    assert (rows[2]["live"], rows[2]["on a path"]) == ("6", "4")


def test_the_layers_of_several_networks() -> None:
    one, other = _by_hand()
    rows = census({"one": _checkpoint(one), "other": _checkpoint(other)}).layers()
    assert rows[0] == {
        "weight": "layers.0.fc.weight",
        "size": "48",
        "one": "12.50%",
        "other": "12.50%",
        "IoU of one, other": "0.500",
    }
    assert [row["IoU of one, other"] for row in rows] == ["0.500", "0.333", ""]


def test_empty_weights_and_networks_without_a_path_are_remarked() -> None:
    no_path, empty = _cut_off().remarks()
    assert no_path.startswith("without: no path is left from the input to the output")
    assert empty == "without: no live weight in fc.weight"
    assert census({"net": _checkpoint(None)}).remarks() == []
    masks = _coins(-1, 0)
    masks[NAMES[0]][0, 0] = masks[NAMES[1]][0, 1] = masks[NAMES[2]][0, 0] = True
    (no_path,) = census({"net": _checkpoint(masks)}).remarks()
    assert no_path.startswith("net: no path")


# files and pictures


def test_mask_statistics_survive_their_file(tmp_path: Path) -> None:
    masks = _coins(0.3, 0)
    found = census({"a": _checkpoint(masks), "b": _checkpoint(_by_hand()[0])})
    back = Result.load(found.save(tmp_path / "census.npz"))
    assert isinstance(back, Census)
    assert json.dumps(back.json(), allow_nan=False) == json.dumps(found.json(), allow_nan=False)
    assert back.table() == found.table()
    assert back.layers() == found.layers()
    assert back.remarks() == found.remarks()
    assert back.source["masks"]["a"] == Mask(masks).digest


def _lines(ax: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in ax.lines if line.get_label()[0] != "_"}


def test_the_picture_has_a_line_for_each_network() -> None:
    found = census(
        {"a": _checkpoint(_coins(0.5, 0)), "b": _checkpoint(_coins(0.5, 1)), "c": _checkpoint(None)}
    )
    ax = style.new_axes()
    assert found.plot(ax) is ax
    lines = _lines(ax)
    assert list(lines) == ["a", "b", "c", "on a path"]
    del lines["on a path"]
    for i, line in enumerate(lines.values()):
        np.testing.assert_allclose(line.get_xdata(), 100 * found.alive[i] / found.sizes)
        assert list(line.get_ydata()) == [0, 1, 2]
    assert ax.get_xscale() == "linear"  # from 50 to 100 %
    names = [name.removesuffix(".weight") for name in NAMES]
    assert [t.get_text() for t in found.plot().get_yticklabels()] == names
    assert len({line.get_color() for line in lines.values()}) == 3


def test_weights_on_a_path_are_dotted_and_empty_weights_crossed(tmp_path: Path) -> None:
    found = _cut_off()
    ax = found.plot()
    np.testing.assert_allclose(_lines(ax)["without"].get_xdata(), [100, 100, np.nan])
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(
        [line.get_xdata() for line in dotted[:-1]],
        [100 * found.used[0] / found.sizes, [np.nan] * 3],
    )
    crosses = [list(line.get_ydata()) for line in ax.lines if line.get_marker() == "x"]
    assert crosses == [[], [2], []]
    assert [text.get_text() for text in ax.get_legend().get_texts()][-2:] == ["on a path", "empty"]
    style.save(ax.figure, tmp_path / "census")  # type: ignore[arg-type]
    assert (tmp_path / "census.png").stat().st_size > 0


def test_more_networks_than_colours() -> None:
    checkpoint = _checkpoint(_coins(0.5, 0))
    found = census({f"{i}": checkpoint for i in range(len(style.COLOURS) + 1)})
    assert [name for name in _lines(found.plot()) if name != "on a path"] == found.names
