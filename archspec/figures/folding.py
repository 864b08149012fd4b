"""Runs and repeats in a row of tokens: `AAAAAB AAAAAB AAAAAB` -> 3 x (5 x A, B).

Two tokens are alike if they are the same but for their place, and refer to the same things. A reference into the
repeated part must go to the same place of the own copy; one out of it, to the very same thing from every copy.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

LONGEST_PERIOD = 64
"""Tokens of a repeated part that are looked for; what repeats more slowly is hardly seen as a repeat."""


@dataclass(frozen=True)
class Ref:
    """A token's part in something that spans tokens `first` to `last`: a cache with its writer and its readers."""

    role: str
    idx: Hashable
    first: int
    last: int


@dataclass(frozen=True)
class Token:
    """One thing in the row."""

    base: Hashable
    """Equal for tokens that differ in nothing but their place and their references."""
    refs: tuple[Ref, ...] = ()


@dataclass(frozen=True)
class Run:
    """`count` tokens from `start` on that are alike."""

    start: int
    count: int


@dataclass(frozen=True)
class Fold:
    """`copies` of the runs, one behind the other; `runs` are those of the first copy."""

    runs: tuple[Run, ...]
    copies: int = 1

    @property
    def period(self) -> int:
        return sum(run.count for run in self.runs)


def fold(tokens: Sequence[Token]) -> list[Fold]:
    """The row as runs, and as repeats of runs, from left to right; what saves most lines at a place is taken."""
    folds: list[Fold] = []
    start = 0
    while start < len(tokens):
        best = Fold((Run(start, _copies(tokens, start, 1, len(tokens))),))
        saved = best.period - 1
        # A shorter period ends where the run does: nothing is gained.
        for period in range(best.period + 1, min(LONGEST_PERIOD, (len(tokens) - start) // 2) + 1):
            if not _alike(tokens, start, start + period):
                continue
            copies = _copies(tokens, start, period, len(tokens))
            if copies == 1 or copies * period - 1 <= saved:
                continue  # cannot save more, however the part folds
            runs = tuple(_runs(tokens, start, start + period))
            if copies * period - len(runs) > saved:
                best, saved = Fold(runs, copies), copies * period - len(runs)
        folds.append(best)
        start += best.period * best.copies
    return folds


def _runs(tokens: Sequence[Token], start: int, end: int) -> list[Run]:
    runs: list[Run] = []
    while start < end:
        runs.append(Run(start, _copies(tokens, start, 1, end)))
        start += runs[-1].count
    return runs


def _copies(tokens: Sequence[Token], start: int, period: int, end: int) -> int:
    """How often tokens `start` to `start + period - 1` follow one another before `end`."""
    alike = start
    while alike + period < end and _alike(tokens, alike, alike + period):
        alike += 1
    copies = 1 + (alike - start) // period
    while copies > 1 and not _consistent(tokens, start, period, copies):
        copies -= 1
    return copies


def _alike(tokens: Sequence[Token], a: int, b: int) -> bool:
    """Whether b may stand where a does in the next copy, as far as two tokens can tell."""
    one, other = tokens[a], tokens[b]
    return (
        one.base == other.base
        and len(one.refs) == len(other.refs)
        and all(
            x.role == y.role and (x.idx == y.idx or (x.first - a, x.last - a) == (y.first - b, y.last - b))
            for x, y in zip(one.refs, other.refs, strict=True)
        )
    )


def _consistent(tokens: Sequence[Token], start: int, period: int, copies: int) -> bool:
    """Whether every reference stays in its own copy, or is the same one in all copies."""
    for place in range(start, start + period):
        for number, ref in enumerate(tokens[place].refs):
            inside = start <= ref.first and ref.last < start + period
            for copy in range(1, copies):
                other = tokens[place + copy * period].refs[number]
                shift = copy * period
                own = inside and (other.first, other.last) == (ref.first + shift, ref.last + shift)
                if not own and other.idx != ref.idx:
                    return False
    return True
