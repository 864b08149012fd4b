"""What people see of a run: a bar on a terminal, a line for every evaluation elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

LINES_APART = 10.0
"""Seconds at least from one line to the next, where there is no bar; evaluations are always told."""


class Progress:
    """Shows steps, loss and speed on standard error."""

    def __init__(self, steps: int, tokens_a_step: int, shown: bool = True) -> None:
        self.steps, self.tokens_a_step, self.shown = steps, tokens_a_step, shown
        self._bar: Any = None
        self._task: Any = None
        self._first, self._began, self._told = 0, 0.0, 0.0
        self._losses = {"loss": float("nan"), "eval_loss": float("nan")}

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, step: int) -> None:
        """Training begins, or goes on, behind that step."""
        self._first, self._began = step, time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task("train", total=self.steps, completed=step, told="")

    def advance(self, step: int) -> None:
        """That step is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, told=self._told_of(step))

    def show(self, entry: Mapping[str, Any]) -> None:
        """A line of the curve."""
        self._losses |= {name: entry[name] for name in self._losses if name in entry}
        now = time.monotonic()
        due = "eval_loss" in entry or ("loss" in entry and now - self._told > LINES_APART)
        if self.shown and self._bar is None and due:
            self._told = now
            print(f"step {entry['step']}/{self.steps}  {self._told_of(entry['step'])}", file=sys.stderr, flush=True)

    def _told_of(self, step: int) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        parts = [
            f"loss {self._losses['loss']:.4f}",
            f"held out {self._losses['eval_loss']:.4f}",
            f"{(step - self._first) * self.tokens_a_step / seconds:,.0f} tokens/s",
        ]
        return "  ".join(part for part in parts if "nan" not in part)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
