"""Reading a file that may be anything."""

from dataclasses import dataclass
from pathlib import Path

from archspec.diagnostics import Diagnostic
from archspec.source import Source, Span

MAX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class UnreadableFile(Diagnostic):
    """A file that cannot be read as a spec.

    What: the path is missing, a folder, not permitted, empty, larger than 1 MiB, or not UTF-8 text.
    """

    code = "E0020"
    problem: str

    def message(self) -> str:
        return self.problem


def read_source(path: Path) -> tuple[Source, Diagnostic | None]:
    """The text of a file, or why there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        return _unreadable(path, "is a folder, not a spec")
    except FileNotFoundError:
        return _unreadable(path, "no such file")
    except PermissionError:
        return _unreadable(path, "no permission to read this file")
    except (OSError, ValueError) as error:
        return _unreadable(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > MAX_BYTES:
        return _unreadable(path, f"larger than {MAX_BYTES >> 20} MiB: this is hardly a spec")
    if b"\0" in data:
        return _unreadable(path, "a binary file, not a spec")
    if not data.strip():
        return _unreadable(path, "the file is empty: a spec is `model NAME { ... }`")
    try:
        return Source(str(path), data.decode("utf-8-sig")), None
    except UnicodeDecodeError as error:
        return _unreadable(path, f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}")


def _unreadable(path: Path, problem: str) -> tuple[Source, Diagnostic]:
    source = Source(str(path), "")
    return source, UnreadableFile(span=Span(source, 0, 0), problem=problem)
