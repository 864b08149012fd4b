"""The buffers that an editor has open."""

from dataclasses import dataclass
from functools import cached_property

from lsprotocol import types
from pygls.uris import to_fs_path

from archspec.driver import Analysis, analyse_source
from archspec.files import source_of_text
from archspec.lsp.convert import Places
from archspec.lsp.places import View


@dataclass(frozen=True)
class Document:
    """One version of one buffer. Analysed at most once, when something is asked of it."""

    uri: str
    version: int | None
    text: str
    encoding: types.PositionEncodingKind

    @property
    def name(self) -> str:
        """The file's path, so that what it uses is looked for beside it; the URI of a buffer that has no file."""
        path = to_fs_path(self.uri) if self.uri.startswith("file:") else None
        return path or self.uri

    @cached_property
    def analysis(self) -> Analysis:
        """What is known of the buffer's text, whatever the file says."""
        source, problem = source_of_text(self.name, self.text)
        return Analysis(source, (problem,)) if problem is not None else analyse_source(source)

    @cached_property
    def view(self) -> View:
        return View(self.analysis)

    @cached_property
    def places(self) -> Places:
        return Places(self.uri, self.analysis.source, self.encoding)
