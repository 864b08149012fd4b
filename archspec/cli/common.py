"""What several subcommands share."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from archspec.diagnostics import Diagnostic
from archspec.driver import Analysis, analyse
from archspec.units import parse_count


class Dtype(StrEnum):
    """Element types of weights and caches."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


class CliError(Exception):
    """Something the user gave cannot be worked with; shown as one line, exit code 1."""


def use_colour(stream: Any) -> bool:
    """Colour on a terminal, or where FORCE_COLOR is set; never where NO_COLOR is (no-color.org, force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def print_diagnostics(diagnostics: Sequence[Diagnostic], stream: Any) -> None:
    """Diagnostics as text, coloured where that is wanted."""
    from archspec.render import render_text

    if diagnostics:
        print(render_text(diagnostics, use_colour(stream)), end="\n\n", file=stream)


def analysed(path: Path) -> Analysis:
    """A file without errors; otherwise its findings are printed and the command ends with 1."""
    analysis = analyse(path)
    if not analysis.ok:
        print_diagnostics(analysis.diagnostics, sys.stderr)
        raise typer.Exit(1)
    return analysis


def counts(text: str, option: str) -> tuple[int, ...]:
    """`4K,128K,1M` -> numbers; a wrong one is a usage error."""
    try:
        return tuple(parse_count(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def available_memory() -> int | None:
    """Bytes that can be allocated here without swapping, if the system says (Linux)."""
    found = []
    try:
        meminfo = Path("/proc/meminfo").read_text()
        found += [int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        found += [max(int(limit) - used, 0)] if limit.isdecimal() else []
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turns an absent torch into one clear line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("torch", "safetensors", "numpy"):
            raise
        raise CliError(f"this command needs {error.name}: install `archspec-lm[torch]`") from error
