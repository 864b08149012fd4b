"""What a run found. Plain values, from which the table, the JSON, the plot and the page are made. No torch."""

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from archspec.bench.rounds import Spread, paired, spread
from archspec.bench.workloads import Role, Workload

VERSION = 1
"""Of the JSON form."""
_NOISE = re.compile(r"\((?:r|tm)\)|\b(?:cpu|processor|with)\b|@.*", re.IGNORECASE)


class Part(BaseModel):
    """Base of all parts: immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(Part):
    """Hardware and versions."""

    processor: str
    cores: int
    threads: int
    """Those that torch uses."""
    memory_bytes: int | None
    accelerator: str | None
    """The device that models run on, if it is not the processor."""
    system: str
    versions: dict[str, str]

    @property
    def hardware(self) -> str:
        """For people: what models run on."""
        return self.accelerator or f"{self.processor}, {self.cores} core{'s' * (self.cores > 1)}"

    @property
    def slug(self) -> str:
        """For file names: `amd-epyc-9r14-2-cores`."""
        return re.sub(r"[^a-z0-9]+", "-", _NOISE.sub("", self.hardware).lower()).strip("-")


class Line(Part):
    """One model at one workload."""

    workload: Workload
    what: str
    """The workload for people; `, cold` and `, warm` of the same one are two."""
    model: str
    batch: int
    rates: tuple[float, ...]
    """Tokens a second, of all sequences together, one number a round; of a first token one by its seconds."""
    tokens_per_second: Spread
    speed: Spread | None = None
    """Times the rate of the reference, round by round; None where that was not measured."""
    bandwidth_share: float | None = None
    """Of the measured read bandwidth: bytes that a step has to read, by its time."""
    bytes_per_step: int | None = None
    weight_bytes: int = 0
    cache_bytes: int = 0
    peak_bytes: int | None = None
    """Weights, caches and the most that was allocated beside them."""


class Left(Part):
    """One model that was not measured at one workload."""

    workload: Workload
    model: str
    why: str


class Measured(Part):
    """A model of a section."""

    name: str
    role: Role
    parameters: int


class Section(Part):
    """Models side by side, against one of them."""

    title: str
    reference: str
    models: tuple[Measured, ...]
    lines: tuple[Line, ...]
    left: tuple[Left, ...]

    def with_shares(self, bandwidth: float) -> "Section":
        """The section with every step's share of the bytes a second that can be read."""
        lines = tuple(line.model_copy(update={"bandwidth_share": _share(line, bandwidth)}) for line in self.lines)
        return self.model_copy(update={"lines": lines})


class Report(Part):
    """A whole run."""

    version: int = VERSION
    theme: str
    command: str
    date: str
    """ISO 8601."""
    seconds: float
    """That the run took."""
    machine: Machine
    read_bandwidth: dict[str, float]
    """Bytes a second, by number of threads or device."""
    rounds: int
    sections: tuple[Section, ...]


def with_speeds(lines: Sequence[Line], reference: str) -> tuple[Line, ...]:
    """The lines with their speed against the reference at the same workload."""
    rates = {line.what: line.rates for line in lines if line.model == reference}
    return tuple(line.model_copy(update={"speed": _speed(line.rates, rates.get(line.what))}) for line in lines)


def _speed(rates: tuple[float, ...], others: tuple[float, ...] | None) -> Spread | None:
    if others is None:
        return None
    if len(rates) == len(others):
        return paired(rates, others)
    # Measured one after the other, with another number of rounds: nothing to pair.
    middle = spread(others).median
    return spread([rate / middle for rate in rates])


def _share(line: Line, bandwidth: float) -> float | None:
    if line.bytes_per_step is None:
        return None
    return line.bytes_per_step * line.tokens_per_second.median / line.batch / bandwidth
