"""What the models of the quality table read: the sources of Python's standard library, and examples of recall.

Examples of recall stand between blocks of text, one for each `TEXT_BLOCKS`. A model that never saw the task could not
learn it from text of this size, and what is compared is whether a layout of caches can answer at all.
"""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from archspec.evaluation import Document, MultiQuery
from archspec.files import replaced_folder
from archspec.quality.variants import CONTEXT
from archspec.training import Packed, pack
from archspec.training.data import FACTS_FILE, TOKENS_FILE

LEFT_OUT = frozenset(
    [
        "__phello__",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    ]
)
"""Folders of the library that are tests, tables, or programs of another kind."""
HELD_OUT = 0.08
TEXT_BLOCKS = 7
"""Rows of text for one of recall: an eighth of all rows are recall."""
VOCAB = 256
END = 0
"""The byte behind a document."""
TRAINED_PAIRS = (8, 16, 32, 64)
RECALL_SEED = 1


def library_files() -> list[Path]:
    """The sources of the running Python's standard library, by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def recall_task(pairs: int) -> MultiQuery:
    """Pairs at the beginning, each asked for once, as often far away as near; between questions stand zeros."""
    return MultiQuery(VOCAB, CONTEXT, pairs=pairs, power=1.0, noise=False)


def text_corpus(folder: Path) -> Packed:
    """The library as bytes. Effects: writes `folder`, once."""
    if not (folder / FACTS_FILE).is_file():
        pack(library_files(), folder, held_out=HELD_OUT)
    return Packed.open(folder)


def mixed_corpus(folder: Path, text: Packed) -> Packed:
    """Rows of text and of recall; what is held out is text alone. Effects: writes `folder`, once."""
    if not (folder / FACTS_FILE).is_file():
        train = _mixed(np.asarray(text.train))
        stream = np.concatenate([train, np.asarray(text.held_out)])
        facts = replace(
            text.facts,
            num_tokens=len(stream),
            num_train=len(train),
            digest=hashlib.sha256(stream.tobytes()).hexdigest(),
        )
        with replaced_folder(folder) as fresh:
            stream.tofile(fresh / TOKENS_FILE)
            (fresh / FACTS_FILE).write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")
    return Packed.open(folder)


def _mixed(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whole blocks of text, with an example behind every few, each in a block of its own."""
    groups = len(text) // (CONTEXT * TEXT_BLOCKS)
    blocks = text[: groups * CONTEXT * TEXT_BLOCKS].reshape(groups, TEXT_BLOCKS, CONTEXT)
    return np.concatenate([blocks, _examples(groups)[:, None]], axis=1).reshape(-1)


def _examples(count: int) -> NDArray[np.uint8]:
    generator = torch.Generator("cpu").manual_seed(RECALL_SEED)
    tasks = cycle([recall_task(pairs) for pairs in TRAINED_PAIRS])
    rows = [next(tasks).draw(1, generator).ids[0] for _ in range(count)]
    return torch.stack(rows).to(torch.uint8).numpy()


def held_out_documents(packed: Packed, most: int) -> Iterator[Document]:
    """The held-out documents until `most` bytes are full; the last one is cut there."""
    stream = np.asarray(packed.held_out)
    ends = np.flatnonzero(stream == END)
    begin = 0
    for number, end in enumerate(ends):
        ids = torch.from_numpy(stream[begin : min(end, begin + most)].astype(np.int32))
        yield Document(f"held out {number}", ids, torch.ones_like(ids), len(ids))
        begin, most = int(end) + 1, most - len(ids)
        if most <= 1:
            return
