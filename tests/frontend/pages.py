"""The pages of `archspec explain`, taken apart: docstrings of diagnostics, and the examples in them."""

import re
import textwrap
from inspect import cleandoc

from archspec.checks.deployment import Deployment
from archspec.diagnostics import REGISTRY, Diagnostic
from archspec.driver import Analysis, deployed  # loads every check, and so registers every code

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
    if text.startswith(("model", "# a file")):
        return text + "\n"
    has_levels = re.search(r"^(blocks of|tokens in)", text, re.MULTILINE)
    inside = textwrap.indent(f"{DEFAULTS if has_levels else HEADER}\n{text}\n", "  ")
    return f"model m {{\n{inside}}}\n"


def told(analysis: Analysis) -> Analysis:
    """The analysis with the options of `archspec check` that a comment in the program names."""
    options = dict(re.findall(r"^\s*# --(tensor-parallel|pipeline-split) (\d+)$", analysis.source.text, re.MULTILINE))
    split = (int(options["pipeline-split"]),) if "pipeline-split" in options else ()
    return deployed(analysis, Deployment(int(options.get("tensor-parallel", 1)), split))


CODES = sorted(REGISTRY)
