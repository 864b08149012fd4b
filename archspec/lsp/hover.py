"""What an editor shows under the pointer, in Markdown: what a cache costs, what layers are, what a word means."""

from dataclasses import dataclass
from inspect import cleandoc
from math import prod

from archspec.describe import layer_text, slot_row
from archspec.diagnostics import layer_numbers, zero_based
from archspec.graph.layer_graph import CacheNode
from archspec.levels_plan import LevelsPlan
from archspec.lsp.places import Stack, Statement, View
from archspec.lsp.words import meaning, meaning_of_setting
from archspec.plan import DTYPE_BYTES, CacheSlot
from archspec.source import Span
from archspec.units import format_bytes, format_count

DTYPE = "bfloat16"
CONTEXTS = (4096, 32768, 131072, 1048576)
MAX_CACHES = 4
"""Caches that one hover shows; `cache@below` may mean hundreds."""


RULE = "\n\n---\n\n"


@dataclass(frozen=True)
class Hover:
    """Markdown about a place."""

    text: str
    span: Span


def hover(view: View, offset: int) -> Hover | None:
    """What is known of the thing at an offset, and the pages of the findings there."""
    about = _about(view, offset)
    pages = [
        (found.span, f"**{found.code}**\n```text\n{cleandoc(found.__doc__ or '')}\n```")
        for found in view.analysis.diagnostics
        if found.span.end > found.span.start and view.covers(found.span, offset)
    ]
    if not pages:
        return about
    parts = [*([about.text] if about else []), *dict.fromkeys(page for _, page in pages)]
    return Hover(RULE.join(parts[:MAX_CACHES]), about.span if about else pages[0][0])


def _about(view: View, offset: int) -> Hover | None:
    named = view.cache_at(offset)
    if named is not None:
        texts = [_cache(view, named.stack, named.stack.graph.caches[key]) for key in named.keys[:MAX_CACHES]]
        if len(named.keys) > MAX_CACHES:
            texts.append(f"... and {len(named.keys) - MAX_CACHES} more")
        return Hover(RULE.join(texts) or meaning("to"), named.span)
    layers = view.layers_at(offset)
    if layers is not None and layers.numbers:
        return Hover(_layers(view, layers), layers.spans.head)
    return _word(view, offset)


def _word(view: View, offset: int) -> Hover | None:
    """The meaning of a word: of the setting that it stands in if it is a keyword there, else its own."""
    word = view.word_at(offset)
    if word is None:
        return None
    setting = view.setting_at(offset)
    text = meaning(word.text)
    if setting is not None and text:
        text = meaning_of_setting(setting[1]) or text
    return Hover(text, word) if text else None


def _cache(view: View, stack: Stack, cache: CacheNode) -> str:
    """One cache: what it holds, who writes and reads it, what it keeps and costs."""
    prefix = f"{stack.level}." if stack.level else ""
    holds = f"a projection of layer {cache.layer}'s output" if cache.projected else f"layer {cache.layer}'s own K/V"
    readers = stack.graph.readers_of(cache.key)
    facts = [
        f"written by {zero_based(cache.layer)}",
        f"read by {layer_numbers([number - 1 for number in readers], short=True) if readers else 'nobody'}",
    ]
    plan = view.plan_of(stack)
    slot = None if plan is None else next((slot for slot in plan.slots if slot.name == cache.key), None)
    if slot is None:
        kept = "everything" if cache.window is None else f"the last {cache.window} positions"
        sinks = f"the first {cache.sinks} and " if cache.sinks else ""
        facts += [f"keeps {sinks}{kept}", "its bytes are shown once the spec has no errors"]
        return f"**{prefix}{cache.key}**: {holds}\n\n" + "\n".join(f"- {fact}" for fact in facts)
    row = slot_row(slot, DTYPE)
    facts += [f"keeps {row.keeps}", f"kv heads {row.kv_heads}, {_token_bytes(view, stack, slot)}"]
    return (
        f"**{prefix}{cache.key}**: {holds}\n\n" + "\n".join(f"- {fact}" for fact in facts) + _table(view, stack, slot)
    )


def _token_bytes(view: View, stack: Stack, slot: CacheSlot) -> str:
    each = slot.elements_per_token * DTYPE_BYTES[DTYPE]
    unit = "token"
    if stack.level == "blocks" and isinstance(view.plan, LevelsPlan):
        unit = f"block of {view.plan.block_length} tokens"
    elif stack.level == "tokens":
        unit = "position of one block"
    return f"{each:,} bytes a {unit} in {DTYPE}"


def _table(view: View, stack: Stack, slot: CacheSlot) -> str:
    """Bytes of one sequence at a few contexts."""
    sizes = [format_bytes(_bytes(view, stack, slot, context)) for context in CONTEXTS]
    head = " | ".join(format_count(context) for context in CONTEXTS)
    rule = " | ".join("---:" for _ in CONTEXTS)
    return f"\n\n| tokens | {head} |\n| --- | {rule} |\n| bytes | {' | '.join(sizes)} |"


def _bytes(view: View, stack: Stack, slot: CacheSlot, context: int) -> int:
    positions = context
    if isinstance(view.plan, LevelsPlan):
        positions = view.plan.num_blocks(context) if stack.level == "blocks" else view.plan.block_positions
    return slot.elements_per_token * slot.cache_len(positions) * DTYPE_BYTES[DTYPE]


def _layers(view: View, statement: Statement) -> str:
    """A group of layers: how many, what they are, what they read, how many parameters they have."""
    numbers, stack = statement.numbers, statement.stack
    many = f"{len(numbers)} layers" if len(numbers) > 1 else "one layer"
    title = layer_numbers([number - 1 for number in numbers], short=True)
    from_zero = layer_numbers([number - 2 for number in numbers], short=True).split(" ", 1)[1]
    facts = [f"{'indices' if len(numbers) > 1 else 'index'} {from_zero} in HF"]
    keys = statement.read
    if keys:
        named = [_short(stack.graph.caches[key]) for key in keys[:MAX_CACHES]]
        facts.append(f"reads {', '.join(named)}{', ...' if len(keys) > MAX_CACHES else ''}")
    elif statement.written:
        others = {
            reader
            for key in statement.written
            for reader in stack.graph.readers_of(key)
            if reader != stack.graph.caches[key].layer
        }
        shared = layer_numbers([number - 1 for number in others], short=True) if others else "nobody"
        facts.append(f"each keeps keys and values of its own; read by others: {shared}")
    plan = view.plan_of(stack)
    if plan is not None:
        wanted = {f"layers.{number - 1}." for number in numbers}
        own = sum(
            prod(shape)
            for name, shape in plan.parameter_shapes()
            if name.startswith("layers.") and name[: name.index(".", 7) + 1] in wanted
        )
        facts.append(f"{own:,} parameters, {own / plan.num_parameters():.1%} of {_whole(stack)}")
        facts.append(f"layer {numbers[0]}: {layer_text(plan, numbers[0] - 1)}")
    mixer = statement.spec.mixer
    return f"**{title}**: {many}, `{mixer}`\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _short(cache: CacheNode) -> str:
    return f"{cache.key} ({f'projection after layer {cache.layer}' if cache.projected else 'own K/V of that layer'})"


def _whole(stack: Stack) -> str:
    return f"the {stack.level[:-1]} level" if stack.level else "the model"
