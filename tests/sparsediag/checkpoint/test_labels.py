"""Labels: what a training is, and what tells several apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparsediag.checkpoint.labels import describe_run, file_labels, run_label, run_labels

SNIP = {"method": "snip", "density": 0.05}
RANDOM = {"method": "random"}
TOST: Any = {"ghost_neurons": {}, "ghost_skips": {}, "rescale": {}, "smoothing": {}}


def run(**table: Any) -> dict[str, Any]:
    model = {"name": "resnet18", "width": None} | table.pop("model", {})
    return {"data": "digits", "seed": 0, "mask": SNIP, "model": model} | table


def test_a_description_has_its_main_parts_first_and_the_other_keys_dotted() -> None:
    described = describe_run(run(tweaks=TOST, optim={"lr": 0.1}))
    expected = {"model": "resnet18", "data": "digits", "mask": "snip", "density": 0.05}
    expected |= {"tweaks": "tost", "seed": 0, "optim.lr": 0.1}
    assert list(described.items()) == list(expected.items())


def test_the_label_of_one_training() -> None:
    assert run_label(run(tweaks=TOST)) == "resnet18 digits snip density 0.05 tost seed 0"
    dense = run(mask={"method": "dense", "density": 1.0}, data="folder:/photos/pets")
    assert run_label(dense) == "resnet18 pets dense seed 0"
    assert run_label({}) == ""


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{}, {"tweaks": TOST}], ["plain", "tost"]),
        ([{}, {"mask": {"method": "dense", "density": 1.0}}], ["snip", "dense"]),
        ([{}, {"mask": SNIP | {"density": 0.1}}], ["density 0.05", "density 0.1"]),
        ([{}, {"seed": 1}, {"optim": {"lr": 0.2}}],
         ["seed 0 lr default", "seed 1 lr default", "seed 0 lr 0.2"]),
        ([{"mask": RANDOM | {"scope": "erk"}}, {"mask": RANDOM | {"scope": "layer"}}, {}],
         ["random scope erk", "random scope layer", "snip"]),
        ([{"tweaks": {"smoothing": {"alpha": a}}} for a in (0.1, 0.2)],
         ["smoothing.alpha 0.1", "smoothing.alpha 0.2"]),
        ([{"model": {"width": 4}}, {"optim": {"name": "adam"}}],
         ["width 4 default", "width default adam"]),
    ],
)  # fmt: skip
def test_the_labels_of_several_are_what_differs(
    changes: list[dict[str, Any]], labels: list[str]
) -> None:
    assert run_labels([run(**change) for change in changes]) == labels


H, G = "0123456789", "abcdefabcd"
A, B = run(), run(tweaks=TOST)


@pytest.mark.parametrize(
    ("files", "runs", "labels"),
    [
        (["a/best.pt"], [A], [run_label(A)]),
        (["a/best.pt", "b/best.pt"], [A, B], ["plain", "tost"]),
        (["a/best.pt", "b/last.pt"], [A, B], ["plain", "tost"]),
        (["a/best.pt", "a/last.pt"], [A, A], ["best", "last"]),
        (["a/best.pt", "a/last.pt", "b/best.pt"], [A, A, B],
         ["plain best", "plain last", "tost best"]),
        ([f"a-{H}/best.pt", f"b-{H}/best.pt"], [A, A], ["a", "b"]),
        ([f"a-{H}/best.pt", f"a-{G}/best.pt"], [A, A], [f"a-{H}", f"a-{G}"]),
        (["net.pt", "x/best.pt"], [{}, A], ["net", "best"]),
        (["x/a/best.pt", "y/a/best.pt"], [{}, {}], ["x/a/best.pt", "y/a/best.pt"]),
    ],
)  # fmt: skip
def test_the_labels_of_files(files: list[str], runs: list[Any], labels: list[str]) -> None:
    assert file_labels([Path(file) for file in files], runs) == labels


def test_names_that_are_given_come_first() -> None:
    files = [Path("a/best.pt"), Path("b/best.pt")]
    assert file_labels(files, [A, B], "SNIP, SNIP + ToST") == ["SNIP", "SNIP + ToST"]


@pytest.mark.parametrize("names", ["one", "a,b,c", "a,a", "a,", ""])
def test_names_that_do_not_fit_are_refused(names: str) -> None:
    with pytest.raises(ValueError, match="need 2 different names"):
        file_labels([Path("a/best.pt"), Path("b/best.pt")], [A, B], names)


def test_one_file_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got a/best.pt twice"):
        file_labels([Path("a/best.pt")] * 2, [A, A])
