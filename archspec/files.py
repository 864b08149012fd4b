"""Reading a file that may be anything, and writing files whole or not at all."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archspec.diagnostics import Diagnostic
from archspec.source import Source, Span

MAX_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
"""The mark that some editors put before UTF-8 text."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class UnreadableFile(Diagnostic):
    """A file that cannot be read as a spec.

    What: the path is missing, a folder, not permitted, empty, larger than 1 MiB, or not UTF-8 text.
    Why it is bad: there is nothing to check.
    Example: `archspec check model.safetensors`
    """

    code = "E0020"
    problem: str

    def message(self) -> str:
        return self.problem


Reader = Callable[[Path], tuple[Source, Diagnostic | None]]
"""Where the text of a file comes from: the file, or an editor that has it open."""


def read_source(path: Path) -> tuple[Source, Diagnostic | None]:
    """The text of a file, or why there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        return _unreadable(str(path), "a folder, not a spec")
    except FileNotFoundError:
        return _unreadable(str(path), "no such file")
    except PermissionError:
        return _unreadable(str(path), "no permission to read this file")
    except (OSError, ValueError) as error:
        return _unreadable(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}")
    return _decoded(str(path), data, path.parent)


def read_stdin() -> tuple[Source, Diagnostic | None]:
    """The same for standard input."""
    return _decoded("<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1))


def _decoded(name: str, data: bytes, folder: Path | None = None) -> tuple[Source, Diagnostic | None]:
    """Bytes as the text of a spec, or why they are none."""
    problem = _problem(data)
    if problem is not None:
        return _unreadable(name, problem)
    try:
        return Source(name, data.decode("utf-8-sig"), folder=folder), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _unreadable(name, f"not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}")


def source_of_text(name: str, text: str, folder: Path | None = None) -> tuple[Source, Diagnostic | None]:
    """The same judgement over a text that an editor holds, for a file in `folder`; offsets stay those of `text`."""
    source = Source(name, text, folder=folder)
    problem = _problem(text.encode("utf-8", "surrogatepass"))
    return (source, None) if problem is None else (source, UnreadableFile(span=Span(source, 0, 0), problem=problem))


def _problem(data: bytes) -> str | None:
    if data.startswith(_UTF16):
        return "UTF-16 text: save the file as UTF-8"
    if b"\0" in data:
        return "a binary file, not a spec"
    if len(data) > MAX_BYTES:
        return f"larger than {MAX_BYTES >> 20} MiB: this is hardly a spec"
    if not data.strip():
        return "the file is empty: a spec is `model NAME { ... }`"
    return None


def _unreadable(name: str, problem: str) -> tuple[Source, Diagnostic]:
    source = Source(name, "")
    return source, UnreadableFile(span=Span(source, 0, 0), problem=problem)


def write_text(path: Path, text: str, mark: bytes = b"") -> None:
    """Make or replace a file: write beside it, then rename. Its mode stays; a link stays a link. Raises OSError."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(mark + text.encode())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_files(folder: Path, writers: dict[str, Callable[[Path], object]]) -> None:
    """Let each writer fill a temporary file beside its target, then rename all of them."""
    written: dict[Path, Path] = {}
    try:
        for name, write in writers.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
            os.close(handle)
            written[folder / name] = Path(temporary)
            write(Path(temporary))
        for target, path in written.items():
            path.chmod(0o666 & ~_umask())
            os.replace(path, target)
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)


def replace_files(folder: Path, writers: dict[str, Callable[[Path], object]]) -> None:
    """As `write_files`; where several of the files are there, all change in one step, which a kill does not cut.

    That step exchanges the folder for one of hard links to its other files. It is not for folders that a file system is
    mounted at, or that this program stands in.
    """
    target = folder.resolve()
    several = sum((target / name).exists() for name in writers) > 1
    if not several or os.path.ismount(target) or Path.cwd().is_relative_to(target):
        write_files(folder, writers)
        return
    with replaced_folder(target) as fresh:
        shutil.copytree(target, fresh, copy_function=os.link, symlinks=True, dirs_exist_ok=True)
        write_files(fresh, writers)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill beside `folder`, which then takes its place with all that it holds, at once.

    Whoever looks at `folder`, or is killed, finds all of the old content or all of the new; what was there goes.
    """
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield fresh
        if not target.exists():
            settle(fresh, target)
            return
        _finish(fresh)
        if not _exchange(fresh, target):
            # Not at once, where the system has no exchange: between the two there is no folder, but the old one beside.
            aside = fresh.with_suffix(".old")
            target.rename(aside)
            fresh.rename(target)
            fresh = aside
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def settle(fresh: Path, target: Path) -> None:
    """Give a folder that is finished its name, which is free: whoever finds `target` finds all of it."""
    _finish(fresh)
    fresh.rename(target)


def _finish(folder: Path) -> None:
    folder.chmod(0o777 & ~_umask())
    for path in folder.rglob("*"):
        _to_disk(path)


def _to_disk(path: Path) -> None:
    """See that a file is on the disk before a name points to it."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _exchange(a: Path, b: Path) -> bool:
    """Let two paths change places in one step; False where the system or the file system cannot."""
    import ctypes  # which no check needs

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(a), os.fsencode(b)
    if hasattr(libc, "renameat2"):  # Linux, glibc 2.28
        at_cwd, exchange = -100, 2
        return bool(libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange) == 0)
    if hasattr(libc, "renamex_np"):  # macOS
        return bool(libc.renamex_np(*names, 2) == 0)
    return False


def _umask() -> int:
    """The process's mask, which mkstemp's private mode would otherwise hide."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
