"""Checkpoints of a run: each a folder that is there whole or not at all.

A checkpoint is written to `.writing` beside its place and renamed. What a kill leaves there is never looked at.
"""

import re
import shutil
from pathlib import Path

from archspec.files import settle

FOLDER = "checkpoints"
WRITING, LEAVING = ".writing", ".leaving"
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


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """All that are whole, with their steps, the newest last."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def prune(folder: Path, keep: int) -> None:
    """Leave the newest `keep`."""
    for _, path in checkpoints(folder)[:-keep]:
        drop(folder, path)


def drop(folder: Path, path: Path) -> None:
    """Renamed first, so that nobody picks what is half deleted."""
    leaving = folder / LEAVING
    shutil.rmtree(leaving, ignore_errors=True)
    path.rename(leaving)
    shutil.rmtree(leaving)
