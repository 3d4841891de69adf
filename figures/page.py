"""Page: every item beside what its paper says, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
from html import escape
from pathlib import Path

from PIL import Image

from figures import claims, items, store, verdicts
from figures.scales import Scale
from figures.tables import EMPTY
from figures.verdicts import Found
from sparsediag.core import html as display
from sparsediag.core.atomic import atomic_write

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
.wide { overflow-x: auto; } q { color: #444; } pre { white-space: pre-wrap; }
details { font-size: .85rem; margin: .3rem 0; } summary { cursor: pointer; }
nav { line-height: 1.9; } nav a { margin-left: .8rem; margin-right: .3rem; }
"""
ENLARGED = 0.7  # pixels of the page for one of a picture at 200 dots an inch
SIGNS = {"reproduced": "● ", "not reproduced": "✕ ", "not testable at this scale": "○ "}
CLASSES = {"reproduced": "reproduced", "not reproduced": "not-reproduced"}
TITLES = {"tost": "ToST", "lottery": "Its forerunner", "pipeline": "The pruning pipeline"}


def write(scale: Scale, out: Path) -> Path:
    """Write `index.html` and `claims.json` beside the pictures, unless they are just these."""
    folder = out / "figures"
    path, stamp = folder / "index.html", _stamp(scale, out)
    if path.exists() and f'content="{stamp}"' in path.read_text()[:1000]:
        return path
    found, others = verdicts.findings(scale, out), verdicts.elsewhere(scale)
    verdicts.save(found, folder / "claims.json")
    with atomic_write(path) as draft:
        draft.write_text(html(found, others, scale, out, stamp))
    return path


def _stamp(scale: Scale, out: Path) -> str:
    parts = [items.stamp(name, scale, out) for name in items.names()]
    parts += [json.dumps(other) for other in verdicts.elsewhere(scale)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def html(found: Found, others: list[Found], scale: Scale, out: Path, stamp: str) -> str:
    """The whole page."""
    rows: dict[str, list[tuple[Found, list[Found | None]]]] = {n: [] for n in items.names()}
    for row in found["claims"]:
        key = (row["item"], row["says"])
        same = [
            next((r for r in other["claims"] if (r["item"], r["says"]) == key), None)
            for other in others
        ]
        rows[row["item"]].append((row, same))
    heads = [f"measured at scale {found['scale']}", *(f"at {o['scale']}" for o in others)]
    body = [
        "<h1>Every figure and table of three papers, beside the papers' own numbers</h1>",
        f"<p>Scale <b>{escape(found['scale'])}</b> · {escape(found['hardware'])} · "
        f"{escape(found['versions'])} · at most {scale.seeds} seeds</p>",
        *(
            f"<p>Beside it, scale <b>{escape(o['scale'])}</b> · {escape(o['hardware'])} · "
            f"{escape(o['versions'])}</p>"
            for o in others
        ),
        f"<p><b>{verdicts.tally(found['claims'])}</b> of {len(found['claims'])} claims.</p>",
        f"<details open><summary>The rule</summary><pre>{escape(_rule())}</pre></details>",
        f"<nav>{''.join(_link(name, [row for row, _ in own]) for name, own in rows.items())}</nav>",
    ]
    for paper in items.PAPERS:
        body.append(f"<h2>{TITLES[paper]}</h2>")
        for name in (n for n in rows if n.startswith(paper)):
            body += [*_item(name, scale, out), _claims(rows[name], heads), _runs(name, scale, out)]
    title = f"sparsediag: figures at scale {found['scale']}"
    head = f'<meta name="stamp" content="{stamp}">'
    main = "\n".join(body)
    return display.page(title, f"<main>{main}</main>", style=STYLE, head=head)


def _rule() -> str:
    return inspect.cleandoc(claims.__doc__ or "").partition("\n\n")[2]


def _id(name: str) -> str:
    return name.replace("/", "-")


def _link(name: str, own: list[Found]) -> str:
    """The way to an item, with a sign for each of its claims."""
    signs = "".join(
        f'<span class="{CLASSES.get(row["verdict"], "open")}" title="{escape(row["says"])}: '
        f'{row["verdict"]}">{SIGNS[row["verdict"]].strip()}</span>'
        for row in own
    )
    return f"<a href=#{_id(name)}>{name}</a>{signs} "


def _item(name: str, scale: Scale, out: Path) -> list[str]:
    """Head, picture and caption of an item."""
    title, _, rest = inspect.cleandoc(items.item(name).__doc__ or "").partition("\n\n")
    head = [f"<h3 id={_id(name)}>{escape(' '.join(title.split()))}</h3>"]
    picture = out / "figures" / f"{name}.png"
    if not picture.exists():
        why = "see what the command said" if name in items.at(scale) else "not at this scale"
        return [*head, f"<p><b>Not drawn: {why}.</b></p>"]
    return [
        *head,
        _shown(name, scale, out),
        f"<p>{escape(' '.join(rest.split()))}</p>",
        f"<p><small>{'<br>'.join(map(escape, items.told(name, scale, out).splitlines()))}"
        "</small></p>",
    ]


def _shown(name: str, scale: Scale, out: Path) -> str:
    """A table as one, a figure as a picture that the page holds."""
    module, picture = items.item(name), out / "figures" / f"{name}.png"
    if hasattr(module, "table"):
        table = module.table(items.results(name, scale, out), scale).html()
        return f'<div class="wide" tabindex="0">{table}</div>'
    with Image.open(picture) as image:
        width = round(image.width * ENLARGED)
    title = " ".join(inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0].split())
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<img width={width} alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _claims(rows: list[tuple[Found, list[Found | None]]], heads: list[str]) -> str:
    """A row a claim: the paper's words and number, ours, the difference, the verdict."""
    if not rows:
        return ""
    head = "".join(
        f"<th class=n>{escape(h)}</th><th class=n>difference</th><th>verdict</th>" for h in heads
    )
    lines = [f"<tr><th>claim</th><th class=n>paper</th>{head}</tr>"]
    for row, others in rows:
        cells = "".join(_cells(one) for one in (row, *others))
        lines.append(
            f"<tr><td>{escape(row['says'])} <small>({escape(row['unit'])})</small><br>"
            f"<small><q>{escape(row['quote'])}</q>, {escape(row['source'])}</small></td>"
            f"<td class=n>{verdicts.paper(row)}</td>{cells}</tr>"
        )
    return f"<div class=wide tabindex=0><table>{''.join(lines)}</table></div>"


def _cells(row: Found | None) -> str:
    if row is None:
        return f"<td class=n>{EMPTY}</td><td class=n>{EMPTY}</td><td></td>"
    count = f" <small>n = {row['count']}</small>" if "count" in row else ""
    word = row["verdict"]
    return (
        f"<td class=n>{verdicts.told(row)}{count}</td><td class=n>{verdicts.difference(row)}</td>"
        f'<td><span class="v {CLASSES.get(word, "open")}">{SIGNS[word]}{word}</span><br>'
        f"<small>{escape(row['why'])}</small></td>"
    )


def _runs(name: str, scale: Scale, out: Path) -> str:
    """Links to the trainings and measurements of an item, and to its files."""
    stem = out / "figures" / name
    forms = [f for f in ("pdf", "png", "md", "tex", "csv") if stem.with_suffix(f".{f}").exists()]
    files = " ".join(f'<a href="{name}.{form}">{form}</a>' for form in forms)
    links = {}
    for label, need in items.needs(name, scale).items():
        file = store.path(need, scale, out)
        if file.exists():
            links[f"../{file.relative_to(out)}"] = " ".join(str(label).split())
    listed = "".join(f'<li><a href="{escape(k)}">{escape(v)}</a></li>' for k, v in links.items())
    runs = f"<details><summary>{len(links)} measurements</summary><ul>{listed}</ul></details>"
    return f"<p><small>{files}</small></p>{runs if links else ''}"
