"""The steps of a plan as a row of things that can be folded: layers with the K/V that they write, and lone writes."""

from dataclasses import dataclass
from typing import Literal

from archspec.figures.folding import Fold, Ref, Token
from archspec.figures.words import placeless, placeless_slot
from archspec.plan import AttentionPlan, Plan, RetentionPlan, Step


@dataclass(frozen=True)
class Thing:
    """One or two steps: a layer, with the write of its own K/V before it unless something stands between the two."""

    kind: Literal["layers", "write"]
    layer: int
    """Index of the layer; of a `write`, of its writer."""
    slot: int | None = None
    """The slot that it writes."""
    state: int | None = None
    """The state that it updates."""
    group: int | None = None
    """The iteration group that it is part of."""
    after_exit: bool = False


ExitMode = Literal["shown", "exact", "none"]
"""`shown` leaves the prefill exit out where all that it saves is the inside of the last layer, so that a stack of equal
layers is one row; `exact` keeps what runs before and behind it apart everywhere."""


class Row:
    """The things of a plan in execution order, and the same as tokens for `fold`."""

    def __init__(self, plan: Plan, exit_mode: ExitMode = "shown") -> None:
        self._plan, self._exact = plan, exit_mode == "exact"
        self._steps = _numbered(plan, exit_mode != "none")
        self._writes = {step.idx: place for place, (step, _, _) in enumerate(self._steps) if step.op == "write"}
        self._places = {step.idx: place for place, (step, _, _) in enumerate(self._steps) if step.op == "layer"}
        self._split: set[int] = set()
        """Layers whose own K/V stand apart from them."""
        self._barriers: set[int] = set()
        """Layers that are folded with no other."""
        last = self._exit_layer()
        if self._exact and last is not None:
            self._split.add(last)
        self._build()

    def reads(self, layer: int) -> tuple[Literal["cache", "state"], int] | None:
        """What a layer reads: a slot, or its own state."""
        match self._plan.layers[layer].mixer:
            case AttentionPlan() as mixer:
                return "cache", mixer.slot_idx
            case RetentionPlan() as mixer:
                return "state", mixer.state_idx
            case None:
                return None

    def reads_later(self, layer: int) -> bool:
        """Whether a layer reads a cache that is written after it has run."""
        read = self.reads(layer)
        return read is not None and read[0] == "cache" and self._writes[read[1]] > self._places[layer]

    def cut_for_exit(self, folds: list[Fold]) -> bool:
        """Split layers so that the exit stands between two things; whether there was a need to.

        Where the layer is part of a repeat, it is split in every copy, and the repeat stays one.
        """
        last = self._exit_layer()
        if last is None or last in self._split or last == len(self._plan.layers) - 1:
            return False
        place = next(idx for idx, thing in enumerate(self.things) if thing.kind == "layers" and thing.layer == last)
        start = 0
        for part in folds:
            period, end = part.period, start + part.period * part.copies
            if start <= place < end:
                alone = all(run.count == 1 for run in part.runs if run.start <= start + (place - start) % period)
                if part.copies > 1 and alone:
                    self._split |= {
                        self.things[at].layer for at in range(start + (place - start) % period, end, period)
                    }
                else:
                    self._split.add(last)
                    self._barriers.add(last)
            start = end
        self._build()
        return True

    def exit_place(self) -> int | None:
        """The first thing that runs for the last position only; None if the exit is inside of one, or behind all."""
        return next((place for place, thing in enumerate(self.things) if thing.after_exit), None)

    def last_write(self) -> str:
        """Name of what is written last, in front of the exit; nothing if nothing is."""
        done = [step for step, _, after in self._steps if not after]
        if not done:
            return ""
        last = done[-1]
        if last.op == "write":
            return self._plan.slots[last.idx].name
        return f"layer {last.idx + 1}"

    def _exit_layer(self) -> int | None:
        """The layer between whose own K/V and itself the exit stands, if it stands there."""
        for (one, _, before), (other, _, after) in zip(self._steps, self._steps[1:], strict=False):
            if not before and after and one.op == "write" and other.op == "layer":
                slot = self._plan.slots[one.idx]
                return None if slot.projected or slot.writer_idx != other.idx else other.idx
        return None

    def _build(self) -> None:
        self.things = self._things()
        self.tokens = self._tokens()

    def _things(self) -> list[Thing]:
        things: list[Thing] = []
        waiting: tuple[int, int | None] | None = None
        for step, group, after in self._steps:
            if step.op == "write":
                slot = self._plan.slots[step.idx]
                if (
                    not slot.projected
                    and slot.writer_idx not in self._split
                    and self._group_of(slot.writer_idx) == group
                ):
                    waiting = (step.idx, group)
                else:
                    things.append(Thing("write", slot.writer_idx, step.idx, group=group, after_exit=after))
                continue
            mixer = self._plan.layers[step.idx].mixer
            state = mixer.state_idx if isinstance(mixer, RetentionPlan) else None
            after = after and waiting is None
            things.append(Thing("layers", step.idx, waiting and waiting[0], state, group, after))
            waiting = None
        return things

    def _group_of(self, layer: int) -> int | None:
        return self._steps[self._places[layer]][1]

    def _tokens(self) -> list[Token]:
        slots: dict[int, list[int]] = {}
        groups: dict[int, list[int]] = {}
        for place, thing in enumerate(self.things):
            read = self.reads(thing.layer) if thing.kind == "layers" else None
            for idx in {thing.slot, read[1] if read and read[0] == "cache" else None} - {None}:
                slots.setdefault(idx, []).append(place)  # type: ignore[arg-type]
            if thing.group is not None:
                groups.setdefault(thing.group, []).append(place)
        return [self._token(thing, slots, groups) for thing in self.things]

    def _token(self, thing: Thing, slots: dict[int, list[int]], groups: dict[int, list[int]]) -> Token:
        refs = []
        layer = self._plan.layers[thing.layer]
        if thing.slot is not None:
            refs.append(Ref("write", thing.slot, slots[thing.slot][0], slots[thing.slot][-1]))
        if thing.kind == "layers" and isinstance(layer.mixer, AttentionPlan):
            idx = layer.mixer.slot_idx
            refs.append(Ref("read", idx, slots[idx][0], slots[idx][-1]))
        if thing.group is not None:
            refs.append(Ref("pass", thing.group, groups[thing.group][0], groups[thing.group][-1]))
        base = (
            thing.kind,
            placeless(layer) if thing.kind == "layers" else None,
            None if thing.slot is None else placeless_slot(self._plan.slots[thing.slot]),
            None if thing.group is None else self._passes(thing.group),
            self._exact and thing.after_exit,
            thing.layer if thing.layer in self._barriers else None,
        )
        return Token(base, tuple(refs))

    def _passes(self, group: int) -> tuple[int, int]:
        return self._plan.groups[group].forward, self._plan.groups[group].backward


def _numbered(plan: Plan, with_exit: bool) -> list[tuple[Step, int | None, bool]]:
    """Every write and layer in order, with its group and whether it stands behind the prefill exit."""
    steps: list[tuple[Step, int | None, bool]] = []
    for place, step in enumerate(plan.body):
        after = with_exit and place >= plan.exit_idx
        if step.op == "iterate":
            steps += [(inner, step.idx, after) for inner in plan.groups[step.idx].steps]
        else:
            steps.append((step, None, after))
    return steps
