"""Runs: strict tables, TOML there and back, and an identity that only what matters changes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsediag.core.errors import ConfigError
from training.config import RECIPES, Model, Record, Run
from training.masks import METHODS
from training.masks.file import File
from training.optim import Optim
from training.tables import differences, from_table, to_toml
from training.tweaks import TWEAKS
from training.tweaks.ghosts import GhostNeurons
from training.tweaks.smoothing import Smoothing

OTHER = {
    "data": "digits",
    "size": 32,
    "normalise": "imagenet",
    "mask_seed": 5,
    "seed": 1,
    "augment": "none",
    "init": "zero_hadamard",
    "rewind": 0.18,
    "resume_schedule": True,
    "on_disconnected": "warn",
    "model.name": "vgg16",
    "model.width": 8,
    "model.activation": "mish",
    "model.options": {"shortcut": "A"},
    "mask.method": "random",
    "mask.density": 0.1,
    "optim.name": "adam",
    "optim.lr": 0.01,
    "optim.momentum": 0.0,
    "optim.weight_decay": 0.0,
    "optim.epochs": 90,
    "optim.batch_size": 64,
    "optim.lr_milestones": [0.5],
    "optim.lr_gamma": 0.2,
    "tweaks": ["smoothing"],
    "record.checkpoint_epochs": [5],
    "record.gradient_flow": True,
    "record.eigenvalue_every": 1,
    "record.probe_samples": 100,
    "record.watch_every": 100,
    "record.watch_metrics": "gradient",
    "compute.precision": "bf16",
    "compute.layout": "channels_last",
    "compute.compile": True,
}
NEEDS: dict[str, dict[str, Any]] = {
    "resume_schedule": {"rewind": 0.5},
    "record.watch_metrics": {"record": {"watch_every": 7}},
}
MASK_NEEDS = {"file": {"path": "mask.pt"}}
MASK_OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {},
    "random": {"scope": "erk"},
    "magnitude": {},
    "lottery": {"prune_rate": 0.5, "rewound": True},
    "snip": {"per_class": 5},
    "grasp": {"per_class": 5, "temperature": 100.0},
    "synflow": {"steps": 10},
    "rigl": {"scope": "layer", "update_interval": 10, "drop_fraction": 0.1, "end": 0.5},
    "set": {"scope": "layer", "update_interval": 10, "drop_fraction": 0.1, "end": 0.5},
    "learned": {"lambda_binary": 1e-3, "lambda_l1": 1e-3},
    "file": {"path": "other.pt", "zeros": True},
}

words = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, 1e30, exclude_min=True)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
values = st.one_of(st.booleans(), st.integers(), finite, words, st.lists(st.integers(), max_size=3))
runs = st.builds(
    Run,
    data=words,
    seed=st.integers(-(2**62), 2**62),
    mask_seed=st.none() | st.integers(),
    rewind=st.sampled_from([0.0, 0.5, 1.0]),
    model=st.builds(Model, words, st.none() | st.just(4), options=st.dictionaries(words, values)),
    mask=st.one_of(
        st.builds(File, path=words.filter(bool), zeros=st.booleans()),
        *(st.builds(METHODS[name], shares) for name in METHODS if name not in ("dense", "file")),
    ),
    optim=st.builds(
        Optim,
        lr=positive,
        momentum=shares,
        epochs=st.integers(2, 10**6),
        lr_milestones=st.lists(shares, max_size=3).map(tuple),
    ),
    tweaks=st.fixed_dictionaries(
        {},
        optional={
            "smoothing": st.builds(Smoothing, shares, shares),
            "ghost_neurons": st.builds(GhostNeurons, st.floats(1, 100), until=shares),
        },
    ),
    record=st.builds(Record, st.just(()) | st.just((1,)), gradient_flow=st.booleans()),
)


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    share: float = 0.5
    kind: Literal["one", "two"] = "one"
    maybe: int | None = None
    many: tuple[float, ...] = ()


def _written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _leaves(table: Mapping[str, Any], where: str = "") -> set[str]:
    found = set()
    for key, value in table.items():
        inner = isinstance(value, dict) and value
        found |= _leaves(value, f"{where}{key}.") if inner else {where + key}
    return found


# tables


def test_fill_and_table_are_inverse() -> None:
    outer = Outer(Inner(3), 0.25, "two", 7, (1.0, 2.0))
    table = {"inner": {"size": 3}, "share": 0.25, "kind": "two", "maybe": 7, "many": [1, 2]}
    assert from_table(Outer, table) == outer
    assert differences(asdict(outer), asdict(Outer())) == table | {"many": (1.0, 2.0)}
    assert differences(asdict(Outer(inner=Inner(2))), asdict(Outer())) == {"inner": {"size": 2}}
    assert differences(asdict(Outer()), asdict(Outer())) == {}


def test_an_integer_where_a_number_is_needed_becomes_a_float() -> None:
    outer = from_table(Outer, {"share": 1, "many": [2]})
    assert [type(value) for value in (outer.share, *outer.many)] == [float, float]


def test_toml_leaves_none_out() -> None:
    text = to_toml({"a": None, "b": [1, 2], "c": {"d": "x", "e": {"f": True, "g": None}}})
    assert text == 'b = [1, 2]\n\n[c]\nd = "x"\n\n[c.e]\nf = true\n'


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"shar": 1}, "unknown key 'at.shar'; did you mean 'at.share'? Known: at.inner, at.kind"),
        ({"inner": {"sise": 1}}, "unknown key 'at.inner.sise'; did you mean 'at.inner.size'?"),
        ({"inner": 3}, "at.inner = 3: need a table"),
        ({"kind": "too"}, "unknown at.kind 'too'; did you mean 'two'? Known: one, two."),
        ({"maybe": "x"}, "at.maybe = 'x': need a whole number"),
        ({"many": ["x"]}, "at.many = 'x': need a number"),
        ({"many": 1.5}, "at.many = 1.5: need"),
        ({"share": True}, "at.share = True: need a number"),
        ({"inner": {"size": True}}, "at.inner.size = True: need a whole number"),
        ({"inner": {"size": 1.0}}, "at.inner.size = 1.0: need a whole number"),
    ],
)
def test_fill_is_strict(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_table(Outer, table, "at.")


# invalid run files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # keys
        ("optim.lrr = 1", "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        ("sed = 1", "unknown key 'sed'; did you mean 'seed'?"),
        ("mask = {method = 'random', densty = 1}", "'mask.densty'; did you mean 'mask.density'?"),
        ("tweaks.smoothing.alfa = 1", "did you mean 'tweaks.smoothing.alpha'?"),
        # names
        ("mask.method = 'randm'", "unknown mask.method 'randm'; did you mean 'random'?"),
        ("tweaks = ['smothing']", "unknown tweak 'smothing'; did you mean 'smoothing'?"),
        ("model.activation = 'rely'", "'rely'; did you mean 'relu'?"),
        ("optim.name = 'sdg'", "'sdg'; did you mean 'sgd'?"),
        ("augment = 'yes'", "unknown augment 'yes'. Known: auto, crop_flip, none."),
        ("init = 'zero_hadmard'", "unknown init 'zero_hadmard'; did you mean 'zero_hadamard'?"),
        ("on_disconnected = 'wran'", "unknown on_disconnected 'wran'; did you mean 'warn'?"),
        ("mask = {method = 'random', scope = 'erdos'}", "unknown mask.scope 'erdos'"),
        ("tweaks.ghost_skips.kind = 'identity_nb'", "tweaks.ghost_skips.kind"),
        # types
        ("tweaks.smoothing = 1", "tweaks.smoothing = 1: need a table"),
        ("model = 'resnet18'", "model = 'resnet18': need a table"),
        ("mask = 'random'", "mask = 'random': need a table"),
        ("mask = 3", "mask = 3: need a table"),
        ("mask.method = 3", "mask.method"),
        ("tweaks = 'smoothing'", "tweaks = 'smoothing': need"),
        ("tweaks = 3", "tweaks = 3: need"),
        ("tweaks = [3]", "tweak"),
        ("rewind = 'end'", "rewind = 'end': need a number"),
        ("resume_schedule = 1", "resume_schedule = 1: need true or false"),
        ("data = 3", "data = 3: need text"),
        ("seed = true", "seed = True: need a whole number"),
        ("optim.epochs = 1.5", "optim.epochs = 1.5: need a whole number"),
        ("optim.lr_milestones = 0.5", "optim.lr_milestones = 0.5: need a list"),
        ("model.options.foo = 1979-05-27", "need numbers, words, lists and tables only"),
        ("seed: 3", "run.toml is not TOML"),
        # numbers
        ("optim.lr = 0", "optim.lr = 0.0: need a positive number"),
        ("optim.lr = nan", "optim.lr = nan: need a positive number"),
        ("optim.epochs = 0", "optim.epochs = 0: need a positive number"),
        ("optim.batch_size = -1", "optim.batch_size = -1: need a positive number"),
        ("optim.momentum = -1", "optim.momentum = -1.0: need a number in [0, 1)"),
        ("optim.weight_decay = -1", "optim.weight_decay = -1.0: need 0 or more"),
        ("optim.lr_gamma = -1", "optim.lr_gamma = -1.0: need a positive number"),
        ("optim.lr_milestones = [1.5]", "optim.lr_milestones: 1.5 is no fraction"),
        ("optim.lr_milestones = [0.5, 0]", "optim.lr_milestones: 0.0 is no fraction"),
        ("model.width = 0", "model.width"),
        ("record.probe_samples = 0", "record.probe_samples = 0: need 1 or more"),
        ("record.eigenvalue_every = -1", "record.eigenvalue_every = -1: need 0 (never) or more"),
        ("record.watch_every = -1", "record.watch_every = -1: need 0 (never) or more"),
        ("record.watch_metrics = 'mask'", "record.watch_metrics without rows: need watch_every"),
        (
            "record = {watch_every = 5, watch_metrics = 'gradiant,mask'}",
            "record.watch_metrics = 'gradiant,mask': unknown metric 'gradiant'; did you mean",
        ),
        ("record.checkpoint_epochs = [0]", "record.checkpoint_epochs: there is no epoch 0"),
        ("record.checkpoint_epochs = [181]", "no epoch 181 in a run of 180"),
        ("rewind = -0.1", "rewind = -0.1: need 0, or a share of 180 epochs up to 1"),
        ("rewind = 1.1", "rewind = 1.1: need"),
        ("rewind = nan", "rewind = nan: need"),
        ("rewind = 0.002", "rewind = 0.002: need"),
        ("rewind = 0.25\noptim.epochs = 2", "rewind = 0.25: need 0, or a share of 2 epochs"),
        ("resume_schedule = true", "resume_schedule with rewind = 0.0 of"),
        ("resume_schedule = true\nrewind = 1.0", "resume_schedule with rewind = 1.0 of"),
        ("resume_schedule = true\nrewind = 0.999", "resume_schedule with rewind = 0.999 of 180"),
        # options of masks and tweaks
        ("mask = {method = 'random', density = 1.5}", "mask.density 1.5: need a number in (0, 1]"),
        ("mask = {method = 'random', density = 0}", "For 90 % sparsity write density = 0.1"),
        ("mask.density = -0.1", "mask.density -0.1: need"),
        ("mask = {method = 'file'}", "mask.path: need the file of a mask"),
        ("mask = 'file:'", "mask.path: need the file of a mask"),
        ("mask = {method = 'file', path = 'm.pt', density = 0.1}", "mask.density 0.1: the file"),
        ("mask = {method = 'lottery', prune_rate = 1}", "mask.prune_rate = 1.0: need"),
        ("mask = {method = 'grasp', temperature = 0}", "mask.temperature 0.0: need a positive"),
        ("mask = {method = 'synflow', steps = 0}", "mask.steps = 0: need 1 or more"),
        ("mask = {method = 'rigl', update_interval = 0}", "mask.update_interval = 0: need 1"),
        ("mask = {method = 'set', end = 2}", "mask.end = 2.0: need a share from 0 to 1"),
        ("mask = {method = 'learned', lambda_binary = -1}", "mask.lambda_binary = -1.0: need 0"),
        ("mask = {method = 'learned', lambda_l1 = nan}", "mask.lambda_l1 = nan: need 0 or more"),
        ("tweaks.smoothing.alpha = 1", "tweaks.smoothing.alpha 1.0: need a number in [0, 1)"),
        ("tweaks.smoothing.decay_until = 2", "tweaks.smoothing.decay_until 2.0: need a share"),
        ("tweaks.ghost_neurons.last_beta = inf", "last_beta inf: need a finite number"),
        ("tweaks.ghost_neurons.last_beta = 0.5", "tweaks.ghost_neurons.last_beta"),
        ("tweaks.ghost_neurons.until = 1.0", "tweaks.ghost_neurons.until"),
        ("tweaks.ghost_skips.until = 2.0", "tweaks.ghost_skips.until"),
        ("model.activation = 'mish'\ntweaks = ['ghost_neurons']", "'mish'"),
    ],
)
def test_an_invalid_run_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Run.load(_written(tmp_path, text))


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"run.toml is not TOML"):
        Run.load(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("digts", "digts: no such file; did you mean 'digits'? Recipes: digits, "),
        ("nowhere.toml", "nowhere.toml: no such file. Recipes: digits, "),
    ],
)
def test_a_missing_file_names_the_recipes(path: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        Run.load(path)


# files, recipes, overrides


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_by_its_name(path: Path) -> None:
    assert Run.load(path.stem) == Run.load(path)
    assert Run.load(path) != Run()


def test_changes_reach_every_depth(tmp_path: Path) -> None:
    path = _written(tmp_path, 'mask.method = "random"\n[optim]\nlr = 0.5\nepochs = 7')
    run = Run.load(path, {"seed": 3, "optim.lr": 0.05, "mask.density": 0.02, "model.width": 4})
    assert (run.seed, run.optim.lr, run.optim.epochs, run.model.width) == (3, 0.05, 7, 4)
    assert run.mask == METHODS["random"](0.02)


@pytest.mark.parametrize(
    "text",
    [
        "tweaks = ['smoothing', 'ghost_skips']",
        "tweaks = {smoothing = {alpha = 0.3}, ghost_skips = {}}",
    ],
)
def test_changes_reach_the_options_of_a_tweak(text: str, tmp_path: Path) -> None:
    change = {"tweaks.smoothing.alpha": 0.2}
    assert Run.load(_written(tmp_path, ""), change).tweaks == {"smoothing": Smoothing(0.2)}
    run = Run.load(_written(tmp_path, text), change)
    assert run == Run.of({"tweaks": {"smoothing": {"alpha": 0.2}, "ghost_skips": {}}})


def test_a_change_below_a_value_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, "data = 'digits'")
    with pytest.raises(ConfigError, match=r"'data' in 'data.name' is a value, not a table"):
        Run.load(path, {"data.name": 1})


def test_tweaks_as_a_list_or_as_tables() -> None:
    names = list(TWEAKS)
    listed = Run.of({"tweaks": names})
    assert listed == Run.of({"tweaks": {name: {} for name in names}})
    assert [type(tweak) for tweak in listed.tweaks.values()] == [*TWEAKS.values()]
    masks = {name: {"method": name, **MASK_NEEDS.get(name, {})} for name in METHODS}
    assert {name: type(Run.of({"mask": mask}).mask) for name, mask in masks.items()} == METHODS


def test_the_file_of_a_mask_has_a_short_form(tmp_path: Path) -> None:
    run = Run.of({"mask": "file:a/b.pt"})
    assert run.mask == File(path="a/b.pt")
    assert run == Run.of({"mask": {"method": "file", "path": "a/b.pt"}})
    assert run == Run.load(_written(tmp_path, "mask = 'file:a/b.pt'"))
    assert run.mask == Run.load("digits", {"mask": "file:a/b.pt"}).mask


def test_of_leaves_the_table_as_it_was() -> None:
    table = {"mask": {"method": "random"}, "tweaks": {"smoothing": {"alpha": 0.2}}}
    before = json.dumps(table)
    Run.of(table)
    assert json.dumps(table) == before


@given(runs)
def test_a_run_comes_back_from_toml_and_from_its_table(
    tmp_path_factory: pytest.TempPathFactory, run: Run
) -> None:
    path = _written(tmp_path_factory.getbasetemp(), run.toml())
    for back in (Run.load(path), Run.of(run.table()), Run.of(json.loads(json.dumps(run.table())))):
        assert back == run
        assert back.id == run.id


@pytest.mark.parametrize(
    "run",
    [Run(data="folder:/home/\N{GRINNING FACE}"), Run(model=Model(options={"a key": 1}))],
    ids=["outside the first plane", "key with a space"],
)
def test_any_text_comes_back_from_toml(run: Run, tmp_path: Path) -> None:
    assert Run.load(_written(tmp_path, run.toml())) == run


# identity


def test_a_default_that_changed_has_another_identity() -> None:
    now = Run.of({"tweaks": ["ghost_skips", "rescale"]})
    options = {"ghost_skips": {"kind": "identity_bn", "schedule": "linear"}}
    then = Run.of({"tweaks": options | {"rescale": {"ghosts": True}}})
    assert then.id == "resnet18-dense-s0-9b8c2ae0bc"
    assert now.id != then.id


def test_every_field_matters_to_the_identity() -> None:
    assert set(OTHER) == _leaves(Run().table())
    needed = [Run.of(table).id for table in NEEDS.values()]
    ids = []
    for key, value in OTHER.items():
        table, (outer, _, inner) = NEEDS.get(key, {}), key.rpartition(".")
        change = {outer: table.get(outer, {}) | {inner: value}} if outer else {inner: value}
        ids.append(Run.of(table | change).id)
    assert len({Run().id, *needed, *ids}) == 1 + len(NEEDS) + len(OTHER)


def test_every_option_of_a_mask_is_known_here() -> None:
    options = {name: {f.name for f in fields(kind)} for name, kind in METHODS.items()}
    assert {name: {"density", *others} for name, others in MASK_OPTIONS.items()} == options


@pytest.mark.parametrize(
    ("method", "key"), [(name, key) for name, keys in MASK_OPTIONS.items() for key in keys]
)
def test_every_option_of_a_mask_matters_to_the_identity(method: str, key: str) -> None:
    mask = {"method": method, **MASK_NEEDS.get(method, {})}
    other = Run.of({"mask": mask | {key: MASK_OPTIONS[method][key]}})
    assert other.id != Run.of({"mask": mask}).id


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("smoothing.alpha", 0.3),
        ("smoothing.decay_until", 0.5),
        ("ghost_neurons.last_beta", 5.0),
        ("ghost_neurons.until", 0.3),
        ("ghost_skips.kind", "identity"),
        ("ghost_skips.until", 0.3),
    ],
)
def test_every_option_of_a_tweak_matters_to_the_identity(key: str, value: Any) -> None:
    plain = Run.of({"tweaks": [key.split(".")[0]]})
    assert Run.of({"tweaks": _nested(key, value)}).id != plain.id


@pytest.mark.parametrize(
    ("one", "other"), [({"lr": 1}, {"lr": 1.0}), ({"lr_milestones": [0.5, 0.75]}, {})]
)
def test_equal_optimisers_have_one_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Run(optim=Optim(**one)).id == Run(optim=Optim(**other)).id


def test_the_plain_run_is_dense_and_of_the_same_training() -> None:
    changes = {
        "seed": 3,
        "tweaks": ["ghost_skips"],
        "model.activation": "swish",
        "init": "zero_hadamard",
    }
    changes |= {"rewind": 0.5, "resume_schedule": True, "on_disconnected": "warn"}
    run = Run.load("digits", changes | {"record.gradient_flow": True})
    plain = run.plain()
    kept = Record(checkpoint_epochs=(15,))  # what the run is rewound to
    assert plain == Run(
        data="digits",
        seed=3,
        init="zero_hadamard",
        model=Model(width=8),
        optim=run.optim,
        record=kept,
    )
    assert plain == replace(run, mask=METHODS["random"](0.3), tweaks={}).plain()
