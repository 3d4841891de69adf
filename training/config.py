"""Run: a training, fully described; read from TOML, with an identity that says what it is."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sparsediag.core.errors import ConfigError, unknown_name
from training.compute import Compute
from training.masks import METHODS, Method
from training.masks.dense import Dense
from training.model import Model
from training.old_keys import renamed, with_first_names
from training.optim import Optim
from training.prerequisite import Prerequisite
from training.schedule import epoch_at
from training.tables import changed, fill, toml
from training.tweaks import GROUPS, TWEAKS, Tweak, grouped

RECIPES = Path(__file__).parent / "runs"


@dataclass(frozen=True)
class Record:
    """Options: what to keep beside the last and the best checkpoint.

    Attributes:
        checkpoint_epochs: Numbers of finished epochs after which to keep an extra checkpoint.
        gradient_flow: Measure the gradient flow in the steps of every epoch, and after it.
        eigenvalue_every: Measure the top Hessian eigenvalue every so many epochs; 0 is never.
        probe_samples: Training images, without augmentation, for what is measured after an epoch.
    """

    checkpoint_epochs: tuple[int, ...] = ()
    gradient_flow: bool = False
    eigenvalue_every: int = 0
    probe_samples: int = 384

    def __post_init__(self) -> None:
        if self.probe_samples < 1:
            raise ValueError(f"probe_samples = {self.probe_samples}: need 1 or more")
        if self.eigenvalue_every < 0:
            raise ValueError(f"eigenvalue_every = {self.eigenvalue_every}: need 0 (never) or more")


@dataclass(frozen=True)
class Run:
    """A training, fully described.

    Attributes:
        data: Name of a data set, or folder:PATH.
        seed: Seed of initialisation, mask and data order.
        mask_seed: Another seed of initialisation and mask, and of the trainings behind them, for
            runs that share these and differ in the order of the data.
        augment: Random crops and flips; "auto" for colour images only.
        init: First weights: PyTorch's, or ZerO's (see `training.zero_init`).
        rewind: Share of an earlier training, the dense one for most masks, from whose end the
            weights come: 0 is their initialisation, 0.18 the papers' rewinding, 1 no way back.
        resume_schedule: Go on in the schedule from where the weights were rewound to.
        on_disconnected: "error" or "warn" if no path through the mask is left.
        model: The net.
        mask: The pruning method.
        optim: The optimiser and its schedule.
        tweaks: Name -> tweak. In a run file also a list, with names of groups: tost, at, trt,
            at+trt.
        record: What to keep.
        compute: How the arithmetic is done.
    """

    data: str = "cifar10"
    seed: int = 0
    mask_seed: int | None = None
    augment: Literal["auto", "crop_flip", "none"] = "auto"
    init: Literal["default", "zero_hadamard", "zero_widening", "zero_narrowing"] = "default"
    rewind: float = 0.0
    resume_schedule: bool = False
    on_disconnected: Literal["error", "warn"] = "error"
    model: Model = field(default_factory=Model)
    mask: Method = field(default_factory=Dense)
    optim: Optim = field(default_factory=Optim)
    tweaks: dict[str, Tweak] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        if "ghost_neurons" in self.tweaks and self.model.activation != "relu":
            raise ConfigError(
                f"activation '{self.model.activation}' is for good, and ghost_neurons fade into "
                "relu; use one or the other"
            )
        first = epoch_at(self.rewind, self.optim.epochs) if 0 <= self.rewind <= 1 else 0
        if self.rewind and not first:
            raise ConfigError(
                f"rewind = {self.rewind}: need 0, or a share of {self.optim.epochs} epochs up to 1 "
                "that is an epoch at least"
            )
        if self.resume_schedule and not 0 < first < self.optim.epochs:
            raise ConfigError(
                f"resume_schedule with rewind = {self.rewind} of {self.optim.epochs} epochs: need "
                "a share between 0 and 1 that leaves an epoch on both sides"
            )
        for epoch in self.record.checkpoint_epochs:
            if not 1 <= epoch <= self.optim.epochs:
                raise ConfigError(
                    f"record.checkpoint_epochs: there is no epoch {epoch} in a run of "
                    f"{self.optim.epochs} epochs"
                )

    @property
    def init_seed(self) -> int:
        """Seed of the initialisation and of the mask."""
        return self.seed if self.mask_seed is None else self.mask_seed

    def plain(self) -> Run:
        """The same training of the dense net from its initialisation, without tweaks, instruments
        or soft activation; with the checkpoint that this run is rewound to.
        """  # noqa: D205
        epoch = epoch_at(self.rewind, self.optim.epochs)
        kept = (epoch,) if 0 < epoch < self.optim.epochs else ()
        return Run(
            data=self.data,
            seed=self.init_seed,
            augment=self.augment,
            init=self.init,
            model=replace(self.model, activation="relu"),
            optim=self.optim,
            record=Record(checkpoint_epochs=kept),
            compute=self.compute,
        )

    def prerequisite(self, needed: Prerequisite) -> Run:
        """Return the run that a method or a tweak of this one needs."""
        start = (
            self if needed.keeps_checkpoint else replace(self, rewind=0.0, resume_schedule=False)
        )
        run = start.plain()
        if needed.mask is not None:
            reaction = self.on_disconnected if needed.mask.density < 1 else run.on_disconnected
            run = replace(run, mask=needed.mask, on_disconnected=reaction)
        return (
            replace(run, rewind=self.rewind, resume_schedule=self.resume_schedule)
            if needed.rewound
            else run
        )

    def before(self) -> tuple[Run, ...]:
        """Return the runs to finish first: for the mask, for the weights and for the tweaks."""
        needed = [*self.mask.before(), *([self.mask.origin(self.rewind)] if self.rewind else [])]
        for tweak in self.tweaks.values():
            needed += tweak.before()
        return tuple({run.id: run for run in map(self.prerequisite, needed)}.values())

    def rewound(self) -> tuple[Run, str]:
        """The run whose weights this one starts from, and the name of their file."""
        origin = self.prerequisite(self.mask.origin(self.rewind))
        epoch = epoch_at(self.rewind, origin.optim.epochs)
        return origin, "last.pt" if epoch == origin.optim.epochs else f"epoch-{epoch:03}.pt"

    def table(self) -> dict[str, Any]:
        """All fields as plain types; `Run.of(run.table()) == run`."""
        method = next(name for name, kind in METHODS.items() if type(self.mask) is kind)
        return asdict(self) | {"mask": {"method": method, **asdict(self.mask)}}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Run:
        """The run that a table describes; every key must be known.

        Raises:
            ConfigError: If a key is unknown or a value cannot be.
        """
        table = renamed(table)
        if str(table.get("mask", "")).startswith("file:"):
            table["mask"] = {"method": "file", "path": table["mask"].removeprefix("file:")}
        mask, tweaks = table.pop("mask", {}), table.pop("tweaks", {})
        if not isinstance(mask, Mapping):
            raise ConfigError(
                f"mask = {mask!r}: need a table, such as [mask] method = 'random', or 'file:PATH'"
            )
        if isinstance(tweaks, list | tuple):
            tweaks = grouped([str(name) for name in tweaks])
        if not isinstance(tweaks, Mapping):
            raise ConfigError(f"tweaks = {tweaks!r}: need a list of names, or a table of each")
        method = str(mask.get("method", "dense"))
        mask = {key: value for key, value in mask.items() if key != "method"}
        if method not in METHODS:
            raise ConfigError(unknown_name("mask.method", method, METHODS))
        tweaks = {
            k: v for n, t in tweaks.items() for k, v in (grouped([n]) if not t else {n: t}).items()
        }
        for name in tweaks:
            if name in GROUPS:
                raise ConfigError(
                    f"the group '{name}' has no options; give them to {', '.join(GROUPS[name])}"
                )
            if name not in TWEAKS:
                raise ConfigError(unknown_name("tweak", name, [*TWEAKS, *GROUPS]))
        run: Run = fill(cls, table)
        return replace(
            run,
            mask=fill(METHODS[method], mask, "mask."),
            tweaks={name: fill(TWEAKS[name], t, f"tweaks.{name}.") for name, t in tweaks.items()},
        )

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Run:
        """Read a TOML file, or the recipe of that name; `changes` maps dotted keys to values.

        Raises:
            FileNotFoundError: If there is neither a file nor a recipe.
            ConfigError: If it is not TOML, a key is unknown, or a value cannot be.
        """
        path = Path(path)
        recipe = RECIPES / f"{path.name}.toml"
        if not path.suffix and recipe.exists():
            path = recipe
        if not path.is_file():
            known = sorted(p.stem for p in RECIPES.glob("*.toml"))
            near = difflib.get_close_matches(path.stem, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise FileNotFoundError(f"{path}: no such file{hint} Recipes: {', '.join(known)}.")
        try:
            table = renamed(tomllib.loads(path.read_text()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        for key, value in renamed(changes or {}).items():
            *parents, last = key.split(".")
            place = table
            for parent in parents:
                if isinstance(place.get(parent), list):  # tweaks = ["smoothing"]
                    place[parent] = grouped(place[parent])
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"'{parent}' in '{key}' is a value, not a table")
            place[last] = value
        return cls.of(table)

    def toml(self) -> str:
        """The run as TOML, every field spelled out; `python -m training` runs it again."""
        return toml(self.table())

    def __hash__(self) -> int:
        return hash((self.data, self.seed, self.model.name, self.mask, *self.tweaks))

    @cached_property
    def id(self) -> str:
        """Short words and a hash of what differs from the defaults.

        A field that is added later, at its default, changes no identity; a default that changes
        does (see `Tweak.first`).
        """
        run = Run.of(self.table())  # 1 and 1.0, a list and a tuple are the same
        method = run.table()["mask"]["method"]
        mask_seed = None if run.mask_seed == run.seed else run.mask_seed
        table = changed(replace(run, mask=Dense(), tweaks={}, mask_seed=mask_seed), Run())
        table["mask"] = {"method": method, **changed(run.mask)}
        table["tweaks"] = {name: changed(t, type(t).first()) for name, t in run.tweaks.items()}
        digest = hashlib.sha256(
            json.dumps(with_first_names(table), sort_keys=True).encode()
        ).hexdigest()[:10]
        kept = "" if self.mask.density == 1 else f"-d{self.mask.density:.4g}"
        return f"{self.model.name}-{method}{kept}-s{self.seed}-{digest}"
