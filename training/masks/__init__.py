"""Pruning methods. One file each, one line each here."""

from training.masks.base import Method
from training.masks.dense import Dense
from training.masks.file import File
from training.masks.grasp import Grasp
from training.masks.learned import Learned
from training.masks.lottery import Lottery
from training.masks.magnitude import Magnitude
from training.masks.random import Random
from training.masks.rigl import Rigl
from training.masks.set import Set
from training.masks.snip import Snip
from training.masks.synflow import Synflow

__all__ = ["METHODS", "Method"]

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "random": Random,
    "magnitude": Magnitude,
    "lottery": Lottery,
    "snip": Snip,
    "grasp": Grasp,
    "synflow": Synflow,
    "rigl": Rigl,
    "set": Set,
    "learned": Learned,
    "file": File,
}
