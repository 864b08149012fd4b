"""The speeds of a run as bars, one group a workload, one panel a section."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from archspec.bench.report import Report, Section
from archspec.files import write_files
from archspec.memory.plot import FONT_SIZE, STYLES, SUFFIXES

WIDTH, BAR, MARGIN = 6.8, 0.17, 0.75
"""Inches: a page's width, the height of a bar, and what a panel needs around its bars."""


def check_chart(path: Path) -> None:
    """Errors: ValueError for a suffix that cannot be written, ModuleNotFoundError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{path.name}` is no picture that can be written: end it in {', '.join(SUFFIXES)}")
    import matplotlib.figure  # noqa: F401


def save_chart(path: Path, report: Report) -> None:
    """Draw all sections that have a speed. Effects: writes `path` whole or not at all. Errors: as `check_chart`."""
    check_chart(path)
    import matplotlib
    from matplotlib.figure import Figure

    sections = [section for section in report.sections if any(line.speed for line in section.lines)]
    heights = [MARGIN + BAR * (len(section.lines) + len({line.what for line in section.lines})) for section in sections]
    settings: dict[Any, Any] = {"font.size": FONT_SIZE, "svg.hashsalt": "archspec", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, sum(heights) + BAR), layout="constrained")
        panels = figure.subplots(max(len(sections), 1), squeeze=False, height_ratios=heights or None)[:, 0]
        for section, axes in zip(sections, panels, strict=False):
            _draw(axes, section)
        kind = path.suffix.lower()[1:]
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        save = partial(figure.savefig, format=kind, dpi=200, metadata=metadata)
        write_files(path.parent, {path.name: save})


def _draw(axes: Any, section: Section) -> None:
    """Horizontal bars with their quartiles; the reference is the line at 1."""
    colours = dict(zip((model.name for model in section.models), cycle(colour for colour, _ in STYLES), strict=False))
    place, ticks, seen = 0.0, [], set()
    for what in dict.fromkeys(line.what for line in section.lines):
        lines = [line for line in section.lines if line.what == what and line.speed]
        ticks.append((place + (len(lines) - 1) / 2, what))
        for line in lines:
            assert line.speed is not None
            label = None if line.model in seen else line.model
            seen.add(line.model)
            axes.barh(place, line.speed.median, height=0.85, color=colours[line.model], label=label)
            axes.plot([line.speed.low, line.speed.high], [place, place], color="black", linewidth=0.8)
            axes.text(line.speed.high, place, f" {line.speed.median:.2f}", va="center", fontsize=FONT_SIZE - 2)
            place += 1
        place += 1
    axes.set_yticks([position for position, _ in ticks], [what for _, what in ticks])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.6, linestyle=":")
    axes.set_title(section.title, loc="left", fontsize=FONT_SIZE)
    axes.set_xlabel(f"speed, 1 is {section.reference}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=FONT_SIZE - 2, loc="upper left", bbox_to_anchor=(1.01, 1))
