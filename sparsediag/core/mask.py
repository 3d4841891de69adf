"""Mask: the weights of a network that are alive.

A sparse network is an ordinary module whose dead weights are exactly zero. Its mask is kept
beside it, and is never inferred from the zeros except by `Mask.of`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.errors import unknown_name
from sparsediag.core.prunable import plain_name, prunable


class Mask(Mapping[str, Tensor]):
    """Immutable `name -> bool tensor`, keyed like `net.named_parameters()`; True is alive.

    >>> mask = Mask({"weight": torch.tensor([[True, False], [False, False]])})
    >>> mask.alive, mask.size, mask.density
    (1, 4, 0.25)
    """

    __slots__ = ("_of",)
    _of: dict[str, Tensor]

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        if not masks:
            raise ValueError("an empty mask covers nothing; to keep all weights pass no mask")
        for name, m in masks.items():
            if not isinstance(m, Tensor) or m.dtype != torch.bool:
                kind = m.dtype if isinstance(m, Tensor) else type(m).__name__
                raise TypeError(f"mask of '{name}' is {kind}; need a tensor of dtype torch.bool")
        self._of = {name: m.detach().clone() for name, m in masks.items()}

    @classmethod
    def top(
        cls,
        scores: Mapping[str, Tensor],
        density: float,
        scope: Literal["global", "layer"] = "global",
    ) -> Mask:
        """Keep the weights with the highest scores: exactly `round(density * size)` of them.

        Ties go to the earlier weight, so the same scores always give the same mask.

        Args:
            scores: One score for each weight, of any real dtype, without NaN.
            density: Fraction of the weights to keep, in (0, 1].
            scope: Rank all weights together, or keep the same fraction of every layer.

        Raises:
            ValueError: If the density is outside (0, 1] or a score is NaN.
        """
        if not 0 < density <= 1:
            raise ValueError(
                f"density {density}: need a number in (0, 1]. "
                "For 90 % sparsity write density = 0.1."
            )
        for name, s in scores.items():
            if s.isnan().any():
                raise ValueError(f"the scores of '{name}' hold NaN, so they cannot be ranked")
        if scope == "layer":
            layers = [_best({n: s}, round(density * s.numel())) for n, s in scores.items()]
            return cls({name: m for layer in layers for name, m in layer.items()})
        if scope != "global":
            raise ValueError(f"scope '{scope}': need 'global' or 'layer'")
        return cls(_best(scores, round(density * sum(s.numel() for s in scores.values()))))

    @classmethod
    def of(cls, net: nn.Module) -> Mask:
        """Return the mask of the weights of `net` that are not exactly 0.

        A weight that is 0 by chance counts as dead, so use this only if there is no mask.
        """
        weights = dict(net.named_parameters())
        return cls({name: weights[name] != 0 for name in prunable(net)})

    def __getitem__(self, name: str) -> Tensor:
        return self._of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.keys() == other.keys() and all(
            torch.equal(m.cpu(), other[n].cpu()) for n, m in self.items()
        )

    def __or__(self, other: Mask) -> Mask:
        """Return the union of two masks; a tensor that is in only one of them is all alive."""
        alive = {name: torch.ones_like(m) for name, m in {**self, **other}.items()}
        return Mask({n: self.get(n, m) | other.get(n, m) for n, m in alive.items()})

    def __and__(self, other: Mask) -> Mask:
        """Return the intersection of two masks; a missing tensor counts as all alive."""
        either = {**self, **other}
        return Mask({n: self.get(n, m) & other.get(n, m) for n, m in either.items()})

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Mask({self.alive:,} of {self.size:,} weights alive, {len(self)} tensors)"

    def _repr_html_(self) -> str:
        """Return a table of the density of each tensor, for a notebook."""
        from sparsediag.core import html

        rows = [*self.table(), ("all", self.alive, self.size)]
        bars = [
            {
                "weight": name,
                "alive": f"{alive:,}",
                "of": f"{size:,}",
                "density": f"{alive / max(size, 1):.2%}",
                "": "█" * round(20 * alive / max(size, 1)),
            }
            for name, alive, size in rows
        ]
        return html.fragment(html.table(bars, caption=repr(self)))

    @property
    def size(self) -> int:
        """Number of weights that the mask covers."""
        return sum(m.numel() for m in self.values())

    @property
    def alive(self) -> int:
        """Number of weights kept."""
        return sum(int(m.sum()) for m in self.values())

    @property
    def density(self) -> float:
        """Fraction of the covered weights that is kept."""
        return self.alive / self.size

    @property
    def digest(self) -> str:
        """Hex fingerprint of names, shapes and bits."""
        sha = hashlib.sha256()
        for name, m in sorted(self.items()):
            sha.update(f"{name}{tuple(m.shape)}".encode())
            sha.update(np.packbits(m.cpu().numpy()).tobytes())
        return sha.hexdigest()

    def table(self) -> list[tuple[str, int, int]]:
        """Return one row for each tensor: name, number of live weights, number of weights."""
        return [(name, int(m.sum()), m.numel()) for name, m in self.items()]

    def to(self, device: torch.device | str) -> Mask:
        """Return the mask on another device."""
        return Mask({name: m.to(device) for name, m in self.items()})

    def check(self, net: nn.Module) -> None:
        """Check that the names and shapes of the mask fit `net`."""
        self.weights_of(net)

    def weights_of(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights of `net` that the mask covers, by the names of the mask.

        Names may differ by what wrappers such as `torch.compile` add to them (see `plain_name`).

        Raises:
            ValueError: If a name or a shape does not fit.
        """
        weights = dict(net.named_parameters(remove_duplicate=False))
        plain, covered = {plain_name(name): w for name, w in weights.items()}, {}
        for name, m in self.items():
            weight = weights.get(name, plain.get(plain_name(name)))
            if weight is None:
                layer, _, last = name.rpartition(".")
                origins = f"{name}_orig", f"{layer}.parametrizations.{last}.original".strip(".")
                for origin in weights.keys() & origins:
                    raise ValueError(f"'{name}' is computed from '{origin}'; mask that name")
                raise ValueError(unknown_name("weight named by the mask:", name, weights))
            if m.shape != weight.shape:
                raise ValueError(
                    f"mask of '{name}' is {tuple(m.shape)}, the weight is {tuple(weight.shape)}"
                )
            covered[name] = weight
        return covered

    @torch.no_grad()
    def apply_(self, net: nn.Module) -> None:
        """Set the dead weights of `net` to exactly 0, in place."""
        for name, weight in self.weights_of(net).items():
            weight.masked_fill_(~self[name].to(weight.device), 0)

    def pack(self) -> dict[str, Any]:
        """Return plain types for a file: shapes by name, and one compressed tensor of all bits."""
        bits = np.packbits(torch.cat([m.flatten().cpu() for m in self.values()]).numpy())
        compressed = np.frombuffer(zlib.compress(bits.tobytes(), 6), dtype=np.uint8).copy()
        return {
            "shapes": {name: list(m.shape) for name, m in self.items()},
            "bits": torch.from_numpy(compressed),
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Mask:
        """Return the mask that `pack` wrote."""
        shapes = packed["shapes"]
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        raw = np.frombuffer(zlib.decompress(packed["bits"].numpy().tobytes()), dtype=np.uint8)
        if len(raw) != -(-sum(sizes) // 8):
            raise ValueError(f"{len(raw)} bytes for {sum(sizes)} weights")
        bits = torch.from_numpy(np.unpackbits(raw, count=sum(sizes)).astype(bool))
        parts = bits.split(sizes)
        return cls({n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)})


def _best(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Return bool tensors of the k highest scores of all; of equal ones, the earlier."""
    if k == 0:
        return {name: torch.zeros_like(s, dtype=torch.bool) for name, s in scores.items()}
    flat = {name: s.detach().flatten() for name, s in scores.items()}
    threshold = _kth_largest(torch.cat(list(flat.values())), k)
    flat = {name: s.to(threshold.dtype) for name, s in flat.items()}
    best = {name: s > threshold for name, s in flat.items()}
    missing = k - sum(int(m.sum()) for m in best.values())
    for name, s in flat.items():
        ties = (s == threshold).nonzero().squeeze(1)[:missing]
        best[name][ties] = True
        missing -= len(ties)
    return {name: best[name].view(s.shape) for name, s in scores.items()}


def _kth_largest(flat: Tensor, k: int) -> Tensor:
    """Return the k-th largest value as a scalar tensor; `flat` may be reordered."""
    flat = flat.byte() if flat.dtype == torch.bool else flat
    rank = flat.numel() - k
    if flat.device.type != "cpu" or flat.dtype == torch.bfloat16:
        return flat.kthvalue(rank + 1).values
    values = flat.numpy()
    values.partition(rank)  # faster than kthvalue, which also returns indices
    return flat[rank].clone()
