"""Checkpoint: a trained net in one file that says what it is, and runs no code when read.

The file holds plain types and tensors. A masked tensor is stored as packed bits and its live
values, so a dead weight cannot come back as anything but 0.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import sparsediag
from sparsediag import archive, models
from sparsediag import data as datasets
from sparsediag.device import pick
from sparsediag.errors import CheckpointError, unknown
from sparsediag.files import written
from sparsediag.mask import Mask
from sparsediag.problem import Problem


def _made_by() -> dict[str, str]:
    return {
        "sparsediag": sparsediag.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything needed to rebuild a trained net and to know where it came from.

    Attributes:
        model: A key of `models.MODELS`, or the label of a net of your own.
        options: The keywords that `models.build` gets.
        weights: The state dict on the CPU, buffers included.
        mask: The live weights, or None for a dense net.
        data: Name of the data set, so that a diagnostic knows where to look.
        run: The description of the training; empty for a net that was not trained here.
        step: Optimiser steps taken.
        steps: Optimiser steps of the whole training.
        history: One dict an epoch.
        resume: What the training needs to go on: only in the latest file of a run.
        made_by: Versions of sparsediag, torch and Python.

    >>> import tempfile
    >>> net = models.build("lenet300", size=8)
    >>> kept = Checkpoint.of(net, model="lenet300", options={"size": 8}, data="digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept.save(f"{folder}/net.pt")
    ...     same = Checkpoint.load(f"{folder}/net.pt").build()
    >>> torch.equal(same.fc.weight, net.fc.weight)
    True
    """

    model: str
    options: dict[str, Any]
    weights: dict[str, Tensor]
    mask: Mask | None = None
    data: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    resume: dict[str, Any] | None = None
    made_by: dict[str, str] = field(default_factory=_made_by)

    @classmethod
    def of(cls, net: nn.Module, *, mask: Mask | None = None, **about: Any) -> Checkpoint:
        """A snapshot of `net`. `about` holds the other fields: model, options, data and so on.

        Raises:
            CheckpointError: If a weight that the mask calls dead is not exactly 0.
        """
        if mask is not None:
            mask.check(net)
            weights = dict(net.named_parameters())
            for name, m in mask.items():
                revived = int((weights[name][~m.to(weights[name].device)] != 0).sum())
                if revived:
                    raise CheckpointError(
                        f"{revived} dead weights of '{name}' are not 0; call mask.apply_(net) first"
                    )
            mask = mask.to("cpu")
        plain = torch.contiguous_format  # whatever layout the net was trained in
        state = {
            n: t.detach().to("cpu", copy=True, memory_format=plain)
            for n, t in net.state_dict().items()
        }
        return cls(weights=state, mask=mask, **about)

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        mask: Mapping[str, Tensor] = self.mask or {}
        payload = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("weights", "mask")
        }
        payload["format"] = archive.FORMAT
        payload["mask"] = self.mask.pack() if self.mask else None
        payload["dense"] = {n: t.clone() for n, t in self.weights.items() if n not in mask}
        payload["live"] = {n: self.weights[n][m] for n, m in mask.items()}
        with written(path) as draft, draft.open("wb") as file:  # a name would end up in the file
            torch.save(_interned(payload), file)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file that `save` wrote. Nothing in the file is ever run.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is not a checkpoint, is damaged, or is of a newer format.
        """
        payload = archive.read(Path(path))
        try:
            return cls._unpacked(payload)
        except Exception:
            raise CheckpointError(f"{path} is no whole checkpoint; write it again") from None

    @classmethod
    def _unpacked(cls, payload: dict[str, Any]) -> Checkpoint:
        payload.pop("format")
        dense, live, packed = payload.pop("dense"), payload.pop("live"), payload.pop("mask")
        mask = Mask.unpack(packed) if packed is not None else None
        weights = dict(dense)
        for name, m in (mask or {}).items():
            if live[name].numel() != int(m.sum()):
                raise ValueError(f"'{name}' has not as many values as live weights")
            weights[name] = live[name].new_zeros(m.shape).masked_scatter_(m, live[name])
        return cls(weights=weights, mask=mask, **payload)

    def about(self) -> dict[str, Any]:
        """What the file holds, in plain types: for a person or a machine to read."""
        best = next((row for row in self.history if row.get("best")), {})
        last = self.history[-1] if self.history else {}
        return {
            "model": self.model,
            "options": self.options,
            "data": self.data,
            "numbers": sum(t.numel() for t in self.weights.values()),
            "density": self.mask.density if self.mask else 1.0,
            "step": self.step,
            "steps": self.steps,
            "epochs": len(self.history),
            "validation accuracy": last.get("val_accuracy"),
            "best epoch": best.get("epoch"),
            "test accuracy at the best epoch": best.get("test_accuracy"),
            "made by": self.made_by,
            "layers": self.mask.table() if self.mask else [],
        }

    def build(self, device: str | torch.device = "cpu") -> nn.Module:
        """The net, in evaluation mode, with these weights.

        Raises:
            CheckpointError: If the model is not built in, or the weights do not fit it.
        """
        if self.model not in models.MODELS:
            raise CheckpointError(
                unknown("model", self.model, models.MODELS)
                + " Build the net in Python and load `checkpoint.weights` into it."
            )
        with torch.random.fork_rng(devices=[]):
            try:
                net = models.build(self.model, **self.options)
            except TypeError as error:
                raise CheckpointError(f"{self.model} cannot be built: {error}") from None
        _check_fit(self.model, self.weights, net.state_dict())
        net.load_state_dict({n: t.clone() for n, t in self.weights.items()}, assign=True)
        return net.eval().to(device)

    def problem(
        self,
        *,
        split: str = "train",
        images: int | None = 1000,
        batch: int = 128,
        data: str | None = None,
        batch_norm: Literal["eval", "train"] = "eval",
        device: str = "auto",
        seed: int = 0,
    ) -> Problem:
        """The cross-entropy of this net over fixed, un-augmented images.

        Args:
            split: train, validation or test.
            images: Number of images, drawn once by `seed`; None for the whole split.
            batch: Images at a time.
            data: Another data set than the one it was trained on.
            batch_norm: Running statistics, or those of each batch; see `Problem`.
            device: auto, cpu, cuda or cuda:N.
            seed: Seed of the sample of images.

        Raises:
            CheckpointError: If the data set does not fit the net.
        """
        name = data or self.data
        if not name:
            raise CheckpointError("the checkpoint names no data set; pass one with --data")
        where = pick(device)
        loaded = datasets.load(name, device=where)
        net = self.build(where)
        known = models.defaults(self.model)
        for option in [o for o in ("channels", "classes", "size") if o in known]:
            asked, has = self.options.get(option, known[option]), getattr(loaded, option)
            if asked != has:
                raise CheckpointError(
                    f"{name} has {option} = {has}, the net was built for {asked}; "
                    f"use the data set it was trained on ({self.data or 'not recorded'})"
                )
        dtype = next(net.parameters()).dtype
        sample = loaded.batches(split, images=images, batch=batch, seed=seed)
        batches = [(x.to(dtype), y) for x, y in sample]
        return Problem(net, batches, mask=self.mask, batch_norm=batch_norm)


def _interned(value: Any) -> Any:
    """The value with one object for all words that are equal, so that equal files are the same."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {_interned(key): _interned(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_interned(v) for v in value)
    return value


def _check_fit(model: str, came: Mapping[str, Tensor], need: Mapping[str, Tensor]) -> None:
    for name in need:
        if name not in came:
            raise CheckpointError(f"weights do not fit {model}: the file holds no '{name}'")
        if came[name].shape != need[name].shape:
            raise CheckpointError(
                f"weights do not fit {model}: '{name}' is {tuple(came[name].shape)} in the file, "
                f"{tuple(need[name].shape)} in the model"
            )
    for name in came.keys() - need.keys():
        raise CheckpointError(f"weights do not fit {model}: the model has no '{name}'")
