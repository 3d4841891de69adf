"""The HTML page: every item beside what its paper says, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
from html import escape
from pathlib import Path

from PIL import Image

from figures import registry, rule, store, verdicts
from figures.claims import Claim
from figures.scales import Scale
from figures.verdicts import Finding, Record
from sparsediag.core.atomic import atomic_write
from sparsediag.core.html import page
from sparsediag.plotting.tables import EMPTY

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 1.2rem auto;
  padding: 0 1rem; color: #111; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; }
p { max-width: 46rem; }
small, .note { color: #555; font-size: .85rem; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; white-space: nowrap; padding-right: 1.2rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
.v { white-space: nowrap; font-weight: 600; }
.reproduced { color: #00558a; } .not-reproduced { color: #a84300; } .open { color: #6a6a6a; }
.counts { display: flex; flex-wrap: wrap; gap: .3rem 2rem; margin: .6rem 0; padding: 0; }
.counts b { font-size: 1.4rem; margin-right: .3rem; }
.claims { columns: 3; column-gap: 1.8rem; font-size: .82rem; line-height: 1.3; }
.claims h4 { margin: 0 0 .25rem; font-size: .9rem; break-after: avoid; }
.claims ul { list-style: none; margin: 0 0 .8rem; padding: 0; }
.claims li { break-inside: avoid; padding: .08rem 0 .08rem 1.2rem; text-indent: -1.2rem; }
.claims .sign { display: inline-block; width: 1.2rem; text-indent: 0; }
.claims a { color: inherit; text-decoration: none; } .claims a:hover { text-decoration: underline; }
.claims .tag { color: #6a6a6a; white-space: nowrap; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
.wide { overflow-x: auto; } q { color: #444; }
.verdicts { width: 100%; } .verdicts tbody th { font-weight: 600; border: 0; padding-top: .6rem; }
.verdicts th small { font-weight: 400; }
details { margin: .4rem 0; } summary { cursor: pointer; }
nav { line-height: 1.8; font-size: .9rem; } nav a { margin-right: .8rem; }
@media (max-width: 60rem) { .claims { columns: 2; } }
@media (max-width: 40rem) { .claims { columns: 1; font-size: .9rem; }
  .verdicts { font-size: .8rem; } th, td { padding-right: .4rem; } }
"""
SHRINK = 0.75  # CSS pixels for each pixel of a picture at 200 dots per inch
SIGNS = {"reproduced": "●", "not reproduced": "✕", "undecided": "○", "not run": EMPTY}
CLASSES = {"reproduced": "reproduced", "not reproduced": "not-reproduced"}
RELOAD = '<meta http-equiv="refresh" content="60">'  # while items are missing


def write(scale: Scale, out: Path) -> Path:
    """Write `index.html` and `claims.json` beside the pictures, unless they are up to date."""
    folder = out / "figures"
    path, fingerprint = folder / "index.html", _fingerprint(scale, out)
    if path.exists() and f'content="{fingerprint}"' in path.read_text()[:1000]:
        return path
    record, others = verdicts.collect(scale, out), _of_other_scales(scale)
    verdicts.save(record, folder / "claims.json")
    with atomic_write(path) as draft:
        draft.write_text(html(record, others, scale, out, fingerprint))
    return path


def _of_other_scales(scale: Scale) -> list[Record]:
    return [
        r for r in map(verdicts.judged, verdicts.measured_records()) if r["scale"] != scale.name
    ]


def _fingerprint(scale: Scale, out: Path) -> str:
    """Return a hash of all that the page shows."""
    parts = [registry.fingerprint(name, scale, out) for name in registry.names()]
    pictures = (_picture(name, out) for name in registry.names())
    parts += [str(file.stat().st_mtime_ns if file.exists() else 0) for file in pictures]
    parts += [json.dumps(record) for record in verdicts.measured_records()]
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
    findings, records = verdicts.findings([record, *others]), [*others, record]
    names = registry.at_scale(scale)
    num_drawn = sum(_picture(name, out).exists() for name in names)
    body = [*_overview(findings, records, num_drawn, len(names))]
    for folder, paper in registry.PAPERS.items():
        items = [name for name in registry.names() if name.startswith(f"{folder}/")]
        if not items:
            continue
        body.append(f"<h2>{paper.title}</h2>")
        links = " ".join(f"<a href=#{_id(n)}>{n.partition('/')[2]}</a>" for n in items)
        body.append(f"<nav>{links}</nav>")
        for name in items:
            body += _item(name, scale, out)
            body.append(_claim_table(name, records))
            body.append(_files(name, scale, out))
    head = f'<meta name="stamp" content="{fingerprint}">'
    if num_drawn < len(names):
        head += RELOAD
    main = "\n".join(body)
    title = f"sparsediag: figures at scale {record['scale']}"
    return page(title, f"<main>{main}</main>", style=STYLE, head=head)


def _overview(
    findings: list[Finding], records: list[Record], num_drawn: int, num_items: int
) -> list[str]:
    """Return the first screen: how many claims hold, which ones, and where this was found."""
    counts = verdicts.count([finding.row for finding in findings])
    tiles = "".join(
        f"<span class={CLASSES.get(word, 'open')}><b>{SIGNS[word]} {number}</b>{word}</span>"
        for word, number in counts.items()
    )
    progress = f"<b>{num_drawn} of {num_items} items are drawn so far</b>; this page follows. "
    lists = "".join(
        f"<h4>{paper.title}</h4><ul>{''.join(map(_claim_line, of_paper))}</ul>"
        for folder, paper in registry.PAPERS.items()
        if (of_paper := [f for f in findings if f.key[0].startswith(f"{folder}/")])
    )
    scales = "".join(f"<li>{_scale_line(record)}</li>" for record in records)
    return [
        "<h1>Three papers on sparse training, measured again</h1>",
        f"<p class=note>{progress if num_drawn < num_items else ''}"
        f"{len(findings)} claims of the papers, each with the verdict of the largest scale that "
        "decides it, and a link to its figure or table.</p>",
        f"<div class=counts>{tiles}</div>",
        f"<div class=claims>{lists}</div>",
        f"<details><summary>Where it was measured</summary><ul>{scales}</ul></details>",
        f"<details><summary>The rule of the verdicts</summary>{_rule()}</details>",
    ]


def _claim_line(finding: Finding) -> str:
    """Return a claim of the overview: its sign, its words, and the scale with its seeds."""
    outcome, count = finding.row["verdict"], len(finding.row["effects"])
    where = "computed" if finding.claim.exact else finding.scale
    seeds = f", {count} seed{'s' * (count > 1)}" if finding.scale else ""
    tag = f" <span class=tag>{escape(where)}{seeds}</span>" if where else ""
    return (
        f'<li><a href=#{_id(finding.key[0])}><span class="sign {CLASSES.get(outcome, "open")}" '
        f'title="{outcome}">{SIGNS[outcome]}</span>{escape(finding.key[1])}</a>{tag}</li>'
    )


def _scale_line(record: Record) -> str:
    """Return what a scale trained, and on which machines."""
    machines = "; ".join(f"{m['hardware']}, {m['versions']}" for m in record["machines"])
    return f"<b>{escape(record['scale'])}</b>: {escape(record['setting'])}; {escape(machines)}"


def _rule() -> str:
    """Return the rule of the verdicts as paragraphs and a list."""
    blocks = escape(inspect.cleandoc(rule.__doc__ or "")).split("\n\n")
    items = [block.removeprefix("- ").split("\n- ") for block in blocks]
    return "".join(
        f"<ul><li>{'<li>'.join(item)}</ul>" if block.startswith("- ") else f"<p>{block}</p>"
        for block, item in zip(blocks, items, strict=True)
    )


def _id(name: str) -> str:
    return name.replace("/", "-")


def _picture(name: str, out: Path) -> Path:
    return out / "figures" / f"{name}.png"


def _item(name: str, scale: Scale, out: Path) -> list[str]:
    """Return title, picture or table, description and caption of an item."""
    title, description = registry.about(name)
    head = f"<h3 id={_id(name)}>{escape(title)}</h3>"
    picture, module = _picture(name, out), registry.module(name)
    if not picture.exists():
        reason = _why_not(name, scale, out)
        return [head, f"<p class=note>{escape(description)}</p>", f"<p><b>{reason}</b></p>"]
    if hasattr(module, "table"):
        table = module.table(registry.results(name, scale, out), scale).html()
        picture_html = f"<div class=wide tabindex=0>{table}</div>"
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


def _why_not(name: str, scale: Scale, out: Path) -> str:
    """Return why an item is not drawn."""
    if name not in registry.at_scale(scale):
        return f"Not at scale {escape(scale.name)}."
    total = len(registry.measurements(name, scale))
    done = total - len(registry.missing(name, scale, out))
    return f"Not yet: {done} of {total} measurements exist."


def _claim_table(name: str, records: list[Record]) -> str:
    """Return a table of an item's claims: its words, and below them what each scale found."""
    lines = []
    for claim in registry.claims(name):
        rows = [
            _cells(record["scale"], claim, row)
            for record in records
            for row in record["claims"]
            if (row["item"], row["says"]) == (name, claim.says)
        ]
        lines.append(
            f"<tbody><tr><th colspan=4 scope=rowgroup>{escape(claim.says)} "
            f"<small>({escape(claim.unit)})</small><br>"
            f"<small><q>{escape(claim.quote)}</q>, {escape(claim.source)}</small></th></tr>"
            f"{''.join(rows)}</tbody>"
        )
    if not lines:
        return ""
    heads = "<th>scale</th><th class=n>paper</th><th class=n>measured</th><th>verdict</th>"
    head = f"<thead><tr>{heads}</tr></thead>"
    return f"<div class=wide tabindex=0><table class=verdicts>{head}{''.join(lines)}</table></div>"


def _cells(scale: str, claim: Claim, row: Record) -> str:
    """Return the row of a claim at one scale."""
    count, verdict = len(row["effects"]), row["verdict"]
    seeds = f" <small>n = {count}</small>" if count and not claim.exact else ""
    return (
        f"<tr><td>{escape(scale)}</td><td class=n>{verdicts.paper_margin(claim)}</td>"
        f"<td class=n>{verdicts.measured_margin(row)}{seeds}</td>"
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
