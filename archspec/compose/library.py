"""`use`: a file, the files that it uses, and what they define.

Contract: every file is read once, lies in the folder of the root file or below it, links resolved, and no more is read
than one file may hold. What cannot be used is reported at the `use`, in the file that says it.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from archspec.compose.errors import Circular, DefinedTwice
from archspec.compose.file_errors import CannotUse
from archspec.compose.findings import Findings
from archspec.diagnostics import Diagnostic
from archspec.files import Reader, read_source
from archspec.source import Source, Span
from archspec.syntax import tree
from archspec.syntax.limits import MAX_WORDS, BeyondLimits, count_words
from archspec.syntax.parser import parse_file

MAX_FILES = 100
_Named = TypeVar("_Named", tree.Let, tree.Define, tree.Model)


class _CannotUseError(Exception):
    """Why a file cannot be used, and what to do."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        self.problem, self.hint = problem, hint


@dataclass
class Library:
    """The definitions of a root file and of all files that it uses, by name."""

    findings: Findings
    lets: dict[str, tree.Let] = field(default_factory=dict)
    defines: dict[str, tree.Define] = field(default_factory=dict)
    models: dict[str, tree.Model] = field(default_factory=dict)
    used_by: dict[Source, Span] = field(default_factory=dict)
    """File -> the `use` through which it came in."""
    found: list[Diagnostic] = field(default_factory=list)
    """Syntax errors of the used files."""


def collect(source: Source, root: tree.File, findings: Findings, read: Reader = read_source) -> Library:
    """Read whatever the root file uses, and bring all names together."""
    library = Library(findings)
    reader = _Collector(library, source, read)
    reader.add(source, root)
    return library


class _Collector:
    """Follows `use` from file to file."""

    def __init__(self, library: Library, source: Source, read: Reader) -> None:
        self.library = library
        self.read = read
        self.findings = library.findings
        self.folder = source.folder
        self.done: set[Path] = set()
        self.words = count_words(source.text)
        self.opened: list[tuple[Path | None, str]] = [(_resolved(Path(source.name)), source.name)]
        """The files from the root to the one at hand."""

    def add(self, source: Source, file: tree.File) -> None:
        """Take the definitions of a file, after those of the files that it uses."""
        self.findings.lost |= file.lost
        for use in file.uses:
            try:
                self._use(use, source)
            except _CannotUseError as error:
                self.findings.lost.add("use")
                self.findings.report(CannotUse(span=use.span, path=use.path, problem=error.problem, hint=error.hint))
        self._take("number", file.lets, self.library.lets)
        self._take("template", file.defines, self.library.defines)
        self._take("model", file.models, self.library.models)

    def _use(self, use: tree.Use, source: Source) -> None:
        path = self._path(use, source)
        resolved = path.resolve()
        if any(resolved == opened for opened, _ in self.opened):
            self._circular(use, resolved)
            return
        if resolved in self.done:
            return
        if len(self.done) >= MAX_FILES:
            self.findings.report(BeyondLimits(span=use.span, what="files that one spec uses", limit=MAX_FILES))
            self.findings.lost.add("use")
            return
        self.done.add(resolved)
        read, problem = self.read(path)
        if problem is not None:
            raise _CannotUseError(problem.message())
        self.words += count_words(read.text)
        if self.words > MAX_WORDS:
            what = "words in a spec and the files that it uses"
            self.findings.report(BeyondLimits(span=use.span, what=what, limit=MAX_WORDS))
            self.findings.lost.add("use")
            return
        name = os.path.normpath(os.path.join(os.path.dirname(source.name), use.path))
        named = Source(name, read.text, folder=path.parent)
        self.library.used_by[named] = use.span
        file, found = parse_file(named)
        self.library.found += found
        self.opened.append((resolved, name))
        self.add(named, file)
        self.opened.pop()

    def _path(self, use: tree.Use, source: Source) -> Path:
        """The file that is meant. Raises _CannotUseError unless it is a file inside of the root's folder."""
        folder, root = source.folder, self.folder
        if folder is None or root is None:
            raise _CannotUseError("this text has no folder in which to look", "save it as a file")
        if not use.path.strip():
            raise _CannotUseError("no file is named")
        if Path(use.path).is_absolute() or use.path.startswith("~"):
            raise _CannotUseError("the path is absolute", "write it from the folder of this file on")
        if Path(use.path).suffix == ".json":
            raise _CannotUseError("a JSON spec defines nothing that could be used")
        path = folder / use.path
        resolved, limit = _resolved(path), _resolved(root)
        if resolved is None or limit is None:
            raise _CannotUseError("its links lead nowhere")
        if not resolved.is_relative_to(limit):
            hint = "put it beside the spec or below it"
            raise _CannotUseError("it is outside of the folder of the spec", hint)
        try:
            mode = resolved.stat().st_mode
        except OSError as error:
            raise _CannotUseError((error.strerror or str(error)).lower()) from error
        if not stat.S_ISREG(mode):
            raise _CannotUseError("a folder, not a file" if stat.S_ISDIR(mode) else "it is no regular file")
        return path

    def _circular(self, use: tree.Use, path: Path) -> None:
        start = next(idx for idx, (opened, _) in enumerate(self.opened) if opened == path)
        names = [name for _, name in self.opened[start:]]
        uses = {source.name: span for source, span in self.library.used_by.items()}
        steps = tuple(uses[name] for name in names[1:])
        shown = tuple(f"`{name}`" for name in (*names, names[0]))
        self.findings.report(Circular(span=use.span, what="file", path=shown, steps=steps))

    def _take(self, what: str, definitions: tuple[_Named, ...], known: dict[str, _Named]) -> None:
        for definition in definitions:
            word = str(definition.name.value)
            first = known.setdefault(word, definition)
            if first is not definition:
                span = definition.name.span
                self.findings.report(DefinedTwice(span=span, what=what, word=word, first=first.name.span))


def _resolved(path: Path) -> Path | None:
    """The path without links; None if it has none, such as a link to itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None
