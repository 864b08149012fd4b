"""A figure as SVG for a paper or a page: vector, one font, colours that colour-blind readers can tell apart.

Source of the colours: M. Okabe and K. Ito, Color Universal Design, jfly.uni-koeln.de/color, 2008; tinted for fills.
"""

from xml.sax.saxutils import escape, quoteattr

from archspec.figures.labels import store_words
from archspec.figures.layout import DETAIL, SMALL, STRIP_LEFT, TowerLayout, moved
from archspec.figures.metrics import FONT_FAMILY, text_width, wrapped
from archspec.figures.model import Figure
from archspec.figures.scene import Group, Path, Rect, Scene, Shape, Text

MARGIN = 14.0
BETWEEN = 44.0
COLOURS = {
    # name: (on white, on black)
    "text": ("#1a1a1a", "#ececec"),
    "muted": ("#5a5a5a", "#b4b4b4"),
    "ground": ("#ffffff", "#16181c"),
    "edge": ("#444444", "#a8a8a8"),
    "faint": ("#c9c9c9", "#4a4d52"),
    "panel": ("#f3f3f3", "#22252a"),
    "plain": ("#ececec", "#30343a"),
    "idle": ("#fafafa", "#1c1f23"),
    "flow": ("#444444", "#a8a8a8"),
    "quiet": ("#7d7d7d", "#8f8f8f"),
    "mark": ("#1a1a1a", "#ececec"),
    "store": ("#ffffff", "#16181c"),
    "attend": ("#cfe6f6", "#1d3f57"),
    "window": ("#cdeadf", "#17453a"),
    "cross": ("#fbe3bd", "#553c10"),
    "state": ("#f2dce8", "#52304a"),
    "write": ("#fdf3c4", "#4c4618"),
    "token": ("#56b4e9", "#3d8fbf"),
    "context": ("#e69f00", "#c98b00"),
    "both": ("#f0e442", "#bdb32c"),
    "exit": ("#b64a00", "#ff9a57"),
    "loop": ("#8a3a73", "#e6a3cf"),
    "store0": ("#0072b2", "#5ab4ea"),
    "store1": ("#00795a", "#3cc79b"),
    "store2": ("#a34b85", "#e6a3cf"),
    "store3": ("#8a6100", "#e9b949"),
    "store4": ("#333333", "#d8d8d8"),
}


def figure_svg(figure: Figure, *, key: str = "f", stacked: bool = False, inline: bool = False) -> str:
    """The figure. `stacked` is for narrow screens: levels stand above one another.

    `inline` is for a page that highlights parts of it; `key` begins every id, so that several can stand on one page.
    """
    scene = figure_scene(figure, key=key, stacked=stacked, named=not inline)
    left, top, right, bottom = scene.extent()
    margin = 5.0 if inline else MARGIN
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    title = f"{figure.phase} of {figure.name}" if figure.phase else figure.name
    name = f"{key}{'s' if stacked else ''}"
    role = 'role="group"' if inline else 'role="img"'
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{_n(left - margin)} {_n(top - margin)} {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" {role} aria-labelledby="{name}-title {name}-desc" '
        f'font-family={quoteattr(FONT_FAMILY)} class="archspec">',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">{escape(description(figure))}</desc>',
        f"<style>{_STYLE}</style>",
    ]
    if not inline:
        lines.append(
            f'<rect class="f-ground" x="{_n(left - margin)}" y="{_n(top - margin)}" width="{_n(width)}" '
            f'height="{_n(height)}" fill="{COLOURS["ground"][0]}"/>'
        )
    lines += [_part(part, name if inline else "") for part in scene.parts]
    return "\n".join([*lines, "</svg>"]) + "\n"


def description(figure: Figure) -> str:
    """The figure in words."""
    words = [*figure.facts]
    for tower in figure.towers:
        words += [tower.title] if tower.title else []
        for item in tower.items:
            words.append(f"{item.title} ({item.count} layers)" if item.count > 1 else item.title)
        words += [store_words(tower, store) for store in tower.stores if store.shared]
    return "; ".join([*words, *figure.notes])


def figure_scene(figure: Figure, *, key: str = "f", stacked: bool = False, named: bool = True) -> Scene:
    """All shapes with their places; `named` puts the model's name above."""
    scene = Scene()
    phase = bool(figure.phase)
    layouts = [TowerLayout(tower, phase, f"{key}t{idx}", stacked) for idx, tower in enumerate(figure.towers)]
    for layout in layouts:
        _heading(layout, len({tower.common for tower in figure.towers}) > 1)
    (_stack if stacked else _line_up)(scene, layouts, figure)
    left, top, right, bottom = scene.extent()
    _header(scene, figure, left, top, right, named)
    if not phase:
        y = bottom + 26
        for line in wrapped(f"cache bytes = {figure.formula}".replace("*", " · "), SMALL, right - left):
            scene.add(Text(left, y, line, SMALL, ink="muted"))
            y += 15
    return scene


def _header(scene: Scene, figure: Figure, left: float, top: float, right: float, named: bool) -> None:
    name = f"{figure.phase}: {figure.name}" if figure.phase else figure.name
    room = max(right - left, 300.0)
    common = figure.towers[0].common if len({tower.common for tower in figure.towers}) == 1 else ()
    lines = [(text, 16.0, True) for text in wrapped(name, 16, room, bold=True)] if named else []
    for texts in (figure.facts, common):
        lines += [(text, DETAIL, False) for text in wrapped(", ".join(texts), DETAIL, room)]
    y = top - 20 - 17 * (len(lines) - 1)
    for text, size, bold in lines:
        scene.add(Text(left, y, text, size, bold, ink="text" if bold else "muted"))
        y += 17


def _heading(layout: TowerLayout, own: bool) -> None:
    """The title of a level above it, and if they are its own the settings of its layers."""
    tower = layout.tower
    room = max(layout.right, 220.0)
    lines = [(text, 13.0, True) for text in wrapped(tower.title, 13, room, bold=True)]
    if own:
        lines += [(text, SMALL, False) for text in wrapped(", ".join(tower.common), SMALL, room)]
    if not lines:
        return
    y = layout.scene.extent()[1] - 14 - 16 * (len(lines) - 1)
    for line, size, bold in lines:
        layout.scene.add(Text(0, y, line, size, bold=bold, ink="text" if bold else "muted"))
        y += 16


def _line_up(scene: Scene, layouts: list[TowerLayout], figure: Figure) -> None:
    """Towers from left to right on one ground line, doors between them."""
    x = 0.0
    low = max(layout.end_y for layout in layouts)
    placed: list[tuple[TowerLayout, float, float]] = []
    for idx, layout in enumerate(layouts):
        left, _, right, _ = layout.scene.extent()
        if idx:
            door = figure.doors[idx - 1]
            x += BETWEEN + max(text_width(door.emits, SMALL), text_width(door.takes, SMALL)) + BETWEEN
        dx, dy = x - left, low - layout.end_y
        scene.add(*(moved(part, dx, dy) for part in layout.scene.parts))
        placed.append((layout, dx, dy))
        x = dx + right
    for idx, door in enumerate(figure.doors):
        (below, dx, dy), (above, ex, ey) = placed[idx], placed[idx + 1]
        right = dx + below.scene.extent()[2]
        corridor = right + BETWEEN / 2
        out, into = dy + below.top_y - 16 - 6.5, ey + above.bottom_end + 16 + 6.5
        middle = (out + into) / 2
        target = ex + STRIP_LEFT
        scene.add(
            Path(
                ((dx + below.strip_right(below.tower.outputs), out), (corridor, out), (corridor, into), (target, into)),
                "context",
                "end",
                width=2.2,
            ),
            Text(corridor + 10, middle - 4, door.emits, SMALL, bold=False),
            Text(corridor + 10, middle + 12, door.takes, SMALL, ink="muted"),
        )


def _stack(scene: Scene, layouts: list[TowerLayout], figure: Figure) -> None:
    """Towers on top of one another, the first one at the bottom, doors between them."""
    y = 0.0
    places: list[tuple[TowerLayout, float]] = []
    for layout in layouts:
        _, top, _, bottom = layout.scene.extent()
        dy = y - bottom
        scene.add(*(moved(part, 0, dy) for part in layout.scene.parts))
        places.append((layout, dy))
        y = dy + top - 62
    for idx, door in enumerate(figure.doors):
        (below, dy), (above, ey) = places[idx], places[idx + 1]
        low, high = dy + below.scene.extent()[1], ey + above.scene.extent()[3]
        x = 10.5
        scene.add(
            Path(((x, low - 4), (x, high + 4)), "context", "end", width=2.2),
            Text(x + 14, (low + high) / 2 - 3, door.emits, SMALL),
            Text(x + 14, (low + high) / 2 + 12, door.takes, SMALL, ink="muted"),
        )


# --------------------------------------------------------------------- markup

_STYLE = (
    "@media (prefers-color-scheme:dark){"
    + "".join(
        f".archspec .f-{name}{{fill:{dark}}}.archspec .s-{name}{{stroke:{dark}}}" for name, (_, dark) in COLOURS.items()
    )
    + "}"
)


def _part(part: Shape | Group, page_key: str) -> str:
    """`page_key` is that of a figure whose parts can be pointed at; nothing for one on its own."""
    if not isinstance(part, Group):
        return _shape(part)
    uses = f' data-uses="{" ".join(part.uses)}"' if part.uses else ""
    label = ""
    if page_key and part.label:
        focus = ' tabindex="0"' if part.uses else ""
        label = f' id="{page_key}-{part.key}" role="img" aria-label={quoteattr(part.label)}{focus}'
    hint = f"<title>{escape(part.label)}</title>" if part.label and not page_key else ""
    return f'<g class="as"{uses}{label}>{hint}' + "".join(map(_shape, part.shapes)) + "</g>"


def _shape(shape: Shape) -> str:
    match shape:
        case Text():
            bold = ' font-weight="bold"' if shape.bold else ""
            anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
            return (
                f'<text x="{_n(shape.x)}" y="{_n(shape.y)}" font-size="{_n(shape.size)}"{bold}{anchor} '
                f"{_inks(shape.ink)}>{escape(shape.text)}</text>"
            )
        case Rect():
            dash = ' stroke-dasharray="4 3"' if shape.dashed else ""
            return (
                f'<rect x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" height="{_n(shape.height)}" '
                f'rx="{_n(shape.radius)}" {_inks(shape.fill, shape.stroke)}{dash}/>'
            )
        case Path():
            return _path(shape)


def _path(path: Path) -> str:
    points = " ".join(f"{_n(x)},{_n(y)}" for x, y in path.points)
    dash = ' stroke-dasharray="6 4"' if path.dashed else ""
    line = f'<polyline points="{points}" {_inks("", path.ink)} stroke-width="{_n(path.width)}"{dash}/>'
    heads = []
    if path.heads:
        heads.append(_head(path.points[-2], path.points[-1], path.ink))
    if path.heads == "both":
        heads.append(_head(path.points[1], path.points[0], path.ink))
    return line + "".join(heads)


def _head(start: tuple[float, float], tip: tuple[float, float], ink: str) -> str:
    """An arrow head, for a line along one of the axes."""
    dx = (tip[0] > start[0]) - (tip[0] < start[0])
    dy = (tip[1] > start[1]) - (tip[1] < start[1])
    base = (tip[0] - 7 * dx, tip[1] - 7 * dy)
    points = [tip, (base[0] - 3.5 * dy, base[1] - 3.5 * dx), (base[0] + 3.5 * dy, base[1] + 3.5 * dx)]
    return f'<polygon points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in points)}" {_inks(ink)}/>'


def _inks(fill: str, stroke: str = "") -> str:
    """Colours as attributes, which every program knows, and as classes, which the dark scheme needs."""
    names = [f"f-{fill}"] if fill else []
    names += [f"s-{stroke}"] if stroke else []
    line = f' stroke="{COLOURS[stroke][0]}"' if stroke else ""
    return f'class="{" ".join(names)}" fill="{COLOURS[fill][0] if fill else "none"}"{line}'


def _n(value: float) -> str:
    """A number with at most one decimal place."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
