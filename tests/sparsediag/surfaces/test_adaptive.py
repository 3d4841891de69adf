"""Adaptive: few points on smooth surfaces, all of them on others, and an honest error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparsediag.surfaces.adaptive import adaptive_values

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]
SMOOTH: dict[str, Function] = {
    "bowl": lambda x, y: x**2 + 3 * y**2,
    "saddle": lambda x, y: x**2 - y**2 + 0.3 * x * y**2,
    "valley": lambda x, y: (0.5 - x) ** 2 + 4 * (y - x**2) ** 2,
    "waves": lambda x, y: np.sin(3 * x) * np.cos(2 * y),
    "ramp": lambda x, y: np.log1p(np.exp(4 * x + 2 * y)) + 0.5 * y**2,
    "pit": lambda x, y: 2.3 - 2 * np.exp(-3 * (x**2 + y**2)),
}
every_smooth = pytest.mark.parametrize("name", SMOOTH)


class Surface:
    """The values of a function on a grid, that notes which are asked for."""

    def __init__(self, function: Function, shape: tuple[int, int] = (51, 51)) -> None:
        x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        self.truth, self.asked = function(x, y), list[int]()

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        self.asked += numbers.tolist()
        values: np.ndarray = self.truth.ravel()[numbers]
        return values


def _noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=x.shape)


def _constant(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.full(x.shape, 2.3)


def _cliff(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(x + y > 0.7, np.inf, x**2)


def _hole(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    values = x**2 + y**2
    values[0, 0] = np.nan  # in the first points
    return values


@every_smooth
@pytest.mark.parametrize("tol", [0.01, 0.003])
def test_a_smooth_surface_needs_few_points(name: str, tol: float) -> None:
    surface = Surface(SMOOTH[name])
    values, error = adaptive_values((51, 51), surface, tol=tol)
    assert 0 < error <= tol
    assert len(surface.asked) == len(set(surface.asked)) < 0.25 * values.size
    worst = np.abs(values - surface.truth).max() / np.ptp(surface.truth)
    assert 0 < worst <= 3 * error
    assert (values.ravel()[surface.asked] == surface.truth.ravel()[surface.asked]).all()


def test_a_smaller_error_takes_more_points() -> None:
    loose, tight = Surface(SMOOTH["waves"]), Surface(SMOOTH["waves"])
    adaptive_values((51, 51), loose, tol=0.05)
    adaptive_values((51, 51), tight, tol=0.0005)
    assert len(loose.asked) < len(tight.asked)


@pytest.mark.parametrize("function", [_noise, _constant, _cliff, _hole])
def test_other_surfaces_are_computed_whole(function: Function) -> None:
    surface = Surface(function, (25, 25))
    values, error = adaptive_values((25, 25), surface, tol=0.01)
    assert error == 0
    assert values.tobytes() == surface.truth.tobytes()
    assert sorted(surface.asked) == list(range(625))


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (7, 7), (8, 9), (2, 60), (60, 2)])
def test_small_grids(shape: tuple[int, int]) -> None:
    surface = Surface(SMOOTH["waves"], shape)
    values, _ = adaptive_values(shape, surface, tol=0.01)
    assert values.shape == shape
    assert np.abs(values - surface.truth).max() <= 0.05 * np.ptp(surface.truth)
    assert len(surface.asked) == len(set(surface.asked))


@pytest.mark.parametrize("shape", [(21, 41), (41, 21)])
def test_a_grid_of_two_lengths_is_not_transposed(shape: tuple[int, int]) -> None:
    surface = Surface(SMOOTH["ramp"], shape)
    values, error = adaptive_values(shape, surface, tol=0.02)
    assert len(surface.asked) < values.size
    assert values.shape == shape
    assert np.abs(values - surface.truth).max() <= 3 * error * np.ptp(surface.truth)


def test_one_seed_gives_one_choice() -> None:
    np.random.seed(0)  # noqa: NPY002
    one, same, other = (Surface(SMOOTH["pit"]) for _ in range(3))
    first, _ = adaptive_values((51, 51), one, tol=0.01)
    np.random.seed(1)  # noqa: NPY002
    second, _ = adaptive_values((51, 51), same, tol=0.01)
    adaptive_values((51, 51), other, tol=0.01, seed=1)
    assert one.asked == same.asked
    assert first.tobytes() == second.tobytes()
    assert one.asked != other.asked


def test_a_shift_and_a_scale_change_nothing() -> None:
    one = Surface(SMOOTH["valley"])
    two = Surface(lambda x, y: 2.0**20 * SMOOTH["valley"](x, y))
    _, first = adaptive_values((51, 51), one, tol=0.01)
    _, second = adaptive_values((51, 51), two, tol=0.01)
    assert first == pytest.approx(second, rel=1e-6)
    assert len(one.asked) == len(two.asked)
