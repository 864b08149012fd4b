"""Broken and unusual texts, made from good ones: by characters, by tokens, by lines, and by the grammar itself.

Every function takes a `random.Random`, so that a seed gives the same text again.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random

from archspec.syntax.parser import grammar_rules, terminal_words

ODD_CHARACTERS = ("\0", "\t", "\r", "\x7f", "\u00a0", "\u2013", "\u2212", "\ufeff", "é", "\ud7ff", "\U0001f600", "×")
ODD_TOKENS = (
    *("{", "}", "(", ")", ",", "@", ":", "#", "\n", " ", "-", "–", "=", ";", '"', "'", "[", "]", "<", "+", "*", "/"),
    *("0", "1", "-1", "999999999999999999", "1e400", "1e-9", "0.5", "1_000", "0x10", "1-", "-1", "5-3", "1..3", "50%"),
    *("model", "layers", "cache", "cache@1", "to", "x", "last", "rest", "heads", "kv", "iterate", "no", "None", "true"),
)
SAMPLES: Mapping[str, Sequence[str]] = {
    "NAME": ("attend", "cross-attend", "retention", "ffn-only", "rms", "layernorm", "swiglu", "gelu", "main", "a", "W"),
    "IDENT": ("W", "S", "n_local"),
    "CAPITALS": ("W", "THETA"),
    "STRING": ('"common.arch"', '"sub/a.arch"'),
    "_DASH": ("-", "–", ".."),
    "_TOTAL_LAYERS": ("layers",),
    "MODEL_NAME": ("m", "yoco-3b", "llama_3.1"),
    "TOTAL": ("1", "8", "26"),
    "INT": ("0", "1", "2", "3", "8", "64", "1024", "100_288", "999999999999999999"),
    "FLOAT": ("1e-5", "0.5", "1e400", "10000.0"),
    "RANGE": ("1-4", "2-last", "5-3", "1..8", "0-2", "3–9"),
    "OPEN_RANGE": ("3-", "-4"),
    "ONE_PLUS": ("1+w", "1 + w"),
    "_NL": ("\n", "\n\n", "  # a remark\n"),
}
"""What stands for terminals that are no fixed word."""


def odd_text(text: str, rng: Random, pool: Sequence[str] = ()) -> str:
    """`text` changed in one of the ways of this module. `pool` are other texts, of which lines may be taken."""
    change = rng.choice([_characters, _characters, _tokens, _tokens, _lines, _derived, _derived, _cut])
    return change(text, rng) if not pool or rng.random() < 0.9 else _spliced(text, rng, pool)


def derived(symbol: str, rng: Random, budget: int = 12) -> str:
    """A text that the grammar derives from `symbol`; short expansions once `budget` levels are used up.

    Errors: KeyError for a terminal without a sample.
    """
    if symbol not in grammar_rules():
        return _sample(symbol, rng)
    expansions = grammar_rules()[symbol]
    if budget <= 0:
        cheapest = min(_cost(expansion) for expansion in expansions)
        expansions = tuple(expansion for expansion in expansions if _cost(expansion) == cheapest)
    return " ".join(filter(None, (derived(part, rng, budget - 1) for part in rng.choice(expansions))))


@cache
def _costs() -> dict[str, int]:
    """Depth of the flattest derivation of every nonterminal."""
    rules, costs = grammar_rules(), dict[str, int]()
    while len(costs) < len(rules):
        costs |= {
            name: 1 + min(fit)
            for name, expansions in rules.items()
            if name not in costs and (fit := [c for e in expansions if (c := _known(e, rules, costs)) is not None])
        }
    return costs


def _known(
    expansion: tuple[str, ...], rules: Mapping[str, tuple[tuple[str, ...], ...]], costs: Mapping[str, int]
) -> int | None:
    if any(part in rules and part not in costs for part in expansion):
        return None
    return max((costs.get(part, 0) for part in expansion), default=0)


def _cost(expansion: tuple[str, ...]) -> int:
    return max((_costs().get(part, 0) for part in expansion), default=0)


def _sample(terminal: str, rng: Random) -> str:
    return rng.choice(SAMPLES[terminal]) if terminal in SAMPLES else terminal_words()[terminal]


def _characters(text: str, rng: Random) -> str:
    characters, alphabet = list(text), [*sorted(set(text)), *ODD_CHARACTERS]
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(characters) + 1)
        characters[at : at + rng.choice([0, 1, 1, 3])] = [rng.choice(alphabet)] * rng.choice([0, 1, 1, 2])
    return "".join(characters)


def _tokens(text: str, rng: Random) -> str:
    tokens = re.findall(r"\s+|[\w-]+|[^\w\s]", text)
    edits: list[Callable[[int], object]] = [
        lambda at: tokens.pop(at),
        lambda at: tokens.insert(at, tokens[at]),
        lambda at: tokens.insert(at, rng.choice(ODD_TOKENS)),
        lambda at: tokens.__setitem__(at, rng.choice(ODD_TOKENS)),
        lambda at: tokens.__setitem__(at, tokens[rng.randrange(len(tokens))]),
    ]
    for _ in range(rng.choice([1, 1, 2, 6])):
        if tokens:
            rng.choice(edits)(rng.randrange(len(tokens)))
    return "".join(tokens)


def _lines(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True)
    change = rng.randrange(3)
    if change == 0 or len(lines) < 2:
        return "".join(rng.sample(lines, rng.randrange(len(lines) + 1)))
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    if change == 1:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines.insert(a, lines[b])
    return "".join(lines)


def _derived(text: str, rng: Random) -> str:
    """A statement, a clause or a whole file that the grammar allows, put where lines or clauses stand."""
    kind = rng.randrange(8)
    if kind == 0:
        return derived("start", rng)
    if kind < 4:
        places = [match.end() for match in re.finditer(r",", text)] or [0]
        at = rng.choice(places)
        return f"{text[:at]} {derived('_clause', rng)}, {text[at:]}"
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines) + 1)
    lines[at : at + rng.randrange(2)] = [f"  {derived('_statement', rng)}\n"]
    return "".join(lines)


def _cut(text: str, rng: Random) -> str:
    return text[: rng.randrange(len(text) + 1)] if rng.random() < 0.5 else text[rng.randrange(len(text) + 1) :]


def _spliced(text: str, rng: Random, pool: Sequence[str]) -> str:
    lines, other = text.splitlines(keepends=True), rng.choice(pool).splitlines(keepends=True)
    at, first = rng.randrange(len(lines) + 1), rng.randrange(len(other) + 1)
    return "".join([*lines[:at], *other[first : first + rng.randrange(1, 6)], *lines[at:]])
