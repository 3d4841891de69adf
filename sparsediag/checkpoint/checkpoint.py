"""A trained network in one file that describes itself and runs no code when it is read.

The file holds plain types and tensors. A masked tensor is stored as packed bits and its live
values, so a dead weight cannot come back as anything but 0.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsediag.checkpoint import rebuild, resolve, safe_load, state_dicts
from sparsediag.core import losses
from sparsediag.core.atomic import atomic_write
from sparsediag.core.device import pick
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Loss, Problem
from sparsediag.core.version import __version__


def _made_by() -> dict[str, str]:
    return {
        "sparsediag": __version__,
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
    >>> from sparsediag import models
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
        payload["format"] = safe_load.FORMAT
        payload["mask"] = self.mask.pack() if self.mask else None
        payload["dense"] = {n: t.clone() for n, t in self.weights.items() if n not in mask}
        payload["live"] = {n: self.weights[n][m] for n, m in mask.items()}
        with (
            atomic_write(path) as draft,
            draft.open("wb") as file,
        ):  # a name would end up in the file
            torch.save(safe_load.interned(payload), file)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file of `save`, or the weights in a file of others. Nothing in it is ever run.

        Others' files are those of `torch.save` and safetensors: a state dict by itself or under
        `state_dict`, `model` and the like, those of Lightning too. Masks that lie beside the
        weights are found (see `conventions`) and applied; `made_by` says which, and why one
        cannot be used: then `build` and `problem` raise, unless `mask` says what to do.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it holds no weights, is damaged, or is of a newer format.
        """
        path = Path(path)
        payload = safe_load.contents(path)
        if safe_load.ours(path, payload, "dense"):
            try:
                return cls._unpacked(payload)
            except Exception:
                raise CheckpointError(f"{path} is no whole checkpoint; write it again") from None
        masks = f"{path} holds masks and no weights; give it as --mask {path}"
        if payload.keys() == {"format", "mask"}:
            raise CheckpointError(masks)
        try:
            made_by, found = state_dicts.read(payload)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if not found.weights:
            raise CheckpointError(masks if found.mask else f"{path} holds no weights")
        if path.suffix == ".safetensors":
            made_by["file"] = "safetensors"
        return cls(model="", options={}, weights=found.weights, mask=found.mask, made_by=made_by)

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
        """Return the contents of the file as plain types, for people and programs."""
        best = next((row for row in self.history if row.get("best")), {})
        last = self.history[-1] if self.history else {}
        return {
            "model": self.model,
            "options": self.options,
            "data": self.data,
            "numbers": sum(t.numel() for t in self.weights.values()),
            "tensors": [
                (n, list(t.shape), str(t.dtype).removeprefix("torch."))
                for n, t in self.weights.items()
            ],
            "density": self.mask.density if self.mask else 1.0,
            "step": self.step,
            "steps": self.steps,
            "epochs": len(self.history),
            "validation accuracy": last.get("val_accuracy"),
            "best epoch": best["epoch"] + 1 if best else None,  # people count from 1
            "test accuracy at the best epoch": best.get("test_accuracy"),
            "made by": self.made_by,
            "layers": self.mask.table() if self.mask else [],
        }

    def build(
        self,
        device: str | torch.device = "cpu",
        *,
        model: resolve.Model | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """The net, in evaluation mode, with these weights.

        Args:
            device: Where to.
            model: What makes the net, or the net itself, which stays as it is; see `resolve.net`.
                None for a net that is built in.
            model_options: Keywords for what makes it; by default those recorded here.

        Raises:
            CheckpointError: If the model is not built in, or the weights do not fit it.
        """
        net, _, _ = self._rebuilt(model, model_options)
        return net.to(device)

    def _rebuilt(
        self,
        model: resolve.Model | None,
        options: Mapping[str, Any] | None,
        mask: str | Path | None = None,
    ) -> tuple[nn.Module, Mask | None, list[str]]:
        return rebuild.net(
            self.weights,
            self.mask,
            builtin=self.model,
            builtin_options=self.options,
            made_by=self.made_by,
            model=model,
            options=options,
            mask=mask,
        )

    def problem(
        self,
        *,
        split: str | None = None,
        images: int | None = None,
        batch: int | None = None,
        data: str | Callable[..., Any] | Iterable[Any] | None = None,
        model: resolve.Model | None = None,
        model_options: Mapping[str, Any] | None = None,
        loss: str | Loss | None = None,
        mask: str | Path | None = None,
        batch_norm: Literal["eval", "train"] = "eval",
        device: str = "auto",
        seed: int = 0,
        note: Callable[[str], None] | None = None,
    ) -> Problem:
        """The loss of this net over fixed, un-augmented samples.

        Args:
            split: train, validation or test; None for train, or what custom batches take.
            images: Number of images, drawn once by `seed`; 0 for the whole split, None for 1000, or
                what custom batches take.
            batch: Images at a time; None for 128, or what custom batches take.
            data: Another data set than the one it was trained on, or custom batches; see
                `resolve.batches`.
            model: What makes the net, as in `build`.
            model_options: Keywords for it.
            loss: `loss(outputs, targets)` or its name, see `resolve.loss`; see `Problem` for None.
            mask: "zeros" takes exact zeros for dead where there is no mask, "none" leaves the mask
                out, another word is the file of one. None for the checkpoint's own.
            batch_norm: Running statistics, or those of each batch; see `Problem`.
            device: auto, cpu, cuda or cuda:N.
            seed: Seed of the sample of images.
            note: Is told where the mask comes from, if it was searched for, and what was left out.

        Raises:
            ValueError: If model, data, loss or mask cannot be had, or do not go together.
        """
        where = pick(device)
        net, alive, lines = self._rebuilt(model, model_options, mask)
        batches = rebuild.batches(
            net.to(where),
            self.data if data is None else data,
            builtin=self.model if model is None else "",
            builtin_options=self.options,
            trained_on=self.data,
            seed=seed,
            split=split,
            images=images,
            batch=batch,
        )
        for line in lines:
            if note:
                note(line)
        compare = resolve.loss(loss) if isinstance(loss, str) else loss or losses.loss
        return rebuild.problem(net, batches, loss=compare, mask=alive, batch_norm=batch_norm)
