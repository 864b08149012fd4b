"""The buffers that an editor has open."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lsprotocol import types
from pygls.uris import to_fs_path

from archspec.driver import Analysis, analyse_source
from archspec.files import Reader, read_source, source_of_text
from archspec.lsp.convert import Places
from archspec.lsp.places import View


@dataclass(frozen=True)
class Document:
    """One version of one buffer. Analysed at most once, when something is asked of it."""

    uri: str
    version: int | None
    text: str
    encoding: types.PositionEncodingKind
    read: Reader = read_source
    """Where the files come from that it uses."""

    @property
    def uses_files(self) -> bool:
        """Whether what is found in it may depend on other files."""
        return '"' in self.text

    @property
    def path(self) -> str | None:
        """The file's path; None for a buffer that has no file."""
        return to_fs_path(self.uri) if self.uri.startswith("file:") else None

    @property
    def name(self) -> str:
        """The file's path, or the URI of a buffer that has no file."""
        return self.path or self.uri

    @cached_property
    def analysis(self) -> Analysis:
        """What is known of the buffer's text, whatever the file says."""
        folder = Path(self.path).parent if self.path else None  # what it uses is looked for beside it
        source, problem = source_of_text(self.name, self.text, folder)
        return Analysis(source, (problem,)) if problem is not None else analyse_source(source, read=self.read)

    @cached_property
    def view(self) -> View:
        return View(self.analysis, self.read)

    @cached_property
    def places(self) -> Places:
        return Places(self.uri, self.analysis.source, self.encoding)
