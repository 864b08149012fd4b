"""A tower as shapes: layers from bottom to top, caches beside them, lines from writers over caches to readers."""

from dataclasses import dataclass, replace
from itertools import pairwise

from archspec.figures.labels import exit_words, item_detail, item_fill, item_numbers, store_detail, store_words
from archspec.figures.lanes import span
from archspec.figures.metrics import fitted, text_width, wrapped
from archspec.figures.model import Bracket, Item, Store, Strip, Tower
from archspec.figures.scene import Group, Path, Point, Rect, Scene, Shape, Text

TITLE, DETAIL, SMALL = 13.0, 11.5, 11.0
PAD = 12.0
LINE = 15.0
"""From one line of text to the next."""
END_HEIGHT, WRITE_HEIGHT, STORE_HEIGHT = 28.0, 28.0, 40.0
GAP, EXIT_GAP = 24.0, 54.0
FLOW = 22.0
"""The residual stream, from the left edge of the boxes."""
WRITE_INSET = 52.0
"""What is left free for the stream beside the box of a lone write."""
LANE = 14.0
CARD = 3.0
"""Offset of the cards behind the box of a run."""
CELL, CELL_GAP = 13.0, 3.0
STRIP_LEFT = FLOW - CELL / 2
_CELL_STEPS = {"gap": 6.0, "dots": 15.0}
STORE_COLOURS = 5


@dataclass
class TowerLayout:
    """Places of a tower's parts, all relative to its own origin; `scene` holds its shapes."""

    tower: Tower
    phase: bool
    prefix: str
    compact: bool = False
    """For narrow screens: boxes are no wider than their text."""

    def __post_init__(self) -> None:
        tower = self.tower
        self.scene = Scene()
        self.box_width = max([150.0 if self.compact else 190.0, *(self._needed(item) for item in tower.items)])
        self.box_right = self.box_width
        self.numbers = max((text_width(_numbers(item), SMALL) for item in tower.items), default=0)
        labels = [store.name for store in tower.stores if store.shared]
        label = max((text_width(fitted(text, SMALL, 110), SMALL) for text in labels), default=0)
        early = text_width("earlier tokens", SMALL) if any(item.early for item in tower.items) else 0
        self.store_x = self.box_right + max(30.0 if self.compact else 52.0, label + 36, early + 36)
        self.store_width = max((self._store_needed(store) for store in tower.stores), default=0)
        self.lanes, self.inks = _lanes(tower), _inks(tower)
        self.right = self.store_x + self.store_width + LANE * (max(self.lanes.values(), default=0) + 0.5)
        self._place_rows()
        self._draw()

    # ---------------------------------------------------------------- places

    def _needed(self, item: Item) -> float:
        count = text_width(f"× {item.count}", TITLE, bold=True) + 14 if item.count > 1 else 0
        inset = WRITE_INSET if item.kind == "write" else 0
        detail = text_width(self._detail(item), DETAIL) + (62 if self.phase else 0)
        return 2 * PAD + max(text_width(item.title, TITLE, bold=True) + count, detail) + inset

    def _end_lines(self, text: str) -> list[str]:
        return wrapped(text, DETAIL, self.box_width - 2 * PAD)

    def _end_height(self, lines: list[str]) -> float:
        return END_HEIGHT + LINE * (len(lines) - 1)

    def _store_needed(self, store: Store) -> float:
        count = text_width(f"× {store.count}", DETAIL, bold=True) + 10 if store.count > 1 else 0
        name = text_width(fitted(store.name, DETAIL, 150, bold=True), DETAIL, bold=True)
        return 2 * 9 + max(name + count, text_width(store_detail(store), SMALL))

    def _detail(self, item: Item) -> str:
        if self.phase:
            return f"for {item.runs}"
        return item_detail(item)

    def _notes(self, item: Item) -> list[str]:
        room = self.box_width - 2 * PAD
        return [line for note in item.notes for line in wrapped(note, SMALL, room)]

    def _height(self, item: Item) -> float:
        if item.kind == "write":
            return WRITE_HEIGHT + (LINE if self.phase else 0)
        return 28 + (LINE if self._detail(item) else 0) + LINE * len(self._notes(item))

    def _place_rows(self) -> None:
        """Tops of all boxes, from the head down to the embedding."""
        self.top_lines = self._end_lines(self.tower.top)
        self.bottom_lines = self._end_lines(self.tower.bottom)
        y = self._strip_height(self.tower.outputs)
        self.top_y = y
        y += self._end_height(self.top_lines)
        self.tops: list[float] = [0.0] * len(self.tower.items)
        for place in range(len(self.tower.items) - 1, -1, -1):
            y += EXIT_GAP if self._exit_before(place + 1) else GAP
            item, height = self.tower.items[place], self._height(self.tower.items[place])
            room = max(height, STORE_HEIGHT) if item.writes_idx is not None else height
            self.tops[place] = y + (room - height) / 2
            y += room
        y += EXIT_GAP if self._exit_before(0) else GAP
        self.bottom_y = y
        self.bottom_end = y + self._end_height(self.bottom_lines)
        self.end_y = self.bottom_end + self._strip_height(self.tower.inputs)

    def _exit_before(self, place: int) -> bool:
        return self.tower.exit is not None and self.tower.exit.before == place

    def _strip_height(self, strip: Strip | None) -> float:
        return 0.0 if strip is None else 16 + CELL + 20

    def middle(self, place: int) -> float:
        """The height at which an item writes and reads."""
        return self.tops[place] + self._height(self.tower.items[place]) / 2

    # --------------------------------------------------------------- shapes

    def _draw(self) -> None:
        limit = self._exit_shapes()
        self.right = max([self.right, *(shape.extent[2] for shape in limit)])
        self._brackets()
        self.scene.add(*limit)
        self._stream()
        self._buses()
        for idx, store in enumerate(self.tower.stores):
            self._store(idx, store)
        for place, item in enumerate(self.tower.items):
            self._item(place, item)
        self._ends()

    def key(self, store_idx: int) -> str:
        return f"{self.prefix}s{store_idx}"

    def _item(self, place: int, item: Item) -> None:
        x = WRITE_INSET if item.kind == "write" else 0.0
        top, height, fill = self.tops[place], self._height(item), item_fill(item)
        width = self.box_right - x
        idle = item.positions == "none"
        shapes: list[Shape] = []
        for card in (2, 1) if item.count > 1 else ():
            shapes.append(Rect(x + CARD * card, top - CARD * card, width, height, "idle" if idle else fill, "edge"))
        shapes.append(Rect(x, top, width, height, "idle" if idle else fill, "edge"))
        shapes.append(Text(x + PAD, top + 19, item.title, TITLE, bold=True))
        if item.count > 1:
            shapes.append(Text(self.box_right - PAD, top + 19, f"× {item.count}", TITLE, True, "end"))
        y = top + 19 + LINE + 1
        if item.kind == "layers" or self.phase:
            shapes += [Text(x + PAD, y, self._detail(item), DETAIL)] if self._detail(item) else []
            if self.phase:
                shapes += self._cells_of(item, y - 8)
            y += LINE if self._detail(item) else 0
        if item.kind == "layers":
            for line in self._notes(item):
                shapes.append(Text(x + PAD, y, line, SMALL, ink="muted"))
                y += LINE
            shapes.append(Text(-10, top + 18, _numbers(item), SMALL, anchor="end", ink="muted"))
        uses = tuple(self.key(idx) for idx in (item.writes_idx, item.reads_idx) if idx is not None)
        self.scene.add(
            Group(f"{self.prefix}i{place}", self._item_label(item), tuple(dict.fromkeys(uses)), tuple(shapes))
        )

    def _cells_of(self, item: Item, y: float) -> list[Shape]:
        """Five positions, those filled for which the item runs."""
        filled = {"all": range(5), "last": range(4, 5), "one": range(4, 5), "none": range(0)}[item.positions]
        drawn = range(4, 5) if item.positions == "one" else range(5)
        start = self.box_right - PAD - 5 * 11
        return [Rect(start + 11 * n, y, 9, 9, "mark" if n in filled else "ground", "edge", 1) for n in drawn]

    def _item_label(self, item: Item) -> str:
        """What a screen reader says."""
        numbers = item_numbers(item)
        parts = [f"{item.title}, {numbers}" if item.kind == "layers" else f"{item.title}, after {numbers}"]
        parts += [text for text in (self._detail(item), *item.notes) if text]
        if item.writes_idx is not None:
            parts.append(f"writes {self.tower.stores[item.writes_idx].label}")
        if item.reads_idx is not None:
            parts.append(f"reads {self.tower.stores[item.reads_idx].label}")
        return ", ".join(parts)

    def _store(self, idx: int, store: Store) -> None:
        top = self.middle(store.writer_idx) - STORE_HEIGHT / 2
        x, width, ink = self.store_x, self.store_width, self.inks[idx]
        radius = 12.0
        shapes: list[Shape] = [
            Rect(x + CARD * card, top - CARD * card, width, STORE_HEIGHT, "store", ink, radius)
            for card in ((2, 1) if store.count > 1 else ())
        ]
        shapes.append(Rect(x, top, width, STORE_HEIGHT, "store", ink, radius))
        count = text_width(f"× {store.count}", DETAIL, bold=True) + 10 if store.count > 1 else 0
        name = fitted(store.name, DETAIL, width - 18 - count + 0.1, bold=True)
        shapes.append(Text(x + 9, top + 17, name, DETAIL, bold=True))
        if count:
            shapes.append(Text(x + width - 9, top + 17, f"× {store.count}", DETAIL, True, "end"))
        shapes.append(Text(x + 9, top + 32, store_detail(store), SMALL, ink="muted"))
        self.scene.add(Group(self.key(idx), store_words(self.tower, store), (self.key(idx),), tuple(shapes)))

    def _stream(self) -> None:
        """The residual stream, from box to box."""
        boxes = [(self.bottom_y, self.bottom_end)]
        for place, item in enumerate(self.tower.items):
            top = self.tops[place]
            if item.kind == "layers":
                boxes.append((top, top + self._height(item)))
            else:
                y = self.middle(place)
                self.scene.add(Path(((FLOW, y), (WRITE_INSET, y)), "flow", "end"))
        boxes.append((self.top_y, self.top_y + self._end_height(self.top_lines)))
        for (below, _), (_, above) in pairwise(boxes):
            self.scene.add(Path(((FLOW, below), (FLOW, above)), "flow", "end"))

    def _edge(self, place: int) -> float:
        """Where lines meet an item: at its box, or at the cards behind it."""
        return self.box_right + (CARD * 2 if self.tower.items[place].count > 1 else 0)

    def _buses(self) -> None:
        """From writers to stores, and from stores to readers; lines between stores and readers have a rim."""
        for idx, store in enumerate(self.tower.stores):
            y, ink = self.middle(store.writer_idx), self.inks[idx]
            itself = store.writer_idx in store.readers
            line = Path(((self._edge(store.writer_idx), y), (self.store_x, y)), ink, "both" if itself else "end")
            shapes: list[Shape] = [line]
            for reader in store.readers:
                if reader != store.writer_idx:
                    shapes += self._branch(idx, store, reader, ink)
            rims = [Path(shape.points, "ground", width=5) for shape in shapes[1:] if isinstance(shape, Path)]
            self.scene.add(Group(f"{self.key(idx)}w", "", (self.key(idx),), (*rims, *shapes)))

    def _branch(self, idx: int, store: Store, reader: int, ink: str) -> list[Shape]:
        """The line from a store to one reader, and what it says."""
        y, target = self.middle(store.writer_idx), self.middle(reader)
        early = self.tower.items[reader].early
        edge = self._edge(reader)
        lane = self.lanes[idx]
        if lane == 0:
            x = self.store_x + self.store_width / 2
            start: tuple[Point, ...] = ((x, y + STORE_HEIGHT / 2 * (1 if target > y else -1)),)
        else:
            x = self.store_x + self.store_width + LANE * lane + 4
            start = ((self.store_x + self.store_width, y), (x, y))
        line = Path((*start, (x, target), (edge, target)), ink, "end", dashed=early)
        room = self.store_x - edge - 22
        shapes: list[Shape] = [line, Text(edge + 14, target - 5, fitted(store.name, SMALL, room), SMALL, ink=ink)]
        if early:
            shapes.append(Text(edge + 14, target + 14, "earlier tokens", SMALL, ink=ink))
        return shapes

    def _exit_shapes(self) -> list[Shape]:
        """A dashed line across, with its caption where nothing but the stream crosses it."""
        if self.tower.exit is None:
            return []
        before = self.tower.exit.before
        below = self._around(before - 1, before - 1)[0] if before else self.bottom_y
        y = below - EXIT_GAP / 2
        x = FLOW + 12
        texts = (
            Text(x, y - 6, exit_words(self.tower), DETAIL, bold=True, ink="exit"),
            Text(x, y + 15, "above: last position only", SMALL, ink="exit"),
        )
        right = max(self.right, *(text.extent[2] for text in texts))
        return [Path(((-14 - self.numbers, y), (right, y)), "exit", dashed=True), *texts]

    def _brackets(self) -> None:
        """Repeats as panels with their count, iterations as loops with their passes; inner ones first."""
        x = -14 - self.numbers
        done: list[tuple[Bracket, float]] = []
        for bracket in sorted(self.tower.brackets, key=lambda each: (each.last - each.first, each.first)):
            inner = [left for each, left in done if bracket.first <= each.first and each.last <= bracket.last]
            start = min([x, *inner]) - 4
            shapes = self._panel(bracket, start) if bracket.kind == "repeat" else self._loop(bracket, start - 8)
            self.scene.parts[0:0] = [shape for shape in shapes if isinstance(shape, Rect)]
            self.scene.add(*(shape for shape in shapes if not isinstance(shape, Rect)))
            done.append((bracket, min(shape.extent[0] for shape in shapes)))

    def _around(self, first: int, last: int) -> tuple[float, float]:
        """Top and bottom of items, with the stores that they write and the cards behind both."""
        item, top = self.tower.items[last], self.tops[last]
        if item.writes_idx is not None:
            top = min(top, self.middle(last) - STORE_HEIGHT / 2)
        many = item.count > 1 or (item.writes_idx is not None and self.tower.stores[item.writes_idx].count > 1)
        item = self.tower.items[first]
        bottom = self.tops[first] + self._height(item)
        if item.writes_idx is not None:
            bottom = max(bottom, self.middle(first) + STORE_HEIGHT / 2)
        return top - (2 * CARD if many else 0), bottom

    def _panel(self, bracket: Bracket, left: float) -> list[Shape]:
        top, bottom = self._around(bracket.first, bracket.last)
        right = self.right + 6
        middle = (top + bottom) / 2
        return [
            Rect(left, top - 8, right - left, bottom - top + 16, "panel", "faint", 8),
            Text(left - 8, middle + 1, f"× {bracket.copies}", 15, True, "end"),
            Text(left - 8, middle + 17, bracket.text.replace("-", "–"), SMALL, False, "end", "muted"),
        ]

    def _loop(self, bracket: Bracket, left: float) -> list[Shape]:
        top, bottom = self._around(bracket.first, bracket.last)
        low, high = bottom - 6, top + 6
        right = left + 10
        middle = (top + bottom) / 2
        forward, backward = (part.strip() for part in bracket.text.removesuffix(" passes").split("+"))
        lines = ((f"{bracket.copies} passes:", True), (f"{forward} +", False), (backward, False))
        return [
            Path(((right, high), (left, high), (left, low), (right, low)), "loop", "end", width=1.8),
            *(
                Text(left - 8, middle - 11 + 15 * n, line, DETAIL if bold else SMALL, bold, "end", "loop")
                for n, (line, bold) in enumerate(lines)
            ),
        ]

    def _ends(self) -> None:
        """What comes in below and goes out above."""
        for y, lines in ((self.top_y, self.top_lines), (self.bottom_y, self.bottom_lines)):
            self.scene.add(Rect(0, y, self.box_width, self._end_height(lines), "plain", "edge"))
            for number, line in enumerate(lines):
                x = self.box_width / 2
                self.scene.add(Text(x, y + 18 + LINE * number, line, DETAIL, anchor="middle"))
        if self.tower.outputs is not None:
            y = self.top_y - 16 - CELL
            self.scene.add(Path(((FLOW, self.top_y), (FLOW, y + CELL)), "flow", "end"))
            self._strip(self.tower.outputs, y, y - 7)
        if self.tower.inputs is not None:
            y = self.bottom_end + 16
            self.scene.add(Path(((FLOW, y), (FLOW, y - 16)), "flow", "end"))
            self._strip(self.tower.inputs, y, y + CELL + 14)

    def strip_right(self, strip: Strip | None) -> float:
        """Where the cells of a strip end."""
        cells = () if strip is None else strip.cells
        return STRIP_LEFT - CELL_GAP + sum(_CELL_STEPS.get(cell.kind, CELL + CELL_GAP) for cell in cells)

    def _strip(self, strip: Strip, y: float, baseline: float) -> None:
        x = STRIP_LEFT
        for cell in strip.cells:
            if cell.kind == "gap":
                pass
            elif cell.kind == "dots":
                self.scene.add(Text(x, y + CELL - 2, "…", 12, bold=True))
            else:
                self.scene.add(Rect(x, y, CELL, CELL, cell.kind, "edge", 2))
            x += _CELL_STEPS.get(cell.kind, CELL + CELL_GAP)
        self.scene.add(Text(STRIP_LEFT, baseline, strip.caption, SMALL, ink="muted"))


def _numbers(item: Item) -> str:
    """The layers of an item, as they stand beside its box."""
    return item_numbers(item).split(" ", 1)[1].replace("-", "–")


def _inks(tower: Tower) -> list[str]:
    """Shared caches in colours of their own, the others in grey."""
    inks, number = [], 0
    for store in tower.stores:
        inks.append(f"store{number % STORE_COLOURS}" if store.shared else "quiet")
        number += store.shared
    return inks


def moved(part: Shape | Group, dx: float, dy: float) -> Shape | Group:
    """A shape elsewhere."""
    match part:
        case Group():
            shapes = tuple(moved(shape, dx, dy) for shape in part.shapes)
            return replace(part, shapes=shapes)  # type: ignore[arg-type]
        case Path():
            return replace(part, points=tuple((x + dx, y + dy) for x, y in part.points))
        case Text() | Rect():
            return replace(part, x=part.x + dx, y=part.y + dy)


def _lanes(tower: Tower) -> dict[int, int]:
    """Lane 0 rises from the store itself and must meet no other store; the others stand right of the stores."""
    lanes: list[list[tuple[int, int]]] = [[]]
    found: dict[int, int] = {}
    shared = [idx for idx, store in enumerate(tower.stores) if store.shared]
    for idx in sorted(shared, key=lambda idx: (span(tower.stores[idx])[1] - span(tower.stores[idx])[0], idx)):
        first, last = span(tower.stores[idx])
        blocked = any(first <= other.writer_idx <= last for at, other in enumerate(tower.stores) if at != idx)
        lane = 1 if blocked else 0
        while lane < len(lanes) and any(a <= last and first <= b for a, b in lanes[lane]):
            lane += 1
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((first, last))
        found[idx] = lane
    return found
