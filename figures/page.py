"""The HTML page: every item beside what its paper says, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
from html import escape
from pathlib import Path

from PIL import Image

from figures import claims, registry, store, verdicts
from figures.scales import Scale
from figures.verdicts import Record
from sparsediag.core.atomic import atomic_write
from sparsediag.core.html import page

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto;
  padding: 0 1rem; color: #111; background: #fff; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem;
  border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; white-space: nowrap; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
.v { white-space: nowrap; font-weight: 600; }
.reproduced { color: #00558a; } .not-reproduced { color: #a84300; } .open { color: #595959; }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0; }
.wide { overflow-x: auto; } q { color: #444; }
.claims th { font-weight: 600; } tbody th small { font-weight: 400; }
.claims tbody td { border-bottom-color: #eee; }
.claims tbody tr:first-child > * { border: 0; padding-top: .6rem; }
@media (max-width: 40rem) { .claims { font-size: .8rem; } th, td { padding: .25rem .3rem; } }
details { font-size: .85rem; margin: .3rem 0; } summary { cursor: pointer; }
nav { line-height: 1.9; } nav a { margin-left: .8rem; margin-right: .3rem; }
"""
SHRINK = 0.7  # CSS pixels for each pixel of a picture at 200 dots per inch
SIGNS = {"reproduced": "●", "not reproduced": "✕", "not testable at this scale": "○"}
CLASSES = {"reproduced": "reproduced", "not reproduced": "not-reproduced"}


def write(scale: Scale, out: Path) -> Path:
    """Write `index.html` and `claims.json` beside the pictures, unless they are up to date."""
    folder = out / "figures"
    path, fingerprint = folder / "index.html", _fingerprint(scale, out)
    if path.exists() and f'content="{fingerprint}"' in path.read_text()[:1000]:
        return path
    record, others = verdicts.judge_all(scale, out), verdicts.of_other_scales(scale)
    verdicts.save(record, folder / "claims.json")
    with atomic_write(path) as draft:
        draft.write_text(html(record, others, scale, out, fingerprint))
    return path


def _fingerprint(scale: Scale, out: Path) -> str:
    parts = [registry.fingerprint(name, scale, out) for name in registry.names()]
    parts += [json.dumps(other) for other in verdicts.of_other_scales(scale)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def html(record: Record, others: list[Record], scale: Scale, out: Path, fingerprint: str) -> str:
    """Return the whole page.

    Args:
        record: The verdicts of this scale.
        others: Those of other scales, shown beside them.
        scale: The scale.
        out: Folder of the results.
        fingerprint: Hash of all that is shown, for the head of the page.
    """
    claims_of = {
        name: [row for row in record["claims"] if row["item"] == name] for name in registry.names()
    }
    body = [
        "<h1>Every figure and table of three papers, beside the papers' own numbers</h1>",
        f"<p>{_machine(record)} · at most {scale.seeds} seeds</p>",
        *(f"<p>For comparison, {_machine(other)}</p>" for other in others),
        f"<p><b>{verdicts.count(record['claims'])}</b> of {len(record['claims'])} claims.</p>",
        f"<details open><summary>The rule</summary>{_rule()}</details>",
        f"<nav>{''.join(_link(name, rows) for name, rows in claims_of.items())}</nav>",
    ]
    for folder, paper in registry.PAPERS.items():
        names = [name for name in claims_of if name.startswith(f"{folder}/")]
        body += [f"<h2>{paper.title}</h2>"] if names else []
        for name in names:
            body += _item(name, scale, out)
            body.append(_claim_table(claims_of[name], [record, *others]))
            body.append(_files(name, scale, out))
    title = f"sparsediag: figures at scale {record['scale']}"
    head = f'<meta name="stamp" content="{fingerprint}">'
    main = "\n".join(body)
    return page(title, f"<main>{main}</main>", style=STYLE, head=head)


def _machine(record: Record) -> str:
    scale, hardware, versions = (escape(record[k]) for k in ("scale", "hardware", "versions"))
    return f"scale <b>{scale}</b> · {hardware} · {versions}"


def _rule() -> str:
    """Return the rule of the verdicts as paragraphs and a list."""
    blocks = escape(inspect.cleandoc(claims.__doc__ or "")).split("\n\n")[1:]
    items = [block.removeprefix("- ").split("\n- ") for block in blocks]
    return "".join(
        f"<ul><li>{'<li>'.join(item)}</ul>" if block.startswith("- ") else f"<p>{block}</p>"
        for block, item in zip(blocks, items, strict=True)
    )


def _id(name: str) -> str:
    return name.replace("/", "-")


def _link(name: str, rows: list[Record]) -> str:
    """Return a link to an item, with a sign for each of its claims."""
    signs = "".join(
        f'<span class="{CLASSES.get(row["verdict"], "open")}" title="{escape(row["says"])}: '
        f'{row["verdict"]}">{SIGNS[row["verdict"]]}</span>'
        for row in rows
    )
    return f"<a href=#{_id(name)}>{name}</a>{signs} "


def _item(name: str, scale: Scale, out: Path) -> list[str]:
    """Return title, picture or table, description and caption of an item."""
    title, description = registry.about(name)
    head = f"<h3 id={_id(name)}>{escape(title)}</h3>"
    picture, module = out / "figures" / f"{name}.png", registry.module(name)
    if not picture.exists():
        at_scale = name in registry.at_scale(scale)
        reason = "see the messages of the command" if at_scale else "not at this scale"
        return [head, f"<p><b>Not drawn: {reason}.</b></p>"]
    if hasattr(module, "table"):
        picture_html = module.table(registry.results(name, scale, out), scale).html()
    else:
        with Image.open(picture) as image:
            width = round(image.width * SHRINK)
        data = base64.b64encode(picture.read_bytes()).decode()
        least = round(0.57 * width)  # legible on a phone, where a wide picture can be scrolled
        picture_html = (
            f'<div class=wide tabindex=0><img width={width} style="min-width:{least}px" '
            f'alt="{escape(title)}" src="data:image/png;base64,{data}"></div>'
        )
    caption = "<br>".join(map(escape, registry.caption(name, scale, out).splitlines()))
    return [head, picture_html, f"<p>{escape(description)}</p>", f"<p><small>{caption}</small></p>"]


def _claim_table(rows: list[Record], records: list[Record]) -> str:
    """Return a table of claims: the paper's words, and below them its number and each record's."""
    if not rows:
        return ""
    heads = (
        "<th>scale</th><th class=n>paper</th><th class=n>measured</th><th class=n>difference</th>"
    )
    lines = [f"<thead><tr>{heads}<th>verdict</th></tr></thead>"]
    for row in rows:
        key = (row["item"], row["says"])
        same = [
            (record["scale"], r)
            for record in records
            for r in record["claims"]
            if (r["item"], r["says"]) == key
        ]
        lines.append(
            f"<tbody><tr><th colspan=5 scope=rowgroup>{escape(row['says'])} "
            f"<small>({escape(row['unit'])})</small><br>"
            f"<small><q>{escape(row['quote'])}</q>, {escape(row['source'])}</small></th></tr>"
            f"{''.join(_cells(scale, measured) for scale, measured in same)}</tbody>"
        )
    return f"<div class=wide tabindex=0><table class=claims>{''.join(lines)}</table></div>"


def _cells(scale: str, row: Record) -> str:
    """Return the row of a claim at one scale."""
    count = f" <small>n = {row['count']}</small>" if "count" in row else ""
    verdict = row["verdict"]
    return (
        f"<tr><td>{escape(scale)}</td><td class=n>{verdicts.paper_margin(row)}</td>"
        f"<td class=n>{verdicts.measured_margin(row)}{count}</td>"
        f"<td class=n>{verdicts.difference(row)}</td>"
        f'<td><span class="v {CLASSES.get(verdict, "open")}">{SIGNS[verdict]} {verdict}</span> '
        f"<small>{escape(row['why'])}</small></td></tr>"
    )


def _files(name: str, scale: Scale, out: Path) -> str:
    """Return links to the files of an item, and to its trainings and measurements."""
    files = " ".join(
        f'<a href="{name}.{suffix}">{suffix}</a>'
        for suffix in ("pdf", "png", "md", "tex", "csv")
        if (out / "figures" / f"{name}.{suffix}").exists()
    )
    links = [
        f'<li><a href="../{store.result_path(measurement, scale, out).relative_to(out)}">'
        f"{escape(' '.join(str(label).split()))}</a></li>"
        for label, measurement in registry.measurements(name, scale).items()
        if store.result_path(measurement, scale, out).exists()
    ]
    count = f"<summary>{len(links)} measurements</summary>"
    details = f"<details>{count}<ul>{''.join(links)}</ul></details>" if links else ""
    return f"<p><small>{files}</small></p>{details}"
