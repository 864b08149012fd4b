"""A figure in the language of graphviz."""

from archspec.figures.labels import STREAM_TOP, exit_words, item_fill, item_lines, store_lines, store_words, stream
from archspec.figures.model import Figure, Tower
from archspec.figures.svg import COLOURS


def figure_dot(figure: Figure) -> str:
    """The graph, from bottom to top, each level a cluster."""
    title = f"{figure.phase} of {figure.name}" if figure.phase else figure.name
    label = "\n".join([title, ", ".join(figure.facts), *([] if figure.phase else [f"cache bytes = {figure.formula}"])])
    lines = [
        f"digraph {_quoted(figure.name)} {{",
        f"  graph [rankdir=BT, label={_quoted(label)}, labelloc=t, fontname=Helvetica, newrank=true];",
        '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11];',
        "  edge [fontname=Helvetica, fontsize=10];",
    ]
    for number, tower in enumerate(figure.towers):
        lines += _tower(f"t{number}", tower)
    for number, door in enumerate(figure.doors):
        label = _quoted(f"{door.emits},\n{door.takes}")
        lines.append(f"  t{number}top -> t{number + 1}bottom [label={label}, penwidth=2, constraint=false];")
    return "\n".join([*lines, "}"]) + "\n"


def _tower(key: str, tower: Tower) -> list[str]:
    lines = [
        f"subgraph cluster_{key} {{",
        f"  label={_quoted(tower.title)};",
        "  color=gray80; labelloc=b; labeljust=l;",
    ]
    lines.append(f"  {key}bottom [label={_quoted(tower.bottom)}, fillcolor=gray92];")
    for place, item in enumerate(tower.items):
        opening = [each for each in tower.brackets if each.kind == "repeat" and each.first == place]
        closing = [each for each in tower.brackets if each.kind == "repeat" and each.last == place]
        for bracket in opening:
            text = _quoted(f"× {bracket.copies}: {bracket.text}")
            lines += [
                f"  subgraph cluster_{key}r{place} {{",
                f"  label={text}; labelloc=b; labeljust=l; style=filled; fillcolor=gray96;",
            ]
        text, fill = _quoted("\n".join(item_lines(item))), COLOURS[item_fill(item)][0]
        lines.append(f'  {key}i{place} [label={text}, fillcolor="{fill}"];')
        lines += ["  }" for _ in closing]
    lines.append(f"  {key}top [label={_quoted(tower.top)}, fillcolor=gray92];")
    for idx, store in enumerate(tower.stores):
        text, tip = _quoted("\n".join(store_lines(store))), _quoted(store_words(tower, store))
        lines.append(f"  {key}s{idx} [shape=cylinder, style=filled, fillcolor=white, label={text}, tooltip={tip}];")
        lines.append(f"  {{ rank=same; {key}i{store.writer_idx}; {key}s{idx}; }}")
    return [f"  {line}" for line in [*lines, *(f"  {edge}" for edge in _edges(key, tower)), "}"]]


def _edges(key: str, tower: Tower) -> list[str]:
    """The stream from item to item, and what is written and read."""
    lines = []
    for start, end, crossing in stream(tower):
        label = f" [label={_quoted(exit_words(tower))}, style=dashed]" if crossing else ""
        lines.append(f"{key}{start} -> {key}{end}{label};")
    for place, item in enumerate(tower.items):
        if item.kind == "write":  # a branch, but below what runs after it
            above = f"i{place + 1}" if place + 1 < len(tower.items) else STREAM_TOP
            lines.append(f"{key}i{place} -> {key}{above} [style=invis];")
    for idx, store in enumerate(tower.stores):
        both = " dir=both," if store.writer_idx in store.readers else ""
        lines.append(f'{key}i{store.writer_idx} -> {key}s{idx} [{both} color="#0072b2", constraint=false];')
        for reader in store.readers:
            if reader != store.writer_idx:
                early = ' style=dashed, label="earlier tokens",' if tower.items[reader].early else ""
                lines.append(f'{key}s{idx} -> {key}i{reader} [{early} color="#0072b2", constraint=false];')
    for bracket in tower.brackets:
        if bracket.kind == "iterate":
            text = _quoted(bracket.text.replace(" + ", "\n+ "))
            lines.append(
                f"{key}i{bracket.last} -> {key}i{bracket.first} [label={text}, style=dotted, constraint=false];"
            )
    return lines


def _quoted(text: str) -> str:
    """A string of the dot language; line ends as its escape for centred lines."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
