"""Shapes with places: what a layout makes and what an SVG writer writes. Units are CSS pixels; y grows downwards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from archspec.figures.metrics import ASCENT, DESCENT, text_width

Point = tuple[float, float]
Extent = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    """Of the baseline."""
    text: str
    size: float = 12
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"
    ink: str = "text"

    @property
    def extent(self) -> Extent:
        width = text_width(self.text, self.size, self.bold)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - ASCENT * self.size, left + width, self.y + DESCENT * self.size


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = ""
    radius: float = 5
    dashed: bool = False

    @property
    def extent(self) -> Extent:
        return self.x, self.y, self.x + self.width, self.y + self.height


@dataclass(frozen=True)
class Path:
    """A line through points, with heads at its ends and a rim in the colour of the ground where it crosses others."""

    points: tuple[Point, ...]
    ink: str
    heads: Literal["", "end", "both"] = ""
    dashed: bool = False
    width: float = 1.5

    @property
    def extent(self) -> Extent:
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        return min(xs) - 4, min(ys) - 4, max(xs) + 4, max(ys) + 4


Shape = Text | Rect | Path


@dataclass(frozen=True)
class Group:
    """Shapes that stand for one thing of the figure; `key` names it, `uses` the stores that it has to do with."""

    key: str
    label: str
    uses: tuple[str, ...]
    shapes: tuple[Shape, ...]


@dataclass
class Scene:
    """Shapes in drawing order."""

    parts: list[Shape | Group] = field(default_factory=list)

    def add(self, *parts: Shape | Group) -> None:
        self.parts += parts

    def shapes(self) -> Iterator[Shape]:
        for part in self.parts:
            if isinstance(part, Group):
                yield from part.shapes
            else:
                yield part

    def extent(self) -> Extent:
        return union(shape.extent for shape in self.shapes())


def union(extents: Iterable[Extent]) -> Extent:
    """The smallest extent around all of them."""
    lefts, tops, rights, bottoms = zip(*extents, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
