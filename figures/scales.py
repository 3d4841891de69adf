"""Scales: what a training of the papers becomes here."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import sparsediag
from figures.need import TOST, Need
from training.config import Record, Run
from training.masks.magnitude import Magnitude
from training.model import Model
from training.optim import Optim

TWEAK_OF = {
    "GSk": "ghost_skips",
    "GSw": "ghost_neurons",
    "LRsI": "rescale",
    "LS": "smoothing",
}

# What ToST's sections 3 and 4 train for the items drawn here
PAPER = "the paper: ResNet-18, CIFAR-100, 90 % sparse by iterative magnitude pruning, 180 epochs"


@dataclass(frozen=True)
class Scale:
    """How large the trainings and the measurements are.

    Attributes:
        width: Channels of the first stage of ResNet-18; the paper has 64.
        density: Share of the weights that is kept.
        seeds: Trainings of each kind, where an item shows a spread.
        points: Grid points of a landscape along each direction, and of a curve.
        images: Images that a diagnostic sees.
        probe: Images that the records during training see.
    """

    name: str
    data: str
    width: int
    density: float
    epochs: int
    seeds: int
    points: int
    images: int
    probe: int

    @property
    def caption(self) -> str:
        """What was trained, for under a figure."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return (
            f"scale {self.name}: ResNet-18 of width {self.width}, {self.data}, "
            f"{1 - self.density:.0%} sparse by one-shot magnitude pruning, {self.epochs} epochs, "
            f"{seeds} where a spread is shown\n{PAPER}"
        )

    @property
    def early(self) -> int:
        """Epochs trained at what the papers show of their fifth epoch of 180."""
        return max(1, round(self.epochs * 5 / 180))

    def takes(self, need: Need) -> bool:
        """Whether this scale goes as far as the need's seed."""
        return need.seed < self.seeds

    def run(self, need: Need) -> Run:
        """The training behind a need. The plain sparse net and ToST record as they train."""
        recorded = need.tweaks in ((), TOST) and need.activation == "relu"
        options = {"rescale": {"steps": self.epochs}}  # 180 of both in the paper
        return Run.of(
            {
                "data": self.data,
                "seed": need.seed,
                "model": asdict(Model("resnet18", self.width)) | {"activation": need.activation},
                "mask": {"method": "magnitude", **asdict(Magnitude(self.density))},
                "optim": asdict(Optim(epochs=self.epochs)),
                "tweaks": {TWEAK_OF[t]: options.get(TWEAK_OF[t], {}) for t in need.tweaks},
                "record": asdict(
                    Record(
                        checkpoints=(self.early,),
                        gradient_flow=recorded,
                        eigenvalue_every=int(recorded),
                        images=self.probe,
                    )
                ),
            }
        )

    def options(self, need: Need) -> dict[str, Any]:
        """Options of the diagnostic at this scale."""
        gridded = need.diagnostic in ("landscape", "perturbation", "inputscape")
        return ({"points": self.points} if gridded else {}) | dict(need.options)

    def key(self, need: Need) -> str:
        """Content of a result: everything that decides it, in ten hex digits."""
        content = f"{sparsediag.__version__} {self.run(need).id} {self.images} {need.diagnostic} "
        content += f"{need.split} {need.when} {sorted(self.options(need).items())}"
        if need.along:
            content += self.key(need.along)
        return hashlib.sha256(content.encode()).hexdigest()[:10]


SCALES = {
    "smoke": Scale("smoke", "digits", 4, 0.2, 2, seeds=1, points=5, images=100, probe=100),
    "laptop": Scale("laptop", "digits", 8, 0.05, 30, seeds=3, points=25, images=1000, probe=384),
}
