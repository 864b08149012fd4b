"""How much one spec may hold. Beyond it nothing is parsed, so that any input is answered at once."""

import re

from archspec.diagnostics import Diagnostic
from archspec.source import Source, Span

MAX_WORDS = 80_000
"""Words, numbers and signs of a file. Ten thousand layers, each with a statement of its own, are within it."""
MAX_NESTING = 40
"""Parentheses within parentheses."""

_WORD = re.compile(r"#[^\n]*|\"[^\"\n]*\"|[\w.-]+|[^\s\w.-]")


class BeyondLimits(Diagnostic):
    """More than archspec reads.

    What: there is a bound on the words of a file, on parentheses within parentheses, on files that one spec uses, on
    models that extend one another, on templates within templates and on what templates unfold to.
    Why it is bad: no model needs as much; a program that answers late, or runs out of memory, answers nobody.
    Example:
        let A = (((((((((((((((((((((((((((((((((((((((((16)))))))))))))))))))))))))))))))))))))))))
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window A
        }
    Mended:
        let A = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window A
        }
    """

    code = "E0030"
    what: str
    limit: int

    def message(self) -> str:
        return f"more than {self.limit:,} {self.what}: this is beyond what archspec reads"


def count_words(text: str) -> int:
    """The words of a text, comments aside."""
    return sum(not found[0].startswith("#") for found in _WORD.finditer(text))


def beyond_limits(source: Source) -> Diagnostic | None:
    """The first place beyond a limit of one file; looked for only where the text is long enough to have one."""
    text = source.text
    if len(text) <= 2 * MAX_WORDS and text.count("(") <= MAX_NESTING:
        return None
    words = depth = 0
    for found in _WORD.finditer(text):
        if found[0].startswith("#"):
            continue
        words += 1
        depth = max(0, depth + {"(": 1, ")": -1}.get(found[0], 0))
        if words > MAX_WORDS or depth > MAX_NESTING:
            span = Span(source, *found.span())
            if words > MAX_WORDS:
                return BeyondLimits(span=span, what="words in one file", limit=MAX_WORDS)
            return BeyondLimits(span=span, what="parentheses within one another", limit=MAX_NESTING)
    return None
