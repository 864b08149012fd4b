"""Words and edges that renderers share."""

from archspec.diagnostics import layer_numbers
from archspec.figures.model import Item, Store, Tower

_FILLS = {"attend": "attend", "cross-attend": "cross", "ffn-only": "plain", "nothing": "plain"}

STREAM_BOTTOM, STREAM_TOP = "bottom", "top"


def item_fill(item: Item) -> str:
    """The colour of a kind of layer; windows have one of their own."""
    if item.kind == "write":
        return "write"
    if item.word == "attend" and item.window != "all":
        return "window"
    return _FILLS.get(item.word, "state")


def item_detail(item: Item) -> str:
    """`32 × 64 heads, window 1024`."""
    heads = f"{item.heads} heads".replace("x", "×") if item.heads else ""
    window = f"window {item.window}" if item.window not in ("", "all") else ""
    return ", ".join(filter(None, [heads, window]))


def item_lines(item: Item) -> tuple[str, ...]:
    """An item as the lines of a node."""
    runs = f"for {item.runs}" if item.runs else ""
    if item.kind == "write":
        return tuple(filter(None, (item.title, runs)))
    count = f" × {item.count}" if item.count > 1 else ""
    detail = ", ".join(filter(None, [item_detail(item), *item.notes]))
    return tuple(filter(None, (f"{item.title}{count}", item_numbers(item), detail, runs)))


def item_numbers(item: Item) -> str:
    """`layers 2-20`."""
    return layer_numbers([number - 1 for number in item.layers])


def store_detail(store: Store) -> str:
    """`8 × 128, keeps all`; of a state its size alone."""
    size = store.size.replace("x", "×")
    return size if store.kind == "state" else f"{size}, keeps {store.keeps}"


def store_lines(store: Store) -> tuple[str, ...]:
    """A store as the lines of a node."""
    count = f" × {store.count}" if store.count > 1 else ""
    return f"{store.name}{count}", store.holds, store_detail(store)


def store_words(tower: Tower, store: Store) -> str:
    """A store in a sentence."""
    readers = " and ".join(item_numbers(tower.items[reader]) for reader in store.readers) or "nobody"
    many = f"{store.count} x " if store.count > 1 else ""
    return (
        f"{many}{store.label}: {store.holds}, {store_detail(store)}; "
        f"written by {item_numbers(tower.items[store.writer_idx])}, read by {readers}"
    )


def stream(tower: Tower) -> list[tuple[str, str, bool]]:
    """The residual stream as edges between `bottom`, items (by their place) and `top`, and which crosses the exit.

    A lone write is a branch of the stream.
    """
    edges: list[tuple[str, str, bool]] = []
    below, crossed = STREAM_BOTTOM, False
    for place, item in enumerate(tower.items):
        crossed = crossed or (tower.exit is not None and tower.exit.before == place)
        if item.kind == "write":
            edges.append((below, f"i{place}", False))
        else:
            edges.append((below, f"i{place}", crossed))
            below, crossed = f"i{place}", False
    return [*edges, (below, STREAM_TOP, crossed)]


def exit_words(tower: Tower) -> str:
    """`prefill exit`, with the repeat in whose last copy it stands."""
    if tower.exit is None:
        return ""
    return "prefill exit" + (f" (last of × {tower.exit.copies})" if tower.exit.copies > 1 else "")
