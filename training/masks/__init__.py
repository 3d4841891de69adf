"""Pruning methods. One file each, one line each here."""

from training.masks.dense import Dense
from training.masks.grasp import Grasp
from training.masks.lottery import Lottery
from training.masks.magnitude import Magnitude
from training.masks.method import Method
from training.masks.random import Random
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
}
