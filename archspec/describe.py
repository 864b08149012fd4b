"""A plan in words: who writes and who reads each cache, what it keeps and costs, and where prefill exits."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from archspec.diagnostics import layer_numbers
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import DTYPE_BYTES, CacheSlot, LayerPlan, Plan, RetentionPlan, Step, flattened
from archspec.spec.format import ffn_text, positions_text, rope_text


@dataclass(frozen=True)
class CacheRow:
    """One line of the cache table: one slot, or several that differ in nothing but their place."""

    cache: str
    holds: str
    readers: str
    keeps: str
    kv_heads: str
    token_bytes: int
    """Bytes a token while nothing is dropped, of all slots of the row; 0 for states."""


def cache_rows(plan: AnyPlan, dtype: str) -> list[CacheRow]:
    """The cache table of a plan: slots in writing order, alike ones folded, states last; a level after the other."""
    if isinstance(plan, LevelsPlan):
        return _rows_of_levels(plan, dtype)
    groups: dict[tuple[Any, ...], list[CacheSlot]] = {}
    for slot in plan.slots:
        groups.setdefault(_signature(slot), []).append(slot)
    rows = [_row(group, DTYPE_BYTES[dtype]) for group in groups.values()]
    states: dict[tuple[int, int], list[int]] = {}
    for state in plan.states:
        states.setdefault((state.num_heads, state.head_dim), []).append(state.writer_idx)
    for (num_heads, head_dim), writers in states.items():
        size = f"{num_heads} x {head_dim} x {head_dim} float32"
        rows.append(CacheRow(names_at("state", writers), "recurrent state", "itself", "constant", size, 0))
    return rows


def slot_row(slot: CacheSlot, dtype: str) -> CacheRow:
    """The line of one slot alone."""
    return _row([slot], DTYPE_BYTES[dtype])


def _rows_of_levels(plan: LevelsPlan, dtype: str) -> list[CacheRow]:
    """Rows with the level before the cache; bytes a token are a block's, divided by its tokens and rounded."""
    length = plan.block_length
    blocks = [
        replace(
            row,
            cache=f"blocks.{row.cache}",
            keeps=f"{row.keeps} blocks" if row.token_bytes else row.keeps,
            token_bytes=round(row.token_bytes / length),
        )
        for row in cache_rows(plan.blocks, dtype)
    ]
    tokens = [
        replace(row, cache=f"tokens.{row.cache}", keeps=f"{row.keeps}, for one block", token_bytes=0)
        for row in cache_rows(plan.tokens, dtype)
    ]
    return blocks + tokens


def _signature(slot: CacheSlot) -> tuple[Any, ...]:
    """Equal for slots that can share a line: the same in all but their place."""
    offsets = tuple(reader - slot.writer_idx for reader in slot.readers)
    adjacent = offsets == tuple(range(offsets[0], offsets[0] + len(offsets))) if offsets else False
    place = offsets if adjacent and offsets[0] in (0, 1) and "@" in slot.name else (slot.idx,)
    return (
        place,
        slot.projected,
        slot.name.split("@")[0],
        slot.window,
        slot.sinks,
        slot.num_kv_heads,
        slot.head_dim,
        slot.rope,
    )


def _row(group: list[CacheSlot], element_bytes: int) -> CacheRow:
    slot = group[0]
    writers = [member.writer_idx for member in group]
    name = slot.name if len(group) == 1 else names_at(slot.name.split("@")[0], writers)
    if slot.projected:
        holds = f"projection of layer {slot.writer_idx + 1}'s output" if len(group) == 1 else "projection of each"
    else:
        holds = f"layer {slot.writer_idx + 1}'s own K/V" if len(group) == 1 else "each layer's own K/V"
    return CacheRow(
        cache=name,
        holds=holds,
        readers=_readers(group),
        keeps=keeps_text(slot),
        kv_heads=f"{slot.num_kv_heads} x {slot.head_dim}",
        token_bytes=len(group) * slot.elements_per_token * element_bytes,
    )


def keeps_text(slot: CacheSlot) -> str:
    """`all`, `last 1024`, `first 4, last 1020`."""
    if slot.window is None:
        return "all"
    return f"first {slot.sinks}, last {slot.window}" if slot.sinks else f"last {slot.window}"


def _readers(group: list[CacheSlot]) -> str:
    slot = group[0]
    if not slot.readers:
        return "nobody"
    if len(group) == 1:
        return layer_numbers(slot.readers)
    following = len(slot.readers) - (slot.readers[0] == slot.writer_idx)
    next_ = f"the next {following}" if following > 1 else "the next"
    if slot.readers[0] != slot.writer_idx:
        return next_
    return f"itself and {next_}" if following else "itself"


def names_at(word: str, indices: Iterable[int]) -> str:
    """`cache@1-8`, `cache@1-15 step 2`."""
    numbers = sorted(idx + 1 for idx in indices)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) == 1 and len(numbers) > 2:
        step = steps.pop()
        return f"{word}@{numbers[0]}-{numbers[-1]}" + (f" step {step}" if step > 1 else "")
    return f"{word}@{layer_numbers([number - 1 for number in numbers]).split(' ', 1)[1]}"


def exit_text(plan: AnyPlan, unit: str = "token") -> str:
    """Where prefill stops computing all positions, and what that saves."""
    if isinstance(plan, LevelsPlan):
        tokens = "prefill starts the token level for the next block only: its caches live for one block"
        return f"{tokens}\nin the block level, {exit_text(plan.blocks, 'block')}"
    rest = [step for step in plan.body[plan.exit_idx :] if step.op == "layer"]
    if plan.exit_idx == 0:
        return "prefill computes the last position only: nothing is cached"
    done = _last_for_all(plan)
    if not rest:
        return f"prefill runs every layer for every {unit} (the last write is that of {done})"
    layers = layer_numbers([step.idx for step in rest])
    runs = "run" if len(rest) > 1 else "runs"
    return f"prefill exits after {done}: {layers} of {len(plan.layers)} {runs} for the last position only"


def chunk_text(plan: AnyPlan) -> str:
    """How a long prompt is taken up: in chunks of how many tokens, and what runs for every one of them."""
    of_levels = isinstance(plan, LevelsPlan)
    stack = plan.blocks if isinstance(plan, LevelsPlan) else plan
    every = flattened(stack.body[: stack.exit_idx], stack.groups)
    layers = [step.idx for step in every if step.op == "layer"]
    level = "of the block level, " if of_levels else ""
    if plan.prefill_chunk is None:
        iterating = [step.idx for group in stack.groups for step in group.steps if step.op == "layer"]
        who = f"{layer_numbers(iterating)} {'iterate' if len(iterating) > 1 else 'iterates'}"
        return f"prompts are taken up whole: {level}{who}, and passes over a part would give other numbers"
    blocks = f" ({stack.prefill_chunk} blocks)" if of_levels else ""
    amount = f"prompts are taken up {plan.prefill_chunk} tokens{blocks} at a time"
    if not layers:
        return f"{amount}: {level}no layer runs for any chunk but the last"
    count = f" of {len(stack.layers)}" if len(layers) < len(stack.layers) else ""
    who = f"{layer_numbers(layers)}{count} {'run' if len(layers) > 1 else 'runs'}" if count else "every layer runs"
    others = " and ".join(["the others"] * bool(count) + ["the token level"] * of_levels)
    return f"{amount}: {level}{who} for every chunk{f', {others} for the last one only' if others else ''}"


def exit_place(plan: AnyPlan) -> str | None:
    """After what prefill exits: `cache@13`, `layer 4`, `start`; None if every layer runs for every position.

    Of a model with two levels, that of the block level, where layers and caches count blocks.
    """
    if isinstance(plan, LevelsPlan):
        return exit_place(plan.blocks)
    if not any(step.op == "layer" for step in plan.body[plan.exit_idx :]):
        return None
    return _last_for_all(plan) if plan.exit_idx else "start"


def _last_for_all(plan: Plan) -> str:
    """The last step of prefill that runs for every position."""
    last = plan.body[plan.exit_idx - 1]
    if last.op == "iterate":
        last = plan.groups[last.idx].steps[-1]
    if last.op != "write":
        return f"layer {last.idx + 1}"
    name = plan.slots[last.idx].name
    return name if "@" in name else f"cache {name}"


def iteration_texts(plan: AnyPlan) -> list[str]:
    """What each iteration group costs."""
    if isinstance(plan, LevelsPlan):
        return [f"{word}: {text}" for word, level in plan.levels() for text in iteration_texts(level)]
    texts = []
    alike: dict[tuple[int, int], list[list[int]]] = {}
    for group in plan.groups:
        layers = [step.idx for step in group.steps if step.op == "layer"]
        alike.setdefault((group.forward, group.backward), []).append(layers)
    for (forward, backward), groups in alike.items():
        members = [idx for layers in groups for idx in layers]
        passes, count = forward + backward, len(members)
        apart = f" in {len(groups)} groups" if len(groups) > 1 else ""
        verb = "iterate" if count > 1 else "iterates"
        cost = f"{passes} passes x {count} layer{'s' if count > 1 else ''} = {passes * count} layer runs"
        who = f"{layer_numbers(members, short=True)} {verb}{apart} ({forward} forward, {backward} backward)"
        texts.append(f"{who}: {cost} in prefill and training; decoding runs once")
    return texts


def twin_texts(plan: AnyPlan) -> list[str]:
    """Layers that have K/V of their own and projections of their output: two things that `cache@N` might mean."""
    if isinstance(plan, LevelsPlan):
        return [f"{word}: {text}" for word, level in plan.levels() for text in twin_texts(level)]
    own = {slot.writer_idx: slot for slot in plan.slots if not slot.projected}
    texts = []
    for slot in plan.slots:
        twin = own.get(slot.writer_idx)
        if slot.projected and twin is not None:
            number = slot.writer_idx + 1
            name = slot.name if "@" in slot.name else f"cache {slot.name}"
            others = [idx for idx in twin.readers if idx != slot.writer_idx]
            also = f"layer {number} and {layer_numbers(others)}" if others else f"layer {number} itself"
            projection = f"`{name}` is a projection of layer {number}'s output"
            texts.append(f"{projection}; layer {number}'s own K/V are read by {also}")
    return texts


def plan_text(plan: AnyPlan) -> str:
    """The whole plan, one fact a line; equal plans print equally."""
    if isinstance(plan, LevelsPlan):
        return _levels_text(plan)
    head, body = _stack_lines(plan)
    return "\n".join([f"plan {plan.name}", *head, f"  {chunk_text(plan)}", *body])


def _stack_lines(plan: Plan) -> tuple[list[str], list[str]]:
    """What a stack is as a whole, and all its parts and steps."""
    head = [
        f"  width {plan.hidden_size}, vocab {plan.vocab_size}, {parameters_text(plan, '')}",
        f"  embedding scale {plan.embed_scale:.10g}, {'tied' if plan.tied_embeddings else 'untied'}{_ends(plan)}",
        f"  cache bytes {plan.cache_formula()}",
    ]
    body = [
        "slots",
        *(f"  {slot.idx:>3} {_slot_text(slot)}" for slot in plan.slots),
        "states",
        *(
            f"  {state.idx:>3} {state.name}: {state.num_heads} x {state.head_dim} x {state.head_dim} float32"
            for state in plan.states
        ),
        "layers",
        *(f"  {layer.idx + 1:>3} {layer_text(plan, layer.idx)}" for layer in plan.layers),
        "prefill",
        *(f"  {_step_text(plan, step)}" for step in plan.prefill_steps()),
        "decode",
        *(f"  {_step_text(plan, step)}" for step in plan.decode_steps()),
    ]
    return head, body


def parameters_text(plan: AnyPlan, separator: str = ",") -> str:
    """How many parameters there are, and how many of them a token passes, where experts make that fewer."""
    total, active = plan.num_parameters(), plan.num_active_parameters()
    return f"{total:{separator}} parameters" + (f", {active:{separator}} of them active" if active != total else "")


def _ends(plan: Plan) -> str:
    """What stands between the embedding and the layers, and behind them, where that is more than the final norm."""
    parts = [
        positions_text(plan.positions) if plan.positions is not None else "",
        f"embed norm {plan.embed_norm.kind}" if plan.embed_norm.kind != "none" else "",
        "no final-norm" if plan.final_norm.kind == "none" else "",
        "head-bias" if plan.head_bias else "",
        f"logit scale {plan.logit_scale:.10g}" if plan.logit_scale != 1 else "",
        f"final softcap {plan.final_softcap:.10g}" if plan.final_softcap is not None else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _levels_text(plan: LevelsPlan) -> str:
    vectors = f"{plan.take} of {plan.num_context} vectors"
    lines = [
        f"plan {plan.name}",
        f"  blocks of {plan.block_length} tokens, vocab {plan.vocab_size}, {plan.num_parameters()} parameters",
        f"  a block is its rows of width {plan.lookup.size}, {plan.lookup.merge}; its context a {vectors}",
        f"  token embedding scale {plan.token_embed_scale:.10g}, {plan.block_positions} positions a block",
        f"  cache bytes {plan.cache_formula()}",
        f"  {chunk_text(plan)}",
    ]
    for word, level in plan.levels():
        head, body = _stack_lines(level)
        lines += ["", word, *(f"  {line}" for line in (*head, *body))]
    return "\n".join(lines)


def _slot_text(slot: CacheSlot) -> str:
    kind = "projection of" if slot.projected else "own K/V of"
    keeps = keeps_text(slot)
    readers = layer_numbers(slot.readers) if slot.readers else "nobody"
    norms = "".join(
        f", {word} {norm.kind}"
        for word, norm in (("norm", slot.norm), ("k-norm", slot.k_norm), ("v-norm", slot.v_norm))
        if norm.kind != "none"
    )
    values = ", values from keys" if slot.values_from_keys else ""
    return (
        f"{slot.name}: {kind} layer {slot.writer_idx + 1}, kv heads {slot.num_kv_heads} x {slot.head_dim}, "
        f"keeps {keeps}, {rope_text(slot.rope)}{norms}{values}, read by {readers}"
    )


def layer_text(plan: Plan, idx: int) -> str:
    """Mixer, ffn and norms of one layer."""
    layer = plan.layers[idx]
    ffn = ffn_text(layer.ffn) if layer.ffn else "no ffn"
    if layer.mixer is None:
        return f"no mixer; {ffn}{_frame(layer)}"
    heads = f"{layer.mixer.num_heads} x {layer.mixer.head_dim}"
    if isinstance(layer.mixer, RetentionPlan):
        state = plan.states[layer.mixer.state_idx].name
        return f"retention ({layer.mixer.decay} decay) {heads}, {state}; {ffn}{_frame(layer)}"
    mixer = layer.mixer
    extras = [
        f"window {mixer.window}" if mixer.window is not None else "",
        f"sinks {mixer.sinks}" if mixer.sinks else "",
        "" if mixer.sees_self else "earlier tokens only",
        "q-norm" if mixer.q_norm.kind != "none" else "",
        f"scale {mixer.scale:.10g}" if mixer.scale != mixer.head_dim**-0.5 else "",
        f"softcap {mixer.softcap:.10g}" if mixer.softcap else "",
        "sink logits" if mixer.sink_logits else "",
        "output gate" if mixer.output_gate else "",
    ]
    shown = "".join(f", {extra}" for extra in extras if extra)
    return f"attention {heads} over {plan.slots[mixer.slot_idx].name}{shown}; {ffn}{_frame(layer)}"


def _frame(layer: LayerPlan) -> str:
    """How mixer and ffn are put together, where that is not pre-norm and one after the other."""
    parts = [
        layer.residual if layer.residual != "sequential" else "",
        f"{layer.placement} norms" if layer.placement != "pre" else "",
        f"residual scale {layer.residual_scale:.10g}" if layer.residual_scale != 1 else "",
        "layer-scalar" if layer.layer_scalar else "",
    ]
    return "".join(f"; {part}" for part in parts if part)


def _step_text(plan: Plan, step: Step) -> str:
    match step.op:
        case "write":
            return f"write {plan.slots[step.idx].name}"
        case "layer":
            return f"layer {step.idx + 1}"
        case "iterate":
            group = plan.groups[step.idx]
            inner = ", ".join(_step_text(plan, each) for each in group.steps)
            return f"iterate {group.forward} + {group.backward} passes: {inner}"
        case "last":
            return "last position only"
        case "embed" | "head":
            return step.op


def plan_json(plan: AnyPlan) -> dict[str, Any]:
    """All fields of a plan as plain values, and what follows from them."""
    return {**_values(plan), "prefill_chunk": plan.prefill_chunk}


def _values(plan: AnyPlan) -> dict[str, Any]:
    """All but how prompts are taken up, which is not for a level to say."""
    levels = {word: _values(level) for word, level in plan.levels()} if isinstance(plan, LevelsPlan) else {}
    return {
        **asdict(plan, dict_factory=_plain),
        **levels,
        "num_parameters": plan.num_parameters(),
        "num_active_parameters": plan.num_active_parameters(),
        "cache_formula": plan.cache_formula(),
    }


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in items}
