"""What may be typed at an offset: keywords that the grammar accepts there, caches that exist, kinds and mixers.

The text need not parse: the grammar is asked about the statement under the cursor alone, and the caches are those
that could be made out of the rest.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from archspec.compose.names import names_at
from archspec.lsp.places import Stack, View
from archspec.lsp.words import CHOICES, first_line, meaning, meaning_of_setting
from archspec.source import Span
from archspec.spec.elaborate import MIXERS, SETTING_KEYS, settings_of
from archspec.syntax.expecting import Expected
from archspec.syntax.parser import expected_at

_TYPED = re.compile(r"(?:cache[ \t]*@[ \t]*\w*|[A-Za-z_][\w-]*|\d+)\Z")
_LONGEST_LINE = 1000
MAX_CACHES = 200
"""Caches that one list has; what is typed narrows it down."""
_LEVELS = {
    "_EMIT": ("blocks",),
    "PREFIX": ("tokens",),
    "SUMMATION": ("tokens",),
    "_VOCAB": ("",),
    "_FINAL": ("",),
    "_TIED": ("", "tokens"),
}
"""Terminal -> the levels in which it may stand; the grammar leaves that to later phases."""
_KEYS = {
    "PRE": "placement",
    "POST": "placement",
    "SANDWICH": "placement",
    "_TIED": "tied",
    "_ATTENTION": "attention_scale",
    "_SINKS": "window",
}
"""Terminal that starts a setting -> the setting's key, where that is not the keyword itself."""
_SEVERAL = frozenset({"_ATTENTION", "_EMBED", "_NO"})
"""Terminals that start more than one setting."""

Kind = Literal["statement", "setting", "word", "mixer", "kind", "cache", "name"]


@dataclass(frozen=True)
class Suggestion:
    """A text that may stand in place of what is typed from `start` on."""

    text: str
    kind: Kind
    detail: str
    documentation: str
    start: int
    order: int = 0


def suggestions(view: View, offset: int) -> list[Suggestion]:
    """What may stand at an offset, the likeliest first."""
    text = view.analysis.source.text
    typed = _TYPED.search(text[max(0, offset - _LONGEST_LINE) : offset])
    start = offset - len(typed[0]) if typed else offset
    at = expected_at(text, start)
    if at is None:
        return []
    stack = _stack(view, at)
    found = [*_references(stack, at, typed[0] if typed else "", start), *_words(view, at, start)]
    found += _definitions(view, at, start)
    found += _keywords(view, stack, at, start)
    return sorted(dict.fromkeys(found), key=lambda each: (each.order, each.text if each.kind != "cache" else ""))


def _level(at: Expected) -> str:
    """The level that a place stands in."""
    words = [head.split(None, 1)[0] for head in at.heads if head]
    return next((word for word in reversed(words) if word in ("blocks", "tokens")), "")


def _stack(view: View, at: Expected) -> Stack | None:
    return next((stack for stack in view.stacks if stack.level == _level(at)), None)


def _references(stack: Stack | None, at: Expected, typed: str, start: int) -> Iterator[Suggestion]:
    """Caches, where one is read."""
    named_only = at.keyword == "_CACHE" and "NAME" in at.terminals and "_LAYERS" not in at.phrases
    if stack is None or not (named_only or ("_CACHE" in at.terminals and "_LAYERS" not in at.terminals)):
        return
    if named_only and "cache_head" in at.rules:
        return
    digits = re.sub(r"\D", "", typed)
    shown = 0
    for key, cache in stack.graph.caches.items():
        is_named = "@" not in key
        if key.startswith("own@") or (named_only and not is_named):
            continue  # `cache@12` means the projection where there is one
        if digits and not is_named and not key.removeprefix("cache@").startswith(digits):
            continue
        shown += 1
        if shown > MAX_CACHES:
            return
        text = key if named_only or not is_named else f"cache {key}"
        yield Suggestion(text, "cache", _holds(stack, key), "", start, 0 if cache.projected else 1)
    if not named_only:
        for word in ("below", "last") if at.keyword == "_TO" else ("last",):
            yield Suggestion(
                f"cache@{word}", "cache", first_line(f"cache@{word}", meaning("to")), meaning("to"), start, 2
            )


def _holds(stack: Stack, key: str) -> str:
    """What a cache holds and who reads it, in one line."""
    cache = stack.graph.caches[key]
    holds = f"projection of layer {cache.layer}'s output" if cache.projected else f"layer {cache.layer}'s own K/V"
    heads = f", kv heads {cache.kv_heads.count} x {cache.kv_heads.head_dim}" if cache.kv_heads else ""
    keeps = "" if cache.window is None else f", keeps the last {cache.window}"
    return f"{holds}{heads}{keeps}"


def _words(view: View, at: Expected, start: int) -> Iterator[Suggestion]:
    """Mixers, kinds of norm and the like: what the grammar takes as a NAME."""
    about = meaning("emit")
    if at.keyword == "_FROM":
        yield Suggestion(view.context, "name", first_line("emit", about), about, start)
    if "NAME" not in at.terminals:
        return
    if at.keyword in ("BLOCKS", "TOKENS", "_EMIT"):
        name = view.context.removeprefix("blocks.")
        yield Suggestion(name, "name", first_line("emit", about), about, start)
    for word in CHOICES.get(at.keyword, ()):
        text = meaning(word)
        yield Suggestion(word, "mixer" if word in MIXERS else "kind", first_line(word, text), text, start)


def _definitions(view: View, at: Expected, start: int) -> Iterator[Suggestion]:
    """Numbers and templates by the names that `let` and `define` give them, those of used files included."""
    takes_mixer = "NAME" in at.terminals and CHOICES.get(at.keyword) == MIXERS
    takes_template = "NAME" in at.terminals and at.keyword == "_LIKE"
    takes_number = "IDENT" in at.terminals and "INT" in at.terminals
    if not (takes_mixer or takes_template or takes_number or "CAPITALS" in at.terminals):
        return
    names = names_at(view.analysis.source, start, view.read)
    for word, let in names.lets.items():
        if takes_number or ("CAPITALS" in at.terminals and word.isupper()):
            yield Suggestion(word, "name", _one_line(let.span), meaning("let"), start, 1)
    for word, define in names.templates.items():
        if takes_template or (takes_mixer and define.mixer is not None):
            yield Suggestion(word, "name", _one_line(define.span), meaning("define"), start)


def _one_line(span: Span) -> str:
    return " ".join(span.text.split())


def _keywords(view: View, stack: Stack | None, at: Expected, start: int) -> Iterator[Suggestion]:
    """Keywords that the grammar accepts and that have a meaning at this place."""
    starts_statement = "_LAYERS" in at.terminals and "_CACHE" in at.terminals
    starts_setting = {"_HEADS", "_ROPE"} <= at.terminals
    level = _level(at)
    taken = _taken(view, stack, at, start)
    owner = "cache" if "cache_head" in at.rules else at.mixer
    for terminal, phrase in at.phrases.items():
        key = _KEYS.get(terminal, phrase.replace("-", "_").replace(" ", "_")) if starts_setting else phrase
        if level not in _LEVELS.get(terminal, (level,)):
            continue
        if terminal in ("BLOCKS", "TOKENS") and (level or not starts_statement):
            continue  # no cache crosses a level, and the context is offered whole
        if owner is not None and starts_setting and key in SETTING_KEYS and key not in settings_of(owner):
            continue
        if starts_setting and terminal not in _SEVERAL and ("sinks" if terminal == "_SINKS" else key) in taken:
            continue
        if terminal == "_X" or (terminal == "_CACHE" and not starts_statement):
            continue  # caches that exist are offered instead
        is_setting = starts_setting and key in SETTING_KEYS
        text = meaning_of_setting(key) if is_setting else meaning(phrase.split()[0])
        kind: Kind = "setting" if is_setting else "statement" if starts_statement else "word"
        yield Suggestion(phrase, kind, first_line(phrase, text), text, start, 4 if is_setting else 3)


def _taken(view: View, stack: Stack | None, at: Expected, start: int) -> frozenset[str]:
    """Settings that the statement makes already, or the header if the place is in one."""
    if "cache_head" in at.rules or at.mixer is not None or stack is None or _level(at):
        return at.rules
    header = stack.elaborated.spans.settings
    return at.rules | {key for key, span in header.items() if not view.covers(span, start)}
