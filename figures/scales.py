"""Scales: what the trainings of the papers become here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import sparsediag
from figures.measurement import Need
from training.compute import Compute
from training.config import Run
from training.masks.lottery import Lottery
from training.model import Model
from training.schedule import epoch_at
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
        model: The net.
        epochs: Length of its training.
        densities: Shares of its weights at which it is trained, beside 1 and the plain rounds of
            the lottery that sparser nets need anyway.
    """

    model: Model
    epochs: int
    densities: frozenset[float]


@dataclass(frozen=True)
class Scale:
    """Size of the trainings and the measurements.

    Attributes:
        data: What stands for each of the papers' data sets; those that are missing are left out.
        nets: Likewise for their nets.
        seeds: Trainings of each kind.
        cut: Share of the weights that a round of the lottery cuts.
        points: Grid points of a landscape along each direction, and of a curve.
        images: Images that a diagnostic sees.
        probe: Images that the records during training see.
        compute: How the arithmetic is done.
    """

    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    nets: Mapping[str, StandIn] = field(default_factory=dict)
    seeds: int = 3
    cut: float = 0.2
    points: int = 51
    images: int = 1000
    probe: int = 384
    compute: Compute = field(default_factory=Compute)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def whole(self) -> bool:
        """Return whether the trainings are the papers' own."""
        return not self.data

    def takes(self, run: Run) -> bool:
        """Return whether this scale goes as far as a run of the papers."""
        if self.whole:
            return True
        if not (run.data in self.data and run.model.name in self.nets and run.seed < self.seeds):
            return False
        return run.mask.density in (1, *self.nets[run.model.name].densities) or self._rung(run)

    def _rung(self, run: Run) -> bool:
        """Return whether a run is a plain round of the lottery, which sparser ones need anyway."""
        mask = run.mask
        if not isinstance(mask, Lottery) or mask.prune_rate != self.cut:
            return False
        whole = replace(mask, density=(1 - mask.prune_rate) ** (mask.rounds + 1))
        return run == replace(run.plain(), mask=whole, on_disconnected=run.on_disconnected)

    @cache  # noqa: B019  the few scales live as long as the process
    def run(self, run: Run) -> Run:
        """Return what becomes of a run of the papers.

        Raises:
            KeyError: If the scale leaves out its data or its net.
        """
        if self.whole:
            return run
        paper, (model, epochs, _) = run.optim.epochs, self.nets[run.model.name]
        mask, tweaks = run.mask, dict(run.tweaks)
        if isinstance(mask, Lottery):
            mask = replace(mask, prune_rate=self.cut)
        if isinstance(rescale := tweaks.get("rescale"), Rescale):
            tweaks["rescale"] = replace(rescale, steps=epochs)  # 180 of both in the paper
        kept = tuple(early(c, paper, epochs) for c in run.record.checkpoint_epochs)
        return replace(
            run,
            data=self.data[run.data],
            augment="auto",
            model=replace(model, activation=run.model.activation),
            mask=mask,
            rewind=run.rewind and max(1, epoch_at(run.rewind, epochs)) / epochs,
            optim=replace(run.optim, epochs=epochs),
            tweaks=tweaks,
            record=replace(run.record, checkpoint_epochs=kept, probe_samples=self.probe),
            compute=self.compute,
        )

    def title(self, run: Run) -> str:
        """Net and data set as they are trained here."""
        return named(self.run(run))

    def options(self, need: Need) -> dict[str, Any]:
        """Options of the diagnostic at this scale."""
        gridded = need.diagnostic in ("landscape", "perturbation", "inputscape")
        return ({"points": self.points} if gridded else {}) | dict(need.options)

    def kept(self, need: Need) -> str:
        """The name of the checkpoint that is measured."""
        if need.when == "best":
            return "best.pt"
        paper = need.run.optim.epochs
        return f"epoch-{early(5, paper, self.run(need.run).optim.epochs):03}.pt"

    def key(self, need: Need) -> str:
        """Content of a result: everything that decides it, in ten hex digits."""
        run = self.run(need.run).id
        if need.diagnostic == "history":
            return run
        content = f"{sparsediag.__version__} {run} {self.images} {need.diagnostic} "
        content += f"{need.split} {need.when} {sorted(self.options(need).items())}"
        if need.along:
            content += self.key(need.along)
        return hashlib.sha256(content.encode()).hexdigest()[:10]


def named(run: Run) -> str:
    """Net and data set of a run, as the papers write them."""
    width = f" of width {run.model.width}" if run.model.width else ""
    return f"{NETS.get(run.model.name, run.model.name)}{width}, {DATA.get(run.data, run.data)}"


def early(epoch: int, paper: int, epochs: int) -> int:
    """Return what an early epoch of the papers is in a shorter training."""
    return max(1, round(epoch * epochs / paper))


def rounds(*numbers: int) -> set[float]:
    """Shares of the weights that are left after rounds of the lottery, a fifth each."""
    return {Lottery(0.8**k).density for k in numbers}


DIGITS = dict.fromkeys(("mnist", "cifar10", "cifar100", "tinyimagenet"), "digits")
TICKETS = frozenset(rounds(11, 16))  # 91 and 97 % sparse, the forerunner's sparse end
CHANNELS_LAST = Compute(layout="channels_last")
RESNET, VGG = Model("resnet18", 8), Model("vgg16_bn", 8)
SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            data=DIGITS,
            nets={
                name: StandIn(model, 2, frozenset({0.1} | rounds(11)))
                for name, model in {
                    **dict.fromkeys(
                        ("resnet18", "resnet32", "resnet34", "resnet50"), Model("resnet10", 2)
                    ),
                    **dict.fromkeys(("vgg16", "vgg16_bn"), Model("vgg16_bn", 2)),
                    "mlp": Model("mlp"),
                }.items()
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
                "vgg16": StandIn(VGG, 8, frozenset({0.1, 0.01})),  # without norm it needs longer
                "vgg16_bn": StandIn(VGG, 8, TICKETS),
                "mobilenet": StandIn(Model("mobilenet", 4), 12, TICKETS),
                "mlp": StandIn(Model("mlp"), 16, frozenset({0.1, 0.032, 0.01})),
            },
            points=15,
            images=384,
            probe=128,
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
