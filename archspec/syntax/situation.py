"""What a repair looks at, an unexpected token and what would have fitted, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archspec.diagnostics import Diagnostic
from archspec.source import Source, Span

Feed = tuple[str, str]
"""Terminal and text of a token that is handed to the parser."""

_PHRASES = ("kv heads", "tied embeddings", "prefill exit")


@dataclass(frozen=True)
class Situation:
    """An unexpected token and what the parser would have accepted in its place."""

    source: Source
    terminal: str
    text: str
    span: Span
    accepted: frozenset[str]
    keywords: Mapping[str, str]
    """Word -> terminal."""
    shown: tuple[str, ...]
    """What was expected, in the language's words."""
    fits: Callable[[tuple[str, ...]], bool]
    """Whether the parser would take these terminals, one after the other."""

    @property
    def is_word(self) -> bool:
        return self.terminal in ("NAME", "MODEL_NAME") or self.text in self.keywords

    def terminals_of(self, phrase: str) -> tuple[str, ...]:
        return tuple(self.keywords[word] for word in phrase.split() if word in self.keywords)

    def known_words(self) -> tuple[str, ...]:
        """Keywords that fit, and phrases that start with one of them."""
        words = tuple(word for word, terminal in self.keywords.items() if terminal in self.accepted)
        return words + tuple(phrase for phrase in _PHRASES if phrase.split()[0] in words)


@dataclass(frozen=True)
class Repair:
    """How to go on. Without `feed`, the clause or statement is dropped."""

    diagnostic: Diagnostic | None
    feed: tuple[Feed, ...] | None = None
    pop_to: str | None = None
    """Go back to where this terminal fits before anything is fed."""
    quiet: bool = False
    """Further errors in the same clause follow from this one."""
