"""Cache bytes in closed form: B sequences, T tokens of context, e bytes an element.

Plans say what they hold as terms; exact numbers come from the terms in plain integers, the closed form from the same
terms by sympy, which is imported only when somebody asks for a formula.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Expr


@dataclass(frozen=True)
class Length:
    """How many positions of one sequence are kept: ceil(T / `tokens_each`), at most `limit`.

    `tokens_each=None`: always `limit`, whatever T is.
    """

    tokens_each: int | None = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.tokens_each is None and self.limit is None:
            raise ValueError("a length that does not depend on the tokens needs a limit")

    def of(self, num_tokens: int) -> int:
        """Positions kept of `num_tokens` tokens."""
        if self.tokens_each is None:
            return self.limit or 0
        count = -(-num_tokens // self.tokens_each)
        return count if self.limit is None else min(count, self.limit)


@dataclass(frozen=True)
class CacheTerm:
    """Bytes that grow in one way: `elements` for each position kept of each sequence.

    `element_bytes=None`: the cache's own e; a number for what keeps its type whatever the cache's is.
    """

    elements: int
    length: Length
    element_bytes: int | None = None

    def nbytes(self, batch: int, num_tokens: int, element_bytes: int) -> int:
        """Bytes of `batch` sequences of `num_tokens` tokens; exact."""
        return batch * self.elements * self.length.of(num_tokens) * (self.element_bytes or element_bytes)


def total_bytes(terms: Iterable[CacheTerm], batch: int, num_tokens: int, element_bytes: int) -> int:
    """Bytes of all terms; exact."""
    return sum(term.nbytes(batch, num_tokens, element_bytes) for term in terms)


def expression(terms: Iterable[CacheTerm], *, number_first: bool = False) -> "Expr":
    """The bytes as a sympy expression in the symbols B, T and e, which are positive integers.

    Like terms are joined and B*e is a common factor; what grows longest stands first. Nothing is evaluated beyond
    that, so that printers keep the order. `number_first` puts numbers before symbols, as print wants them.
    """
    from sympy import Add, Integer, Mul

    batch, _, element = _symbols()
    by_size: dict[int | None, dict[Length, int]] = {}
    for term in terms:
        lengths = by_size.setdefault(term.element_bytes, {})
        lengths[term.length] = lengths.get(term.length, 0) + term.elements
    parts = []
    for size, lengths in sorted(by_size.items(), key=lambda item: item[0] is not None):
        addends = _addends(lengths)
        inner = addends[0] if len(addends) == 1 else Add(*addends, evaluate=False)
        if size is not None:
            factors = [Integer(size), inner, batch] if number_first else [Integer(size), batch, inner]
        elif number_first and len(addends) == 1:
            coefficient, rest = inner.as_coeff_Mul()
            factors = [factor for factor in (coefficient, batch, element, rest) if factor != 1]
        else:
            factors = [batch, element, inner]
        parts.append(Mul(*factors, evaluate=False))
    if not parts:
        return Integer(0)
    return parts[0] if len(parts) == 1 else Add(*parts, evaluate=False)


def _symbols() -> "tuple[Expr, Expr, Expr]":
    from sympy import Symbol

    batch, tokens, element = (Symbol(name, integer=True, positive=True) for name in ("B", "T", "e"))
    return batch, tokens, element


def _addends(lengths: dict[Length, int]) -> "list[Expr]":
    """`elements * length` for each length, like ones joined, in the order of growth for long contexts."""
    from sympy import Integer

    joined: dict[Expr, tuple[tuple[float, float], int]] = {}
    for length, elements in lengths.items():
        symbol, growth = _length(length), _growth(length)
        if symbol.is_number:  # a constant number of positions
            symbol, growth, elements = Integer(1), (0.0, 0.0), elements * int(symbol)
        joined[symbol] = (growth, elements + joined.get(symbol, (growth, 0))[1])
    ordered = sorted(joined.items(), key=lambda item: (*item[1][0], item[1][1]), reverse=True)
    return [elements * symbol for symbol, (_, elements) in ordered]


def _length(length: Length) -> "Expr":
    from sympy import Integer, Min, ceiling

    if length.tokens_each is None:
        return Integer(length.limit or 0)
    if length.limit == 1:
        return Integer(1)  # there is at least one token
    positions = ceiling(_symbols()[1] / length.tokens_each)
    return positions if length.limit is None else Min(positions, length.limit, evaluate=False)


def _growth(length: Length) -> tuple[float, float]:
    """Larger for what grows further: without a limit first, then by the tokens after which it stands still."""
    if length.tokens_each is None:
        return 0.0, 0.0
    if length.limit is None:
        return float("inf"), 1 / length.tokens_each
    return float(length.limit * length.tokens_each), 1 / length.tokens_each


def text(terms: Iterable[CacheTerm]) -> str:
    """`B*e*(2048*T + 53248*min(T, 1024)) + 4*B*5111808`."""
    return _text(tuple(terms))


@lru_cache(maxsize=64)  # a page shows the formula of a model several times
def _text(terms: tuple[CacheTerm, ...]) -> str:
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):  # type: ignore[misc]
        def _print_Min(self, min_: "Expr") -> str:  # noqa: N802
            return f"min({', '.join(map(self._print, _limit_last(min_)))})"

        def _print_ceiling(self, ceiling: "Expr") -> str:
            return f"ceil({self._print(ceiling.args[0])})"

    return str(Printer({"order": "none"}).doprint(expression(terms)))


def latex(terms: Iterable[CacheTerm]) -> str:
    r"""`B e \left(2048 T + 53248 \min\left(T, 1024\right)\right) + 4 \cdot 5111808 B`."""
    from sympy.printing.latex import LatexPrinter

    class Printer(LatexPrinter):  # type: ignore[misc]
        def _print_Min(self, min_: "Expr", exp: object = None) -> str:  # noqa: N802
            return rf"\min\left({', '.join(map(self._print, _limit_last(min_)))}\right)"

        def _print_ceiling(self, ceiling: "Expr", exp: object = None) -> str:
            return rf"\left\lceil T / {self._print(1 / ceiling.args[0].as_coeff_Mul()[0])} \right\rceil"

    return str(Printer({"order": "none"}).doprint(expression(terms, number_first=True)))


def _limit_last(min_: "Expr") -> "list[Expr]":
    return sorted(min_.args, key=lambda argument: bool(argument.is_number))
