"""Run: the full description of a training, read from TOML, with an id made from its content."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sparsediag import models
from sparsediag.checkpoint.watch_file import advise_watch
from sparsediag.core.errors import ConfigError, unknown_name
from sparsediag.core.fingerprint import describe_code, is_custom
from sparsediag.data import datasets
from sparsediag.watch.watch import choose_metrics
from training.compute import Compute
from training.masks import METHODS, Method
from training.masks.dense import Dense
from training.old_keys import FIRST_DEFAULTS, FIRST_KEYS, FIRST_VALUES, renamed
from training.optim import Optim, epoch_at
from training.prerequisite import Prerequisite
from training.tables import differences, from_table, to_toml
from training.tweaks import GROUPS, TWEAKS, Tweak, expand_groups

RECIPES = Path(__file__).parent / "runs"
YOURS = "Your own: --plugin FILE.py."


@dataclass(frozen=True)
class Model:
    """The network.

    Attributes:
        name: Name of the network.
        width: Channels of the first stage; without it the network's own.
        activation: Activation of all layers.
        options: Options that only some networks have, such as {shortcut = "A"}.
    """

    name: str = "resnet18"
    width: int | None = None
    activation: Literal["relu", "swish", "mish"] = "relu"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"width {self.width}: need 1 or more")

    def keywords(self) -> dict[str, Any]:
        """Return the keywords for `models.build`."""
        width = {} if self.width is None else {"width": self.width}
        return {"activation": self.activation, **width, **self.options}


@dataclass(frozen=True)
class Record:
    """Options: checkpoints and metrics to keep beside the last and the best checkpoint.

    Attributes:
        checkpoint_epochs: Numbers of finished epochs after which to keep an extra checkpoint.
        gradient_flow: Measure the gradient flow in the steps of every epoch, and after it.
        eigenvalue_every: Measure the top Hessian eigenvalue after the first epoch and then every so
            many epochs; 0 is never.
        probe_samples: Number of training images, without augmentation, to measure these on.
        watch_every: Add a row to `watch.jsonl` (see `sparsediag.Watch`) every so many steps; 0 is
            never.
        watch_metrics: Names of its metrics, separated by commas; without them all that are
            possible.
    """

    checkpoint_epochs: tuple[int, ...] = ()
    gradient_flow: bool = False
    eigenvalue_every: int = 0
    probe_samples: int = 384
    watch_every: int = 0
    watch_metrics: str = ""

    def __post_init__(self) -> None:
        if self.probe_samples < 1:
            raise ValueError(f"probe_samples = {self.probe_samples}: need 1 or more")
        for key in ("eigenvalue_every", "watch_every"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need 0 (never) or more")
        if self.watch_metrics:
            try:
                choose_metrics(self.watch_metrics, mask=True, probe=True)
            except ValueError as error:
                raise ValueError(f"watch_metrics = '{self.watch_metrics}': {error}") from None
        if self.watch_metrics and not self.watch_every:
            raise ValueError("watch_metrics without rows: need watch_every = a number of steps")


@dataclass(frozen=True)
class Run:
    """The full description of a training.

    Attributes:
        data: Name of a data set, or folder:PATH of class folders.
        size: Height and width that the images of a folder are resized and cut to; without it they
            must have one square size.
        normalise: Mean and std that the pixels are normalised by: the data set's ("own"),
            ImageNet's ("imagenet"), or "none".
        seed: Seed of initialisation, mask and data order.
        mask_seed: Another seed of initialisation and mask, and of the trainings that they need, for
            runs that share these and differ in the order of the data; without it the seed.
        augment: "crop_flip", random crops and flips; "none"; "auto", these for colour images only.
        init: First weights: PyTorch's ("default"), or ZerO's (see `training.zero_init`).
        rewind: Share of the earlier training (for most masks the dense one) whose weights the run
            starts from: 0 is their initialisation, 0.18 the papers' rewinding, 1 the last weights.
        resume_schedule: Continue the learning-rate schedule from where the weights were rewound to.
        on_disconnected: "error", or "warn" and train, if no path through the mask is left.
        model: The network.
        mask: The pruning method.
        optim: The optimiser and its schedule.
        tweaks: Tweaks by name. In a run file a list of tweaks and groups (tost, at, trt, at+trt),
            or a table of each tweak.
        record: What to keep.
        compute: Precision, memory format and compilation.
    """

    data: str = "cifar10"
    size: int | None = None
    normalise: Literal["own", "imagenet", "none"] = "own"
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
                f"activation '{self.model.activation}' is permanent, and ghost_neurons fade into "
                "relu; use one or the other"
            )
        epochs = self.optim.epochs
        first = self._first_epoch if 0 <= self.rewind <= 1 else 0
        if self.rewind and not first:
            raise ConfigError(
                f"rewind = {self.rewind}: need 0, or a share of {epochs} epochs up to 1 that is "
                "at least an epoch"
            )
        if self.resume_schedule and not 0 < first < epochs:
            raise ConfigError(
                f"resume_schedule with rewind = {self.rewind} of {epochs} epochs: need a share "
                "between 0 and 1 that leaves an epoch on both sides"
            )
        for epoch in self.record.checkpoint_epochs:
            if not 1 <= epoch <= epochs:
                raise ConfigError(
                    f"record.checkpoint_epochs: there is no epoch {epoch} in a run of {epochs}"
                )

    def __hash__(self) -> int:
        return hash((self.data, self.seed, self.model.name, self.mask, *self.tweaks))

    @property
    def init_seed(self) -> int:
        """Seed of the initialisation and of the mask."""
        return self.seed if self.mask_seed is None else self.mask_seed

    @property
    def _first_epoch(self) -> int:
        """Number of epochs that the first weights were trained for."""
        return epoch_at(self.rewind, self.optim.epochs)

    # prerequisites: the runs that must be finished first

    def plain(self) -> Run:
        """Return the training of the dense network with relu, from its initialisation, no tweaks.

        It keeps the checkpoint that this run is rewound to.
        """
        epoch = self._first_epoch
        return Run(
            data=self.data,
            size=self.size,
            normalise=self.normalise,
            seed=self.init_seed,
            augment=self.augment,
            init=self.init,
            model=replace(self.model, activation="relu"),
            optim=self.optim,
            record=Record(checkpoint_epochs=(epoch,) if 0 < epoch < self.optim.epochs else ()),
            compute=self.compute,
        )

    def prerequisite(self, needed: Prerequisite) -> Run:
        """Return the run that a method or a tweak of this one needs."""
        base = self if needed.keeps_checkpoint else replace(self, rewind=0.0, resume_schedule=False)
        run = base.plain()
        if needed.mask is not None:
            reaction = self.on_disconnected if needed.mask.density < 1 else run.on_disconnected
            run = replace(run, mask=needed.mask, on_disconnected=reaction)
        if needed.rewound:
            run = replace(run, rewind=self.rewind, resume_schedule=self.resume_schedule)
        return run

    def before(self) -> tuple[Run, ...]:
        """Return the runs to finish first: for the mask, for the weights and for the tweaks."""
        needed = [
            *self.mask.before(),
            *([self.mask.rewind_source(self.rewind)] if self.rewind else []),
        ]
        for tweak in self.tweaks.values():
            needed += tweak.before()
        return tuple(dict.fromkeys(map(self.prerequisite, needed)))

    def rewound(self) -> tuple[Run, str]:
        """Return the run whose weights this one starts from, and the name of their file."""
        epoch = self._first_epoch
        file = "last.pt" if epoch == self.optim.epochs else f"epoch-{epoch:03}.pt"
        return self.prerequisite(self.mask.rewind_source(self.rewind)), file

    # tables, files and the id

    def table(self) -> dict[str, Any]:
        """Return all fields as plain types; `Run.of(run.table()) == run`."""
        method = next((name for name, kind in METHODS.items() if type(self.mask) is kind), None)
        if method is None:
            raise ConfigError(
                f"mask {type(self.mask).__name__} has no name; enter it in training.masks.METHODS"
            )
        return asdict(self) | {"mask": {"method": method, **asdict(self.mask)}}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Run:
        """Return the run that a table describes.

        Raises:
            ConfigError: If a key is unknown or a value is invalid.
        """
        table = renamed(table)
        mask, tweaks = table.pop("mask", {}), table.pop("tweaks", {})
        if str(mask).startswith("file:"):
            mask = {"method": "file", "path": mask.removeprefix("file:")}
        if not isinstance(mask, Mapping):
            raise ConfigError(
                f"mask = {mask!r}: need a table, such as [mask] method = 'random', or 'file:PATH'"
            )
        if isinstance(tweaks, list | tuple):
            tweaks = expand_groups([str(name) for name in tweaks])
        if not isinstance(tweaks, Mapping):
            raise ConfigError(f"tweaks = {tweaks!r}: need a list of names, or a table of each")
        method = str(mask.get("method", "dense"))
        if method not in METHODS:
            raise ConfigError(f"{unknown_name('mask.method', method, METHODS)} {YOURS}")
        mask = {key: value for key, value in mask.items() if key != "method"}
        options: dict[str, Any] = {}
        for name, option_table in tweaks.items():
            options |= {name: option_table} if option_table else expand_groups([name])
        for name in options:
            if name in GROUPS:
                raise ConfigError(
                    f"the group '{name}' has no options; give them to {', '.join(GROUPS[name])}"
                )
            if name not in TWEAKS:
                several = " For runs without and with tweaks write [[], ['tost']]."
                hint = several if name in ("", "none", "plain") else f" {YOURS}"
                raise ConfigError(unknown_name("tweak", name, [*TWEAKS, *GROUPS]) + hint)
        run: Run = from_table(cls, table)
        return replace(
            run,
            mask=from_table(METHODS[method], mask, "mask.", read_before=["method"]),
            tweaks={n: from_table(TWEAKS[n], t, f"tweaks.{n}.") for n, t in options.items()},
        )

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Run:
        """Read a TOML file, or the recipe of that name.

        Args:
            path: The file, or the name of a recipe.
            changes: Values by dotted keys, such as "optim.lr", that replace those in the file.

        Raises:
            FileNotFoundError: If there is neither a file nor a recipe.
            ConfigError: If it is not TOML, a key is unknown, or a value is invalid.
        """
        return cls.of(read_table(path, changes))

    def toml(self) -> str:
        """Return the run as TOML with every field, for `python -m training`."""
        return to_toml(self.table())

    @property
    def id(self) -> str:
        """Name of the run: model, method, density, seed, and a hash of what is not the default.

        A field that is added later, at its default, changes no id. The hash also has what a run
        file only names: the user's own code, and the content of an image folder or a mask file.
        """
        method, options = self._identity
        outside = {f"outside {key}": text for key, text in self._outside().items() if text}
        text = json.dumps(options | outside, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        density = "" if self.mask.density == 1 else f"-d{self.mask.density:.4g}"
        return f"{self.model.name}-{method}{density}-s{self.seed}-{digest}"

    @cached_property
    def _identity(self) -> tuple[str, dict[str, Any]]:
        """The name of the method, and the options that differ from their defaults."""
        run = Run.of(self.table())  # 1 and 1.0, a list and a tuple are the same
        method = run.table()["mask"]["method"]
        mask_seed = None if run.mask_seed == run.seed else run.mask_seed
        plain = replace(run, mask=Dense(), tweaks={}, mask_seed=mask_seed)
        table = differences(asdict(plain), asdict(Run()))
        defaults = {f.name: f.default for f in fields(run.mask)}
        table["mask"] = {"method": method, **differences(asdict(run.mask), defaults)}
        table["tweaks"] = {
            name: differences(asdict(tweak), asdict(type(tweak)()) | FIRST_DEFAULTS.get(name, {}))
            for name, tweak in run.tweaks.items()
        }
        return method, renamed(table, FIRST_KEYS, FIRST_VALUES)

    @cached_property
    def _masks(self) -> list[Method]:
        """The pruning methods of this run and of those it depends on; the first two of a chain."""
        masks, followed, runs = list[Method](), set[type](), [self]
        while runs:
            run = runs.pop()
            masks.append(run.mask)
            if type(run.mask) not in followed:
                followed.add(type(run.mask))
                runs += run.before()
        return masks

    def _outside(self) -> dict[str, str]:
        """Return what the run file only names: the user's code, and digests of files."""
        kinds = [*map(type, self._masks), *map(type, self.tweaks.values())]
        user_code: list[Any] = [kind for kind in dict.fromkeys(kinds) if is_custom(kind)]
        name = self.model.name
        if name in models.MODELS and models.MODELS[name] is not models.BUILT_IN.get(name):
            user_code.append(models.MODELS[name])
        return {
            "code": "".join(map(describe_code, user_code)),
            "data": datasets.content_digest(self.data),
            "masks": "".join(mask.input_digest() for mask in self._masks),
        }


def read_table(path: str | Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the table of a run file or recipe, with the changes: see `Run.load`."""
    path = Path(path)
    recipe = RECIPES / f"{path.name}.toml"
    if not path.suffix and recipe.exists():
        path = recipe
    if not path.is_file():
        names = sorted(p.stem for p in RECIPES.glob("*.toml"))
        near = difflib.get_close_matches(path.stem, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise FileNotFoundError(f"{path}: no such file{hint} Recipes: {', '.join(names)}.")
    try:
        table = renamed(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}{advise_watch(path)}") from None
    for key, value in renamed(changes or {}).items():
        *parents, last = key.split(".")
        inner = table
        for parent in parents:
            value_there = inner.get(parent)
            if isinstance(value_there, list) and all(isinstance(w, str) for w in value_there):
                inner[parent] = expand_groups(value_there)  # tweaks = ["smoothing"]
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                kind = "list" if isinstance(inner, list) else "value"
                raise ConfigError(f"'{parent}' in '{key}' is a {kind}, not a table")
        inner[last] = value
    return table
