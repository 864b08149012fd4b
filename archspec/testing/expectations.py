"""What the author of a spec expects of it, written as comments: `# expect: 1,100,048,384 parameters`.

    # expect: 1,100,048,384 parameters
    # expect: 46,137,344 bytes of cache at 2048
    # expect: 46,137,344 bytes of cache at 8 x 4K in float32
    # expect: B*e*(11264*T) bytes of cache
    # expect: prefill exit after cache@13
    # expect: no prefill exit
    # expect: error E0204 at line 7
    # expect: warning W0901

Numbers may hold commas or underscores; a context may end in K or M (1024-based); `8 x` is the batch, 1 if left out; the
dtype is bfloat16 if left out. Errors and warnings of a file are expected one by one: others fail.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from archspec.describe import exit_place
from archspec.driver import Analysis
from archspec.plan import DTYPE_BYTES
from archspec.units import parse_count

_COMMENT = re.compile(r"#[ \t]*expect:[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_NUMBER = r"(\d[\d,_]*)"


@dataclass(frozen=True)
class Expectation:
    """One comment, and the line where it stands."""

    text: str
    line: int


class UnmetError(AssertionError):
    """An expectation that does not hold; the message says what is so instead."""


def expectations(text: str) -> Iterator[Expectation]:
    """All `# expect:` comments of a file."""
    for match in _COMMENT.finditer(text):
        yield Expectation(match[1], text.count("\n", 0, match.start()) + 1)


def check_expectation(expectation: Expectation, analysis: Analysis) -> None:
    """Errors: UnmetError if it does not hold; ValueError for a comment that says nothing known."""
    for pattern, meets in _FORMS:
        if match := re.fullmatch(pattern, expectation.text):
            meets(analysis, match)
            return
    raise ValueError(
        f"line {expectation.line}: `{expectation.text}` is not understood; see archspec.testing.expectations"
    )


def check_findings(analysis: Analysis) -> None:
    """Errors: UnmetError unless the findings of a file are those that its comments expect."""
    wanted = sum(1 for e in expectations(analysis.source.text) if re.fullmatch(_FINDING, e.text))
    if len(analysis.diagnostics) != wanted:
        from archspec.render import render_text

        found = render_text(analysis.diagnostics)
        raise UnmetError(f"findings: expected {wanted}, but there are {len(analysis.diagnostics)}\n\n{found}".rstrip())


def _parameters(analysis: Analysis, match: re.Match[str]) -> None:
    _same("parameters", analysis.plan().num_parameters(), _integer(match[1]))


def _cache_bytes(analysis: Analysis, match: re.Match[str]) -> None:
    expected, batch, context, dtype = match.groups()
    if dtype not in (None, *DTYPE_BYTES):
        raise ValueError(f"unknown dtype `{dtype}`; known: {', '.join(DTYPE_BYTES)}")
    found = analysis.plan().cache_bytes(_integer(batch or "1"), parse_count(context), dtype or "bfloat16")
    _same("bytes of cache", found, _integer(expected))


def _formula(analysis: Analysis, match: re.Match[str]) -> None:
    _same("the bytes of the cache", analysis.plan().cache_formula(), match[1])


def _exit(analysis: Analysis, match: re.Match[str]) -> None:
    _same("the place of the prefill exit", exit_place(analysis.plan()), match[1])


def _no_exit(analysis: Analysis, match: re.Match[str]) -> None:
    _same("the place of the prefill exit", exit_place(analysis.plan()), None)


def _finding(analysis: Analysis, match: re.Match[str]) -> None:
    severity, code, line = match.groups()
    found = [(d.severity, d.code, d.span.line) for d in analysis.diagnostics]
    if not any((severity, code) == each[:2] and line in (None, str(each[2])) for each in found):
        there = ", ".join(f"{each[0]} {each[1]} at line {each[2]}" for each in found) or "nothing"
        raise UnmetError(f"no such finding; found: {there}")


def _integer(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        shown, wanted = (f"{x:,}" if isinstance(x, int) else str(x) for x in (found, expected))
        raise UnmetError(f"{what}: expected {wanted}, but it is {shown}")


_FINDING = r"(error|warning) ([EW]\d{4})(?: at line (\d+))?"
_FORMS: tuple[tuple[str, Callable[[Analysis, re.Match[str]], None]], ...] = (
    (rf"{_NUMBER} parameters", _parameters),
    (rf"{_NUMBER} bytes of cache at (?:{_NUMBER} x )?(\d+[KM]?)(?: in (\w+))?", _cache_bytes),
    (r"(.+) bytes of cache", _formula),
    (r"prefill exit after (.+)", _exit),
    (r"no prefill exit", _no_exit),
    (_FINDING, _finding),
)
