"""One self-contained page: figures, tables and bytes against context of one spec, or of several side by side.

Nothing is fetched: style, script and numbers stand in the page. The script computes bytes from the terms of the closed
form with whole numbers of any size, so that they are those of `archspec memory`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Literal

from archspec.figures.costs import store_terms, terms_json
from archspec.figures.drawing import figure_of
from archspec.figures.labels import item_numbers
from archspec.figures.model import Figure, Item, Tower
from archspec.figures.phases import phase_figure
from archspec.figures.svg import figure_svg
from archspec.levels_plan import AnyPlan
from archspec.plan import CACHE_DTYPE_BYTES

View = Literal["figure", "prefill", "decode"]
VIEWS: tuple[tuple[View, str], ...] = (("figure", "architecture"), ("prefill", "prefill"), ("decode", "decode"))


@dataclass(frozen=True)
class Entry:
    """One spec of a page; `unshared` is the same model with K/V of its own in every reader."""

    plan: AnyPlan
    unshared: AnyPlan | None = None


def page_html(entries: Sequence[Entry], view: View = "figure") -> str:
    """The page, shown at one of the three views first."""
    names = [entry.plan.name for entry in entries]
    data = {
        "dtypes": [{"name": name, "bytes": size} for name, size in sorted(CACHE_DTYPE_BYTES.items(), key=_by_size)],
        "specs": [_numbers(f"f{idx}", entry) for idx, entry in enumerate(entries)],
    }
    folder = files("archspec.figures")
    return Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(" and ".join(names)),
        view=view,
        style=folder.joinpath("page.css").read_text("utf-8"),
        script=folder.joinpath("page.js").read_text("utf-8"),
        data=json.dumps(data).replace("<", "\\u003c"),
        choices="".join(_choice(key, word, key == view) for key, word in VIEWS),
        last_dtype=len(CACHE_DTYPE_BYTES) - 1,
        dtype=[item["name"] for item in data["dtypes"]].index("bfloat16"),
        sections="\n".join(_section(f"f{idx}", entry) for idx, entry in enumerate(entries)),
    )


def _by_size(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _choice(key: str, word: str, chosen: bool) -> str:
    checked = " checked" if chosen else ""
    return f'<label><input type="radio" name="view" value="{key}"{checked}><span>{word}</span></label>'


def _numbers(key: str, entry: Entry) -> dict[str, Any]:
    """What the script computes with."""
    figure = figure_of(entry.plan)
    stores = {
        f"{key}figure-t{place}s{idx}": terms_json(terms)
        for place, tower in enumerate(store_terms(entry.plan, figure))
        for idx, terms in enumerate(tower)
    }
    return {
        "key": key,
        "name": entry.plan.name,
        "terms": terms_json(entry.plan.cache_terms()),
        "unshared": None if entry.unshared is None else terms_json(entry.unshared.cache_terms()),
        "shares": any(store.shared for tower in figure.towers for store in tower.stores),
        "stores": stores,
    }


def _section(key: str, entry: Entry) -> str:
    """One spec: what it costs now, and its three views."""
    name = escape(entry.plan.name)
    figures: dict[View, Figure] = {
        "figure": figure_of(entry.plan),
        "prefill": phase_figure(entry.plan, "prefill"),
        "decode": phase_figure(entry.plan, "decode"),
    }
    views = "".join(_view(f"{key}{view}-", view, figures[view]) for view, _ in VIEWS)
    without = (
        '<dt>without sharing</dt><dd><output class="unshared"></output> <output class="ratio"></output></dd>'
        if entry.unshared is not None
        else ""
    )
    return f"""<section class="spec" id="{key}" aria-labelledby="{key}-name">
<h2 id="{key}-name"><span class="swatch"></span>{name}</h2>
<dl class="costs"><dt>cache</dt><dd><strong class="human"></strong> <output class="bytes"></output></dd>{without}
<dt>parameters</dt><dd>{entry.plan.num_parameters():,}</dd></dl>
{views}</section>"""


def _view(key: str, view: View, figure: Figure) -> str:
    several = " levels" if len(figure.towers) > 1 else ""
    drawn = "".join(
        f'<div class="drawing {width}{several}">{figure_svg(figure, key=key, stacked=stacked, inline=True)}</div>'
        for width, stacked in (("wide", False), ("narrow", True))
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in figure.notes)
    tables = "".join(
        f"<h3>{escape(tower.title)}</h3>" * bool(tower.title) + _table(f"{key}t{place}", tower, view)
        for place, tower in enumerate(figure.towers)
    )
    return (
        f'<div class="view {view}">{drawn}<p class="said" aria-live="polite">'
        f"Point at a cache or a layer, or move to it with the Tab key.</p>{tables}{notes}</div>\n"
    )


def _table(key: str, tower: Tower, view: View) -> str:
    """Layers from the top of the stack down, as in the figure; then its caches with their bytes."""
    heads = ["layers", "mixer", "heads", "window", *(["runs for"] if view != "figure" else []), "writes", "reads"]
    rows = [_row(key, tower, item, view) for item in reversed(tower.items)]
    table = _markup(heads, rows)
    if view != "figure" or not tower.stores:
        return table
    stores = [
        f'<tr class="as" data-uses="{key}s{idx}"><td>{escape(store.label)}</td><td>{escape(store.holds)}</td>'
        f"<td>{escape(store.size)}</td><td>{escape(store.keeps)}</td>"
        f'<td class="number"><output class="store" data-store="{key}s{idx}"></output></td></tr>'
        for idx, store in enumerate(tower.stores)
    ]
    return table + _markup(["cache", "holds", "kv heads", "keeps", "bytes"], stores)


def _row(key: str, tower: Tower, item: Item, view: View) -> str:
    used = [idx for idx in (item.writes_idx, item.reads_idx) if idx is not None]
    uses = f' data-uses="{" ".join(dict.fromkeys(f"{key}s{idx}" for idx in used))}"' if used else ""
    numbers = item_numbers(item).split(" ", 1)[1]
    copies = next((b.copies for b in tower.brackets if b.kind == "repeat" and _inside(tower, item, b.first, b.last)), 1)
    cells = [
        numbers + (f", {copies} times" if copies > 1 else ""),
        item.title,
        item.heads,
        item.window,
        *([item.runs] if view != "figure" else []),
        "" if item.writes_idx is None else tower.stores[item.writes_idx].name,
        "" if item.reads_idx is None else tower.stores[item.reads_idx].name + ("*" if item.early else ""),
    ]
    return f'<tr class="as"{uses}>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _inside(tower: Tower, item: Item, first: int, last: int) -> bool:
    return any(each is item for each in tower.items[first : last + 1])


def _markup(heads: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f'<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
