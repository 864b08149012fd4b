"""A checkpoint's config, read field by field: nothing in it is ignored unless a family says that it may be.

A reader collects what it cannot express, and `finish` refuses all of it at once. Fields that nobody read must be
harmless by name, or say nothing (null, false, 0, empty).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from archspec.convert.errors import CheckpointError, ImportRefused, Problem, shown
from archspec.spec.elaborate import MAX_LAYERS

CONFIG_FILES = ("config.json", "params.json")
"""Names that the families' own code writes; the first that exists counts. `params.json` is that of unilm."""
LARGEST = 1e300
"""Numbers above it are no settings."""
FEATURES = {
    "quantization_config": "quantized weights",
    "compression_config": "quantized weights",
    "num_nextn_predict_layers": "layers that predict further tokens",
    "adapter_config": "adapters",
}
"""What a field asks for that no family reads."""
_REQUIRED = object()


def words(text: str) -> frozenset[str]:
    """Names separated by spaces, as a set."""
    return frozenset(text.split())


def read_config(folder: Path) -> "Config":
    """The config of a checkpoint folder. Errors: CheckpointError."""
    if not folder.is_dir():
        problem = "is a file, not a checkpoint folder" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {problem}")
    found = [folder / name for name in CONFIG_FILES if (folder / name).exists()]
    if not found:
        raise CheckpointError(f"{folder}: no {' or '.join(CONFIG_FILES)}: this is not a checkpoint folder")
    path = found[0]
    try:
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return Config(fields, path)


class Config:
    """The fields of a config, those that were read, and the problems found so far.

    Errors: CheckpointError from every reader for a field that is missing, or has a value that no such field can have.
    """

    def __init__(self, fields: Mapping[str, object], path: Path) -> None:
        self.fields = fields
        self.path = path
        self.problems: list[Problem] = []
        self._read: set[str] = set()

    def get(self, name: str, default: object = None) -> object:
        """A field's value as it stands, null included; `default` if it is absent."""
        self._read.add(name)
        return self.fields.get(name, default)

    def count(self, name: str, default: object = _REQUIRED) -> int:
        """A whole number of at least 1; an absent or null field has the default."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.bad(name, "a whole number of at least 1", value)
        return value

    def optional_count(self, name: str, default: int | None = None) -> int | None:
        """Like `count`, but null means None; an absent field has the default."""
        return None if self.get(name, default) is None else self.count(name, default)

    def num_layers(self, name: str) -> int:
        """A number of layers, small enough to be looked at one by one."""
        value = self.count(name)
        if value > MAX_LAYERS:
            raise self.bad(name, f"at most {MAX_LAYERS}", value)
        return value

    def number(self, name: str, default: object = _REQUIRED) -> float:
        """A finite number above 0; an absent or null field has the default."""
        return self.checked_number(name, self._value(name, default))

    def optional_number(self, name: str, default: float | None = None) -> float | None:
        """Like `number`, but null means None; an absent field has the default."""
        return None if self.get(name, default) is None else self.number(name, default)

    def checked_number(self, name: str, value: object) -> float:
        """`value`, which stands in field `name`, as a finite number above 0."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
            raise self.bad(name, "a number above 0", value)
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; an absent or null field has the default."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false", value)
        return value

    def skip(self, *names: str) -> None:
        """These fields mean nothing here, whatever they say."""
        self._read.update(names)

    def filled(self, defaults: Mapping[str, object]) -> "Config":
        """The config with what the family takes for fields that are absent."""
        return Config({**defaults, **self.fields}, self.path)

    def changed(self, fields: Mapping[str, object]) -> "Config":
        """The config with other values."""
        return Config({**self.fields, **fields}, self.path)

    def part(self, name: str) -> "Config":
        """An object inside of the config; messages name the path to it."""
        value = self.get(name)
        if not isinstance(value, dict):
            raise self.bad(name, "an object", value)
        return Config(value, Path(f"{self.path}: {name}"))

    def must(self, name: str, feature: str, *allowed: object) -> None:
        """Refuse `feature` if the field is there with a value other than these."""
        value = self.get(name)
        if value is not None and value not in allowed:
            self.refuse(feature, name, value)

    def refuse(self, feature: str, name: str, value: object) -> None:
        """Note that the checkpoint needs `feature`."""
        self._read.add(name)
        self.problems.append(Problem(feature, name, value))

    def bad(self, name: str, rule: str, value: object) -> CheckpointError:
        """The error of a field with an impossible value."""
        return CheckpointError(f"{self.path}: `{name}` must be {rule}, not {shown(value)}")

    def finish(self, subject: str, harmless: Iterable[str]) -> None:
        """Errors: ImportRefused with all problems, and with every field that was not read and may mean something."""
        known = self._read | set(harmless)
        for name, value in self.fields.items():
            if name not in known and value not in (None, False, 0, "", [], {}):
                self.problems.append(Problem(FEATURES.get(name, "a field unknown to the importer"), name, value))
        if self.problems:
            raise ImportRefused(subject, tuple(self.problems))

    def _value(self, name: str, default: object) -> object:
        value = self.get(name)
        if value is None and default is _REQUIRED:
            raise CheckpointError(f"{self.path}: `{name}` is missing")
        return default if value is None else value
