"""Checkpoints of a run: each a folder that is there whole or not at all.

A checkpoint is written to `.writing` beside its place and renamed. What a kill leaves there is never looked at.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.files import settle

FOLDER = "checkpoints"
WRITING, LEAVING = ".writing", ".leaving"
STATE_FILE, SHARED_OPTIMIZER_FILE = "trainer_state.json", "optimizer.bin"
"""Names of Trainer and of accelerate."""
_NAME = re.compile(r"checkpoint-([0-9]+)")


def staging(folder: Path) -> Path:
    """Where the next checkpoint is written."""
    return folder / WRITING


def clear(folder: Path) -> None:
    """Take away what a kill left. Effects: of one process only."""
    for name in (WRITING, LEAVING):
        shutil.rmtree(folder / name, ignore_errors=True)


def take(folder: Path, step: int) -> Path:
    """Put the checkpoint that was written in its place. Effects: of one process, when all have written."""
    target = folder / f"checkpoint-{step}"
    if target.exists():  # of the same step, from before a kill
        drop(folder, target)
    settle(staging(folder) / target.name, target)
    return target


@dataclass(frozen=True)
class Checkpoint:
    """A whole one."""

    step: int
    path: Path

    def history(self) -> list[dict[str, Any]]:
        """What was logged up to it."""
        state: dict[str, Any] = json.loads((self.path / STATE_FILE).read_text("utf-8"))
        found: list[dict[str, Any]] = state["log_history"]
        return found

    def check_shared(self, shared: bool) -> None:
        """Errors: ValueError if its optimizer is of processes that shared weights, and these do not, or conversely."""
        if (self.path / SHARED_OPTIMIZER_FILE).is_file() != shared:
            told = "does not share weights: leave out" if shared else "shares weights: start `accelerate launch` with"
            raise ValueError(f"the run in {self.path.parent.parent} {told} `--use_fsdp` to go on with it")


def checkpoints(folder: Path) -> list[Checkpoint]:
    """All that are whole, the newest last."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return sorted((Checkpoint(int(match[1]), path) for match, path in found if match), key=lambda one: one.step)


def newest(folder: Path) -> Checkpoint | None:
    """The one to go on with."""
    return next(reversed(checkpoints(folder)), None)


def prune(folder: Path, keep: int) -> None:
    """Leave the newest `keep`."""
    for checkpoint in checkpoints(folder)[:-keep]:
        drop(folder, checkpoint.path)


def drop(folder: Path, path: Path) -> None:
    """Renamed first, so that nobody picks what is half deleted."""
    leaving = folder / LEAVING
    shutil.rmtree(leaving, ignore_errors=True)
    path.rename(leaving)
    shutil.rmtree(leaving)
