"""Census: what masks keep of every layer, what of it is connected, and how far masks agree."""

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
from sparsediag.diagnostics.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PIXELS = 32  # height and width of the images, where a checkpoint does not say


@dataclass(frozen=True, kw_only=True, eq=False)
class Census(Result):
    """The masks of one or several nets.

    Attributes:
        names: Of the nets.
        weights: Names of the weights that a mask covers.
        sizes: Entries of each weight, (weights,).
        alive: Live entries, (nets, weights).
        used: Live entries on a path from the input to the output, (nets, weights); NaN where the
            net is not known.
        filters: Filters, or outputs, without a live entry, (nets, weights).
        channels: Channels, or inputs, without one, (nets, weights).
        shared: Entries alive in both of two nets, (nets, nets, weights).
        log_paths: Decimal logarithm of the number of paths, (nets,); NaN where it is not known.
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
        """Weights alive in both over weights alive in either (IoU), of all pairs of nets."""
        return self._share(self.shared.sum(2), self.alive.sum(1))

    @property
    def overlaps(self) -> np.ndarray:
        """The same of every weight, (nets, nets, weights); NaN where both are empty."""
        return self._share(self.shared, self.alive)

    @staticmethod
    def _share(both: np.ndarray, alive: np.ndarray) -> np.ndarray:
        either = alive[:, None] + alive[None] - both
        return np.where(either > 0, both / np.maximum(either, 1), np.nan)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each net."""
        total = self.sizes.sum()
        rows = []
        for i, name in enumerate(self.names):
            alive, used = self.alive[i].sum(), self.used[i].sum()
            row = {
                "net": name,
                "alive": f"{alive:,}",
                "density": f"{alive / total:.2%}",
                "on a path": "" if np.isnan(used) else f"{used / total:.2%}",
                "paths": "" if np.isnan(self.log_paths[i]) else _power(self.log_paths[i]),
                "dead filters": f"{self.filters[i].sum():,}",
                "dead channels": f"{self.channels[i].sum():,}",
            }
            others = {f"IoU with {n}": f"{self.overlap[i, j]:.3f}" for j, n in self._others()}
            rows.append(row | others)
        return rows

    def layers(self) -> list[dict[str, Any]]:
        """Return one row for each weight: of one net in detail, of several side by side."""
        rows = []
        for k, (weight, size) in enumerate(zip(self.weights, self.sizes, strict=True)):
            row: dict[str, Any] = {"weight": weight, "of": f"{size:,}"}
            if len(self.names) == 1:
                row |= {
                    "alive": f"{self.alive[0, k]:,}",
                    "density": f"{self.alive[0, k] / size:.2%}",
                    "on a path": "" if np.isnan(self.used[0, k]) else f"{self.used[0, k]:,.0f}",
                    "dead filters": f"{self.filters[0, k]:,}",
                    "dead channels": f"{self.channels[0, k]:,}",
                }
            for i, name in enumerate(self.names if len(self.names) > 1 else ()):
                row[name] = f"{self.alive[i, k] / size:.2%}"
            row |= {
                f"IoU of {self.names[0]}, {name}": f"{self.overlaps[0, j, k]:.3f}"
                for j, name in enumerate(self.names)
                if j
            }
            rows.append(row)
        return rows

    def remarks(self) -> list[str]:
        """Return what is cut off."""
        found = []
        for i, name in enumerate(self.names):
            empty = [w for w, n in zip(self.weights, self.alive[i], strict=True) if not n]
            if self.log_paths[i] == -np.inf:
                found.append(f"{name}: no path is left from the input to the output")
            if empty:
                found.append(f"{name}: empty: {', '.join(empty)}")
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Density over depth, a line a net; dotted, what lies on a path; crosses, what is empty."""
        from sparsediag.plotting import style

        if ax is None:
            width = min(style.PAGE, max(style.COLUMN, 0.16 * len(self.weights)))
            ax = style.figure(width, 3.0).add_subplot()
        depth = np.arange(len(self.weights))
        shares = 100 * self.alive / self.sizes
        connected = 100 * self.used / self.sizes
        for i, (name, colour) in enumerate(zip(self.names, cycle(style.COLOURS), strict=False)):
            live = np.where(shares[i] > 0, shares[i], np.nan)
            ax.plot(depth, live, "o-", ms=3, color=colour, label=style.literal(name))
            if (connected[i] < shares[i]).any():
                on_path = np.where(connected[i] > 0, connected[i], np.nan)
                ax.plot(depth, on_path, ":", color=colour)
            gone = np.flatnonzero(shares[i] == 0)
            foot = np.full(len(gone), 0.02)
            ax.plot(gone, foot, "x", color=colour, transform=ax.get_xaxis_transform())
        if (connected < shares).any():
            ax.plot([], [], ":", color="black", label="on a path")
        if (shares == 0).any():
            ax.plot([], [], "x", color="black", label="empty")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        ax.set_xticks(depth, [w.removesuffix(".weight") for w in self.weights])
        ax.tick_params(axis="x", rotation=90, labelsize=5)
        ax.set_ylabel("live weights (%)")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        return ax

    def _others(self) -> list[tuple[int, str]]:
        return list(enumerate(self.names)) if len(self.names) > 1 else []


@full_precision()
def census(
    nets: Mapping[str, Checkpoint], *, built: Mapping[str, torch.nn.Module] | None = None
) -> Census:
    """Count what the masks of checkpoints keep, and compare them.

    Weights on a path are those of Vysogorets and Kempe's effective sparsity (JMLR 24, 2023).

    Args:
        nets: Name -> checkpoint. A dense one counts as a mask of everything, and so does a weight
            that only others' masks cover.
        built: The custom networks: they tell which way their weights lie; see `dead_units`.

    Raises:
        ValueError: If there is none, or their masks do not cover the same weights.

    >>> from sparsediag.models import build
    >>> net = build("lenet300", size=8, width=4)
    >>> mask = Mask.top({n: dict(net.named_parameters())[n].abs() for n in prunable(net)}, 0.5)
    >>> mask.apply_(net)
    >>> kept = Checkpoint.of(net, mask=mask, model="lenet300", options={"size": 8, "width": 4})
    >>> census({"half": kept}).alive.sum()
    np.int64(156)
    """
    if not nets:
        raise ValueError("no checkpoint came; need one or more")
    masks = _masks(nets)
    first = next(iter(masks))
    weights = list(masks[first])
    found = {name: _paths(nets[name], mask, weights) for name, mask in masks.items()}
    known = built or {}
    units = [[dead_units(m, w, known.get(n)) for w in weights] for n, m in masks.items()]
    return Census(
        names=list(nets),
        weights=weights,
        sizes=np.array([masks[first][w].numel() for w in weights]),
        alive=np.array([[int(m[w].sum()) for w in weights] for m in masks.values()]),
        used=np.array([found[name][0] for name in nets]),
        filters=np.array([[rows for rows, _ in unit] for unit in units]),
        channels=np.array([[columns for _, columns in unit] for unit in units]),
        shared=np.array(
            [
                [[int((a[w] & b[w]).sum()) for w in weights] for b in masks.values()]
                for a in masks.values()
            ]
        ),
        log_paths=np.array([found[name][1] for name in nets]),
        source={"masks": {name: mask.digest for name, mask in masks.items()}},
    )


def _masks(nets: Mapping[str, Checkpoint]) -> dict[str, Mask]:
    """The masks of checkpoints over the same weights; what one leaves out is all alive."""
    covered = list(dict.fromkeys(name for kept in nets.values() for name in kept.mask or ()))
    covered = covered or prunable(next(iter(nets.values())).build())
    shapes = {
        label: {n: tuple(kept.weights[n].shape) if n in kept.weights else None for n in covered}
        for label, kept in nets.items()
    }
    first = next(iter(shapes))
    for label, found in shapes.items():
        for name in covered:
            if found[name] != shapes[first][name] or not found[name]:
                one, other = shapes[first][name] or "missing", found[name] or "missing"
                raise ValueError(
                    f"the masks do not cover the same weights: '{name}' is {one} in {first}, "
                    f"{other} in {label}"
                )
    return {
        label: Mask(
            {n: torch.ones_like(kept.weights[n], dtype=torch.bool) for n in covered}
            | dict(kept.mask or {})
        )
        for label, kept in nets.items()
    }


def _paths(kept: Checkpoint, mask: Mask, weights: list[str]) -> tuple[list[float], float]:
    """Entries on a path, and the logarithm of the paths; NaN for a net that cannot be built."""
    try:
        net = kept.build()
    except CheckpointError:
        return [np.nan] * len(weights), np.nan
    known = models.defaults(kept.model) | kept.options
    size = known.get("size", PIXELS)
    found = paths(net, mask, torch.Size((known["channels"], size, size)))
    return [found.used[w] for w in weights], found.log10


def _power(log: float) -> str:
    if np.isinf(log):
        return "none" if log < 0 else "above 1e308"
    power = int(np.floor(log + 0.0005))  # 9.995 is 10.0
    return f"{10 ** (log - power):.2f}e{power}"
