"""Traits: what a diagnostic says about itself, for the command line, run folders and the report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sparsediag.core.evaluation import full_precision
from sparsediag.core.old_names import accept_old_names
from sparsediag.core.problem import Problem

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class History:
    """The curves of a layer-wise diagnostic through the checkpoints of a training; see `course`.

    Attributes:
        fields: Fields of the result with a value for each layer, and their labels. The means over
            the layers are drawn for the first three, and a map of all layers for the first.
        ylabel: Label of the means, which share an axis; each has its own if it is empty.
        log: Whether the means have a logarithmic axis.
    """

    fields: Mapping[str, str]
    ylabel: str = ""
    log: bool = True


@dataclass(frozen=True, kw_only=True)
class InReport:
    """The part of a diagnostic in the HTML report, which sets its `points` and `top`.

    Attributes:
        cost: Number of passes over all samples, roughly, for `points` and `top`.
        options: Other options that the report uses.
        needs: Keywords whose value is the result of another diagnostic of the same network.
    """

    cost: Callable[[int, int], int] = lambda points, top: 1
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Optional properties of a diagnostic, beside its signature.

    Some keywords of a diagnostic's function have a fixed meaning: `progress(done, total)` is called
    during the work, `resume` is a file for unfinished work, `shard` ("2/4") computes a part, which
    a classmethod `join` of the result puts together, and `previous_mask` is, in a run folder, the
    mask of the checkpoint before.

    Attributes:
        history: How the values of each layer are followed through a run folder.
        run: "module.function" in this folder for a run folder, called as
            `function(folder, load=load, **options)`.
        several: Called as `several(problems, options, run)` with several networks by name, or
            those of a run; returns what the function takes in place of a problem.
        compare: "module.function" for `--compare`, called as
            `function(files, load=load, **options)` with files by name.
        formats: Called as `formats(number_of_networks, **options)`; returns the extra file formats
            that such a result can be exported to.
        from_checkpoint: Keywords that are read from a checkpoint, not typed, and the functions that
            do so, called with the checkpoint and the options of `Checkpoint.problem`.
        samples: Keyword that follows the number of samples on the command line, if it is not typed.
        report: Its part in the report; None if it has none.
    """

    history: History | None = None
    run: str = ""
    several: Callable[[dict[str, Problem], dict[str, Any], bool], Any] | None = None
    compare: str = ""
    formats: Callable[..., tuple[str, ...]] = lambda *_, **__: ()
    from_checkpoint: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    samples: str = ""
    report: InReport | None = None

    @property
    def takes_run(self) -> bool:
        """Return whether the diagnostic accepts a run folder in place of a checkpoint."""
        return bool(self.history or self.run or self.several)


def diagnostic(traits: Traits | None = None) -> Callable[[F], F]:
    """Declare a diagnostic: it runs in full precision, accepts old keywords, and has traits."""

    def decorate(function: F) -> F:
        decorated = accept_old_names(full_precision()(function))
        vars(decorated)["traits"] = traits or Traits()
        return decorated

    return decorate


def traits_of(function: Callable[..., Any]) -> Traits:
    """Return the traits of a diagnostic's function."""
    traits: Traits = getattr(function, "traits", None) or Traits()
    return traits


def import_sibling(path: str) -> Callable[..., Any]:
    """Return the function that a trait names as "module.function"."""
    module, _, name = path.partition(".")
    function: Callable[..., Any] = getattr(
        importlib.import_module(f"sparsediag.diagnostics.{module}"), name
    )
    return function
