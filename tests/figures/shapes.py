"""What is wrong with the places of shapes, and figures turned back into the steps that they stand for."""

from itertools import combinations, pairwise

from archspec.figures.model import Item, Tower
from archspec.figures.scene import Path, Rect, Scene, Text
from archspec.plan import Step

TOUCH = 2.0
"""How far ascent and descent of two lines may reach into one another: no letter fills both."""


def problems(scene: Scene) -> list[str]:
    """Texts that overlap, that a line crosses, or that leave the box they stand in."""
    texts = [shape for shape in scene.shapes() if isinstance(shape, Text)]
    found = [
        f"`{a.text}` overlaps `{b.text}`" for a, b in combinations(texts, 2) if _overlap(a.extent, b.extent, TOUCH)
    ]
    for text in texts:
        left, top, right, bottom = text.extent
        inner = (left, top + TOUCH, right, bottom - TOUCH)
        for shape in scene.shapes():
            if isinstance(shape, Path) and any(_crosses(inner, a, b) for a, b in pairwise(shape.points)):
                found.append(f"a line crosses `{text.text}`")
            if isinstance(shape, Rect) and _overlap(inner, shape.extent, 0) and not _inside(inner, shape.extent):
                found.append(f"`{text.text}` stands on the edge of a box")
    return found


def _overlap(a, b, slack: float) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) + slack


def _inside(a, b) -> bool:
    return b[0] <= a[0] and a[2] <= b[2] and b[1] <= a[1] and a[3] <= b[3]


def _crosses(box, start, end) -> bool:
    left, right = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    return min(box[2], right) >= max(box[0], left) and min(box[3], bottom) >= max(box[1], top)


def unfolded(tower: Tower) -> list[tuple[Item, int, int]]:
    """Items with the index of each layer that they stand for, and its number among those of the item."""
    found: list[tuple[Item, int, int]] = []
    place = 0
    while place < len(tower.items):
        repeats = [each for each in tower.brackets if each.kind == "repeat" and each.first == place]
        last, copies = (repeats[0].last, repeats[0].copies) if repeats else (place, 1)
        body = tower.items[place : last + 1]
        period = sum(item.count for item in body if item.kind == "layers")
        found += [
            (item, number - 1 + copy * period, copy * item.count + at)
            for copy in range(copies)
            for item in body
            for at, number in enumerate(item.layers)
        ]
        place = last + 1
    return found


def steps_of(tower: Tower) -> list[tuple[Step, str]]:
    """The steps of a tower with the positions that they run for."""
    steps = []
    for item, layer, number in unfolded(tower):
        store = None if item.writes_idx is None else tower.stores[item.writes_idx]
        if store is not None and store.kind == "cache":
            steps.append((Step("write", store.slots[number]), item.positions))
        if item.kind == "layers":
            steps.append((Step("layer", layer), item.positions))
    return steps
