"""Loss by position and accuracy of recall as a figure for a paper's column."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from archspec.evaluation.loss import LossReport
from archspec.evaluation.recall_accuracy import RecallReport
from archspec.files import write_files
from archspec.memory.plot import FONT_SIZE, LEGEND_LINE, STYLES, SUFFIXES, WIDTH
from archspec.units import format_count

PANEL = 2.0
"""Inches of height."""
PER_DOUBLING = 4
"""Points of a curve of losses: each the mean between two positions."""


@dataclass(frozen=True)
class Line:
    """What was found about one model."""

    label: str
    text: LossReport | None
    recall: tuple[RecallReport, ...]


def check_plot(path: Path) -> None:
    """Errors: ValueError for a suffix that cannot be written, ModuleNotFoundError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{path.name}` is no picture that can be written: end it in {', '.join(SUFFIXES)}")
    import matplotlib.figure  # noqa: F401


def save_plot(path: Path, lines: Sequence[Line]) -> None:
    """Draw a panel of losses, and one for each task. Effects: writes `path` whole or not at all.

    Errors: as `check_plot`, OSError.
    """
    check_plot(path)
    import matplotlib
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(report.task for line in lines for report in line.recall))
    panels = any(line.text is not None for line in lines) + len(tasks)
    settings: dict[Any, Any] = {
        "font.size": FONT_SIZE,
        "svg.hashsalt": "archspec",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, PANEL * panels + LEGEND_LINE * len(lines)), layout="constrained")
        axes = list(figure.subplots(panels, squeeze=False)[:, 0])
        if len(tasks) < panels:
            _draw_losses(axes.pop(0), lines)
        for task, panel in zip(tasks, axes, strict=True):
            _draw_recall(panel, lines, task)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        options = {"frameon": False, "fontsize": FONT_SIZE, "handlelength": 2.6, "borderaxespad": 0.2}
        figure.legend(handles, labels, loc="outside upper left", **options)
        kind = path.suffix.lower()[1:]
        # Without dates, so that equal figures are equal files.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        write_files(path.parent, {path.name: partial(figure.savefig, format=kind, dpi=300, metadata=metadata)})


def _draw_losses(axes: Any, lines: Sequence[Line]) -> None:
    for line, (colour, dash) in zip(lines, cycle(STYLES), strict=False):
        if line.text is not None:
            bins = line.text.bins(PER_DOUBLING)
            places = [(each.first * each.last) ** 0.5 for each in bins]
            losses = [each.loss for each in bins]
            axes.plot(places, losses, color=colour, linestyle=dash, linewidth=1.4, label=line.label)
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("loss (nats a token)")
    _log_ticks(axes)
    _dress(axes)


def _draw_recall(axes: Any, lines: Sequence[Line], task: str) -> None:
    """Accuracy by depth, or by length if there are several."""
    by_length = any(len({report.length for report in line.recall if report.task == task}) > 1 for line in lines)
    for line, (colour, dash) in zip(lines, cycle(STYLES), strict=False):
        reports = sorted((report for report in line.recall if report.task == task), key=lambda report: report.length)
        if by_length:
            points = [(float(report.length), report.accuracy) for report in reports]
        else:
            points = [(row.depth, row.accuracy) for report in reports for row in report.rows]
        options = {"linewidth": 1.4, "marker": "o", "markersize": 3, "label": line.label}
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, **options)
    axes.set_xlabel("tokens" if by_length else "depth of the fact, 0 the beginning")
    axes.set_ylabel(f"accuracy ({task})")
    axes.set_ylim(-0.03, 1.03)
    if by_length:
        _log_ticks(axes)
    _dress(axes)


def _log_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    axes.xaxis.set_minor_locator(NullLocator())


def _dress(axes: Any) -> None:
    axes.grid(True, linewidth=0.4, color="#d0d0d0")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
