"""Cache bytes against context as a figure for a paper's column."""

from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from archspec.files import write_files
from archspec.levels_plan import AnyPlan
from archspec.memory.account import Terms
from archspec.memory.report import cache_bytes
from archspec.units import format_count

SUFFIXES = (".png", ".svg", ".pdf")
WIDTH, HEIGHT = 3.3, 2.1
"""Inches: one column of a two-column page; the legend stands above the height."""
LEGEND_LINE = 0.17
FONT_SIZE = 8
STYLES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#56B4E9", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", (0, (1, 1))),
    ("#000000", (0, (8, 2))),
)
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008), each with a dash of its own for grey prints."""
POINTS_PER_DOUBLING = 8


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    plan: AnyPlan
    batch: int
    terms: Terms


def save_plot(path: Path, lines: list[Line], first: int, last: int) -> None:
    """Draw the lines between two contexts, both axes logarithmic.

    Effects: writes `path` whole or not at all. Errors: ValueError for a suffix that is not known, OSError,
    ModuleNotFoundError without matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{path.name}` is no picture that can be written: end it in {', '.join(SUFFIXES)}")
    contexts = _contexts(first, last)
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "font.size": FONT_SIZE,
        "svg.hashsalt": "archspec",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_LINE * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        seen: list[int] = []
        for line, (colour, dash) in zip(lines, cycle(STYLES), strict=False):
            sizes = [cache_bytes(line.plan, line.batch, context, line.terms) for context in contexts]
            axes.plot(contexts, sizes, color=colour, linestyle=dash, linewidth=1.4, label=line.label)
            seen += sizes
        _dress(axes, contexts, seen)
        figure.legend(loc="outside upper left", frameon=False, fontsize=FONT_SIZE, handlelength=2.6, borderaxespad=0.2)
        kind = path.suffix.lower()[1:]
        # Without dates, so that equal figures are equal files.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        save = partial(figure.savefig, format=kind, dpi=300, metadata=metadata)
        write_files(path.parent, {path.name: save})


def _contexts(first: int, last: int) -> list[int]:
    """Contexts of equal ratios, both ends among them."""
    if first == last:
        first, last = max(first // 2, 1), last * 2
    found, position = {first, last}, float(first)
    while position < last:
        found.add(int(position))
        position *= 2 ** (1 / POINTS_PER_DOUBLING)
    return sorted(found)


def _dress(axes: Any, contexts: list[int], sizes: list[int]) -> None:
    """Scales, ticks at powers of two as people write them, labels with units."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel("cache (bytes)")
    axes.xaxis.set_major_locator(FixedLocator(_powers(contexts[0], contexts[-1], most=6)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(int(value))))
    positive = [size for size in sizes if size > 0]
    if positive:
        axes.yaxis.set_major_locator(FixedLocator(_powers(min(positive), max(positive), most=7)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(int(value))))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(contexts[0], contexts[-1])
    axes.grid(True, linewidth=0.4, color="#d0d0d0")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _powers(low: int, high: int, most: int) -> list[int]:
    """At most `most` powers of two around low .. high, evenly spaced."""
    first, last = max(low, 1).bit_length() - 1, (max(high, 1) - 1).bit_length()
    step = -(-(last - first) // (most - 1)) or 1
    return [1 << power for power in range(first - first % step, last + step, step)]


def _bytes(value: int) -> str:
    """`16 GiB` for a power of two."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << power:
            return f"{value >> power} {unit}"
    return f"{value} B"
