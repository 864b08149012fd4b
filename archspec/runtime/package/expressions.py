"""Expressions in sizes, as nested lists of JSON: `["Add", "s0", ["Mul", 2, "s1"]]`. They are read without `eval`."""

import math
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

Tree = Any
"""A whole number, a symbol, or an operation and what it is applied to."""

OPERATIONS: dict[str, Callable[..., int]] = {
    "Add": lambda *terms: sum(terms),
    "Mul": lambda *factors: math.prod(factors),
    "Pow": operator.pow,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Max": max,
    "Min": min,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "Not": operator.not_,
    "And": lambda *parts: all(parts),
    "Or": lambda *parts: any(parts),
}
"""By the names of sympy's and torch's classes."""


def tree_of(expression: Any) -> Tree:
    """A sympy expression as a tree. Errors: ValueError for an operation that is not known."""
    if isinstance(expression, int):
        return expression
    if expression.is_Integer:
        return int(expression)
    if expression.is_Symbol:
        return str(expression)
    name = expression.func.__name__
    if name in ("BooleanTrue", "BooleanFalse"):
        return int(bool(expression))
    if name not in OPERATIONS:
        raise ValueError(f"no operation on sizes that could be kept: {expression}")
    return [name, *map(tree_of, expression.args)]


def value_of(tree: Tree, known: Mapping[str, int]) -> int:
    """Errors: KeyError for a symbol or an operation that is not known."""
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return known[tree]
    return OPERATIONS[tree[0]](*(value_of(part, known) for part in tree[1:]))


def symbols_of(tree: Tree) -> set[str]:
    if isinstance(tree, str):
        return {tree}
    return reduce(set.union, map(symbols_of, tree[1:]), set()) if isinstance(tree, list) else set()
