"""Runs: test accuracies of finished trainings, with their intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.checkpoint.labels import describe_run, differences
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.checkpoint.watch_file import advise_watch
from sparsediag.core.atomic import atomic_write
from sparsediag.core.estimate import Estimate
from sparsediag.core.version import __version__
from sparsediag.diagnostics.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sparsediag.diagnostics.comparison import Comparison
    from sparsediag.plotting.accuracy import Group
    from sparsediag.plotting.tables import Table

ALWAYS = ("mask", "tweaks", "density")  # columns of every table; others where they differ
ACCURACY = "test accuracy (%)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs(Result):
    """Test accuracies of trainings in groups; the trainings of a group differ only in the seed.

    Attributes:
        groups: For each group its mask, tweaks and density, and whatever else differs.
        densities: Share of the prunable weights that are alive, (groups,).
        seeds: Seeds of each group.
        accuracies: Test accuracy for each seed, in percent, at the best validation epoch.
        folders: Folders of these trainings.
        shared: Network and data, as far as all have the same.
        left_out: Lines about trainings that are not in the table.
    """

    groups: list[dict[str, str]]
    densities: np.ndarray
    seeds: list[list[int]]
    accuracies: list[list[float]]
    folders: list[list[str]]
    shared: str
    left_out: list[str]

    @property
    def estimates(self) -> list[Estimate]:
        """Return the mean accuracy of each group with its interval."""
        return [Estimate.of(values) for values in self.accuracies]

    @property
    def labels(self) -> list[str]:
        """Return method, tweaks and what else differs of each group, without its density."""
        labels = []
        for group in self.groups:
            tweaks = "" if group["tweaks"] == "plain" else f" + {group['tweaks']}"
            rest = [f", {k.split('.')[-1]} {v}" for k, v in group.items() if k not in ALWAYS and v]
            labels.append("".join([group["mask"], tweaks, *rest]))
        return labels

    @property
    def title(self) -> str:
        """Return the network, the data and the number of seeds."""
        numbers = sorted({len(seeds) for seeds in self.seeds})
        number = "-".join(dict.fromkeys(str(n) for n in (numbers[0], numbers[-1])))
        seeds = f"mean of {number} seeds, 95 % interval" if numbers[-1] > 1 else "one seed"
        return ": ".join(filter(None, [self.shared, seeds]))

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each group."""
        return [
            group
            | {"seeds": seeds, ACCURACY: f"{estimate.mean:.2f}"}
            | {"±": f"{estimate.half:.2f}" if estimate.count > 1 else ""}
            for group, seeds, estimate in self._rows()
        ]

    def formatted(self) -> Table:
        """Return the table for a paper, as Markdown, LaTeX or CSV."""
        from sparsediag.plotting.tables import Table

        return Table(
            self.title,
            (*self.groups[0], "seeds", ACCURACY),
            tuple((*group.values(), seeds, estimate) for group, seeds, estimate in self._rows()),
        )

    def _rows(self) -> Iterator[tuple[dict[str, str], str, Estimate]]:
        texts = [", ".join(map(str, seeds)) for seeds in self.seeds]
        return zip(self.groups, texts, self.estimates, strict=True)

    def remarks(self) -> list[str]:
        """Return what the numbers are, and what is missing."""
        lines = [
            f"{self.shared or 'networks or data differ'}; test accuracy at the epoch of the best "
            "validation accuracy, mean over seeds ± half of its 95 % interval (Student's t)"
        ]
        fewest = min(map(len, self.seeds))
        if fewest < 3:
            interval = "no interval" if fewest == 1 else "wide intervals"
            lines.append(f"few seeds give {interval}: train three or more")
        if fewest < max(map(len, self.seeds)):
            lines.append("some rows have fewer seeds than others: trainings are missing or failed")
        return lines + self.left_out

    def exports(self) -> dict[str, Callable[[Path], Path]]:
        """Return functions that write the table as CSV, Markdown or LaTeX."""
        table = self.formatted()
        texts = {"csv": table.csv, "md": table.markdown, "tex": table.latex}
        return {ending: partial(_write, text) for ending, text in texts.items()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot accuracy over sparsity; with a single density, a row for each group."""
        from sparsediag.plotting.accuracy import plot_groups

        return plot_groups(self._groups(), self.title, ax)

    def plot_with(self, comparison: Comparison) -> Figure:
        """Plot the accuracies and the landscapes of `self.checkpoints()` in one figure."""
        from sparsediag.plotting import style
        from sparsediag.plotting.joined import Surroundings, plot_joined

        ends = np.cumsum([len(seeds) for seeds in self.seeds])
        parts = [slice(end - len(s), end) for end, s in zip(ends, self.seeds, strict=True)]
        around = [
            Surroundings(seeds, comparison.losses[part], comparison.rises[part])
            for seeds, part in zip(self.seeds, parts, strict=True)
        ]
        figure = plot_joined(
            self._groups(),
            around,
            axes=comparison.axes,
            radii=comparison.radii,
            unit=comparison.unit,
            title=self.title,
        )
        style.add_footer(figure, comparison.provenance)
        return figure

    def _groups(self) -> list[Group]:
        from sparsediag.plotting.accuracy import Group

        rows = zip(self.labels, self.densities, self.accuracies, strict=True)
        return [Group(label, float(density), values) for label, density, values in rows]

    def checkpoints(self) -> dict[str, Path]:
        """Return the best checkpoint of each training, by a name that tells it from the others."""
        several = len(set(self.densities[self.densities < 1])) > 1
        names = [
            f"{label}, density {group['density']}" if several and density < 1 else label
            for label, group, density in zip(self.labels, self.groups, self.densities, strict=True)
        ]
        return {
            f"{name}, seed {seed}": Path(folder, "best.pt")
            for name, seeds, folders in zip(names, self.seeds, self.folders, strict=True)
            for seed, folder in zip(seeds, folders, strict=True)
        }


def runs(*folders: str | Path) -> Runs:
    """Return the test accuracies of finished trainings, grouped by all but their seeds.

    Args:
        folders: Folders that `python -m training` wrote to (its `--out`), or those of trainings.

    Raises:
        ValueError: If there is no finished training.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Path(folder, "runs", "one")
    ...     run.mkdir(parents=True)
    ...     written = (run / "run.toml").write_text('mask = {method = "snip", density = 0.1}')
    ...     written = (run / "history.jsonl").write_text('{"best": true, "test_accuracy": 0.9}')
    ...     runs(folder).accuracies
    [[90.0]]
    """
    places = dict.fromkeys(place for folder in folders for place in _trainings(Path(folder)))
    trainings = [_Training(place) for place in places]
    finished, left_out = _newest([one for one in trainings if one.finished])
    if not finished:
        raise ValueError(
            f"{', '.join(map(str, folders))}: no finished training is here; give the folder that "
            f"`python -m training` wrote to (its --out){''.join(map(advise_watch, folders))}"
        )
    if unfinished := [one.label for one in trainings if not one.finished]:
        left_out.append(f"not finished: {'; '.join(unfinished)}")
    groups: dict[str, list[_Training]] = {}
    for one in sorted(finished, key=lambda one: (*one.order, one.seed)):
        groups.setdefault(str(one.facts), []).append(one)
    first = [members[0] for members in groups.values()]
    varying = differences([one.facts for one in first])
    extra = dict.fromkeys(part for parts in varying for part in parts if part not in ALWAYS)
    same = [part for part in ("model", "data") if part not in extra and part in first[0].facts]
    return Runs(
        groups=[
            {"mask": one.facts["mask"], "tweaks": one.facts["tweaks"]}
            | {"density": f"{one.density:.4g}"}
            | {part: str(one.facts.get(part, "")) for part in extra}
            for one in first
        ],
        densities=np.array([one.density for one in first]),
        seeds=[[one.seed for one in members] for members in groups.values()],
        accuracies=[[one.accuracy for one in members] for members in groups.values()],
        folders=[[str(one.folder) for one in members] for members in groups.values()],
        shared=" on ".join(str(first[0].facts[part]) for part in same),
        left_out=left_out,
        source={"folders": [str(folder) for folder in folders], "sparsediag": __version__},
    )


class _Training:
    """A training in its folder: its description without the seed, and its test accuracy."""

    def __init__(self, folder: Path) -> None:
        summary = summarise(folder)
        facts = describe_run(summary["run"])
        self.folder, self.label, self.finished = folder, summary["label"], summary["finished"]
        self.seed: int = facts.pop("seed")
        self.facts = {k: v for k, v in sorted(facts.items()) if not k.startswith("record.")}
        self.facts = {"mask": "dense"} | self.facts
        self.accuracy = 100 * float(summary["test_accuracy"] or 0)
        dense = self.facts["mask"] == "dense"
        alive = 1.0 if dense else round(1 - (summary["sparsity"] or 0), 4)
        self.density = float(facts.get("density", alive))  # a mask from a file has none of its own

    @property
    def order(self) -> tuple[Any, ...]:
        """Return what trainings are sorted by: dense, plain and large densities come first."""
        mask, tweaks = self.facts["mask"], self.facts["tweaks"]
        rest = str(self.facts)
        return (mask != "dense", mask, tweaks != "plain", tweaks, -self.density, rest)


def _trainings(folder: Path) -> list[Path]:
    """Return the folders of trainings: the folder itself, or those in it."""
    if (folder / "run.toml").exists():
        return [folder]
    inside = folder / "runs" if (folder / "runs").is_dir() else folder
    return sorted(file.parent for file in inside.glob("*/run.toml"))


def _newest(trainings: list[_Training]) -> tuple[list[_Training], list[str]]:
    """Return one training for each description and seed, and lines about those left out."""
    kept: dict[tuple[str, int], _Training] = {}
    lines = []
    for one in sorted(trainings, key=lambda one: (one.folder / "history.jsonl").stat().st_mtime):
        older = kept.get((str(one.facts), one.seed))
        if older and older.accuracy != one.accuracy:
            lines.append(
                f"left out {older.folder}: {one.folder} is newer and has the same description, but "
                "other code or data"
            )
        kept[str(one.facts), one.seed] = one
    return list(kept.values()), lines


def _write(text: Callable[[], str], path: Path) -> Path:
    with atomic_write(path) as draft:
        draft.write_text(text().rstrip("\n") + "\n", encoding="utf-8")
    return path
