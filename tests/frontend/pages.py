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
    if text.startswith(("model", "# a file", "let", "define", "use")):
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

GROUPS = (
    ("Text, words and values", "E0001", "E0029"),
    ("Definitions and other files", "E0030", "E0049"),
    ("Ranges", "E0101", "E0199"),
    ("Sources", "E0201", "E0249"),
    ("Iteration", "E0250", "E0299"),
    ("Shapes", "E0301", "E0399"),
    ("Positions and norms", "E0401", "E0499"),
    ("Windows", "E0501", "E0599"),
    ("Levels", "E0601", "E0699"),
    ("States and experts", "E0701", "E0899"),
    ("Use", "E0901", "E0999"),
)
"""Titles, and the first and last code of each."""


def catalogue() -> str:
    """All pages in Markdown: a list of every group, then the page of every code."""
    tables, pages = [], []
    for title, first, last in GROUPS:
        codes = sorted((code for code in REGISTRY if first[1:] <= code[1:] <= last[1:]), key=lambda code: code[1:])
        if codes:
            rows = "\n".join(f"| [{code}](#{code.lower()}) | {_title(REGISTRY[code])} |" for code in codes)
            tables.append(f"## {title}\n\n| code | finding |\n|---|---|\n{rows}\n")
            pages += [_page(REGISTRY[code]) for code in codes]
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*tables, "## Pages\n", *pages]))


def _title(kind: type[Diagnostic]) -> str:
    return (kind.__doc__ or "").splitlines()[0].replace("|", "\\|")


def _page(kind: type[Diagnostic]) -> str:
    """The docstring of a class: what stands indented in it is a block of code."""
    lines = [f"### {kind.code}", "", f"**{_title(kind)}** ({kind.severity})", ""]
    for name, text in sections(kind).items():
        first, _, rest = text.rstrip("\n").partition("\n")
        lines.append(f"**{name}:** {first.strip()}".rstrip())
        block: list[str] = []
        for line in rest.splitlines():
            if line.startswith("    "):
                block.append(line)
            else:
                lines += [*_block(block), line]
                block = []
        lines += [*_block(block), ""]
    return "\n".join(lines)


def _block(lines: list[str]) -> list[str]:
    return ["", "```", *textwrap.dedent("\n".join(lines)).splitlines(), "```", ""] if lines else []
