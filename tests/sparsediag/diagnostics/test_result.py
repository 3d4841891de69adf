"""Results: one file each, whole, of a known kind, with its provenance."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import cache, partial
from html import unescape
from pathlib import Path
from typing import Any, cast

import cases
import numpy as np
import pytest
import torch
from torch.nn.functional import multi_margin_loss

import sparsediag
from sparsediag import (
    Activations,
    CheckpointError,
    Gradflow,
    Landscape,
    Mask,
    Problem,
    Result,
    Spectrum,
)
from sparsediag.diagnostics import DIAGNOSTICS
from sparsediag.diagnostics.result import SHOWN

OPTIONS = {
    "landscape": {"points": 3, "seed": 2},
    "inputscape": {"points": 3},
    "spectrum": {"top": 2},
    "perturbation": {},
}
CASE = {"activations": "masked_cnn"}  # the tanh of the other is an activation too, but never 0
every_kind = pytest.mark.parametrize("name", DIAGNOSTICS)
left_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # a broken zip


@cache
def found(name: str) -> Result:
    problem = cases.CASES[CASE.get(name, "masked_mlp")]()
    result: Result = getattr(sparsediag, name)(problem, **OPTIONS.get(name, {}))
    return result


def assert_same(one: Result, other: Result) -> None:
    assert type(one) is type(other)
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        else:
            assert a == b


def forged(path: Path, **header: Any) -> Path:
    """A saved result with some entries of its header changed."""
    found("activations").save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    kept = json.loads(str(arrays.pop("header")))
    np.savez(path, header=json.dumps({**kept, **header}), **arrays)
    return path


def load_error(path: Path, kind: type[Result] = Result) -> str:
    with pytest.raises(CheckpointError) as caught:
        kind.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "found.npz"


# the file gives back what was saved


@every_kind
def test_load_gives_what_was_saved(path: Path, name: str) -> None:
    assert found(name).save(path) == path
    assert_same(Result.load(path), found(name))
    assert_same(type(found(name)).load(str(path)), found(name))


@every_kind
def test_the_file_has_the_name_that_was_asked_for(tmp_path: Path, name: str) -> None:
    found(name).save(tmp_path / "new" / "result.of-mine")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["result.of-mine"]


def test_what_is_not_a_number_comes_back(path: Path) -> None:
    landscape = found("landscape")
    odd = replace(landscape, loss=np.array([[np.nan, np.inf], [-np.inf, -0.0]]), centre=np.nan)
    odd.save(path)
    back = Landscape.load(path)
    assert back.loss.tobytes() == odd.loss.tobytes()
    assert np.isnan(back.centre)


def test_a_process_that_has_seen_no_diagnostic_loads_each(path: Path) -> None:
    found("landscape").save(path)
    code = "import sys, sparsediag as sd; print(type(sd.Result.load(sys.argv[1])).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "Landscape", done.stderr


def test_an_error_while_writing_leaves_the_old_file(path: Path) -> None:
    found("activations").save(path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        replace(found("landscape"), source={"odd": object()}).save(path)
    assert_same(Result.load(path), found("activations"))
    assert list(path.parent.iterdir()) == [path]


# files that are something else


def test_another_kind_is_refused(path: Path) -> None:
    found("landscape").save(path)
    assert load_error(path, Spectrum) == f"{path} holds Landscape, expected Spectrum"


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no such file; need a \.npz that a diagnostic wrote"
    ):
        Result.load(path)


@left_open
@pytest.mark.parametrize("content", [b"", b"hello there\n", b"PK\x03\x04 and no more"])
def test_a_file_of_another_kind(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not a result; give a .npz that a diagnostic wrote" in load_error(path)
    gc.collect()


def test_a_folder(tmp_path: Path) -> None:
    assert "is not a result" in load_error(tmp_path)


@left_open
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short(path: Path, share: float) -> None:
    found("spectrum").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is not a result" in load_error(path)
    gc.collect()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a list of open files")
@left_open
def test_a_broken_file_is_closed(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError) as caught:
        Result.load(path)
    still_open = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    del caught
    gc.collect()
    assert str(path) not in still_open


@pytest.mark.parametrize(
    "arrays", [{"a": np.ones(3)}, {"header": np.array({"kind": "Spectrum"}, dtype=object)}]
)
def test_arrays_that_no_diagnostic_wrote(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)
    assert "is not a result" in load_error(path)


def test_a_newer_format_is_refused(path: Path) -> None:
    assert "has format 2, this version reads up to 1" in load_error(forged(path, format=2))


@pytest.mark.parametrize(
    "header", [{"kind": "Sharpness"}, {"kind": "spectrum"}, {"kind": 3}, {"format": "1"}, {"x": 1}]
)
def test_a_header_that_save_did_not_write(path: Path, header: dict[str, Any]) -> None:
    load_error(forged(path, **header))


# for machines and for people


@every_kind
def test_json_is_plain(name: str) -> None:
    result = found(name)
    plain = json.loads(json.dumps(result.json(), allow_nan=False))
    assert plain == result.json()
    assert plain["kind"] == type(result).__name__
    assert plain.keys() - {"kind"} == {f.name for f in fields(result)}


def test_json_of_what_is_not_a_number() -> None:
    odd = replace(found("landscape"), loss=np.array([[np.nan, np.inf]]), labels=[np.nan, [np.inf]])
    json.dumps(odd.json(), allow_nan=False)
    assert odd.json()["labels"] == [None, [None]]


@pytest.mark.parametrize(("size", "there"), [(10_000, True), (10_001, False)])
def test_json_leaves_huge_arrays_out(size: int, there: bool) -> None:
    result = replace(found("spectrum"), vectors=np.zeros((1, size)))
    assert ("vectors" in result.json()) == there
    assert "eigenvalues" in result.json()


@every_kind
def test_every_result_has_a_table_and_a_picture(name: str) -> None:
    rows = found(name).table()
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert found(name).plot().has_data()


@every_kind
def test_every_result_draws_on_the_axes_it_is_given(name: str) -> None:
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert found(name).plot(ax) is ax
    assert ax.has_data()


def test_a_result_without_a_picture_says_so() -> None:
    with pytest.raises(TypeError, match="a Result has no picture of its own"):
        Result(source={}).plot()
    assert Result(source={}).table() == []


# provenance


@every_kind
def test_source_says_what_was_diagnosed(name: str) -> None:
    source = found(name).source
    problem = cases.CASES[CASE.get(name, "masked_mlp")]()
    assert problem.mask is not None
    assert {
        key: source[key] for key in source.keys() - {"options", "torch", "spectrum", "residuals"}
    } == {
        **problem.about,
        "problem": problem.digest,
        "weights": problem.size,
        "density": problem.mask.density,
        "batch_norm": "eval",
        "dtype": "float64",
        "device": "cpu",
        "sparsediag": sparsediag.__version__,
    }
    assert source["torch"] == str(torch.__version__)
    assert OPTIONS.get(name, {}).items() <= source["options"].items()


def test_source_of_a_dense_net() -> None:
    source = sparsediag.gradflow(cases.linear_regression()).source
    assert (source["density"], source["options"]) == (1.0, {})


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({}, "Residual: 6 samples, cross_entropy, batch norm: running statistics"),
        ({"batch_norm": "train"}, "Residual: 6 samples, cross_entropy, batch norm: statistics of"),
        (
            {"about": {"net": "a", "data": "b", "split": "test", "available": 9}},
            "a on b: 6 of 9 test",
        ),
        ({"loss": partial(multi_margin_loss, margin=2)}, "multi_margin_loss"),
    ],
)
def test_one_line_below_tables_and_pictures_says_what_was_measured(
    path: Path, keywords: dict[str, Any], words: str
) -> None:
    batches = [(torch.ones(3, 1, 5, 5) * i, torch.arange(3)) for i in range(2)]
    problem = Problem(cases.Residual(), batches, **keywords)
    result = sparsediag.activations(problem)
    assert words in result.provenance
    assert result.provenance in repr(result)
    assert result.provenance in unescape(result._repr_html_())
    result.save(path)
    assert Result.load(path).below()[0] == result.provenance
    footer = result.figures()[""]._supxlabel.get_text()
    assert footer.replace("\n", " ") == result.provenance


def test_what_was_measured_belongs_to_the_samples() -> None:
    batches = [(torch.eye(2), torch.arange(2))]
    problem = Problem(torch.nn.Linear(2, 2), batches, about={"data": "mine"})
    assert problem.view(params="weight").about["data"] == "mine"
    assert problem.replace(batch_norm="train").about["data"] == "mine"
    assert "data" not in problem.replace(batches=batches).about


def test_kinds_have_the_names_of_their_diagnostics() -> None:
    assert [type(found(name)).__name__ for name in DIAGNOSTICS] == [
        name.capitalize() for name in DIAGNOSTICS
    ]
    assert Result.kinds["Activations"] is Activations


# in a notebook, and at a prompt


@every_kind
def test_a_result_shows_its_table_its_remarks_and_its_picture(name: str) -> None:
    result = found(name)
    html, words = unescape(result._repr_html_()), repr(result)
    assert html.count("<svg role=") == 1
    assert len(html) < 200_000
    for row in result.table()[:SHOWN]:
        assert all(f">{value}</t" in html for value in row.values())
    for remark in result.below():
        assert f"<p>{remark}</p>" in html
        assert remark in words
    assert words.startswith(type(result).__name__)
    assert len(words.splitlines()) == 2 + len(result.table()) + len(result.below())


def test_a_long_table_is_cut_in_a_notebook_only() -> None:
    counts = np.zeros(50)
    result = replace(
        cast(Gradflow, found("gradflow")), names=[f"<{i}>" for i in range(50)],
        flow=counts, per_weight=counts, weight_norm=counts, counts=counts.astype(int),
        dead_flow=counts, dead_per_weight=counts, dead_counts=counts.astype(int),
        regrown_flow=counts, regrown_per_weight=counts, regrown_counts=counts.astype(int),
    )  # fmt: skip
    html = result._repr_html_()
    assert "&lt;39&gt;" in html
    assert "11 more rows" in html
    assert "<49>" in repr(result)


def test_a_mask_shows_every_tensor() -> None:
    mask = Mask({"<b>": torch.tensor([True, False, False, False]), "c": torch.ones(4).bool()})
    html = mask._repr_html_()
    assert "&lt;b&gt;" in html
    assert html.count("█" * 20) == 1
    assert all(text in html for text in ("25.00%", "100.00%", "62.50%"))
