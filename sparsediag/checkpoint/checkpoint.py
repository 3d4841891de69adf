"""A trained network in one file that describes itself and runs no code when it is read.

The file holds plain types and tensors. A masked tensor is stored as packed bits and its live
values, so a dead weight is always exactly 0 after loading.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsediag import models
from sparsediag.checkpoint import labels, rebuild, resolve, safe_load, state_dicts
from sparsediag.checkpoint.image_problem import check_data, image_notes, image_problem, load_data
from sparsediag.checkpoint.load_weights import choose_mask, load_weights
from sparsediag.checkpoint.mask_conventions import describe, zero_dead
from sparsediag.core import losses
from sparsediag.core.atomic import atomic_write
from sparsediag.core.device import select_device
from sparsediag.core.errors import CheckpointError, unknown_name
from sparsediag.core.mask import Mask
from sparsediag.core.old_names import accept_old_names
from sparsediag.core.problem import Loss, Problem
from sparsediag.core.short_repr import short_repr
from sparsediag.core.version import __version__
from sparsediag.data.datasets import Normalise

VERSIONS = {
    "sparsediag": __version__,
    "torch": str(torch.__version__),
    "python": platform.python_version(),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything needed to rebuild a trained network and to know where it came from.

    Attributes:
        model: A key of `models.MODELS`, or a label of another network.
        options: The keywords of `models.build`.
        weights: The state dict on the CPU, with buffers.
        mask: The live weights, or None for a dense network.
        data: Name of the data set that it was trained on.
        run: The description of the training; empty for a network that was not trained here.
        step: Optimizer steps taken.
        steps: Optimizer steps of the whole training.
        history: One dict for each epoch; its `epoch` counts from 1.
        resume: State that the training needs to continue; only in the latest file of a run.
        made_by: Versions of sparsediag, torch and Python; for a file of another tool, its format,
            and where its mask was found.

    >>> import tempfile
    >>> from sparsediag import models
    >>> net = models.build("lenet300", size=8)
    >>> checkpoint = Checkpoint.of(net, model="lenet300", options={"size": 8}, data="digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(f"{folder}/net.pt")
    ...     loaded = Checkpoint.load(f"{folder}/net.pt").build()
    >>> torch.equal(loaded.fc.weight, net.fc.weight)
    True
    """

    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor]
    mask: Mask | None = None
    data: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    resume: dict[str, Any] | None = None
    made_by: dict[str, str] = field(default_factory=VERSIONS.copy)

    __repr__ = short_repr

    @classmethod
    def of(cls, net: nn.Module, *, mask: Mask | None = None, **about: Any) -> Checkpoint:
        """Return a snapshot of `net`. `about` gives other fields: model, options, data and so on.

        Raises:
            CheckpointError: If a dead weight is not exactly 0.
        """
        if mask is not None:
            mask.check(net)
            for name, m in mask.items():
                weight = net.get_parameter(name)
                if nonzero := int((weight[~m.to(weight.device)] != 0).sum()):
                    raise CheckpointError(
                        f"{nonzero} dead weights of '{name}' are not 0; call mask.apply_(net) first"
                    )
            mask = mask.to("cpu")
        weights = {  # contiguous, whatever memory format the network was trained in
            name: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, t in net.state_dict().items()
        }
        return cls(weights=weights, mask=mask, **about)

    def save(self, path: str | Path) -> None:
        """Write the file; after an error the old file is still there."""
        mask: Mapping[str, Tensor] = self.mask or {}
        payload = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("weights", "mask")
        }
        payload["format"] = safe_load.FORMAT
        payload["mask"] = self.mask.pack() if self.mask else None
        payload["dense"] = {n: t.clone() for n, t in self.weights.items() if n not in mask}
        payload["live"] = {n: self.weights[n][m] for n, m in mask.items()}
        # an open file, since torch.save would store the name of the draft
        with atomic_write(path) as draft, draft.open("wb") as file:
            torch.save(safe_load.intern_strings(payload), file)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file of `save`, or the weights in a file of another tool, without running code.

        Other tools' files are those of `torch.save`, safetensors and `numpy.savez`, and folders of
        Hugging Face: a state dict, alone or under `state_dict`, `model` and the like, files of
        Lightning, or a pickled network. Masks beside the weights are found (see
        `mask_conventions`) and applied; `made_by` names the convention. If a mask is invalid,
        `made_by` says why, and `build` and `problem` raise unless `mask` is given.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it holds no weights, is damaged, or has a newer format.
        """
        path = Path(path)
        payload = safe_load.load_dict(path)
        if safe_load.is_own_format(path, payload, "dense"):
            try:
                return cls._unpack(payload)
            except Exception:
                raise CheckpointError(f"{path} is no whole checkpoint; write it again") from None
        only_masks = f"{path} holds masks and no weights; give it as --mask {path}"
        if payload.keys() == {"format", "mask"}:
            raise CheckpointError(only_masks)
        try:
            made_by, masked = state_dicts.parse(payload)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if not masked.weights:
            fault = f"; {masked.fault}" if masked.fault else ""
            raise CheckpointError(only_masks if masked.mask else f"{path} holds no weights{fault}")
        if path.suffix in (".safetensors", ".npz"):
            made_by["file"] = path.suffix[1:]
        return cls(model="", options={}, weights=masked.weights, mask=masked.mask, made_by=made_by)

    @classmethod
    def _unpack(cls, payload: dict[str, Any]) -> Checkpoint:
        """Return the checkpoint that `save` wrote."""
        del payload["format"]
        dense, live, packed = payload.pop("dense"), payload.pop("live"), payload.pop("mask")
        mask = Mask.unpack(packed) if packed is not None else None
        weights = dict(dense)
        for name, m in (mask or {}).items():
            if live[name].numel() != int(m.sum()):
                raise ValueError(f"'{name}' has not as many values as live weights")
            weights[name] = live[name].new_zeros(m.shape).masked_scatter_(m, live[name])
        history = payload.get("history", [])
        if history and history[0].get("epoch") == 0:  # of an older version, which counted from 0
            payload["history"] = [row | {"epoch": row["epoch"] + 1} for row in history]
        return cls(weights=weights, mask=mask, **payload)

    def with_mask(self, choice: str | Path | None) -> Checkpoint:
        """Return a checkpoint with the mask that `choice` names; see `mask` of `problem`.

        Raises:
            CheckpointError: If there is no such mask, or it does not fit the weights.
        """
        mask, source = choose_mask(choice, self.mask, self.weights)
        if not source:
            return self
        summary = describe(source, mask, self.weights) if mask else source
        made_by = {key: text for key, text in self.made_by.items() if key != "fault"}
        weights = zero_dead(self.weights, mask or {})
        return replace(self, mask=mask, weights=weights, made_by=made_by | {"mask": summary})

    @property
    def epoch(self) -> int:
        """Epochs that these weights were trained for; the history may have later ones."""
        epochs = self.run.get("optim", {}).get("epochs", len(self.history))
        return round(self.step * epochs / self.steps) if self.steps else len(self.history)

    def about(self) -> dict[str, Any]:
        """Return the contents of the file as plain types, for people and programs."""
        best = next((row for row in self.history if row.get("best")), {})
        row = self.history[self.epoch - 1] if 0 < self.epoch <= len(self.history) else {}
        facts = labels.describe_run(self.run) if self.run else {}
        return {
            "model": self.model,
            "options": self.options,
            "data": self.data,
            "method": facts.get("mask"),
            "tweaks": facts.get("tweaks"),
            "seed": facts.get("seed"),
            "learning rate": facts.get("optim.lr"),
            "epochs to train": facts.get("optim.epochs"),
            "numbers": sum(t.numel() for t in self.weights.values()),
            "tensors": [
                (n, list(t.shape), str(t.dtype).removeprefix("torch."))
                for n, t in self.weights.items()
            ],
            "density": self.mask.density if self.mask else 1.0,
            "step": self.step,
            "steps": self.steps,
            "epochs": len(self.history),
            "epoch of these weights": self.epoch,
            "validation accuracy": row.get("val_accuracy"),
            "best epoch": best.get("epoch"),
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
        """Return the network in evaluation mode, with these weights.

        Args:
            device: Device of the network.
            model: What makes the network, or the network itself, which is not changed; see
                `resolve.net`. None for the built-in network that is recorded.
            model_options: Keywords for it; by default those recorded here.

        Raises:
            CheckpointError: If the model is not built in, or the weights do not fit it.
        """
        net, _, _ = self._rebuild(model, model_options)
        return net.to(device)

    def _rebuild(
        self,
        model: resolve.Model | None,
        options: Mapping[str, Any] | None,
        mask: str | Path | None = None,
    ) -> tuple[nn.Module, Mask | None, list[str]]:
        """Return the network in evaluation mode, the chosen mask, and notes on the file."""
        if model is not None:
            name = resolve.label(model)
            net = rebuild.custom_net(model, options, self.options)
        elif options is not None:
            raise ValueError("options of a model given without one; give --model too")
        elif self.model in models.MODELS:
            name = self.model
            net = rebuild.builtin_net(name, self.options)
        else:
            message = unknown_name("model", self.model, models.MODELS)
            if not self.model:
                names = ", ".join([*self.weights][:3])
                message = f"{len(self.weights)} tensors ({names}, ...) given without their network."
            raise CheckpointError(f"{message} Give it: --model file.py:make")
        made_by = self.made_by
        if mask is None and "fault" in made_by:
            raise CheckpointError(f"{made_by['fault']}; to leave the mask out: --mask none")
        chosen, notes = load_weights(
            net, self.weights, self.mask, choice=mask, summary=made_by.get("mask", ""), name=name
        )
        if "beside" in made_by:
            notes.append(f"file: {made_by['file']}; not read: {made_by['beside']}")
        if "converted" in made_by:
            notes.append(f"file: {made_by['converted']}")
        return net.eval(), chosen, notes

    @accept_old_names
    def problem(
        self,
        *,
        split: str | None = None,
        images: int | None = None,
        batch_size: int | None = None,
        data: str | Callable[..., Any] | Iterable[Any] | None = None,
        size: int | None = None,
        normalise: Normalise | None = None,
        model: resolve.Model | None = None,
        model_options: Mapping[str, Any] | None = None,
        loss: str | Loss | None = None,
        mask: str | Path | None = None,
        batch_norm: Literal["eval", "train"] = "eval",
        device: str = "auto",
        seed: int = 0,
        note: Callable[[str], None] | None = None,
    ) -> Problem:
        """Return the loss of this network over fixed, un-augmented samples.

        Args:
            split: train, validation (or val) or test; None for train, or the default of custom
                batches.
            images: Number of images, a sample that depends on `seed`; 0 for the whole split, None
                for 1000, or the default of custom batches.
            batch_size: Images in a batch; None for 128, or the default of custom batches.
            data: Another data set than that of the training, or custom batches; see
                `resolve.batches`.
            size: Height and width of the images of a folder: the shorter side is resized, and the
                middle cut out. None for that of the training.
            normalise: "own", "imagenet" or "none", see `data.load`; None for that of the training,
                or "own".
            model: What makes the network, as in `build`.
            model_options: Keywords for it.
            loss: `loss(outputs, targets)` or its name, see `resolve.loss`; see `Problem` for None.
            mask: None for the mask of the checkpoint; "zeros" to take exact zeros for dead if it
                has none; "none" for no mask; otherwise the file of another mask.
            batch_norm: Running statistics, or those of each batch; see `Problem`.
            device: auto, cpu, cuda or cuda:N.
            seed: Seed of the sample of images.
            note: Called with each note on where the mask was found and what was left out.

        Raises:
            ValueError: If model, data, loss or mask is not available, or they do not fit together.
        """
        torch_device = select_device(device)
        if data is None and resolve.is_custom_data(self.data):
            raise CheckpointError(
                f"the checkpoint names the data '{self.data}', code that is not run unless you ask "
                f"for it; if you trust it: --data {self.data}"
            )
        net, chosen, notes = self._rebuild(model, model_options, mask)
        loss_fn = resolve.loss(loss) if isinstance(loss, str) else loss or losses.default_loss
        name = self.model if model is None else resolve.label(model)
        names = {"net": name, "label": labels.run_label(self.run)}
        options = {"loss": loss_fn, "mask": chosen, "batch_norm": batch_norm}
        asked = {"split": split, "images": images, "batch": batch_size}
        source = self.data if data is None else data
        if resolve.is_custom_data(source):
            batches = resolve.batches(source, **asked, size=size, normalise=normalise)
            about = names | {"data": resolve.label(source)}
            problem = rebuild.problem(net.to(torch_device), batches, about=about, **options)
        else:
            dataset = load_data(
                str(source), self.run, size=size, normalise=normalise, device=torch_device
            )
            defaults = models.defaults(self.model) if model is None else {}
            built_for = {key: self.options.get(key, value) for key, value in defaults.items()}
            check_data(dataset, built_for, trained_on=self.data)
            problem = image_problem(
                net.to(torch_device),
                dataset,
                asked,
                seed=seed,
                names=names,
                note=notes.append,
                **options,
            )
            if self.data != source:
                guessed = normalise is None and not self.run
                notes += image_notes(dataset, split, guessed=guessed)
        if problem.samples < (images or 0):
            notes.append(f"{problem.samples} samples: fewer than the {images} that were asked for")
        if note:
            for line in notes:
                note(line)
        return problem
