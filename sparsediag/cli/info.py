"""The commands `info` and `join`, for files that are there already."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sparsediag.checkpoint.labels import file_labels
from sparsediag.cli import output
from sparsediag.cli.options import CHECKPOINT, DEBUG, JSON, MASK, NAMES
from sparsediag.plotting import terminal

if TYPE_CHECKING:
    from sparsediag.checkpoint.checkpoint import Checkpoint


def info(
    checkpoint: Annotated[Path, Parameter(help=CHECKPOINT)],
    /,
    *others: Annotated[Path, Parameter(help="Further checkpoints, to compare their masks.")],
    out: Annotated[
        Path | None,
        Parameter(help="Result file for the statistics of the masks, .npz, with a picture, .png."),
    ] = None,
    mask: MASK = None,
    names: NAMES = None,
    json: JSON = False,
    debug: DEBUG = False,
) -> None:
    """Show the contents of a checkpoint: the network, its mask layer by layer; compare masks."""
    from sparsediag.checkpoint.checkpoint import Checkpoint  # imports torch
    from sparsediag.diagnostics.census import census

    if out:
        output.check(out)
    files = [checkpoint, *others]
    loaded = [Checkpoint.load(file).with_mask(mask) for file in files]
    labels = file_labels(files, [net.run for net in loaded], names)
    nets = dict(zip(labels, loaded, strict=True))
    masked = any(net.mask for net in nets.values())
    if (others or out) and not masked and not all(net.model for net in nets.values()):
        raise ValueError(
            f"there is no mask to count in {', '.join(map(str, files))}; if exact zeros are dead "
            "weights, --mask zeros"
        )
    mask_census = census(nets) if others or out or masked else None
    written = output.write(mask_census, out, formats=["png"]) if mask_census and out else {}
    about = {name: net.about() for name, net in nets.items()}
    if json:
        payload = about if others else next(iter(about.values()))
        print(dumps({**payload, "census": mask_census and mask_census.json()}))
        return
    if not others:
        (net,), (facts,) = nets.values(), about.values()
        _print_checkpoint(checkpoint, net, facts)
    if mask_census:
        terminal.print_table("\nmask", mask_census.layers())
        terminal.print_table("\ntotal", mask_census.table())
        for remark in mask_census.remarks():
            print(remark)
    print(*output.describe_files(written), sep="\n", end="\n" if written else "")


def _print_checkpoint(file: Path, net: Checkpoint, about: dict[str, Any]) -> None:
    """Print the facts about a network, or the tensors of a file that names no model."""
    tensors = about.pop("tensors")
    del about["layers"]
    known = {key: value for key, value in about.items() if value not in (None, "", {})}
    for key, value in known.items():
        if isinstance(value, dict):
            known[key] = ", ".join(f"{name} {part}" for name, part in value.items())
        elif "accuracy" in key:
            known[key] = f"{value:.2%}"
    terminal.print_facts(str(file), known if net.model else net.made_by)
    if not net.model:
        rows = [{"tensor": n, "shape": " x ".join(map(str, s)), "type": t} for n, s, t in tensors]
        terminal.print_table("\ntensors", rows)


def join(
    parts: Annotated[list[Path], Parameter(help="Results of `landscape --shard 1/n` to n/n.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Result file, .npz.")],
    formats: Annotated[str, Parameter(help="Also write: png, pdf, svg, csv, vtk.")] = "png",
    debug: DEBUG = False,
) -> int:
    """Join the shards of a landscape."""
    from sparsediag.diagnostics.landscape import Landscape  # imports torch

    output.check(out)
    landscape = Landscape.join([Landscape.load(part) for part in parts])
    kinds = output.parse_formats(formats, exports=list(landscape.exports()))
    written = output.write(landscape, out, formats=kinds)
    terminal.print_table("landscape", landscape.table())
    print(*landscape.below(), *output.describe_files(written), sep="\n")
    return output.exit_code(landscape)
