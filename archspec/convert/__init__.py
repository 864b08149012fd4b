"""Importers: checkpoints of other projects -> specs and weights.

A family is one `Family` in a module of its kind: how to tell its configs, how to read one into a spec, and the names
of its tensors. `detect` lists them; `refused` lists the ones whose features the language lacks.
"""

from archspec.convert.errors import CheckpointError, ImportRefused, Problem
from archspec.convert.importing import Imported, import_checkpoint, load_checkpoint, write_imported

__all__ = [
    "CheckpointError",
    "ImportRefused",
    "Imported",
    "Problem",
    "import_checkpoint",
    "load_checkpoint",
    "write_imported",
]
