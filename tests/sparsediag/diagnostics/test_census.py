"""The census of masks, against counts by hand."""

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


def _kept(
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
def test_what_is_alive_shared_and_dead_is_counted(seed: int) -> None:
    masks = {f"net {i}": _coins(0.3, 10 * seed + i) for i in range(3)}
    found = census({name: _kept(m) for name, m in masks.items()})
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
    found = census({"net": _kept(masks, "resnet20", options)})
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
def test_paths_are_those_of_the_image_that_the_net_is_for(
    model: str, options: dict[str, Any], size: tuple[int, int, int]
) -> None:
    masks = _coins(0.5, 0, model, options)
    found = census({"net": _kept(masks, model, options)})
    expected = paths(build(model, **options), Mask(masks), torch.Size(size))
    assert found.used[0].tolist() == list(expected.used.values())
    assert found.log_paths.tolist() == [expected.log10]
    assert (found.used <= found.alive).all()


def test_a_dense_net_counts_as_all() -> None:
    found = census({"dense": _kept(None), "half": _kept(_coins(0.5, 0))})
    assert found.weights == NAMES
    assert found.alive[0].tolist() == found.used[0].tolist() == found.sizes.tolist()
    assert not found.filters[0].any()
    assert not found.channels[0].any()
    assert found.log_paths[0] == pytest.approx(math.log10(16 * 3 * 3 * 2))
    assert found.shared[0, 1].tolist() == found.alive[1].tolist()
    assert found.overlap[0, 1] == found.alive[1].sum() / 63


def test_masks_may_hold_their_weights_in_any_order() -> None:
    masks = _coins(0.5, 0)
    found = census({"a": _kept(masks), "b": _kept(dict(reversed(masks.items())))})
    assert found.weights == NAMES
    for part in (found.alive, found.filters, found.channels):
        assert part[0].tolist() == part[1].tolist()
    assert found.overlap.tolist() == [[1, 1], [1, 1]]


# overlap


def test_the_overlap_of_two_masks_is_what_is_counted_by_hand() -> None:
    one, other = _by_hand()
    found = census({"one": _kept(one), "other": _kept(other)})
    assert found.overlaps[0, 1, :2].tolist() == [4 / 8, 1 / 3]
    assert found.overlap[0, 1] == 5 / 11
    assert np.isnan(found.overlaps[:, :, 2]).all()  # both empty


def test_the_overlap_is_symmetric_and_one_with_itself() -> None:
    found = census({f"{i}": _kept(_coins(0.5, i)) for i in range(4)})
    assert (found.alive > 0).all()
    assert np.array_equal(found.overlap, found.overlap.T)
    assert np.array_equal(found.overlaps, found.overlaps.swapaxes(0, 1))
    assert (found.overlap.diagonal() == 1).all()
    assert (found.overlap[~np.eye(4, dtype=bool)] < 0.6).all()
    assert (found.overlaps.diagonal() == 1).all()


def test_masks_without_a_common_weight_overlap_by_zero() -> None:
    masks = _coins(0.5, 0)
    rest = {name: ~m for name, m in masks.items()}
    found = census({"one": _kept(masks), "rest": _kept(rest)})
    assert found.overlap.tolist() == [[1, 0], [0, 1]]


def test_empty_masks_have_no_overlap() -> None:
    found = census({"a": _kept(_coins(-1, 0)), "b": _kept(_coins(-1, 0))})
    assert np.isnan(found.overlap).all()
    assert np.isnan(found.overlaps).all()
    assert found.log_paths.tolist() == [-math.inf, -math.inf]


# nets that differ, and nets of others


def test_nets_of_different_shapes_are_refused_with_both() -> None:
    wide = LENET | {"width": 4}
    nets = {"a": _kept(_coins(0.5, 0)), "b": _kept(_coins(0.5, 0, options=wide), options=wide)}
    with pytest.raises(ValueError, match=r"'layers.0.fc.weight' is \(3, 16\) in a, \(4, 16\) in b"):
        census(nets)


def test_nets_of_different_weights_are_refused() -> None:
    options = {"width": 2}
    other = _kept(_coins(0.5, 0, "resnet20", options), "resnet20", options)
    with pytest.raises(ValueError, match=r"'conv1.weight' is \(2, 3, 3, 3\) in a, missing in b"):
        census({"a": other, "b": _kept(None)})


def test_a_net_that_is_not_built_in_is_counted_without_its_paths() -> None:
    masks = _coins(0.4, 0)
    found = census({"known": _kept(masks), "own": _kept(masks, label="my own net")})
    for part in (found.alive, found.filters, found.channels):
        assert part[0].tolist() == part[1].tolist()
    assert found.overlap.tolist() == [[1, 1], [1, 1]]
    assert np.isnan(found.used).tolist() == [[False] * 3, [True] * 3]
    assert np.isnan(found.log_paths).tolist() == [False, True]
    known, own = found.table()
    assert (own["on a path"], own["paths"]) == ("", "")
    assert own["alive"] == known["alive"]
    assert found.remarks() == []


def test_the_layers_of_a_net_that_is_not_built_in_have_no_paths() -> None:
    found = census({"own": _kept(_coins(0.4, 0), label="my own net")})
    assert [row["on a path"] for row in found.layers()] == ["", "", ""]


# what is said


def _cut_off() -> Census:
    """One net with dead ends, and one without its last layer."""
    full = {n: torch.ones_like(m) for n, m in _coins(0, 0).items()}
    ends = {n: m.clone() for n, m in full.items()}
    ends[NAMES[1]][0] = False  # one of three units hears nothing
    ends[NAMES[0]][:, 5] = False
    without = {**full, NAMES[2]: torch.zeros_like(full[NAMES[2]])}
    return census({"ends": _kept(ends), "without": _kept(without)})


def test_the_table_has_a_row_a_net() -> None:
    ends, without = _cut_off().table()
    assert ends == {
        "net": "ends",
        "alive": "57",  # 45 + 6 + 6
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


def test_the_table_of_one_net_compares_nothing() -> None:
    (row,) = census({"net": _kept(_coins(0.5, 0))}).table()
    assert not any("IoU" in key for key in row)


def test_large_numbers_are_parted_and_paths_are_powers() -> None:
    (row,) = census({"mlp": _kept(None, "mlp", {})}).table()
    assert row["alive"] == "119,400"
    assert row["paths"] == "7.84e13"


def test_the_layers_of_one_net_are_told_in_detail() -> None:
    full = {n: torch.ones_like(m) for n, m in _coins(0, 0).items()}
    full[NAMES[1]][0] = False
    rows = census({"net": _kept(full)}).layers()
    assert [row["weight"] for row in rows] == NAMES
    assert rows[1] == {
        "weight": "layers.1.fc.weight",
        "of": "9",
        "alive": "6",
        "density": "66.67%",
        "on a path": "6",
        "dead filters": "1",
        "dead channels": "0",
    }
    assert (rows[2]["alive"], rows[2]["on a path"]) == ("6", "4")


def test_the_layers_of_several_nets_stand_side_by_side() -> None:
    one, other = _by_hand()
    rows = census({"one": _kept(one), "other": _kept(other)}).layers()
    assert rows[0] == {
        "weight": "layers.0.fc.weight",
        "of": "48",
        "one": "12.50%",
        "other": "12.50%",
        "IoU of one, other": "0.500",
    }
    assert [row["IoU of one, other"] for row in rows] == ["0.500", "0.333", "nan"]


def test_what_is_cut_off_is_remarked() -> None:
    assert _cut_off().remarks() == [
        "without: no path is left from the input to the output",
        "without: empty: fc.weight",
    ]
    assert census({"net": _kept(None)}).remarks() == []


def test_a_net_may_lose_its_paths_and_no_layer() -> None:
    masks = _coins(-1, 0)
    masks[NAMES[0]][0, 0] = masks[NAMES[1]][0, 1] = masks[NAMES[2]][0, 0] = True
    found = census({"net": _kept(masks)})
    assert found.remarks() == ["net: no path is left from the input to the output"]


# files and pictures


def test_a_census_comes_back_from_its_file(tmp_path: Path) -> None:
    found = census({"a": _kept(_coins(0.3, 0)), "b": _kept(_by_hand()[0])})
    back = Result.load(found.save(tmp_path / "census.npz"))
    assert isinstance(back, Census)
    assert (back.names, back.weights, back.source) == (found.names, found.weights, found.source)
    for name in ("sizes", "alive", "used", "filters", "channels", "shared", "log_paths"):
        assert np.array_equal(getattr(back, name), getattr(found, name))
    assert back.table() == found.table()
    assert back.layers() == found.layers()
    assert back.remarks() == found.remarks()
    assert json.dumps(back.json(), allow_nan=False) == json.dumps(found.json(), allow_nan=False)


def test_the_source_names_the_masks() -> None:
    masks = _coins(0.3, 0)
    found = census({"net": _kept(masks)})
    assert found.source["masks"] == {"net": Mask(masks).digest}


def _labelled(ax: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in ax.lines if line.get_label()[0] != "_"}


def test_the_picture_has_a_line_a_net_with_its_densities_in_percent() -> None:
    found = census({"a": _kept(_coins(0.5, 0)), "b": _kept(_coins(0.5, 1)), "c": _kept(None)})
    ax = found.plot()
    lines = _labelled(ax)
    assert list(lines) == ["a", "b", "c", "on a path"]
    del lines["on a path"]
    for i, line in enumerate(lines.values()):
        np.testing.assert_allclose(line.get_ydata(), 100 * found.alive[i] / found.sizes)
        assert list(line.get_xdata()) == [0, 1, 2]
    assert ax.get_yscale() == "log"
    names = [name.removesuffix(".weight") for name in NAMES]
    assert [t.get_text() for t in ax.get_xticklabels()] == names
    assert ax.get_legend() is not None
    assert len({line.get_color() for line in lines.values()}) == 3


def test_what_is_on_a_path_is_dotted_where_it_is_less_and_what_is_empty_is_crossed() -> None:
    found = _cut_off()
    ax = found.plot()
    np.testing.assert_allclose(_labelled(ax)["without"].get_ydata(), [100, 100, np.nan])
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(
        [line.get_ydata() for line in dotted[:-1]],
        [100 * found.used[0] / found.sizes, [np.nan] * 3],
    )
    crosses = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "x"]
    assert crosses == [[], [2], []]
    assert [text.get_text() for text in ax.get_legend().get_texts()][-2:] == ["on a path", "empty"]


def test_the_picture_goes_on_the_axes_that_it_is_given_and_to_a_file(tmp_path: Path) -> None:
    ax = style.axes()
    found = _cut_off()
    assert found.plot(ax) is ax
    style.save(ax.figure, tmp_path / "census")  # type: ignore[arg-type]
    assert (tmp_path / "census.png").stat().st_size > 0


def test_more_nets_than_colours_are_drawn_all() -> None:
    kept = _kept(_coins(0.5, 0))
    found = census({f"{i}": kept for i in range(len(style.COLOURS) + 1)})
    drawn = _labelled(found.plot())
    assert [name for name in drawn if name != "on a path"] == found.names


def test_a_net_of_ones_own_tells_which_way_its_weights_lie() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 3, 2), nn.Conv2d(3, 2, 1))
    first = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    first[:, 0] = False
    mask = Mask({"0.weight": first, "1.weight": torch.ones(2, 3, 1, 1, dtype=torch.bool)})
    mask.apply_(net)
    kept = Checkpoint.of(net, mask=mask, model="own", options={})
    told = census({"own": kept}, built={"own": net})
    assert (told.filters.tolist(), told.channels.tolist()) == ([[1, 0]], [[0, 0]])
    assert census({"own": kept}).channels.tolist() == [[1, 0]]
