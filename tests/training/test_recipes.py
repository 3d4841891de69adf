"""The recipes against the papers: protocol, nets, masks, and what they have in common."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from sparsediag.data.datasets import DATASETS
from sparsediag.models import build
from training.config import RECIPES, Run
from training.masks.lottery import Lottery
from training.optim import Optim
from training.tweaks import TWEAKS

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
TOST = [name for name in NAMES if name.startswith("tost_")]
LOTTERY = [name for name in NAMES if name.startswith("lottery_")]

# parameters by the closed forms of the published nets, whose classifiers depend on the data
PARAMETERS = {
    "tost_resnet32_cifar10": 1_860_522,
    "tost_resnet32_cifar100": 1_872_132,
    "tost_resnet50_cifar10": 23_520_842,
    "tost_resnet50_tinyimagenet": 23_910_152,
    "tost_vgg16_bn_cifar100": 14_774_436,
    "tost_mobilenet_cifar10": 3_217_226,
    "lottery_resnet18_cifar100": 11_220_132,
    "lottery_resnet18_tinyimagenet": 11_271_432,
    "lottery_resnet34_cifar10": 21_282_122,
    "pipeline_mlp_mnist": 119_910,
    "pipeline_vgg16_cifar10": 14_719_818,
}


def _net(run: Run) -> nn.Module:
    """The net with all that tweaks add to it, without memory."""
    options = run.model.keywords()
    for tweak in run.tweaks.values():
        options |= tweak.options()
    data = DATASETS[run.data]
    size = 8 if run.data == "digits" else 28
    with torch.device("meta"):
        return build(
            run.model.name,
            classes=data.classes,
            channels=len(data.moments),
            **{"size": size, **options},
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_what_it_is(name: str) -> None:
    first = (RECIPES / f"{name}.toml").read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_the_net_has_an_output_for_each_class(name: str) -> None:
    run = Run.load(name)
    last = [m for m in _net(run).modules() if isinstance(m, nn.Linear)][-1]
    assert last.out_features == DATASETS[run.data].classes


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_the_net_has_the_published_size_whatever_the_tweaks(name: str, count: int) -> None:
    assert sum(p.numel() for p in _net(Run.load(name)).parameters()) == count


@pytest.mark.parametrize("name", [*TOST, *LOTTERY])
def test_all_of_two_papers_is_trained_alike(name: str) -> None:
    run, paper = Run.load(name), name.partition("_")[0]
    assert name.removesuffix("_rewound") == f"{paper}_{run.model.name}_{run.data}"
    assert run.optim == Optim()
    assert set(run.tweaks) == set(TWEAKS) - {"distillation"}
    ends = [tweak.plain_from(run.optim.epochs) for tweak in run.tweaks.values() if tweak.options()]
    assert ends == ([90, 90] if name in TOST else [0, 0])  # the first drop; 0: they stay


@pytest.mark.parametrize("name", LOTTERY)
def test_the_lotterys_masks_are_of_eleven_rounds(name: str) -> None:
    run, cuts = Run.load(name), 0
    while isinstance(run.mask, Lottery):
        (needed,), cuts = run.mask.before(), cuts + 1
        run = run.prerequisite(needed)
    assert cuts == 11
    assert Run.load(name).mask.density == pytest.approx(0.8**11)


def test_the_rewound_recipe_is_the_other_one_at_epoch_33() -> None:
    run, other = (
        Run.load("lottery_resnet18_cifar100_rewound"),
        Run.load("lottery_resnet18_cifar100"),
    )
    dense, file = run.rewound()
    assert file == "epoch-033.pt"
    assert dense.record.checkpoint_epochs == (33,)
    assert (run.model, run.mask, run.tweaks) == (other.model, other.mask, other.tweaks)
    assert run.mask.before() == other.mask.before()


def test_recipes_for_the_same_net_and_data_share_the_dense_training() -> None:
    runs = [Run.load(name) for name in (*TOST, *LOTTERY)]
    same = [
        (one, other)
        for one, other in combinations(runs, 2)
        if not one.rewind + other.rewind and (one.data, one.model) == (other.data, other.model)
    ]
    assert len(same) == 7
    assert all(one.plain().id == other.plain().id for one, other in same)
