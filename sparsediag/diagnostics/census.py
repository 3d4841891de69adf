"""Mask statistics: density and connectivity of every layer, and overlap between masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsediag import models
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import CheckpointError
from sparsediag.core.evaluation import full_precision
from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from sparsediag.diagnostics.connectivity import dead_units, paths
from sparsediag.diagnostics.result import Result, table_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PIXELS = 32  # height and width of the images if the checkpoint does not say


@dataclass(frozen=True, kw_only=True, eq=False)
class Census(Result):
    """Statistics of the masks of one or several networks.

    Attributes:
        names: Names of the networks.
        weights: Names of the weights that a mask covers.
        sizes: Number of entries of each weight, (weights,).
        alive: Number of live entries, (nets, weights).
        used: Number of live entries on a path from the input to the output, (nets, weights); NaN if
            the network cannot be built.
        filters: Number of filters, or outputs, without a live entry, (nets, weights).
        channels: Number of input channels, or inputs, without a live entry, (nets, weights).
        shared: Number of entries that are live in both of two networks, (nets, nets, weights).
        log_paths: Decimal logarithm of the number of paths, (nets,); NaN as in `used`.
    """

    names: list[str]
    weights: list[str]
    sizes: np.ndarray
    alive: np.ndarray
    used: np.ndarray
    filters: np.ndarray
    channels: np.ndarray
    shared: np.ndarray
    log_paths: np.ndarray

    @property
    def overlap(self) -> np.ndarray:
        """Intersection over union of the live weights of two networks, (nets, nets)."""
        return _iou(self.shared.sum(2), self.alive.sum(1))

    @property
    def overlaps(self) -> np.ndarray:
        """The same for each weight, (nets, nets, weights); NaN if both masks are empty."""
        return _iou(self.shared, self.alive)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each network."""
        total = self.sizes.sum()
        columns: dict[str, tuple[Any, str]] = {
            "net": (self.names, ""),
            "live": (self.alive.sum(1), ","),
            "density": (self.alive.sum(1) / total, ".2%"),
            "on a path": (self.used.sum(1) / total, ".2%"),
            "paths": (map(_power_of_ten, self.log_paths), ""),
            "dead filters": (self.filters.sum(1), ","),
            "dead channels": (self.channels.sum(1), ","),
        }
        if len(self.names) > 1:
            ious = zip(self.names, self.overlap, strict=True)
            columns |= {f"IoU with {name}": (iou, ".3f") for name, iou in ious}
        return table_rows(columns)

    def layers(self) -> list[dict[str, Any]]:
        """Return one row for each weight: the counts of one network, or densities of several."""
        density = self.alive / self.sizes
        columns: dict[str, tuple[Any, str]] = {
            "weight": (self.weights, ""),
            "size": (self.sizes, ","),
        }
        if len(self.names) == 1:
            return table_rows(
                columns
                | {
                    "live": (self.alive[0], ","),
                    "density": (density[0], ".2%"),
                    "on a path": (self.used[0], ",.0f"),
                    "dead filters": (self.filters[0], ","),
                    "dead channels": (self.channels[0], ","),
                }
            )
        first, *others = self.names
        ious = zip(others, self.overlaps[0, 1:], strict=True)
        return table_rows(
            columns
            | {name: (d, ".2%") for name, d in zip(self.names, density, strict=True)}
            | {f"IoU of {first}, {name}": (iou, ".3f") for name, iou in ious}
        )

    @property
    def findings(self) -> list[str]:
        """Return what is cut off, without the name if there is one network."""
        prefix = f"{self.names[0]}: " if len(self.names) == 1 else ""
        return [line.removeprefix(prefix) for line in self.remarks()]

    def remarks(self) -> list[str]:
        """Return findings about empty weights and networks without a path."""
        lines = []
        for name, alive, log in zip(self.names, self.alive, self.log_paths, strict=True):
            if log == -np.inf:
                lines.append(
                    f"{name}: no path is left from the input to the output, so the output does "
                    "not depend on the input: prune less, or bound the density of each layer"
                )
            if empty := [w for w, n in zip(self.weights, alive, strict=True) if not n]:
                lines.append(f"{name}: no live weight in {', '.join(empty)}")
        return lines

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the density, a row a weight; dotted, weights on a path; x, empty weights."""
        from sparsediag.plotting import layers, style

        density, on_path = 100 * self.alive / self.sizes, 100 * self.used / self.sizes
        live, used = (np.where(share > 0, share, np.nan) for share in (density, on_path))
        series = {
            style.escape_dollars(n): (row, "o-") for n, row in zip(self.names, live, strict=True)
        }
        ax = layers.plot_layers(self.weights, series, ax)
        for i, colour in zip(range(len(self.names)), cycle(style.COLOURS), strict=False):
            if (on_path[i] < density[i]).any():
                ax.plot(used[i], range(len(self.weights)), ":", color=colour)
            empty = np.flatnonzero(density[i] == 0)
            left = np.full(len(empty), 0.02)
            ax.plot(left, empty, "x", color=colour, transform=ax.get_yaxis_transform())
        if (on_path < density).any():
            ax.plot([], [], ":", color="black", label="on a path")
        if (density == 0).any():
            ax.plot([], [], "x", color="black", label="empty")
        layers.set_log_scale(ax, "x")
        ax.set_xlabel("live weights (%)")
        layers.add_legend(ax)
        return ax


@full_precision()
def census(
    nets: Mapping[str, Checkpoint], *, built: Mapping[str, torch.nn.Module] | None = None
) -> Census:
    """Count the live weights of checkpoints, layer by layer, and compare their masks.

    Weights on a path are those of the effective sparsity (Vysogorets and Kempe, JMLR 24, 2023).

    Args:
        nets: Name -> checkpoint. All weights are live in a dense one; and so are weights that only
            the masks of others cover.
        built: Name -> network, for custom networks; see `dead_units`.

    Returns:
        The counts, (nets, weights), and those of shared weights, (nets, nets, weights).

    Raises:
        ValueError: If there is no checkpoint, or their masks do not cover the same weights.

    >>> from sparsediag.models import build
    >>> net = build("lenet300", size=8, width=4)
    >>> mask = Mask.top({n: dict(net.named_parameters())[n].abs() for n in prunable(net)}, 0.5)
    >>> mask.apply_(net)
    >>> options = {"size": 8, "width": 4}
    >>> checkpoint = Checkpoint.of(net, mask=mask, model="lenet300", options=options)
    >>> census({"half": checkpoint}).alive.sum()
    np.int64(156)
    """
    if not nets:
        raise ValueError("no checkpoint given; need one or more")
    masks = _masks(nets)
    weights = list(next(iter(masks.values())))
    bits = [[mask[w] for w in weights] for mask in masks.values()]
    units = [
        [dead_units(mask, w, (built or {}).get(name)) for w in weights]
        for name, mask in masks.items()
    ]
    connected = [_paths(nets[name], mask, weights) for name, mask in masks.items()]
    filters, channels = np.moveaxis(np.array(units), 2, 0)
    return Census(
        names=list(nets),
        weights=weights,
        sizes=np.array([m.numel() for m in bits[0]]),
        alive=np.array([[int(m.sum()) for m in row] for row in bits]),
        used=np.array([used for used, _ in connected]),
        filters=filters,
        channels=channels,
        shared=np.array(
            [
                [[int((a & b).sum()) for a, b in zip(one, two, strict=True)] for two in bits]
                for one in bits
            ]
        ),
        log_paths=np.array([log for _, log in connected]),
        source={"masks": {name: mask.digest for name, mask in masks.items()}},
    )


def _masks(nets: Mapping[str, Checkpoint]) -> dict[str, Mask]:
    """Return the masks of checkpoints over the same weights; all True where one has none."""
    covered = list(dict.fromkeys(w for net in nets.values() for w in net.mask or ()))
    covered = covered or prunable(next(iter(nets.values())).build())
    first, reference = next(iter(nets.items()))
    for name, net in nets.items():
        for weight in covered:
            here, there = (
                tuple(n.weights[weight].shape) if weight in n.weights else "missing"
                for n in (reference, net)
            )
            if here != there or here == "missing":
                raise ValueError(
                    f"the masks do not cover the same weights: '{weight}' is {here} in {first}, "
                    f"{there} in {name}"
                )
    return {
        name: Mask(
            {w: torch.ones_like(net.weights[w], dtype=torch.bool) for w in covered}
            | dict(net.mask or {})
        )
        for name, net in nets.items()
    }


def _paths(checkpoint: Checkpoint, mask: Mask, weights: list[str]) -> tuple[list[float], float]:
    """Return `Census.used` and `log_paths` of a network; NaN if it cannot be built."""
    try:
        net = checkpoint.build()
    except CheckpointError:
        return [np.nan] * len(weights), np.nan
    options = models.defaults(checkpoint.model) | checkpoint.options
    size = options.get("size", PIXELS)
    result = paths(net, mask, torch.Size((options["channels"], size, size)))
    return [result.used[w] for w in weights], result.log10


def _iou(both: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return intersection over union, given counts of shared and of live weights."""
    either = alive[:, None] + alive[None] - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def _power_of_ten(log: float) -> str:
    """Return 10^log in three digits, also above the largest float.

    >>> _power_of_ten(400.3)
    '2.00e400'
    """
    if np.isnan(log):
        return ""
    if np.isinf(log):
        return "none" if log < 0 else "above 1e308"
    power = int(np.floor(log + 0.0005))  # 9.995 is 10.0
    return f"{10 ** (log - power):.2f}e{power}"
