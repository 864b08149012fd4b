"""The table as a figure: loss against bytes of caches, and how far loss is from dense at each position."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from archspec.files import write_files
from archspec.memory.plot import FONT_SIZE, STYLES
from archspec.quality.page import Rows, by_variant
from archspec.quality.results import Result
from archspec.quality.variants import REFERENCE

WIDTH, HEIGHT = 6.8, 2.9
"""Inches: a page's width."""
MARKERS = "osD^vP*"


def save_plot(path: Path, results: Sequence[Result]) -> None:
    """Draw the results of one form. Effects: writes `path`, an SVG, at once. Errors: ModuleNotFoundError."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {"font.size": FONT_SIZE, "svg.hashsalt": "archspec", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        caches, positions = figure.subplots(1, 2)
        rows = by_variant(results)
        _draw_caches(caches, rows)
        _draw_positions(positions, rows)
        for axes in (caches, positions):
            axes.grid(True, linewidth=0.4, color="#d0d0d0")
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = caches.get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=FONT_SIZE - 1, loc="outside lower center", ncols=4)
        save = partial(figure.savefig, format="svg", metadata={"Date": None})
        write_files(path.parent, {path.name: save})


def _looks() -> Any:
    return zip((colour for colour, _ in STYLES), MARKERS, strict=True)


def _draw_caches(axes: Any, rows: Rows) -> None:
    """A small mark for every seed, a large one for their median."""
    for (variant, found), (colour, marker) in zip(rows, cycle(_looks()), strict=False):
        size, losses = found[0].cache_bytes / 1024, [result.loss for result in found]
        axes.plot([size] * len(losses), losses, marker, color=colour, markersize=3, alpha=0.5)
        axes.plot([size], [median(losses)], marker, color=colour, markersize=6, label=variant.title)
    axes.set_xscale("log", base=2)
    axes.set_xticks([128, 256, 512, 1024], ["128", "256", "512", "1024"])
    axes.set_xlabel("caches of a sequence (KiB, bfloat16)")
    axes.set_ylabel("held-out loss (nats a byte)")


def _draw_positions(axes: Any, rows: Rows) -> None:
    """Medians over the seeds that dense has too."""
    dense = {result.seed: result for variant, found in rows if variant.name == REFERENCE for result in found}
    for (variant, found), (colour, marker) in zip(rows, cycle(_looks()), strict=False):
        pairs = [(result, dense[result.seed]) for result in found if result.seed in dense]
        if variant.name == REFERENCE or not pairs:
            continue
        places = sorted(pairs[0][0].losses)
        gaps = [median(own.losses[place] - base.losses[place] for own, base in pairs) for place in places]
        axes.plot([last for _, last in places], gaps, marker=marker, markersize=3, linewidth=0.9, color=colour)
    axes.axhline(0, color="black", linewidth=0.6, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    axes.set_xlabel("bytes of context")
    axes.set_ylabel("loss minus that of dense")
