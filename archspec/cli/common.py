"""What several subcommands share."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.compose import SettingError
from archspec.diagnostics import Diagnostic
from archspec.driver import Analysis, analyse
from archspec.units import parse_count


class Dtype(StrEnum):
    """Element types of weights and caches."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Give a `let` of the spec another number; may be repeated.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]


def settings_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """`--set W=512 --set S=4` -> numbers by name; a wrong form is a usage error."""
    settings: dict[str, str] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise typer.BadParameter(f"`{pair}` is not of the form NAME=VALUE", param_hint="--set")
        if name.strip() in settings:
            raise typer.BadParameter(f"`{name.strip()}` is set twice", param_hint="--set")
        settings[name.strip()] = value.strip()
    return settings


@contextmanager
def settings_that_fit() -> Iterator[None]:
    """Turns a `--set` that fits no `let` into a usage error."""
    try:
        yield
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error


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


def analysed(path: Path, pairs: Sequence[str] | None = None) -> Analysis:
    """A spec without errors; otherwise its findings are printed and the command ends with 1. `pairs` is `--set`."""
    with settings_that_fit():
        analysis = analyse(path, settings_of(pairs))
    if not analysis.ok:
        print_diagnostics(analysis.diagnostics, sys.stderr)
        raise typer.Exit(1)
    if not analysis.has_spec:
        raise CliError(f"{path} has no model: it holds definitions for other files to use")
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
def plots_needed() -> Iterator[None]:
    """Turns an absent matplotlib, or a kind of file that it cannot write, into one clear line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CliError(f"plots need {error.name}: install `archspec-lm[plot]`") from error
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--plot") from error


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turns an absent torch into one clear line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("torch", "safetensors", "numpy"):
            raise
        raise CliError(f"this command needs {error.name}: install `archspec-lm[torch]`") from error


@contextmanager
def transformers_needed() -> Iterator[None]:
    """Turns an absent transformers, or torch, into one clear line."""
    try:
        with torch_needed():
            yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("accelerate", "tokenizers", "transformers"):
            raise
        raise CliError(f"this command needs {error.name}: install `archspec-lm[hf]`") from error
