"""Texts as token ids, each with the bytes of text that it stands for, so that models of any vocabulary compare."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

BYTE_VOCAB = 256
TOKENIZER_FILE = "tokenizer.json"
LINES = ".jsonl"


@dataclass(frozen=True)
class Document:
    """A text that is predicted from its own beginning alone."""

    name: str
    ids: Tensor
    """(T,), int32."""
    num_bytes: Tensor
    """Bytes of UTF-8 that each token adds, (T,), int32; their sum is the size of the text."""
    size: int
    """Bytes that were read for it: what progress is measured by."""


class Encoder(Protocol):
    """Text -> tokens."""

    name: str
    prefix: tuple[int, ...]
    """What stands before every text."""

    def encode(self, data: bytes) -> tuple[Tensor, Tensor]:
        """Ids and bytes of each, (T,) int32 both, the prefix included. Errors: ValueError."""

    def plain(self, text: str) -> list[int]:
        """Ids of a part of a text: without prefix."""


class ByteEncoder:
    """One token a byte."""

    name = "bytes"
    prefix: tuple[int, ...] = ()

    def encode(self, data: bytes) -> tuple[Tensor, Tensor]:
        ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(torch.int32) if data else torch.empty(0)
        return ids.to(torch.int32), torch.ones(len(data), dtype=torch.int32)

    def plain(self, text: str) -> list[int]:
        return list(text.encode())


class FileEncoder:
    """A `tokenizer.json` of Hugging Face's tokenizers. What it puts behind a text is left out.

    Errors: ValueError for a file that is none, ModuleNotFoundError without tokenizers.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self.tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.name = str(path)
        empty = self.tokenizer.encode("a")
        self.prefix = tuple(empty.ids[: _leading(empty.special_tokens_mask)])

    def encode(self, data: bytes) -> tuple[Tensor, Tensor]:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ValueError(f"not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}") from error
        found = self.tokenizer.encode(text)
        kept = len(found.ids) - _leading(found.special_tokens_mask[::-1])
        ends = [end for _, end in found.offsets[:kept]]
        return torch.tensor(found.ids[:kept], dtype=torch.int32), token_bytes(text, ends)

    def plain(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _leading(marks: Sequence[int]) -> int:
    """How many marks at the beginning are set."""
    return next((idx for idx, mark in enumerate(marks) if not mark), len(marks))


def token_bytes(text: str, ends: Sequence[int]) -> Tensor:
    """Bytes that each token adds, given the character behind it: up to the furthest end so far.

    Of tokens that share a character the first has its bytes; what no token covers (dropped blanks) counts for the next
    one, and at the end for the last, so that the sum is the size of the text whatever the tokenizer does.
    """
    if not ends:
        return torch.empty(0, dtype=torch.int32)
    sizes = torch.tensor([0, *(len(char.encode("utf-8", "surrogatepass")) for char in text)], dtype=torch.int64)
    if text.isascii():
        sizes[1:] = 1
    behind = sizes.cumsum(0)[torch.tensor(ends)].cummax(0).values
    behind[-1] = int(sizes.sum())
    return torch.diff(behind, prepend=behind.new_zeros(1)).to(torch.int32)


def encoder_of(folder: Path, vocab_size: int, tokenizer: str | None = None) -> Encoder:
    """How a model folder reads text: by its tokenizer; without one, as bytes. `tokenizer`: `bytes`, a folder or a file.

    Errors: ValueError where neither fits, or the tokenizer has ids that the model has not.
    """
    if tokenizer is None and not (folder / TOKENIZER_FILE).is_file():
        others = [name for name in ("tokenizer.model", "vocab.json") if (folder / name).is_file()]
        if others:
            raise ValueError(
                f"{folder} has {others[0]} but no {TOKENIZER_FILE}: save it with "
                "`AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`, or say `--tokenizer bytes`"
            )
        tokenizer = "bytes"
    if tokenizer == "bytes":
        if vocab_size < BYTE_VOCAB:
            raise ValueError(
                f"{folder} has no {TOKENIZER_FILE}, and its vocabulary of {vocab_size} is smaller than the "
                f"{BYTE_VOCAB} that bytes need: texts cannot be read"
            )
        return ByteEncoder()
    path = folder if tokenizer is None else Path(tokenizer)
    path = path / TOKENIZER_FILE if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}")
    return FileEncoder(path)


def text_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and all that are in folders and not hidden, by name.

    Errors: FileNotFoundError for a path that is not there, ValueError for a folder without files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
            if not files:
                raise ValueError(f"{path} holds no files")
            found += files
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"no file or folder at {path}")
    return found


def read_documents(paths: Iterable[str | Path], encoder: Encoder) -> Iterator[Document]:
    """The documents of files and folders, one at a time: a file is one, or with `.jsonl` the `text` of every line.

    Errors: as of `text_files`; ValueError with the file's name, and the line, for what is no text.
    """
    for path in text_files(map(Path, paths)):
        for name, data, size in _parts(path):
            try:
                ids, num_bytes = encoder.encode(data)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            yield Document(name, ids, num_bytes, size)


def _parts(path: Path) -> Iterator[tuple[str, bytes, int]]:
    if path.suffix != LINES:
        data = path.read_bytes()
        yield str(path), data, len(data)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name = f"{path}, line {number}"
            try:
                text = json.loads(line)["text"].encode("utf-8")
            except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f'{name}: not of the form {{"text": "..."}}') from error
            yield name, text, len(line)
