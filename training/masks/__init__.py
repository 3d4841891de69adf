"""Pruning methods. One file each, one line each here."""

from training.masks.dense import Dense
from training.masks.magnitude import Magnitude
from training.masks.method import Method
from training.masks.random import Random

__all__ = ["METHODS", "Method"]

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "random": Random,
    "magnitude": Magnitude,
}
