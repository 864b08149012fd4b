"""Spec -> text in canonical form. `parse(format_spec(spec)) == spec` for every spec that text can express."""

from collections.abc import Iterator

from archspec.spec import model
from archspec.spec.levels import BlockLevel, LevelsSpec, TokenLevel

INDENT = 2
HANGING = 2 * INDENT
"""Indent of a statement's further lines, on top of its own."""
WIDTH = 100
"""Columns of a line, its comment aside."""

"""Where a statement may be broken: behind a comma that is not in parentheses."""


def format_spec(spec: model.ModelSpec, comment: str = "") -> str:
    """The text of a spec; `comment` goes on top, each line behind `#`."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines.append(f"model {spec.name} {{")
    body = _levels(spec) if isinstance(spec, LevelsSpec) else _stack(spec)
    lines += _inside(body)
    return "\n".join([*(part for line in lines for part in _wrapped(line)), "}", ""])


def _stack(spec: model.ModelSpec) -> list[str]:
    """The lines of a model of one stack."""
    parts = [f"layers {spec.num_layers}", f"width {spec.hidden_size}", f"vocab {spec.vocab_size}"]
    parts += [*settings_text(spec.defaults), *_embedding(spec.embedding), *_head(spec)]
    if spec.embedding.tied:
        parts.append("tied embeddings")
    lines = _filled(parts)
    return [*lines, "", *map(_statement, spec.statements)] if spec.statements else lines


def _levels(spec: LevelsSpec) -> list[str]:
    """The lines of a model of two levels."""
    header = [f"vocab {spec.vocab_size}", *settings_text(spec.defaults), *_head(spec)]
    blocks, tokens = spec.blocks, spec.tokens
    lookup = f"embed lookup {blocks.lookup.size} {blocks.lookup.merge}"
    block_parts = [*_sizes(blocks), lookup, *_scale(blocks.embed_scale), *settings_text(blocks.defaults)]
    token_parts = [*_sizes(tokens), *_embedding(tokens.embedding), *settings_text(tokens.defaults)]
    if tokens.embedding.tied:
        token_parts.append("tied embeddings")
    number = "" if tokens.take.length is None else f"{tokens.take.length} "
    take = f"{tokens.take.kind} {number}from blocks.{tokens.take.door}"
    return [
        *_filled(header),
        "",
        f"blocks of {blocks.length} tokens {{",
        *_inside([*_filled(block_parts, 2), *map(_statement, blocks.statements), f"emit {blocks.emit}"]),
        "}",
        "tokens in block {",
        *_inside([*_filled(token_parts, 2), take, *map(_statement, tokens.statements)]),
        "}",
    ]


def _sizes(level: BlockLevel | TokenLevel) -> list[str]:
    return [f"layers {level.num_layers}", f"width {level.hidden_size}"]


def _inside(lines: list[str]) -> list[str]:
    return [" " * INDENT + line if line else "" for line in lines]


def _wrapped(line: str) -> Iterator[str]:
    """A long statement on several lines, as the formatter writes it."""
    words = line.lstrip()
    indent = len(line) - len(words)
    if len(line) <= WIDTH or words.startswith(("#", "iterate")):
        yield line
        return
    first, *parts = _pieces(words)
    line = " " * indent + first
    for part in parts:
        if len(line) + 1 + len(part) > WIDTH:
            yield line
            line = " " * (indent + HANGING) + part
        else:
            line += f" {part}"
    yield line


def _pieces(words: str) -> Iterator[str]:
    """A statement cut behind its commas, those inside of parentheses aside."""
    start = depth = 0
    for idx, character in enumerate(words):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield words[start : idx + 1]
            start = idx + 2
    yield words[start:]


def _scale(scale: float | str) -> list[str]:
    return [] if scale == 1.0 else [f"embed scale {scale if isinstance(scale, str) else number_text(scale)}"]


def _embedding(embedding: model.Embedding) -> list[str]:
    parts = _scale(embedding.scale)
    if embedding.positions is not None:
        parts.append(positions_text(embedding.positions))
    if embedding.norm is not None and embedding.norm.kind != "none":
        parts.append(_norm("embed norm", embedding.norm))
    return parts


def positions_text(positions: model.Positions) -> str:
    """`positions learned 2048 from 2`."""
    text = f"positions {positions.kind} {positions.count}"
    return f"{text} from {positions.first_row}" if positions.first_row else text


def _head(spec: model.ModelSpec) -> list[str]:
    parts = [] if spec.final_norm is None else [_norm("final norm", spec.final_norm)]
    if spec.head_bias:
        parts.append("head-bias")
    if spec.logit_scale != 1.0:
        parts.append(f"logit scale {number_text(spec.logit_scale)}")
    if spec.final_softcap is not None:
        parts.append(f"final softcap {number_text(spec.final_softcap)}")
    return parts


def _filled(parts: list[str], depth: int = 1) -> list[str]:
    """Settings, as many on a line as fit at a depth of braces."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 <= WIDTH - depth * INDENT:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _statement(statement: model.Statement) -> str:
    match statement:
        case model.LayersStatement():
            mixer = f"{statement.mixer} to {statement.source}" if statement.source else statement.mixer
            return ", ".join([f"{layers_text(statement)} {mixer}", *settings_text(statement.settings)])
        case model.CacheStatement():
            return f"{cache_text(statement)}: {', '.join(settings_text(statement.settings))}".rstrip()
        case model.IterateStatement():
            layers = model.LayerRange(first=statement.first, last=statement.last)
            return f"iterate layers {layers}: {statement.forward} forward, {statement.backward} backward"
        case model.PrefillExitStatement():
            return f"prefill exit after {statement.after}"


def layers_text(statement: model.LayersStatement) -> str:
    """`layers 1, 21-22`."""
    return f"layers {', '.join(map(str, statement.ranges)) or 'rest'}"


def cache_text(statement: model.CacheStatement) -> str:
    """`cache main@13`."""
    return f"cache {statement.name}@{statement.layer}" if statement.name else f"cache@{statement.layer}"


def settings_text(settings: model.Settings) -> list[str]:
    """Each setting that is made, as a clause."""
    makers = (
        ("heads", lambda value: f"heads {_heads(value)}"),
        ("kv_heads", lambda value: f"kv heads {_heads(value)}"),
        ("window", _window),
        ("ffn", lambda value: f"ffn {ffn_text(value)}" if value.kind != "none" else "no ffn"),
        ("norm", lambda value: _norm("norm", value)),
        ("qk_norm", lambda value: _norm("qk-norm", value)),
        ("rope", rope_text),
        ("bias", _bias),
        ("residual", lambda value: f"residual {value}"),
        ("residual_scale", lambda value: f"residual scale {number_text(value)}"),
        ("layer_scalar", lambda value: "layer-scalar" if value else "no layer-scalar"),
        ("placement", lambda value: f"{value} norms"),
        ("attention_scale", _attention_scale),
        ("attention_softcap", lambda value: f"attention softcap {number_text(value)}" if value else "no softcap"),
        ("diagonal", lambda value: "no diagonal"),
        ("v_norm", lambda value: _norm("v-norm", value)),
        ("values_from_keys", lambda value: "values-from-keys" if value else "no values-from-keys"),
        ("sink_logits", lambda value: "sink-logits" if value else "no sink-logits"),
        ("output_gate", lambda value: "output-gate" if value else "no output-gate"),
    )
    return [make(value) for key, make in makers if (value := getattr(settings, key)) is not None]


def ffn_text(ffn: model.Ffn | model.Moe) -> str:
    """`swiglu(8192)`, `moe(top 8 of 128 swiglu(768), shared swiglu(2048))`."""
    if isinstance(ffn, model.Ffn):
        return f"{ffn.kind}({ffn.hidden_size})"
    parts = [f"top {ffn.top} of {ffn.num_experts} {ffn_text(ffn.expert)}"]
    if ffn.shared is not None:
        parts.append(f"shared {ffn_text(ffn.shared.ffn)}{' gated' if ffn.shared.gated else ''}")
    if ffn.router != "softmax":
        parts.append(f"router {ffn.router}")
    parts += [word for word, said in (("router bias", ffn.router_bias), ("selection bias", ffn.selection_bias)) if said]
    if ffn.groups is not None:
        parts.append(f"groups {ffn.groups.chosen} of {ffn.groups.total}")
    if not ffn.renorm:
        parts.append("no renorm")
    if ffn.scale != 1.0:
        parts.append(f"scale {number_text(ffn.scale)}")
    return f"moe({', '.join(parts)})"


def rope_text(rope: model.Rope) -> str:
    """`rope interleaved(10000) on 25%`, `rope 500000 scaled linear(8)`."""
    if rope.kind == "none":
        return "no rope"
    theta = number_text(rope.theta)
    text = f"rope {theta}" if rope.kind == "half" else f"rope {rope.kind}({theta})"
    text += "" if rope.percent == 100 else f" on {rope.percent}%"
    return text if rope.scaling is None else f"{text} scaled {_scaling(rope.scaling)}"


def _scaling(scaling: model.Scaling) -> str:
    """The factor, then what differs from the default, by name."""
    parts = [number_text(scaling.factor)]
    match scaling:
        case model.Llama3Scaling():
            parts += [
                f"low {number_text(scaling.low)}",
                f"high {number_text(scaling.high)}",
                f"original {scaling.original}",
            ]
        case model.YarnScaling():
            parts.append(f"original {scaling.original}")
            defaults = model.YarnScaling(factor=scaling.factor, original=scaling.original)
            for key in ("fast", "slow", "attention_factor"):
                if (value := getattr(scaling, key)) != getattr(defaults, key):
                    parts.append(f"{key.replace('_', '-')} {number_text(value)}")
            parts += [] if scaling.truncate else ["no truncate"]
    return f"{scaling.kind}({', '.join(parts)})"


def _heads(heads: model.Heads) -> str:
    return str(heads.count) if heads.head_dim is None else f"{heads.count} x {heads.head_dim}"


def _window(window: model.Window) -> str:
    if window.size is None:
        return "no window"
    return f"window {window.size}, sinks {window.sinks}" if window.sinks else f"window {window.size}"


def _attention_scale(scale: float) -> str:
    """As `rsqrt(n)` where that reads back as the same number."""
    count = round(scale**-2)
    return (
        f"attention scale rsqrt({count})"
        if count > 1 and count**-0.5 == scale
        else f"attention scale {number_text(scale)}"
    )


def _norm(word: str, norm: model.Norm) -> str:
    if norm.kind == "none":
        return f"no {word.replace('final norm', 'final-norm')}"
    spread = {"alike": "", "across": " across heads", "each": " each head"}[norm.spread]
    values = [] if norm.eps is None else [number_text(norm.eps)]
    values += [text for text, said in _norm_options(norm) if said]
    if values:
        return f"{word} {norm.kind}({', '.join(values)}){spread}"
    bare = word in ("qk-norm", "v-norm") and norm.kind == "rms"
    return f"{word}{spread}" if bare else f"{word} {norm.kind}{spread}"


def _norm_options(norm: model.Norm) -> tuple[tuple[str, bool], ...]:
    no_bias = norm.kind == "layernorm" and norm.weight and not norm.bias
    return ("1+w", norm.plus_one), ("no weight", not norm.weight), ("no bias", no_bias)


def _bias(targets: tuple[model.BiasTarget, ...]) -> str:
    if not targets:
        return "no bias"
    return "bias" if len(targets) == 3 else f"bias {' '.join(targets)}"


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number, in the grammar's forms."""
    if value == int(value) and value < 1e15:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if exponent else mantissa
