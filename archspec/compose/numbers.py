"""Numbers by name, and arithmetic over them.

Contract: every `let` is computed at most once, when it is first needed, whatever the order; each mistake is reported
once, and what depends on it has no value (None) and stays silent. No recursion over lets, however long their chain.
"""

from collections.abc import Iterator, Mapping

from archspec.compose import errors
from archspec.compose.findings import Findings
from archspec.syntax import tree

TOO_LARGE = 10**18


class Numbers:
    """The lets that a model, or a level of it, sees."""

    def __init__(self, lets: Mapping[str, tree.Let], findings: Findings, outer: "Numbers | None" = None) -> None:
        self.lets = lets
        self.findings = findings
        self.outer = outer
        """Those of the model around a level."""
        self.values: dict[str, int | None] = {}
        """Every name that was needed, with its value."""

    def value(self, expression: tree.Expression) -> int | None:
        """What an expression comes to. None if that cannot be said; the reason has been reported."""
        for name in _names(expression):
            self._need(name)
        return self._computed(expression)

    def _need(self, wanted: tree.Name) -> None:
        """Compute a name and all that it needs. Effects: fills `values` and `found`."""
        stack, opened = [wanted], dict[str, tree.Name]()
        while stack:
            name = stack[-1]
            if name.word in self.values:
                stack.pop()
                opened.pop(name.word, None)
                continue
            let = self.lets.get(name.word)
            if let is None:
                self.values[name.word] = self._elsewhere(name)
                continue
            if name.word in opened:  # all that it needs is known by now
                self.values[name.word] = self._computed(let.value)
                continue
            opened[name.word] = name
            for needed in _names(let.value):
                if needed.word in opened:
                    self._circular(needed, list(opened))
                elif needed.word not in self.values:
                    stack.append(needed)

    def _elsewhere(self, name: tree.Name) -> int | None:
        """The value of a name that is not defined here."""
        if self.outer is not None:
            return self.outer.value(name)
        if not self.findings.misses("let"):
            known = self.findings.shown(self.lets)
            self.findings.report(errors.UnknownNumber(span=name.span, word=name.word, known=known))
        return None

    def _circular(self, name: tree.Name, opened: list[str]) -> None:
        path = opened[opened.index(name.word) :]
        if any(word in self.values for word in path):
            return
        steps = tuple(self.lets[word].name.span for word in path)
        shown = tuple(f"`{word}`" for word in (*path, name.word))
        self.findings.report(errors.Circular(span=steps[0], what="number", path=shown, steps=steps[1:]))
        self.values.update(dict.fromkeys(path))

    def _computed(self, expression: tree.Expression) -> int | None:
        """The value of an expression whose names are known. Parentheses, and so the recursion, are not deep."""
        match expression:
            case tree.Number(value=value):
                return value
            case tree.Name(word=word):
                return self.values.get(word)  # not there: in a circle that has been reported
        total, *others = map(self._computed, expression.operands)
        for operator, operand in zip(expression.operators, others, strict=True):
            if total is None or operand is None:
                return None
            total = self._step(expression, total, operator, operand)
        return total

    def _step(self, expression: tree.Arithmetic, left: int, operator: str, right: int) -> int | None:
        problem, result = None, None
        match operator:
            case "+":
                result = left + right
            case "-":
                result = left - right
            case "*":
                result = left * right
            case _ if right == 0:
                problem = "divides by zero"
            case _ if left % right:
                problem = f"leaves a remainder: {left} / {right} is {left // right}, and {left % right} over"
            case _:
                result = left // right
        if result is not None and abs(result) >= TOO_LARGE:
            problem = "is a number of more than 18 digits"
        if problem is None:
            return result
        self.findings.report(errors.NoResult(span=expression.span, problem=problem))
        return None


def _names(expression: tree.Expression) -> Iterator[tree.Name]:
    """The names in an expression, from left to right."""
    match expression:
        case tree.Name():
            yield expression
        case tree.Arithmetic():
            for operand in expression.operands:
                yield from _names(operand)
