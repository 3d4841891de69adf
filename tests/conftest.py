"""What every test needs: one thread, since the nets are small, and profiles for hypothesis."""

import os

import pytest
import torch
from hypothesis import settings

LONG = (  # files that take longest; they come first, so that the processes end at the same time
    "test_figures.py",
    "test_notebooks.py",
    "test_foreign_nets.py",
    "test_readme.py",
    "test_cli.py",
    "test_loop.py",
    "test_spectrum.py",
    "test_training_main.py",
)

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for what the tests start
settings.register_profile("fast", max_examples=25, deadline=None, database=None)
settings.register_profile("thorough", max_examples=500, deadline=None, database=None)
settings.load_profile("fast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
