"""Scales: smaller trainings that replace those of the papers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import sparsediag
from figures.measurement import Measurement
from training.compute import Compute
from training.config import Model, Run
from training.masks.lottery import Lottery
from training.optim import epoch_at
from training.tweaks.rescale import Rescale

NETS = {
    "resnet10": "ResNet-10",
    "resnet18": "ResNet-18",
    "resnet32": "ResNet-32",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "vgg16_bn": "VGG-16-BN",
    "mobilenet": "MobileNet",
    "mlp": "MLP",
}
DATA = {
    "digits": "digits",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tinyimagenet": "TinyImageNet",
}


class StandIn(NamedTuple):
    """The network that replaces one of the papers.

    Attributes:
        model: The network.
        epochs: Length of its training.
        densities: Densities at which it is trained, in addition to 1 and to the plain lottery
            rounds that sparser networks need anyway.
    """

    model: Model
    epochs: int
    densities: frozenset[float]


@dataclass(frozen=True)
class Scale:
    """Size of the trainings and the measurements.

    Attributes:
        name: Name of the scale.
        data: The papers' data sets -> those that replace them; others are left out. Empty for the
            scale of the papers.
        nets: The papers' networks -> those that replace them; others are left out.
        seeds: Trainings of each kind.
        cut: Share of the weights that a lottery round prunes.
        points: Grid points of a landscape along each direction, and of a curve.
        images: Images that a diagnostic uses.
        probe: Images that the records during training use.
        items: The items that it draws, of those that need trainings; empty for all.
        compute: Precision and memory layout.
    """

    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    nets: Mapping[str, StandIn] = field(default_factory=dict)
    seeds: int = 3
    cut: float = 0.2
    points: int = 51
    images: int = 1000
    probe: int = 384
    items: tuple[str, ...] = ()
    compute: Compute = field(default_factory=Compute)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def is_paper(self) -> bool:
        """Return whether the trainings are the papers' own."""
        return not self.data

    def draws(self, item: str) -> bool:
        """Return whether the trainings of an item belong to this scale."""
        return not self.items or item in self.items

    def includes(self, run: Run) -> bool:
        """Return whether a run of the papers has a counterpart at this scale."""
        if self.is_paper:
            return True
        if not (run.data in self.data and run.model.name in self.nets and run.seed < self.seeds):
            return False
        densities = (1, *self.nets[run.model.name].densities)
        return run.mask.density in densities or self._is_lottery_round(run)

    def _is_lottery_round(self, run: Run) -> bool:
        """Return whether a run is a plain round of the lottery, which sparser ones need anyway."""
        mask = run.mask
        if not isinstance(mask, Lottery) or mask.prune_rate != self.cut:
            return False
        at_round = replace(mask, density=(1 - mask.prune_rate) ** (mask.rounds + 1))
        return run == replace(run.plain(), mask=at_round, on_disconnected=run.on_disconnected)

    @cache  # noqa: B019  the few scales live as long as the process
    def adapt(self, run: Run) -> Run:
        """Return the run that replaces one of the papers.

        Raises:
            KeyError: If the scale leaves out its data set or its network.
        """
        if self.is_paper:
            return run
        paper_epochs, (model, epochs, _) = run.optim.epochs, self.nets[run.model.name]
        mask, tweaks = run.mask, dict(run.tweaks)
        if isinstance(mask, Lottery):
            mask = replace(mask, prune_rate=self.cut)
        if isinstance(rescale := tweaks.get("rescale"), Rescale):
            tweaks["rescale"] = replace(rescale, steps=epochs)  # the paper has 180 of both
        checkpoints = tuple(
            proportional(c, paper_epochs, epochs) for c in run.record.checkpoint_epochs
        )
        return replace(
            run,
            data=self.data[run.data],
            augment="auto",
            model=replace(model, activation=run.model.activation),
            mask=mask,
            rewind=run.rewind and max(1, epoch_at(run.rewind, epochs)) / epochs,
            optim=replace(run.optim, epochs=epochs),
            tweaks=tweaks,
            record=replace(run.record, checkpoint_epochs=checkpoints, probe_samples=self.probe),
            compute=self.compute,
        )

    def title(self, run: Run) -> str:
        """Return the network and the data set that replace those of a run of the papers."""
        return network_and_data(self.adapt(run))

    def options(self, measurement: Measurement) -> dict[str, Any]:
        """Return the options of the diagnostic at this scale."""
        has_grid = measurement.diagnostic in ("landscape", "perturbation", "inputscape")
        return ({"points": self.points} if has_grid else {}) | dict(measurement.options)

    def checkpoint_name(self, measurement: Measurement) -> str:
        """Return the file name of the checkpoint that is measured."""
        if measurement.when == "best":
            return "best.pt"
        run = measurement.run
        return f"epoch-{proportional(5, run.optim.epochs, self.adapt(run).optim.epochs):03}.pt"

    def key(self, measurement: Measurement) -> str:
        """Return a hash of all that decides a result, in ten hex digits."""
        run = self.adapt(measurement.run).id
        if measurement.diagnostic == "history":
            return run
        content = f"{sparsediag.__version__} {run} {self.images} {measurement.diagnostic} "
        content += f"{measurement.split} {measurement.when} "
        content += f"{sorted(self.options(measurement).items())}"
        if measurement.along:
            content += self.key(measurement.along)
        return hashlib.sha256(content.encode()).hexdigest()[:10]


def network_and_data(run: Run) -> str:
    """Return network and data set of a run, as the papers write them."""
    width = f" of width {run.model.width}" if run.model.width else ""
    return f"{NETS.get(run.model.name, run.model.name)}{width}, {DATA.get(run.data, run.data)}"


def proportional(epoch: int, paper_epochs: int, epochs: int) -> int:
    """Return the epoch of a shorter training that corresponds to one of the papers."""
    return max(1, round(epoch * epochs / paper_epochs))


def rounds(*numbers: int) -> set[float]:
    """Return the densities after rounds of the lottery that prune a fifth each."""
    return {Lottery(0.8**k).density for k in numbers}


DIGITS = dict.fromkeys(("mnist", "cifar10", "cifar100", "tinyimagenet"), "digits")
TICKETS = frozenset(
    rounds(11, 16)
)  # 91 and 97 % sparsity, the sparsest networks of the earlier paper
SMOKE = frozenset({0.1} | rounds(11))
CHANNELS_LAST = Compute(layout="channels_last")
RESNET, VGG = Model("resnet18", 8), Model("vgg16_bn", 8)
SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            data=DIGITS,
            nets={
                "mlp": StandIn(Model("mlp"), 2, SMOKE),
                **dict.fromkeys(("vgg16", "vgg16_bn"), StandIn(Model("vgg16_bn", 2), 2, SMOKE)),
                **dict.fromkeys(
                    ("resnet18", "resnet32", "resnet34", "resnet50"),
                    StandIn(Model("resnet10", 2), 2, SMOKE),
                ),
            },
            seeds=1,
            cut=0.95,
            points=5,
            images=100,
            probe=100,
        ),
        Scale(
            "laptop",
            data=DIGITS,
            nets={
                "resnet18": StandIn(RESNET, 10, TICKETS | {0.8, 0.1, 0.05}),
                "resnet32": StandIn(RESNET, 10, frozenset({0.05, 0.02})),
                "resnet34": StandIn(RESNET, 10, TICKETS),
                "resnet50": StandIn(RESNET, 10, frozenset({0.05})),
                "vgg16": StandIn(
                    VGG, 8, frozenset({0.1, 0.01})
                ),  # trains slowly without batch norm
                "vgg16_bn": StandIn(VGG, 8, TICKETS),
                "mobilenet": StandIn(Model("mobilenet", 4), 12, TICKETS),
                "mlp": StandIn(Model("mlp"), 16, frozenset({0.1, 0.032, 0.01})),
            },
            seeds=1,
            points=15,
            images=384,
            probe=128,
            compute=CHANNELS_LAST,
        ),
        Scale(
            "desk",
            data=dict.fromkeys(("cifar10", "cifar100"), "clutter"),
            nets={
                "resnet18": StandIn(RESNET, 10, frozenset({0.1, 0.05})),
                "resnet32": StandIn(RESNET, 10, frozenset({0.02})),
            },
            seeds=6,
            cut=0.5,
            points=15,
            images=384,
            probe=128,
            items=(
                *(f"tost/{n}" for n in ("fig02", "fig06", "fig08", "fig09a", "fig09b", "fig10")),
                *(f"tost/table{n}" for n in (1, 2, 4, 5)),
            ),
            compute=CHANNELS_LAST,
        ),
        Scale(
            "hour",
            data=dict.fromkeys(("cifar10", "cifar100"), "cifar10"),
            nets={
                "resnet18": StandIn(Model("resnet18", 32), 12, TICKETS | {0.1, 0.05}),
                "resnet32": StandIn(Model("resnet32", 16), 12, frozenset({0.1, 0.02})),
            },
            cut=0.5,
            points=25,
            compute=Compute(precision="bf16"),
        ),
        Scale("paper", images=5000),
    )
}
