"""What the models of the quality table read: the sources of Python's standard library, and examples of recall.

Examples of recall stand between blocks of text, one in `RECALL_SHARE` rows: a model that never saw the task could not
learn it from text of this size, and what is compared is whether a layout of caches can answer at all.
"""

import hashlib
import sysconfig
from dataclasses import replace
from pathlib import Path

from archspec.training import Packed, pack

LEFT_OUT = frozenset(
    "__phello__ encodings ensurepip idlelib lib2to3 pydoc_data site-packages test tests turtledemo".split()
)
"""Folders of the library that are tests, tables, or programs of another kind."""
HELD_OUT = 0.08


def library_files() -> list[Path]:
    """The sources of the running Python's standard library, by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def text_corpus(folder: Path) -> Packed:
    """The library as bytes, made once. Effects: writes `folder`."""
    if not (folder / "tokens.json").is_file():
        pack(library_files(), folder, held_out=HELD_OUT)
    return Packed.open(folder)
