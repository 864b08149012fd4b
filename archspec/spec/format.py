"""Spec -> text in canonical form. `parse(format_spec(spec)) == spec` for every spec that text can express."""

from archspec.spec import model

_INDENT = "  "
_LINE = 100


def format_spec(spec: model.ModelSpec, comment: str = "") -> str:
    """The text of a spec; `comment` goes on top, each line behind `#`."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines.append(f"model {spec.name} {{")
    lines += [_INDENT + line for line in _header(spec)]
    if spec.statements:
        lines.append("")
    lines += [_INDENT + _statement(statement) for statement in spec.statements]
    return "\n".join([*lines, "}", ""])


def _header(spec: model.ModelSpec) -> list[str]:
    """Header settings, as many on a line as fit."""
    parts = [f"layers {spec.num_layers}", f"width {spec.hidden_size}", f"vocab {spec.vocab_size}"]
    parts += settings_text(spec.defaults)
    if spec.embedding.scale != 1.0:
        scale = spec.embedding.scale
        parts.append(f"embed scale {scale if isinstance(scale, str) else _number(scale)}")
    if spec.embedding.tied:
        parts.append("tied embeddings")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 <= _LINE:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _statement(statement: model.LayersStatement | model.CacheStatement | model.PrefillExitStatement) -> str:
    match statement:
        case model.LayersStatement():
            mixer = f"{statement.mixer} to {statement.source}" if statement.source else statement.mixer
            return ", ".join([f"{layers_text(statement)} {mixer}", *settings_text(statement.settings)])
        case model.CacheStatement():
            return f"{cache_text(statement)}: {', '.join(settings_text(statement.settings))}"
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
        ("window", lambda value: f"window {value.size}" if value.size is not None else "no window"),
        ("ffn", lambda value: "no ffn" if value.kind == "none" else f"ffn {value.kind}({value.hidden_size})"),
        ("norm", lambda value: _norm("norm", value)),
        ("qk_norm", lambda value: _norm("qk-norm", value)),
        ("rope", rope_text),
        ("bias", _bias),
        ("residual", lambda value: f"residual {value}"),
    )
    return [make(value) for key, make in makers if (value := getattr(settings, key)) is not None]


def rope_text(rope: model.Rope) -> str:
    """`rope interleaved(10000) on 25%`."""
    if rope.kind == "none":
        return "no rope"
    theta = _number(rope.theta)
    text = f"rope {theta}" if rope.kind == "half" else f"rope {rope.kind}({theta})"
    return text if rope.percent == 100 else f"{text} on {rope.percent}%"


def _heads(heads: model.Heads) -> str:
    return str(heads.count) if heads.head_dim is None else f"{heads.count} x {heads.head_dim}"


def _norm(word: str, norm: model.Norm) -> str:
    if norm.kind == "none":
        return f"no {word}"
    if norm.eps is None:
        return word if (word, norm.kind) == ("qk-norm", "rms") else f"{word} {norm.kind}"
    return f"{word} {norm.kind}({_number(norm.eps)})"


def _bias(targets: tuple[model.BiasTarget, ...]) -> str:
    if not targets:
        return "no bias"
    return "bias" if len(targets) == 3 else f"bias {' '.join(targets)}"


def _number(value: float) -> str:
    """The shortest text that reads back as the same number, in the grammar's forms."""
    if value == int(value) and value < 1e15:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if exponent else mantissa
