"""Pictures: their style stays inside them, their axes are not swapped, their files are whole."""

from __future__ import annotations

from pathlib import Path

import cases
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from sparsediag import landscape
from sparsediag.plotting import style as plotting

X, Y = np.linspace(0, 8, 9), np.linspace(10, 14, 5)


def ramp() -> np.ndarray:
    """A loss that is 1 + x, whatever y is, (9, 5)."""
    return np.tile(1 + X[:, None], len(Y))


# style


def test_style_ends_with_its_block() -> None:
    with mpl.rc_context({"font.size": 33, "lines.linewidth": 7}):
        before = dict(mpl.rcParams)
        with plotting.style():
            assert mpl.rcParams["font.size"] == 8
            assert mpl.rcParams["lines.linewidth"] == 1.2
        assert dict(mpl.rcParams) == before


def test_style_ends_with_an_error_too() -> None:
    before = dict(mpl.rcParams)
    with pytest.raises(KeyError), plotting.style():
        raise KeyError
    assert dict(mpl.rcParams) == before


def test_style_does_not_depend_on_the_settings_of_the_caller() -> None:
    with mpl.rc_context({"axes.facecolor": "red", "lines.linestyle": ":"}), plotting.style():
        assert mpl.rcParams["axes.facecolor"] == mpl.rcParamsDefault["axes.facecolor"]
        assert mpl.rcParams["lines.linestyle"] == "-"


def test_pictures_leave_the_settings_alone(tmp_path: Path) -> None:
    with mpl.rc_context({"axes.grid": False, "savefig.dpi": 33}):
        before = dict(mpl.rcParams)
        plotting.save(plotting.new_axes().figure, tmp_path / "picture")
        plotting.new_figure(plotting.PAGE, 3)
        assert dict(mpl.rcParams) == before


def test_no_window_is_opened() -> None:
    before = plt.get_fignums()
    plotting.new_axes()
    plotting.plot_contours(plotting.new_axes(), X, Y, ramp())
    landscape(cases.linear_regression(), points=3).plot()
    assert plt.get_fignums() == before


def test_a_figure_has_its_size_in_inches() -> None:
    assert plotting.new_figure(7.0, 3.5).get_size_inches().tolist() == [7.0, 3.5]
    assert plotting.new_axes().figure.get_size_inches()[0] == plotting.COLUMN


# files


def test_save_writes_what_is_known_into_the_png(tmp_path: Path) -> None:
    plotting.save(plotting.new_axes().figure, tmp_path / "v1.2", Title="mine", Source="net.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["v1.2.png"]
    with Image.open(tmp_path / "v1.2.png") as image:
        assert image.text["Title"] == "mine"
        assert image.text["Source"] == "net.pt"
        assert image.width == pytest.approx(200 * plotting.COLUMN, abs=1)


def test_save_writes_the_same_pdf_every_time(tmp_path: Path) -> None:
    fig = plotting.new_axes().figure
    for stem in ("one", "other"):
        plotting.save(fig, tmp_path / stem, formats=("pdf", "png"), Title="mine")
    one, other = ((tmp_path / f"{stem}.pdf").read_bytes() for stem in ("one", "other"))
    assert one.startswith(b"%PDF-")
    assert one == other
    assert b"CreationDate" not in one
    assert len(list(tmp_path.iterdir())) == 4


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Figure, draft: Path, **_: object) -> None:
        draft.write_text("half of")
        raise OSError("disk full")

    (tmp_path / "picture.png").write_text("old")
    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        plotting.save(plotting.new_figure(), tmp_path / "picture")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


# contours


def test_contours_have_the_first_index_along_x() -> None:
    ax = plotting.new_axes()
    filled = plotting.plot_contours(
        ax, X, Y, ramp(), levels=np.array([0.5, 3, 5, 9.5]), colorbar=False
    )
    below, *bands, above = filled.get_paths()
    assert len(below.vertices) == len(above.vertices) == 0
    for band, (low, high) in zip(bands, [(0, 2), (2, 4), (4, 8)], strict=True):
        assert band.vertices.min(0) == pytest.approx([low, 10])
        assert band.vertices.max(0) == pytest.approx([high, 14])
    assert ax.get_xlim() == (0, 8)
    assert ax.get_ylim() == (10, 14)
    assert ax.get_aspect() == 1


def test_contours_bring_their_bar_or_not() -> None:
    with_bar, without = plotting.new_axes(), plotting.new_axes()
    plotting.plot_contours(with_bar, X, Y, ramp())
    plotting.plot_contours(without, X, Y, ramp(), colorbar=False)
    assert [ax.get_ylabel() for ax in with_bar.figure.axes] == ["", "loss"]
    assert without.figure.axes == [without]


def test_levels_serve_all_losses() -> None:
    one, other = np.array([[2.0, 8.0]]), np.array([4.0, 32.0, np.nan, np.inf, -np.inf])
    levels = plotting.loss_levels(one, other, count=5)
    assert levels == pytest.approx([2, 4, 8, 16, 32])
    filled = [
        plotting.plot_contours(plotting.new_axes(), X, Y, z, levels=levels)
        for z in (ramp(), ramp())
    ]
    assert [f.norm.vmin for f in filled] == [2, 2]
    assert [f.norm.vmax for f in filled] == [32, 32]


@pytest.mark.parametrize("loss", [0.0, 1e-9, 3.0])
def test_levels_of_a_level_loss_still_rise(loss: float) -> None:
    levels = plotting.loss_levels(np.full((3, 3), loss))
    assert levels[0] == max(loss, 1e-6)
    assert (np.diff(levels) > 0).all()


def test_contours_of_a_loss_of_zero() -> None:
    plotting.plot_contours(plotting.new_axes(), X, Y, np.zeros((9, 5)))


@pytest.mark.parametrize(
    ("levels", "ticks"),
    [
        ([0.02, 531], [0.1, 1, 10, 100]),
        ([1.8, 88], [2, 5, 10, 20, 50]),
        ([1.5, 4], [1.5, 2, 2.5, 3, 3.5, 4]),
        ([-1, 1], [-0.8, -0.4, 0, 0.4, 0.8]),
    ],
)
def test_ticks_are_round_and_in_the_range(levels: list[float], ticks: list[float]) -> None:
    assert plotting.round_ticks(np.array(levels)) == pytest.approx(ticks)


def test_a_title_takes_the_lines_that_it_needs_and_leaves_the_axes_their_size() -> None:
    fig = plotting.new_axes().figure
    plotting.add_title(fig, "")
    assert fig.get_figheight() == 2.4
    plotting.add_title(fig, "a network with $ and a name that is so long " * 2)
    assert fig.get_suptitle().count("\n") == 1
    fig.draw_without_rendering()
    title, axes = fig.texts[0].get_window_extent(), fig.axes[0].get_tightbbox()
    assert axes.y1 <= title.y0
    assert title.x1 <= fig.bbox.x1
