"""Files, folders and jsonl -> documents."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LONGEST = 16 << 20
"""Bytes; longer files are cut at line ends into several documents."""
JSON_LINES = (".jsonl", ".ndjson")
TEXT = "text"
"""The field of a line of jsonl that is its text."""


@dataclass(frozen=True)
class File:
    """A file to read."""

    path: Path
    named: bool
    """It was asked for by its own name, so that it may not be passed over."""

    def stamp(self) -> tuple[str, int, int]:
        """What changes with its content: path, bytes, time of the last change in ns."""
        found = self.path.stat()
        return str(self.path.resolve()), found.st_size, found.st_mtime_ns


def find_files(paths: Iterable[str | Path]) -> list[File]:
    """The files of all paths, those of a folder by their names; what begins with a dot is passed over.

    Errors: FileNotFoundError; ValueError if there are none.
    """
    given = [Path(path) for path in paths]
    found: dict[Path, File] = {}
    for path in given:
        if path.is_dir():
            for inner in _walk(path):
                found.setdefault(inner.resolve(), File(inner, named=False))
        elif path.is_file():
            found.setdefault(path.resolve(), File(path, named=True))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder to train on")
    if not found:
        raise ValueError(f"no files to train on in {', '.join(map(str, given)) or 'no paths at all'}")
    return list(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            if not name.startswith(".") and path.is_file():
                yield path


def read_documents(file: File) -> Iterator[str]:
    """The documents of a file: its lines' texts if it is jsonl, else all of it; none that is empty.

    Errors: ValueError with the place for what is no UTF-8 text, and for lines that are not JSON with a text.
    """
    with file.path.open("rb") as opened:
        if file.path.suffix.lower() in JSON_LINES:
            yield from _lines(file.path, opened)
        else:
            yield from _pieces(file.path, opened)


def is_text(file: File) -> bool:
    """Whether a file's beginning is UTF-8 text; what stands in a folder besides text is no document."""
    with file.path.open("rb") as opened:
        head = opened.read(1 << 16)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return False
    return b"\0" not in head


def _pieces(path: Path, opened: BinaryIO) -> Iterator[str]:
    rest, line = b"", 1
    while data := opened.read(LONGEST):
        rest += data
        if len(rest) < LONGEST:
            continue
        # Without a line end the cut is before the last character, which may not be all there.
        end = rest.rfind(b"\n") + 1 or _last_start(rest)
        if not end:
            continue
        yield _decoded(path, line, rest[:end])
        line += rest.count(b"\n", 0, end)
        rest = rest[end:]
    if rest:
        yield _decoded(path, line, rest)


def _last_start(data: bytes) -> int:
    """Where the last character of UTF-8 text begins."""
    place = len(data) - 1
    while place > len(data) - 4 and data[place] & 0xC0 == 0x80:
        place -= 1
    return place


def _lines(path: Path, opened: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(opened, 1):
        if not line.strip():
            continue
        text = _decoded(path, number, line)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
        document = found.get(TEXT) if isinstance(found, dict) else found
        if not isinstance(document, str):
            raise ValueError(f'{path}:{number}: a line is `{{"{TEXT}": "..."}}` or a string')
        try:
            document.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}:{number}: not text: {error.reason}") from error
        if document:
            yield document


def _decoded(path: Path, line: int, data: bytes) -> str:
    if (place := data.find(b"\0")) >= 0:
        line += data.count(b"\n", 0, place)
        raise ValueError(f"{path}:{line}: not text: byte 0x00")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}: not UTF-8 text: byte 0x{data[error.start]:02x}") from error
