"""Documents -> one stream of tokens in a file -> rows to train on, and rows held out.

Documents stand in the order of their digests, which depends on nothing but their text; the held-out part is the end of
the stream, whole documents as far as their lengths allow. Rows are cut from the stream as it is: they may begin and end
inside of documents, and a document may attend to the one before it ("packing" of GPT-2 and GPT-3).

Legend: N tokens of a row.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from archspec.files import replaced_folder
from archspec.training.sources import File, find_files, is_text, read_documents
from archspec.training.tokens import BYTES, Ids, Tokens, open_tokens

TOKENS_FILE, FACTS_FILE, RAW_FILE = "tokens.bin", "tokens.json", "unsorted.bin"
BATCH_CHARACTERS = 1 << 22
"""Characters that are tokenised at a time."""
DIGEST_BYTES = 8
"""Of a document: 64 bits."""


@dataclass(frozen=True)
class Facts:
    """What is known of a packed stream."""

    tokenizer: str
    num_ids: int
    dtype: str
    num_tokens: int
    num_train: int
    """The first tokens; those behind are held out."""
    num_documents: int
    num_repeated: int
    """Documents that are left out, since others have the same text."""
    num_skipped: int
    """Files in folders that are not UTF-8 text."""
    digest: str
    """SHA-256 of the stream."""
    given: list[str]
    """The files and folders that were asked for."""
    sources: list[list[Any]]
    """Path, bytes, time of change of every file."""
    held_out: float


@dataclass(frozen=True)
class Packed:
    """A stream of tokens on disk."""

    folder: Path
    facts: Facts

    @classmethod
    def open(cls, folder: str | Path) -> "Packed":
        """What `pack` wrote. Errors: ValueError, FileNotFoundError."""
        path = Path(folder)
        try:
            facts = Facts(**json.loads((path / FACTS_FILE).read_text("utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path / FACTS_FILE} does not describe packed tokens: {error}") from error
        size = (path / TOKENS_FILE).stat().st_size
        if size != facts.num_tokens * np.dtype(facts.dtype).itemsize:
            raise ValueError(f"{path / TOKENS_FILE} has {size} bytes, which are not {facts.num_tokens} tokens")
        return cls(path, facts)

    @property
    def train(self) -> Ids:
        """The tokens to train on, mapped, not read."""
        return self._all()[: self.facts.num_train]

    @property
    def held_out(self) -> Ids:
        """The tokens to evaluate on, mapped, not read."""
        return self._all()[self.facts.num_train :]

    def has_changed(self) -> bool:
        """Whether the files are no longer those that were packed."""
        try:
            return [list(file.stamp()) for file in find_files(self.facts.given)] != self.facts.sources
        except (OSError, ValueError):
            return True

    def _all(self) -> Ids:
        return np.memmap(self.folder / TOKENS_FILE, dtype=self.facts.dtype, mode="r")


class Rows:
    """Rows of a stream as a data set for torch: row i, {"input_ids": int64 (N,)}.

    `order_seed` None: in their order, spread over all of the stream where they are fewer. Otherwise shuffled anew for
    every pass over the stream, as many passes as `num_rows` takes; the same seed gives the same rows wherever one
    starts to read.
    """

    def __init__(
        self, stream: Ids, length: int, stride: int, num_rows: int | None = None, order_seed: int | None = None
    ) -> None:
        self.stream, self.length, self.stride = stream, length, stride
        self.num_places = max(0, 1 + (len(stream) - length) // stride) if len(stream) >= length else 0
        self.num_rows = self.num_places if num_rows is None else num_rows
        self.order_seed = order_seed
        self._pass: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        begin = self.place(index) * self.stride
        return {"input_ids": torch.from_numpy(self.stream[begin : begin + self.length].astype(np.int64))}

    def place(self, index: int) -> int:
        """Which row of the stream is row `index` of the data set."""
        if self.order_seed is None:
            return index * self.num_places // self.num_rows
        number, place = divmod(index, self.num_places)
        if self._pass is None or self._pass[0] != number:
            self._pass = number, np.random.default_rng([self.order_seed, number]).permutation(self.num_places)
        return int(self._pass[1][place])


def pack(
    paths: Iterable[str | Path], folder: str | Path, *, tokenizer: str | Tokens = BYTES, held_out: float = 0.05
) -> Packed:
    """Tokenise all documents and write the stream to `folder`, at once; `held_out` is a part of all tokens.

    Effects: replaces `folder`. Errors: ValueError and FileNotFoundError for what cannot be read, with the place.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"the held-out part is a fraction from 0 on and below 1, not {held_out}")
    given = [str(Path(path).resolve()) for path in paths]
    files = find_files(given)
    tokens = open_tokens(tokenizer) if isinstance(tokenizer, str) else tokenizer
    with replaced_folder(Path(folder)) as fresh:
        facts = _write(files, fresh, tokens, given, held_out)
        (fresh / FACTS_FILE).write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")
    return Packed.open(folder)


def _write(files: list[File], folder: Path, tokens: Tokens, given: list[str], held_out: float) -> Facts:
    texts = [file for file in files if file.named or is_text(file)]
    with (folder / RAW_FILE).open("wb") as raw:
        digests, lengths = _tokenise(texts, tokens, raw)
    if not lengths.size:
        raise ValueError(f"no text to train on: {len(files)} files, all of them empty or no UTF-8 text")
    _, first = np.unique(digests, return_index=True)  # in the order of digests; of equal documents the first
    ends = np.cumsum(lengths)
    unsorted = np.memmap(folder / RAW_FILE, dtype=tokens.dtype, mode="r")
    digest = hashlib.sha256()
    with (folder / TOKENS_FILE).open("wb") as out:
        for place in first:
            part = unsorted[ends[place] - lengths[place] : ends[place]].tobytes()
            digest.update(part)
            out.write(part)
    del unsorted
    (folder / RAW_FILE).unlink()
    kept = lengths[first]
    return Facts(
        tokenizer=tokens.name,
        num_ids=tokens.num_ids,
        dtype=tokens.dtype.name,
        num_tokens=int(kept.sum()),
        num_train=_cut(np.cumsum(kept), held_out),
        num_documents=int(first.size),
        num_repeated=int(lengths.size - first.size),
        num_skipped=len(files) - len(texts),
        digest=digest.hexdigest(),
        given=given,
        sources=[list(file.stamp()) for file in files],
        held_out=held_out,
    )


def _cut(ends: NDArray[np.int64], held_out: float) -> int:
    """Where the held-out part begins: at the end of a document, unless that would halve or double the part."""
    total = int(ends[-1])
    wanted = round(total * held_out)
    nearest = int(ends[np.abs(ends - (total - wanted)).argmin()])
    return nearest if wanted / 2 <= total - nearest <= 2 * wanted else total - wanted


def _tokenise(files: list[File], tokens: Tokens, out: BinaryIO) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Digest and length of every document, whose tokens are written one after the other."""
    digests: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int64]] = []
    for texts in _batches(files):
        found = tokens.encode(texts)
        for ids in found:
            out.write(ids.astype(tokens.dtype, copy=False).tobytes())
        digests.append(np.array([_digest(text) for text in texts], np.uint64))
        lengths.append(np.array([len(ids) for ids in found], np.int64))
    if not lengths:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(digests), np.concatenate(lengths)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")


def _batches(files: list[File]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for file in files:
        for text in read_documents(file):
            batch.append(text)
            size += len(text)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
