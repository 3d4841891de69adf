"""What every test needs: no GPU unless one is asked for, one thread, profiles for hypothesis."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def plugins_are_removed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out of the tables what a test adds to them by plug-ins."""
    from sparsediag import Result, diagnostics
    from sparsediag.checkpoint import user_code
    from sparsediag.cli import app
    from sparsediag.core import fingerprint
    from sparsediag.data import datasets
    from sparsediag.diagnostics import plugins
    from sparsediag.models import MODELS
    from training.masks import METHODS
    from training.tweaks import TWEAKS

    tables: list[Any] = [diagnostics.ADDED, diagnostics.DIAGNOSTICS, METHODS, TWEAKS, MODELS]
    tables += [datasets.DATASETS, plugins.FILES, plugins.PACKAGES, fingerprint.PLUGIN_PACKAGES]
    before = [table.copy() for table in tables]
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in [n for n, kind in Result.kinds.items() if "sparsediag." not in kind.__module__]:
        del Result.kinds[name]
    for name in {*app.app} - app.BUILT_IN:
        del app.app[name]
    user_code._import_file.cache_clear()


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints: small.pt (sparse, perceptron) and conv.pt (dense, ResNet)."""
    import torch

    from sparsediag import Checkpoint, Mask, models, prunable
    from tests.commands import SMALL

    folder = tmp_path_factory.mktemp("kept")
    torch.manual_seed(0)
    net = models.build("lenet300", **SMALL)
    mask = Mask.top({n: torch.rand_like(net.get_parameter(n)) for n in prunable(net)}, 0.2)
    mask.apply_(net)
    small = Checkpoint.of(net, mask=mask, model="lenet300", options=SMALL, data="digits")
    small.save(folder / "small.pt")
    options = {"width": 4, "channels": 1}
    net = models.build("resnet10", **options)
    Checkpoint.of(net, model="resnet10", options=options, data="digits").save(folder / "conv.pt")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two epochs."""
    from training.config import Run
    from training.loop import fit

    table = {
        "data": "digits",
        "model": {"name": "lenet300", "width": 8},
        "mask": {"method": "random", "density": 0.3},
        "optim": {"epochs": 2, "batch_size": 128},
        "record": {"checkpoint_epochs": [1]},
    }
    return fit(Run.of(table), out=tmp_path_factory.mktemp("run"), device="cpu").parent


@pytest.fixture
def run(place: Path, trained: Path) -> Path:
    """That folder beside the files in the current one, as `run`."""
    shutil.copytree(trained, place / "run")
    return Path("run")


@pytest.fixture
def place(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small.pt and conv.pt in it, where nothing else may appear."""
    import torch

    here = tmp_path / "here"
    shutil.copytree(kept, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return here
