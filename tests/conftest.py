"""What every test needs: no GPU unless one is asked for, one thread, profiles for hypothesis."""

import os

import pytest
from hypothesis import settings

LONG = (  # files that take longest; they come first, so that the processes end at the same time
    "test_figures.py",
    "test_gpu.py",
    "test_pretend_gpu.py",
    "test_notebooks.py",
    "test_foreign_nets.py",
    "test_readme.py",
    "test_cli.py",
    "test_loop.py",
    "test_spectrum.py",
    "test_main.py",
)

os.environ["OMP_NUM_THREADS"] = "1"  # for what the tests start
settings.register_profile("fast", max_examples=25, deadline=None, database=None)
settings.register_profile("thorough", max_examples=500, deadline=None, database=None)
settings.load_profile("fast")


def pytest_configure(config: pytest.Config) -> None:
    """Hide every GPU unless `-m gpu` asks for it: the suite is the same on every machine."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch  # only now: what it starts sees the same devices

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
