"""What composition has found, and what it may have missed."""

from collections.abc import Collection

from archspec.diagnostics import Diagnostic

MAX_FINDINGS = 100
"""As many mistakes of composition are reported; a file with more of them is no file that somebody wrote."""
_MAX_SHOWN = 200


class Findings:
    """Diagnostics in the order in which they were found, each once."""

    def __init__(self) -> None:
        self.found: dict[Diagnostic, None] = {}
        self.lost: set[str] = set()
        """Kinds of definitions (`let`, `define`, `use`, `any`) of which one could not be read."""

    def report(self, diagnostic: Diagnostic) -> None:
        if len(self.found) < MAX_FINDINGS:
            self.found[diagnostic] = None

    def misses(self, kind: str) -> bool:
        """Whether a definition of this kind may be missing only because it, or its file, could not be read."""
        return not self.lost.isdisjoint((kind, "use", "any"))

    @staticmethod
    def shown(names: Collection[str]) -> tuple[str, ...]:
        """Names to choose from, for a message; none if nobody could choose."""
        return tuple(sorted(names)) if len(names) <= _MAX_SHOWN else ()
