"""A figure as a mermaid flowchart, for pages that draw these: GitHub's, among others."""

from archspec.figures.labels import exit_words, item_fill, item_lines, store_lines, stream
from archspec.figures.model import Figure, Tower
from archspec.figures.svg import COLOURS

_FILLS = ("attend", "window", "cross", "state", "write", "plain")
_PLAIN = " ,.:()×+-=/@_*"
"""What a quoted label may hold besides letters and digits."""


def figure_mermaid(figure: Figure) -> str:
    """The flowchart, from bottom to top."""
    lines = ["flowchart BT"]
    for number, tower in enumerate(figure.towers):
        lines += _tower(f"t{number}", tower)
    for number, door in enumerate(figure.doors):
        text = _quoted(f"{door.emits}, {door.takes}")
        lines.append(f"  t{number}top ==>|{text}| t{number + 1}bottom")
    for name in _FILLS:
        lines.append(f"  classDef {name} fill:{COLOURS[name][0]},stroke:#444444,color:#1a1a1a")
    lines.append("  classDef store fill:#ffffff,stroke:#0072b2,color:#1a1a1a")
    return "\n".join(lines) + "\n"


def _tower(key: str, tower: Tower) -> list[str]:
    inner = [f"{key}bottom[{_quoted(tower.bottom)}]:::plain"]
    inner += _items(key, tower)
    inner.append(f"{key}top[{_quoted(tower.top)}]:::plain")
    inner += [f"{key}s{idx}([{_quoted(*store_lines(store))}]):::store" for idx, store in enumerate(tower.stores)]
    inner += _edges(key, tower)
    if not tower.title:
        return [f"  {line}" for line in inner]
    title = f"  subgraph {key}[{_quoted(tower.title)}]"
    return [title, *(f"    {line}" for line in ["direction BT", *inner]), "  end"]


def _items(key: str, tower: Tower) -> list[str]:
    """A node an item, those of a repeat in a subgraph."""
    repeats = [bracket for bracket in tower.brackets if bracket.kind == "repeat"]
    lines: list[str] = []
    for place, item in enumerate(tower.items):
        for bracket in repeats:
            if bracket.first == place:
                text = _quoted(f"× {bracket.copies}: {bracket.text}")
                lines += [f"subgraph {key}r{place}[{text}]", "direction BT"]
        lines.append(f"{key}i{place}[{_quoted(*item_lines(item))}]:::{item_fill(item)}")
        lines += ["end" for bracket in repeats if bracket.last == place]
    return lines


def _edges(key: str, tower: Tower) -> list[str]:
    """The stream from item to item, and what is written and read."""
    lines = []
    for start, end, crossing in stream(tower):
        label = f"|{_quoted(f'{exit_words(tower)}: last position only')}|" if crossing else ""
        lines.append(f"{key}{start} -->{label} {key}{end}")
    for idx, store in enumerate(tower.stores):
        itself = store.writer_idx in store.readers
        lines.append(f"{key}i{store.writer_idx} {'<-->' if itself else '-->'} {key}s{idx}")
        for reader in store.readers:
            if reader != store.writer_idx:
                arrow = '-.->|"earlier tokens"|' if tower.items[reader].early else "-->"
                lines.append(f"{key}s{idx} {arrow} {key}i{reader}")
    for bracket in tower.brackets:
        if bracket.kind == "iterate":
            lines.append(f"{key}i{bracket.last} -.->|{_quoted(bracket.text)}| {key}i{bracket.first}")
    return lines


def _quoted(*lines: str) -> str:
    """A label: quotes and what mermaid or HTML might read as markup are written as entities."""
    escaped = [
        "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in line) for line in lines
    ]
    return '"' + "<br>".join(escaped) + '"'
