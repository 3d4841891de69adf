"""Live coordinates: the weights of a net that may move, as one flat vector.

A dead weight has no coordinate, so no vector can revive it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.errors import unknown_name, unknown_path
from sparsediag.core.mask import Mask
from sparsediag.core.short_repr import short_repr


@dataclass(frozen=True, eq=False)
class LiveCoordinates:
    """The positions of a net's live weights in a flat vector.

    Attributes:
        shapes: Name -> shape of each parameter that moves, in the net's order.
        index: Positions of the live weights among all weights, (size,); None if all are alive.

    >>> net = nn.Linear(2, 1)
    >>> live = LiveCoordinates.of(net, Mask({"weight": torch.tensor([[True, False]])}))
    >>> live.size, live.split(torch.tensor([3.0, 5.0]))["weight"]
    (2, tensor([[3., 0.]]))
    """

    shapes: dict[str, torch.Size]
    index: Tensor | None

    __repr__ = short_repr

    @classmethod
    def of(cls, net: nn.Module, mask: Mask | None, params: str | None = None) -> LiveCoordinates:
        """Return the live coordinates of `net` under `mask` (None: every trainable weight).

        `params` restricts them, as in `restrict`.
        """
        trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("the network has no parameter with requires_grad, so no weight moves")
        if mask is not None:
            mask.check(net)
        shapes = {n: p.shape for n, p in trained.items()}
        return cls(shapes, None).restrict(mask, params, next(iter(trained.values())))

    def restrict(self, mask: Mask | None, params: str | None, like: Tensor) -> LiveCoordinates:
        """Return the coordinates of those weights that are live in `mask` and chosen by `params`.

        Args:
            mask: The live weights; None for all.
            params: Comma-separated globs of names; "matrices" selects weights of two dimensions or
                more, those of convolutions and linear layers. None for all.
            like: A tensor on the device of the vectors.
        """
        globs = [g.strip() for g in ("*" if params is None else params).split(",")]
        shapes = {
            n: shape
            for n, shape in self.shapes.items()
            if any(fnmatchcase(n, g) or (g == "matrices" and len(shape) > 1) for g in globs)
        }
        if not shapes:
            raise ValueError(unknown_path("trainable weight", str(params), self.shapes))
        if mask is None:
            return LiveCoordinates(shapes, None)
        alive = [
            mask[n].flatten() if n in mask else torch.ones(shape.numel(), dtype=torch.bool)
            for n, shape in shapes.items()
        ]
        index = torch.cat([bits.to(like.device) for bits in alive]).nonzero().squeeze(1)
        return LiveCoordinates(shapes, index)

    @property
    def size(self) -> int:
        """Number of live weights: the length of a vector."""
        return self._numel if self.index is None else len(self.index)

    @property
    def _numel(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    def check(self, vector: Tensor) -> None:
        """Check that a vector has one number for each live weight."""
        if vector.shape != (self.size,):
            raise ValueError(
                f"the vector has shape {tuple(vector.shape)}; need ({self.size},), "
                "one number for each live weight"
            )

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the tensors of a vector (size,) by name, in the net's shapes, 0 where dead."""
        self.check(vector)
        if self.index is not None:
            vector = vector.new_zeros(self._numel).index_copy_(0, self.index, vector)
        return self._views(vector)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a vector of all weights, dead ones too, by name."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the vector (size,) of named tensors.

        Entries of dead weights are dropped, and names that are left out count as 0.
        """
        if not tensors:
            raise ValueError("got no tensors; need at least one, under the name of its weight")
        for name, tensor in tensors.items():
            if name not in self.shapes:
                raise ValueError(unknown_name("trainable weight", name, self.shapes))
            if tensor.shape != self.shapes[name]:
                shape, need = tuple(tensor.shape), tuple(self.shapes[name])
                raise ValueError(f"the tensor for '{name}' is {shape}, the weight is {need}")
        like = next(iter(tensors.values()))
        dtype = reduce(torch.promote_types, [t.dtype for t in tensors.values()])
        flat = torch.zeros(self._numel, dtype=dtype, device=like.device)
        views = self._views(flat)
        dense = [t.detach().to_dense() for t in tensors.values()]  # embeddings may be sparse
        torch._foreach_copy_([views[name] for name in tensors], dense)
        return flat if self.index is None else flat[self.index]

    def bits(self) -> np.ndarray:
        """Return the live weights as packed bits, in the net's order; empty if all are alive."""
        if self.index is None:
            return np.zeros(0, np.uint8)
        alive = np.zeros(self._numel, bool)
        alive[self.index.cpu().numpy()] = True
        return np.packbits(alive)

    def counts(self) -> dict[str, int]:
        """Return the number of live weights of each tensor, by name."""
        if self.index is None:
            return {n: s.numel() for n, s in self.shapes.items()}
        ends = torch.tensor([s.numel() for s in self.shapes.values()]).cumsum(0)
        below = torch.searchsorted(self.index.cpu(), ends).tolist()
        return {n: b - a for n, a, b in zip(self.shapes, [0, *below[:-1]], below, strict=True)}


def accumulate(total: list[Tensor] | None, parts: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return `total + share * parts`, added in place; a total of None counts as 0."""
    if total is None:
        return list(torch._foreach_mul(list(parts), share))
    torch._foreach_add_(total, list(parts), alpha=share)
    return total


def possibly_written(net: nn.Module, *, batch_norm: str) -> set[str]:
    """Return the names of the tensors that a forward pass may write into.

    Torch's own layers write none in evaluation mode, but batch norms do in training mode. Other
    classes may write into all of theirs.
    """
    ids = {
        id(t)
        for m in net.modules()
        if not type(m).__module__.startswith("torch.nn.modules.")
        or (batch_norm == "train" and isinstance(m, nn.modules.batchnorm._BatchNorm))
        for t in [*m.parameters(recurse=False), *m.buffers(recurse=False)]
    }
    return {n for n, t in [*net.named_parameters(), *net.named_buffers()] if id(t) in ids}


def placement(
    weights: Mapping[str, Tensor], like: Tensor
) -> dict[str, tuple[torch.device, torch.dtype]]:
    """Return the device and dtype of each weight for which they differ from those of `like`."""
    kinds = {name: (w.device, w.dtype) for name, w in weights.items()}
    return {name: kind for name, kind in kinds.items() if kind != (like.device, like.dtype)}
