"""Why a checkpoint is not imported: it is broken, or it needs what the language does not have."""

import json
from dataclasses import dataclass

SHOWN = 100
"""Characters of a field's value that a message quotes."""


class CheckpointError(ValueError):
    """A folder that is not a whole checkpoint: files missing or unreadable, fields or tensors that do not fit."""


def shown(value: object) -> str:
    """A field's value as JSON, cut if it is long."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


@dataclass(frozen=True)
class Problem:
    """A feature that the language or the importer lacks, and the config field that asks for it.

    `field` is empty where no single one does.
    """

    feature: str
    field: str
    value: object

    def __str__(self) -> str:
        if not self.field:
            return self.feature
        return f"{self.feature} (field `{self.field}` is {shown(self.value)})"


class ImportRefused(ValueError):  # noqa: N818
    """A checkpoint that a spec cannot express; `problems` has every reason."""

    def __init__(self, subject: str, problems: tuple[Problem, ...]) -> None:
        lines = [str(problem) for problem in problems]
        text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)
        super().__init__(f"cannot import {subject}; not supported:{text}")
        self.problems = problems
