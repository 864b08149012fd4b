"""What may stand at a place of a text that need not be whole: the question behind completion.

Only the statement at the place is read, behind the heads of the blocks around it, so that errors elsewhere do not
matter; an error in the statement itself goes through `recovery`. Written against lark's interactive parser, which is
handed in: this module does not import lark.
"""

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from archspec.source import Source
from archspec.syntax.recovery import Recovery
from archspec.syntax.scan import read_through

_PIECE = re.compile(r"#[^\n]*|[{}\n,]|[^\s#{},]+")
_PROBES = ("\ue000", "a\ue000")
"""What is put at the place to see what the parser waits for: a character that is no token; and a letter before it,
since `layers 26, ` goes on as a header only if a word follows."""

ErrorHandler = Callable[[Any], bool]


@dataclass(frozen=True)
class Expected:
    """What the grammar accepts at a place, and what stands before it in the same statement."""

    phrases: Mapping[str, str]
    """Terminal of each keyword that may follow -> the keyword with those that can only follow it: `kv heads`."""
    terminals: frozenset[str]
    """All terminals that may follow, keywords among them."""
    keyword: str
    """Terminal of the last keyword before the place; empty if there is none."""
    rules: frozenset[str]
    """Names of the rules that are complete: `layer_list`, `mixer`, `heads`."""
    mixer: str | None
    """The mixer of the statement."""
    heads: tuple[str, ...]
    """Texts of the blocks around the place, from the outside in: `model m`, `blocks of 4 tokens`."""


@dataclass(frozen=True)
class Before:
    """The blocks around a place, and the text of its statement up to it."""

    heads: tuple[str, ...]
    statement: str


def before(text: str, offset: int) -> Before | None:
    """What stands around and before a place; None in a comment. Linear in the text."""
    heads: list[str] = []
    start, last = 0, ""
    for piece in _PIECE.finditer(text, 0, offset):
        match piece[0][0]:
            case "#":
                if piece.end() == offset:
                    return None
                continue
            case "{":
                heads.append(text[start : piece.start()].strip())
                start = piece.end()
            case "}":
                del heads[-1:]
                start = piece.end()
            case "\n" if last != ",":
                start = piece.end()
            case "\n":
                continue
        last = piece[0]
    return Before(tuple(heads), text[start:offset] if heads else text[:offset])


def expected(
    text: str,
    offset: int,
    parse: Callable[[str, ErrorHandler], None],
    keywords: Mapping[str, str],
    make_recovery: Callable[[Source, str], Recovery],
) -> Expected | None:
    """What may follow at a place; None in a comment, or where nothing can be made of the text before it.

    `parse` reads a text, hands every error to the handler, and stops where that returns False.
    """
    text = read_through(text)[0]
    around = before(text, offset)
    if around is None:
        return None
    known = "".join(f"{head} {{\n" for head in around.heads) + around.statement
    found = [parser for probe in _PROBES if (parser := _stopped(known, probe, parse, make_recovery)) is not None]
    if not found:
        return None
    phrases: dict[str, str] = {}
    terminals: set[str] = set()
    words = {terminal: word for word, terminal in keywords.items()}
    for parser in found:
        accepted = parser.accepts()
        terminals |= accepted
        phrases |= {name: _phrase(parser, name, words) for name in accepted if name in words and name not in phrases}
    values = found[-1].parser_state.value_stack
    trees = [tree for value in values if hasattr(value, "iter_subtrees") for tree in value.iter_subtrees()]
    mixers = [str(tree.children[0]) for tree in trees if tree.data == "mixer" and tree.children]
    return Expected(
        phrases=phrases,
        terminals=frozenset(terminals),
        keyword=next((value.type for value in reversed(values) if getattr(value, "type", None) in words), ""),
        rules=frozenset(str(tree.data) for tree in trees),
        mixer=mixers[-1] if mixers else None,
        heads=around.heads,
    )


def _stopped(
    known: str,
    probe: str,
    parse: Callable[[str, ErrorHandler], None],
    make_recovery: Callable[[Source, str], Recovery],
) -> Any | None:
    """The parser as it stands behind `known`; None if it took the probe, or gave up before."""
    recovery = make_recovery(Source("<text>", known + probe), known + probe)
    stopped: list[Any] = []

    def on_error(error: Any) -> bool:
        token = getattr(error, "token", None)
        place = error.pos_in_stream if token is None or token.type == "$END" else token.start_pos
        if place is not None and place < len(known):
            return recovery.on_error(error)
        if place == len(known):
            stopped.append(error.interactive_parser)
        return False

    parse(known + probe, on_error)
    return stopped[0] if stopped else None


def _phrase(parser: Any, terminal: str, words: Mapping[str, str]) -> str:
    """A keyword with those that can only follow it."""
    trial = parser.copy(deepcopy_values=False)
    trial.parser_state.parse_conf = copy(trial.parser_state.parse_conf)
    trial.parser_state.parse_conf.callbacks = {}
    phrase = words[terminal]
    while True:
        trial.feed_token(_Symbol(terminal))
        following = trial.accepts()
        if len(following) != 1 or not following <= words.keys():
            return phrase
        (terminal,) = following
        phrase = f"{phrase} {words[terminal]}"


@dataclass(frozen=True)
class _Symbol:
    """As much of a token as the parser looks at."""

    type: str
