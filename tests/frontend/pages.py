"""The pages of `archspec explain`, taken apart: docstrings of diagnostics, and the examples in them."""

import re
import textwrap
from inspect import cleandoc

import archspec.driver  # noqa: F401  (loads every check, and so registers every code)
from archspec.diagnostics import REGISTRY, Diagnostic

PARTS = ("What", "Why it is bad", "Example")
_PART = re.compile(r"^(What|Why it is bad|Example|Mended|Source):", re.MULTILINE)
DEFAULTS = "vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"
HEADER = f"layers 4, width 64, {DEFAULTS}"


def sections(kind: type[Diagnostic]) -> dict[str, str]:
    """Name of a part -> its text."""
    _, *pieces = _PART.split(cleandoc(kind.__doc__ or ""))
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def program(kind: type[Diagnostic], part: str) -> str | None:
    """The lines of an example as a whole file. None if there are none.

    Fragments stand in a model of four layers, those with levels in one whose header leaves the sizes to them.
    """
    _, _, block = sections(kind).get(part, "").partition("\n")
    text = textwrap.dedent(block).strip("\n")
    if not text:
        return None
    if text.startswith(("model", "#")):
        return text + "\n"
    has_levels = re.search(r"^(blocks of|tokens in)", text, re.MULTILINE)
    inside = textwrap.indent(f"{DEFAULTS if has_levels else HEADER}\n{text}\n", "  ")
    return f"model m {{\n{inside}}}\n"


CODES = sorted(REGISTRY)
