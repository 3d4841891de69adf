"""`python -m figures [tost/fig09a ...]`: train and measure what is missing, then draw."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from types import ModuleType

from figures import store
from figures.need import Need
from figures.scales import SCALES, Scale
from sparsediag import plotting, terminal
from sparsediag.errors import unknown
from sparsediag.files import written
from sparsediag.models import ghost
from training import stages
from training.work import Work, cores

HERE = Path(__file__).parent


def names() -> list[str]:
    """All items, as `paper/item`."""
    return sorted(
        f"{file.parent.name}/{file.stem}"
        for file in HERE.glob("*/*.py")
        if not file.stem.startswith("_")
    )


def item(name: str) -> ModuleType:
    """The module of an item: its docstring, `NEEDS` and `draw`."""
    return importlib.import_module(f"figures.{name.replace('/', '.')}")


def needs(name: str, scale: Scale) -> dict[object, Need]:
    """What an item needs at a scale."""
    return {label: need for label, need in item(name).NEEDS.items() if scale.takes(need)}


def stamp(name: str, scale: Scale) -> str:
    """What a picture was drawn from: the code that draws, the scale, the measurements."""
    sha = hashlib.sha256(name.encode() + repr(scale).encode())
    for file in (*sorted(HERE.rglob("*.py")), Path(plotting.__file__), Path(ghost.__file__)):
        sha.update(file.read_bytes())
    for label, need in needs(name, scale).items():
        sha.update(f"{label}{scale.key(need)}".encode())
    return sha.hexdigest()[:16]


def drawn(name: str, scale: Scale, out: Path) -> bool:
    """Whether the pictures are there and show just this."""
    from PIL import Image

    png, pdf = (out / "figures" / f"{name}.{form}" for form in ("png", "pdf"))
    text = not hasattr(item(name), "markdown") or png.with_suffix(".md").exists()
    if not (png.exists() and pdf.exists() and text):
        return False
    with Image.open(png) as image:
        return image.info.get("sparsediag") == stamp(name, scale)


def work(todo: Sequence[str], scale: Scale, out: Path) -> Work:
    """The trainings and measurements that are missing, in the order they depend on each other."""
    plan = Work({}, {})

    def measurement(need: Need) -> str:
        file = store.path(need, scale, out)
        name = f"{file.parent.name}/{file.stem}"
        if name not in plan.tasks and not store.there(need, scale, out):
            before = {stages.plan(scale.run(need), out, plan)}
            if need.along:
                before.add(measurement(need.along))
            if need.diagnostic == "history":
                return ""
            plan.after[name] = before - {""}
            plan.tasks[name] = (store.measure, (need, scale, out))
        return name if name in plan.tasks else ""

    for name in todo:
        for need in needs(name, scale).values():
            measurement(need)
    return plan


def draw(name: str, scale: Scale, out: Path) -> None:
    """Draw one item from its measurements, as PDF and PNG (a table also as Markdown)."""
    module = item(name)
    results = {label: store.load(need, scale, out) for label, need in needs(name, scale).items()}
    stem = out / "figures" / name
    with plotting.style():
        fig = module.draw(results)
        caption = scale.caption if module.NEEDS else "from the activation code itself"
        width = round(27 * fig.get_figwidth())
        lines = [fill(line, width) for line in caption.splitlines()]
        fig.supxlabel("\n".join(lines), fontsize=4.5, color="#555555")
    if hasattr(module, "markdown"):
        with written(stem.with_suffix(".md")) as draft:
            draft.write_text(f"{module.__doc__}\n{module.markdown(results)}\n\n{caption}\n")
    about = {"Description": f"{module.__doc__}\n{caption}", "sparsediag": stamp(name, scale)}
    plotting.save(fig, stem, formats=("pdf", "png"), **about)


def main(argv: list[str] | None = None) -> int:
    """Draw the items; exit code 1 if one could not be made, 2 if the call cannot be understood."""
    parser = argparse.ArgumentParser(prog="python -m figures", allow_abbrev=False)
    parser.add_argument("items", nargs="*", help="such as tost/fig09a; all if none")
    parser.add_argument("--scale", default="laptop", help=f"one of {', '.join(SCALES)}")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--plan", action="store_true", help="list what is missing, do nothing")
    options = parser.parse_args(argv)
    try:
        if options.scale not in SCALES:
            raise ValueError(unknown("scale", options.scale, SCALES))
        for name in set(options.items) - set(names()):
            raise ValueError(unknown("figure", name, names()))
        if options.jobs < 1:
            raise ValueError(f"--jobs {options.jobs}: need 1 or more")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return make(options.items or names(), SCALES[options.scale], options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def make(wanted: Sequence[str], scale: Scale, options: argparse.Namespace) -> int:
    """Do what is missing for the wanted items, and draw them."""
    out: Path = options.out
    todo = [name for name in wanted if not drawn(name, scale, out)]
    plan = work(todo, scale, out)
    if options.plan:
        for name in plan.tasks:
            print("missing ", name)
        for name in wanted:
            print("to draw " if name in todo else "drawn   ", name)
        return 0
    errors: dict[str, BaseException] = {}
    if todo:
        with terminal.bars() as bars:
            task = bars.add_task(f"{scale.name} figures", total=len(plan.tasks) + len(todo))
            errors = plan.do(jobs=options.jobs, done=lambda _: bars.advance(task))
            for name in todo:
                missing = [
                    need
                    for need in needs(name, scale).values()
                    if not store.there(need, scale, out)
                ]
                if not missing:
                    draw(name, scale, out)
                bars.advance(task)
    for name, error in errors.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    failed = [name for name in wanted if not drawn(name, scale, out)]
    for name in failed:
        print(f"{name} could not be drawn", file=sys.stderr)
    fresh = len(todo) - len(failed)
    print(f"{fresh} drawn, {len(wanted) - len(todo)} up to date, in {out / 'figures'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
