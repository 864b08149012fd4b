"""Importers: checkpoints of other projects -> specs and weights; and `convert`: one architecture -> another.

A family is one `Family` in a module of its kind: how to tell its configs, how to read one into a spec, and the names
of its tensors. `detect` lists them; `refused` lists the ones whose features the language lacks.
"""

from archspec.convert.converting import Converted, convert, write_converted
from archspec.convert.errors import CheckpointError, ImportRefused, Problem
from archspec.convert.importing import Imported, import_checkpoint, load_checkpoint, write_imported
from archspec.convert.matching import match
from archspec.convert.recipes import CannotMatch

__all__ = [
    "CannotMatch",
    "CheckpointError",
    "Converted",
    "ImportRefused",
    "Imported",
    "Problem",
    "convert",
    "import_checkpoint",
    "load_checkpoint",
    "match",
    "write_converted",
    "write_imported",
]
