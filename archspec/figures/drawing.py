"""Plan -> figure: one tower a level, its layers folded into runs and repeats.

Source of the figures' form: YOCO, arXiv 2405.05254, figure 2; LCKV, arXiv 2405.10637, figure 1; Block Transformer,
arXiv 2406.02657, figure 1.
"""

from collections.abc import Iterable
from dataclasses import replace

from archspec.describe import exit_text, keeps_text, names_at, parameters_text
from archspec.figures.folding import Fold, fold
from archspec.figures.model import Bracket, Cell, Door, Exit, Figure, Item, Store, Strip, Tower
from archspec.figures.tokens import ExitMode, Row, Thing
from archspec.figures.words import heads_text, mixer_title, mixer_word, traits, window_text
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import CacheSlot, Plan, StateSlot

MOST_CELLS = 8
"""Tokens of a block that are drawn one by one."""


def figure_of(plan: AnyPlan, exit_mode: ExitMode = "shown") -> Figure:
    """The figure of a plan, with its prefill exit."""
    facts = [f"vocab {plan.vocab_size:,}", parameters_text(plan)]
    notes = tuple(exit_text(plan).splitlines())
    if isinstance(plan, LevelsPlan):
        facts.insert(0, f"blocks of {plan.block_length} tokens")
        towers, doors = _levels(plan, exit_mode)
        return Figure(plan.name, tuple(facts), plan.cache_formula(), towers, doors, notes=notes)
    facts.insert(0, f"{len(plan.layers)} layers, width {plan.hidden_size:,}")
    bottom = "embedding" if plan.embed_scale == 1 else f"embedding, times {plan.embed_scale:.4g}"
    if plan.positions is not None:
        bottom += f", learned positions for {plan.positions.count:,} tokens"
    tower = tower_of(plan, bottom=bottom, top=_head(plan), exit_mode=exit_mode)
    return Figure(plan.name, tuple(facts), plan.cache_formula(), (tower,), notes=notes)


def _head(plan: Plan) -> str:
    norm = "" if plan.final_norm.kind == "none" else "norm, "
    return f"{norm}{'tied ' if plan.tied_embeddings else ''}output matrix"


def _levels(plan: LevelsPlan, exit_mode: ExitMode) -> tuple[tuple[Tower, ...], tuple[Door, ...]]:
    """The towers of two levels, and the door between them."""
    length, count = plan.block_length, plan.num_context
    lookup = f"{length} rows of {plan.lookup.size}, {'concatenated' if plan.lookup.merge == 'concat' else 'added'}"
    block = cells("token", length)
    gap = Cell("gap")
    if plan.take == "prefix":
        takes = f"{count} vector{'s' if count > 1 else ''} before the tokens"
        inputs = (*cells("context", count), *cells("token", length - 1))
        caption = f"context, tokens 1-{length - 1}" if length > 1 else "context"
    else:
        takes = f"{count} vector{'s' if count > 1 else ''}, one added to each token"
        inputs, caption = cells("both", length), "context + token before"
    level = f"{len(plan.blocks.layers)} layers, width {plan.blocks.hidden_size:,}"
    blocks = tower_of(
        plan.blocks,
        name="blocks",
        title=f"blocks of {length} tokens: {level}",
        unit="block",
        bottom=f"block embedding: {lookup}",
        top="norm" if plan.blocks.final_norm.kind != "none" else "output",
        inputs=Strip((Cell("dots"), gap, *block, gap, *block), "blocks up to k - 1"),
        outputs=Strip(cells("context", 1), "context for block k"),
        exit_mode=exit_mode,
    )
    tokens = tower_of(
        plan.tokens,
        name="tokens",
        title=f"tokens in a block: {len(plan.tokens.layers)} layers, width {plan.tokens.hidden_size:,}",
        bottom=f"linear, {takes}",
        top=_head(plan.tokens),
        inputs=Strip(tuple(inputs), caption),
        outputs=Strip(block, f"block k: tokens 1-{length}" if length > 1 else "block k"),
        exit_mode="none" if exit_mode == "shown" else exit_mode,  # a prompt has no part in it but its last block
    )
    return (blocks, tokens), (Door("context of block k - 1", "shifted by one block"),)


def cells(kind: str, count: int) -> tuple[Cell, ...]:
    """Equal cells; of many, some are left out."""
    assert kind in ("token", "context", "both")
    if count <= MOST_CELLS:
        return (Cell(kind),) * count  # type: ignore[arg-type]
    return (*(Cell(kind),) * (MOST_CELLS - 2), Cell("dots"), Cell(kind))  # type: ignore[arg-type]


def tower_of(
    plan: Plan,
    *,
    bottom: str,
    top: str,
    name: str = "",
    title: str = "",
    unit: str = "token",
    inputs: Strip | None = None,
    outputs: Strip | None = None,
    exit_mode: ExitMode = "shown",
) -> Tower:
    """One stack as a tower."""
    row = Row(plan, exit_mode)
    folds = fold(row.tokens)
    if row.cut_for_exit(folds):
        folds = fold(row.tokens)
    builder = _Builder(plan, row, folds)
    return Tower(
        name=name,
        title=title,
        unit=unit,
        common=builder.common,
        items=tuple(builder.items),
        stores=tuple(builder.stores),
        brackets=tuple(builder.brackets),
        exit=builder.exit(),
        bottom=bottom,
        top=top,
        inputs=inputs,
        outputs=outputs,
    )


class _Builder:
    """Items, stores and brackets of one tower, from the folded row of its steps."""

    def __init__(self, plan: Plan, row: Row, folds: list[Fold]) -> None:
        self.plan, self.row = plan, row
        self.items: list[Item] = []
        self.stores: list[Store] = []
        self.brackets: list[Bracket] = []
        self.places: list[int] = []
        """Item -> place in the row of the first thing that it stands for."""
        self.copies: list[int] = []
        """Item -> copies of the repeat that it stands in."""
        self._store_of: dict[tuple[str, int], int] = {}
        self._traits = {layer.idx: traits(plan, layer) for layer in plan.layers}
        shared = _shared(self._traits.values())
        self._own_traits = [key for key in _keys(self._traits.values()) if key not in shared]
        self.common = tuple(text for text in shared.values() if text)
        for part in folds:
            self._add(part)
        self._connect()
        self._iterations()

    def _add(self, part: Fold) -> None:
        first = len(self.items)
        for run in part.runs:
            things = [self.row.things[place] for place in range(run.start, run.start + run.count)]
            place = len(self.items)
            all_things = [
                self.row.things[run.start + copy * part.period + number]
                for copy in range(part.copies)
                for number in range(run.count)
            ]
            self.places.append(run.start)
            self.copies.append(part.copies)
            self.items.append(self._item(things))
            self._add_store(place, all_things, part.copies)
        if part.copies > 1:
            numbers = [self.row.things[part.runs[0].start].layer + 1]
            numbers.append(self.row.things[part.runs[0].start + part.copies * part.period - 1].layer + 1)
            text = f"layers {numbers[0]}-{numbers[1]}"
            self.brackets.append(Bracket("repeat", first, len(self.items) - 1, part.copies, text))

    def _item(self, things: list[Thing]) -> Item:
        thing = things[0]
        numbers = tuple(each.layer + 1 for each in things)
        if thing.kind == "write":
            assert thing.slot is not None
            projected = self.plan.slots[thing.slot].projected
            word = "projection" if projected else "K/V"
            return Item("write", numbers, word, "K/V projection" if projected else f"K/V of layer {thing.layer + 1}")
        layer = self.plan.layers[thing.layer]
        own = self._traits[thing.layer]
        return Item(
            "layers",
            numbers,
            mixer_word(layer),
            mixer_title(layer),
            heads_text(layer),
            window_text(layer),
            tuple(text for key in self._own_traits if (text := own.get(key, ""))),
            early=self.row.reads_later(thing.layer),
        )

    def _add_store(self, place: int, things: list[Thing], copies: int) -> None:
        """The store that an item writes, if it writes one."""
        slots = [thing.slot for thing in things if thing.slot is not None]
        states = [thing.state for thing in things if thing.state is not None]
        if slots:
            store = _cache_store([self.plan.slots[idx] for idx in slots], copies, place)
        elif states:
            store = _state_store([self.plan.states[idx] for idx in states], copies, place)
        else:
            return
        for idx in store.slots:
            self._store_of[store.kind, idx] = len(self.stores)
        self.items[place] = replace(self.items[place], writes_idx=len(self.stores))
        self.stores.append(store)

    def _connect(self) -> None:
        """Who reads what."""
        for place, item in enumerate(self.items):
            thing = self.row.things[self.places[place]]
            read = None if item.kind == "write" else self.row.reads(thing.layer)
            if read is None:
                continue
            store_idx = self._store_of[read]
            self.items[place] = replace(item, reads_idx=store_idx)
            store = self.stores[store_idx]
            self.stores[store_idx] = replace(store, readers=(*store.readers, place))

    def _iterations(self) -> None:
        for group in self.plan.groups:
            inside = [place for place, start in enumerate(self.places) if self.row.things[start].group == group.idx]
            if inside:
                text = f"{group.forward} forward + {group.backward} backward passes"
                self.brackets.append(Bracket("iterate", inside[0], inside[-1], group.num_passes, text))

    def exit(self) -> Exit | None:
        """Before the first item that runs for the last position only."""
        place = self.row.exit_place()
        if place is None:
            return None
        after = self.row.last_write()
        for number, start in enumerate(self.places):
            if start == place:
                return Exit(number, after)
            if self.copies[number] > 1 and start + self._period(number) * (self.copies[number] - 1) == place:
                return Exit(number, after, self.copies[number])
        return None

    def _period(self, number: int) -> int:
        bracket = next(b for b in self.brackets if b.kind == "repeat" and b.first <= number <= b.last)
        return sum(self.items[idx].count for idx in range(bracket.first, bracket.last + 1))


def _cache_store(slots: list[CacheSlot], copies: int, writer: int) -> Store:
    slot = slots[0]
    holds = "projection" if slot.projected else "own K/V"
    size = f"{slot.num_kv_heads} x {slot.head_dim}"
    indices = tuple(slot.idx for slot in slots)
    name = _slot_names(slots[: len(slots) // copies])
    return Store("cache", _slot_names(slots), name, holds, size, keeps_text(slot), len(slots), indices, writer, ())


def _slot_names(slots: list[CacheSlot]) -> str:
    """Names folded: `cache@1-12, own@13`."""
    words: dict[str, list[int]] = {}
    for slot in slots:
        words.setdefault(slot.name.split("@")[0], []).append(slot.writer_idx)
    numbered = {slot.name.split("@")[0] for slot in slots if "@" in slot.name}
    return ", ".join(names_at(word, places) if word in numbered else word for word, places in words.items())


def _state_store(states: list[StateSlot], copies: int, writer: int) -> Store:
    state = states[0]
    size = f"{state.num_heads} x {state.head_dim} x {state.head_dim}"
    writers = [each.writer_idx for each in states]
    label, name = (names_at("state", part) for part in (writers, writers[: len(writers) // copies]))
    indices = tuple(each.idx for each in states)
    return Store("state", label, name, "recurrent state", size, "constant", len(states), indices, writer, ())


def _keys(traits: Iterable[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for each in traits for key in each))


def _shared(traits: Iterable[dict[str, str]]) -> dict[str, str]:
    """The traits in which all layers that have them agree."""
    found: dict[str, set[str]] = {}
    for each in traits:
        for key, text in each.items():
            found.setdefault(key, set()).add(text)
    return {key: texts.pop() for key, texts in found.items() if len(texts) == 1}
