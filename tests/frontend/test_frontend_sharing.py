"""The sharing checks against a simulation in plain loops, on one-level specs made by Hypothesis.

The simulation runs a model layer by layer: it keeps a list of what has been written, and asks at each layer whether
what the layer wants is there, keeps enough positions and fits. `nothing went wrong` <=> the checker finds no error.
"""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archspec.driver import analyse_text
from archspec.render import render_text

# A statement: (kind, ...) with plain values, so that neither the spec models nor the lowering take part.
# ("layers", numbers, mixer, source, heads, kv_heads, window), ("cache", layer, name, kv_heads, window), ("rest", mixer, source)
COUNTS = st.sampled_from([1, 2, 3, 4])
WINDOWS = st.sampled_from([None, None, 4, 8])
HEADER = "layers {total}, width 64, vocab 100, ffn swiglu(128), rope 10000"


@st.composite
def models(draw):
    """Mostly near-valid: every layer declared once, most sources below their readers; then perhaps one thing broken."""
    total = draw(st.integers(1, 6))
    caches = [
        ("cache", layer, draw(st.sampled_from([None, "a", "b"])), draw(COUNTS), draw(WINDOWS))
        for layer in draw(st.lists(st.integers(1, total), max_size=2))
    ]
    names = [name for _, _, name, _, _ in caches if name]
    statements = []
    numbers = list(range(1, total + 1))
    while numbers:
        size = draw(st.integers(1, 3))
        taken, numbers = numbers[:size], numbers[size:]
        mixer = draw(st.sampled_from(["attend", "attend", "cross-attend", "cross-attend", "retention", "ffn-only"]))
        source = None
        if mixer == "cross-attend":
            below = [f"cache@{number}" for number in range(1, max(taken[0], 2))]
            source = draw(st.sampled_from(below * 3 + [f"cache {name}" for name in names] + [f"cache@{total}"]))
        kv_heads = draw(st.sampled_from([None, 1, 2])) if mixer == "attend" else None
        statements.append(("layers", taken, mixer, source, draw(COUNTS), kv_heads, draw(WINDOWS)))
    statements += caches
    if draw(st.integers(0, 3)) == 0:
        statements = broken(draw, total, statements)
    return total, draw(st.permutations(statements))


def broken(draw, total, statements):
    kind = draw(st.sampled_from(["drop", "double", "rest", "source", "kv", "far"]))
    at = draw(st.integers(0, len(statements) - 1))
    one = statements[at]
    if kind == "drop":
        return statements[:at] + statements[at + 1 :]
    if kind == "double":
        return [*statements, one]
    if kind == "rest":
        return [*statements[:at], ("rest", "ffn-only", None), *statements[at + 1 :]]
    if one[0] != "layers":
        return statements
    _, numbers, mixer, source, heads, kv_heads, window = one
    if kind == "far":
        numbers = [*numbers, total + 1]
    if kind == "kv" and mixer == "cross-attend":
        kv_heads = 2
    if kind == "source" and mixer == "cross-attend":
        wrong = ["cache@0", f"cache@{total + 1}", "cache none", f"cache@{numbers[0]}", f"cache@{numbers[-1]}"]
        source = draw(st.sampled_from(wrong))
    changed = ("layers", numbers, mixer, source, heads, kv_heads, window)
    return [*statements[:at], changed, *statements[at + 1 :]]


def text_of(total, statements):
    lines = [HEADER.format(total=total)]
    for statement in statements:
        if statement[0] == "cache":
            _, layer, name, kv_heads, window = statement
            head = f"cache {name}@{layer}" if name else f"cache@{layer}"
            lines.append(f"{head}: kv heads {kv_heads} x 16" + (f", window {window}" if window else ""))
        elif statement[0] == "rest":
            lines.append(f"layers rest {statement[1]}")
        else:
            _, numbers, mixer, source, heads, kv_heads, window = statement
            line = f"layers {', '.join(map(str, numbers))} {mixer}" + (f" to {source}" if source else "")
            line += f", heads {heads} x 16" if mixer != "ffn-only" else ""
            line += f", kv heads {kv_heads}" if kv_heads else ""
            line += f", window {window}" if window and "attend" in mixer else ""
            lines.append(line)
    return "model m {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def simulate(total, statements):
    """What goes wrong, in words; empty if nothing does."""
    wrong = []
    projections = {}  # what a reader may name -> (layer, kv heads, window)
    by_layer = {}
    for statement in statements:
        if statement[0] == "cache":
            _, layer, name, kv_heads, window = statement
            key = f"cache {name}" if name else f"cache@{layer}"
            if key in projections:
                wrong.append(f"{key} twice")
            projections.setdefault(key, (layer, kv_heads, window))
            by_layer.setdefault(layer, {})[key] = (layer, kv_heads, window)

    layers = {}
    for statement in statements:
        if statement[0] == "layers":
            for number in statement[1]:
                if number > total:
                    wrong.append(f"layer {number} outside")
                if number in layers:
                    wrong.append(f"layer {number} twice")
                layers.setdefault(number, statement[2:])
    rests = [statement for statement in statements if statement[0] == "rest"]
    left = [number for number in range(1, total + 1) if number not in layers]
    if rests and (not left or len(rests) > 1):
        wrong.append("rest of nothing, or twice")
    for number in left:
        if rests:
            layers[number] = (rests[0][1], None, 1, None, None)
        else:
            wrong.append(f"layer {number} missing")

    own = {}  # K/V of layers that have run, or run now
    for number in range(1, total + 1):
        if number not in layers:
            continue
        mixer, source, heads, kv_heads, window = layers[number]
        if mixer == "attend":
            own[number] = (heads if kv_heads is None else kv_heads, window)
            if heads % own[number][0]:
                wrong.append(f"layer {number}: heads")
        if mixer != "cross-attend":
            continue
        if kv_heads is not None:
            wrong.append(f"layer {number}: a reader with kv heads")
        found = look_up(source, projections, by_layer, own, number)
        if found is None:
            wrong.append(f"layer {number}: nothing there yet")
            continue
        keys, kept = found
        if heads % keys:
            wrong.append(f"layer {number}: heads")
        if kept is not None and (window is None or window > kept):
            wrong.append(f"layer {number}: looks too far back")
    return wrong


def look_up(source, projections, by_layer, own, number):
    """Kv heads and window of what a reader named, if it has been written when layer `number` runs."""
    if source in projections:
        layer, keys, kept = projections[source]
        return (keys, kept) if layer < number else None
    if source.startswith("cache "):
        return None
    layer = int(source.removeprefix("cache@"))
    if layer in own:
        return own[layer] if layer < number else None
    named = list(by_layer.get(layer, {}).values())
    if len(named) != 1 or layer >= number:
        return None
    return named[0][1:]


@settings(max_examples=1500, deadline=None)
@given(models())
def test_simulation_and_checker_agree(model):
    total, statements = model
    text = text_of(total, statements)
    errors = [diagnostic for diagnostic in analyse_text(text).diagnostics if diagnostic.severity == "error"]
    wrong = simulate(total, statements)
    assert bool(errors) == bool(wrong), f"{text}\nsimulation: {wrong}\n{render_text(errors)}"


@settings(max_examples=300, deadline=None)
@given(models())
def test_layer_graph_reads_what_the_simulation_reads(model):
    total, statements = model
    assume(not simulate(total, statements))
    graph = analyse_text(text_of(total, statements)).graph
    assert graph is not None
    assert sorted(graph.layers) == list(range(1, total + 1))
    for statement in statements:
        if statement[0] != "layers" or statement[2] != "cross-attend":
            continue
        for number in statement[1]:
            cache = graph.source_of(number)
            assert cache is not None
            assert statement[3] in (f"cache {cache.key}", f"cache@{cache.layer}")
            assert cache.layer < number
