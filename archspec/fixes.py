"""Applying the edits that diagnostics propose: `archspec check --fix` and `--diff`.

Contract: only safe edits (`Help.safe`) are applied, only to the file that they stand in, and a file is written whole or
not at all. What is left untouched keeps its bytes: comments, line ends, byte order mark.
"""

import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path

from archspec.diagnostics import Diagnostic, Edit
from archspec.driver import Analysis, analyse, analyse_source
from archspec.files import BOM, read_source, write_text
from archspec.source import Source

MAX_ROUNDS = 20
"""Mending one mistake may uncover another; after so many rounds the rest is left to the reader."""


@dataclass(frozen=True)
class Fixed:
    """A file before and after its safe edits."""

    path: Path
    before: str
    after: str
    count: int
    """Findings whose edits were applied."""
    analysis: Analysis
    """Of the text after them."""

    @property
    def changed(self) -> bool:
        return self.after != self.before

    def diff(self) -> str:
        """A unified diff; empty if nothing changed."""
        lines = unified_diff(_lines(self.before), _lines(self.after), str(self.path), f"{self.path} (fixed)")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Put the new text in the file's place, if there is any change. Raises OSError."""
        if self.changed:
            mark = BOM if self.path.read_bytes().startswith(BOM) else b""
            write_text(self.path, self.after, mark)


def fix(path: Path) -> Fixed:
    """What the safe edits make of a file; nothing is written. Never raises for a bad file."""
    analysis = analyse(path)
    source, problem = read_source(path)
    if problem is not None or source.text != analysis.source.text or path.suffix == ".json":
        return Fixed(path, source.text, source.text, 0, analysis)
    text, count = source.text, 0
    for _ in range(MAX_ROUNDS):
        text, applied = apply_safe(analysis)
        if not applied:
            break
        count += applied
        analysis = analyse_source(replace(source, text=text))
    return Fixed(path, source.text, text, count, analysis)


def apply_safe(analysis: Analysis) -> tuple[str, int]:
    """The text after one round of safe edits, and of how many findings. Where two overlap, the first counts."""
    taken: list[Edit] = []
    count = 0
    for diagnostic in analysis.diagnostics:
        edits = safe_edits(diagnostic, analysis.source)
        if edits and all(_is_free(taken, edit) for edit in edits):
            for edit in edits:
                insort(taken, edit, key=_place)
            count += 1
    return apply(analysis.source, taken), count


def safe_edits(diagnostic: Diagnostic, source: Source) -> tuple[Edit, ...]:
    """The edits of the first safe help; none unless all of them stand in this source."""
    for help_ in diagnostic.helps():
        if help_.safe and help_.edits:
            return help_.edits if all(edit.span.source is source for edit in help_.edits) else ()
    return ()


def apply(source: Source, edits: Iterable[Edit]) -> str:
    """The text with edits that do not overlap. New lines end as those of the file do."""
    newline = "\r\n" if "\r\n" in source.text else "\n"
    return "".join(_pieces(source.text, sorted(edits, key=_place), newline))


def _pieces(text: str, edits: list[Edit], newline: str) -> Iterator[str]:
    end = 0
    for edit in edits:
        yield text[end : edit.span.start]
        yield edit.text.replace("\n", newline)
        end = edit.span.end
    yield text[end:]


def _is_free(taken: list[Edit], edit: Edit) -> bool:
    """Whether an edit touches none of those that are taken (in order), and does not insert where one begins."""
    idx = bisect_right(taken, _place(edit), key=_place)
    before, behind = taken[max(idx - 1, 0) : idx], taken[idx : idx + 1]
    return all(other.span.end <= edit.span.start != other.span.start for other in before) and all(
        edit.span.end <= other.span.start != edit.span.start for other in behind
    )


def _place(edit: Edit) -> tuple[int, int]:
    return edit.span.start, edit.span.end


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
