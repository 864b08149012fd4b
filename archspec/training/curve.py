"""The curve of a run as CSV, a line as soon as there is one, and as a picture."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from archspec.files import write_files, write_text

CURVE_FILE, PLOT_FILE = "loss.csv", "loss.png"
COLUMNS = ("step", "tokens", "loss", "eval_loss", "learning_rate", "grad_norm", "seconds")
"""`tokens` predicted so far; `loss`, in nats a token, the mean since the line before; `seconds` of training."""


class Curve:
    """FOLDER/loss.csv and FOLDER/loss.png."""

    def __init__(self, folder: Path, tokens_a_step: int) -> None:
        self.path, self.plot_path, self.tokens_a_step = folder / CURVE_FILE, folder / PLOT_FILE, tokens_a_step

    def begin(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines that are known, and no others: what came behind the checkpoint comes again."""
        lines = [COLUMNS, *(row for entry in history if (row := self._row(entry)))]
        write_text(self.path, _as_csv(lines))

    def add(self, entry: Mapping[str, Any]) -> None:
        """One more line, if the entry has a loss."""
        if row := self._row(entry):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_as_csv([row]))

    def _row(self, entry: Mapping[str, Any]) -> tuple[Any, ...]:
        if "loss" not in entry and "eval_loss" not in entry:
            return ()
        known = {**entry, "tokens": entry["step"] * self.tokens_a_step}
        return tuple(known.get(name, "") for name in COLUMNS)

    def plot(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Draw training and evaluation loss over steps. Effects: replaces FOLDER/loss.png."""
        from matplotlib.figure import Figure

        entries = list(history)
        figure = Figure(figsize=(5.2, 3.2), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        trained = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
        held_out = [(entry["step"], entry["eval_loss"]) for entry in entries if "eval_loss" in entry]
        if trained:
            axes.plot(*zip(*trained, strict=True), color="#56B4E9", linewidth=0.9, label="training")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), color="#D55E00", marker="o", markersize=3, label="held out")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats a token)")
        axes.grid(True, linewidth=0.4, color="#d0d0d0")
        axes.spines[["top", "right"]].set_visible(False)
        if trained or held_out:
            axes.legend(frameon=False)
        write_files(self.plot_path.parent, {PLOT_FILE: lambda path: figure.savefig(path, format="png")})


def read_curve(folder: str | Path) -> list[dict[str, float | None]]:
    """The lines of FOLDER/loss.csv; None where a line has no number."""
    with (Path(folder) / CURVE_FILE).open(encoding="utf-8", newline="") as file:
        return [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]


def _as_csv(rows: Iterable[tuple[Any, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
