"""What a figure shows, independent of how it is rendered: runs of layers, stores, brackets, towers.

Items of a tower stand in the order in which they run. Indices (`*_idx`) point into the tuples of the same tower.
"""

from dataclasses import dataclass
from typing import Literal

Positions = Literal["all", "last", "one", "none"]
"""For which positions of a phase something is computed: every new one, the last of them, the only one, or none."""


@dataclass(frozen=True)
class Item:
    """A run of equal layers, or a write that stands alone: a projection, or K/V that others wait for."""

    kind: Literal["layers", "write"]
    layers: tuple[int, ...]
    """Numbers, from 1, of the layers of the first copy of a repeat; of a `write`, its writer."""
    word: str
    """What a spec calls the mixer: `attend`, `cross-attend`, `retention`; of a `write`, `K/V` or `projection`."""
    title: str
    """What a paper calls it: `Cross-attention`."""
    heads: str = ""
    window: str = ""
    notes: tuple[str, ...] = ()
    """Settings that other rows of the tower do not share."""
    writes_idx: int | None = None
    reads_idx: int | None = None
    early: bool = False
    """It reads what is written later in the stack, hence earlier tokens only."""
    positions: Positions = "all"
    runs: str = ""
    """For what the item runs in a phase: `all tokens`; set by `archspec.figures.phases`, as `positions` is."""

    @property
    def count(self) -> int:
        return len(self.layers)


@dataclass(frozen=True)
class Store:
    """A cache or a recurrent state, or as many of them as the run (and the repeat) that writes them has layers."""

    kind: Literal["cache", "state"]
    label: str
    """`cache@13`, `cache@1-15 step 2`."""
    name: str
    """The same, but in a repeat that of the first copy: `cache@1`."""
    holds: str
    size: str
    """`8 x 128` kv heads; `24 x 128 x 128` of a state."""
    keeps: str
    count: int
    """Slots, or states, of this one box."""
    slots: tuple[int, ...]
    """Indices into the plan's slots, or its states."""
    writer_idx: int
    readers: tuple[int, ...]
    """Items that read it; the writer among them if it attends to its own K/V."""

    @property
    def shared(self) -> bool:
        """Whether anything but the item that writes it reads it."""
        return any(reader != self.writer_idx for reader in self.readers)


@dataclass(frozen=True)
class Bracket:
    """Items `first` to `last`, both included, that are repeated (as layers) or iterated (as passes)."""

    kind: Literal["repeat", "iterate"]
    first: int
    last: int
    copies: int
    """Copies of a repeat; passes of an iteration."""
    text: str
    """`layers 1-30`; `7 forward + 2 backward passes`."""


@dataclass(frozen=True)
class Exit:
    """Items from `before` on run for the last position of a prompt only."""

    before: int
    after: str
    """What has been written by then: `cache@13`."""
    copies: int = 1
    """Where it stands inside of a repeat: copies of that; the exit is in the last one."""


@dataclass(frozen=True)
class Cell:
    """One position of an input or output strip."""

    kind: Literal["token", "context", "both", "dots", "gap"]


@dataclass(frozen=True)
class Strip:
    """Positions as a row of cells, with a caption."""

    cells: tuple[Cell, ...]
    caption: str


@dataclass(frozen=True)
class Tower:
    """One stack of layers, from its input to its output."""

    name: str
    """`` of the only one; else the level: `blocks`."""
    title: str
    unit: str
    """What a position is: `token`, `block`."""
    common: tuple[str, ...]
    """Settings of all its layers."""
    items: tuple[Item, ...]
    stores: tuple[Store, ...]
    brackets: tuple[Bracket, ...]
    exit: Exit | None
    bottom: str
    """What comes in: `embedding`."""
    top: str
    """What goes out: `norm, output matrix`."""
    inputs: Strip | None = None
    outputs: Strip | None = None


@dataclass(frozen=True)
class Door:
    """What passes from a tower to the next one, shifted by one block."""

    emits: str
    """`context of block k - 1`."""
    takes: str
    """`2 vectors before the tokens of block k`."""


@dataclass(frozen=True)
class Figure:
    """An architecture, or what one phase runs of it."""

    name: str
    facts: tuple[str, ...]
    formula: str
    towers: tuple[Tower, ...]
    doors: tuple[Door, ...] = ()
    """Between each tower and the next."""
    phase: Literal["", "prefill", "decode"] = ""
    notes: tuple[str, ...] = ()
    """Sentences on what a picture does not show."""
