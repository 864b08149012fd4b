"""One clause -> one setting: `heads 24 x 128` -> ("heads", Heads(24, 128))."""

from collections.abc import Callable
from typing import Any, get_args

from archspec.diagnostics import Diagnostic, listing
from archspec.source import Span
from archspec.spec import errors, model
from archspec.spec.levels import Lookup, Merge
from archspec.syntax.tree import Atom, Clause
from archspec.syntax.words import NEGATED_KEYS, OTHER_KEYS

ROPE_KINDS = ("half", "interleaved", "interleaved-linspace", "proportional")
NORM_KINDS = ("rms", "layernorm")
FFN_KINDS: tuple[str, ...] = get_args(model.FfnKind)
ROUTERS = ("softmax", "sigmoid")
POSITIONS = ("learned",)
RESIDUALS: tuple[str, ...] = get_args(model.Residual)
_SCALINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., model.Scaling]]] = {
    "linear": ((), (), model.LinearScaling),
    "llama3": (("low", "high", "original"), ("low", "high", "original"), model.Llama3Scaling),
    "yarn": (("original", "fast", "slow", "attention-factor", "truncate"), ("original",), model.YarnScaling),
}
"""Kind -> the values that it takes, those that it needs, and its model."""
SCALINGS: tuple[str, ...] = tuple(_SCALINGS)
_NORM_PARTS = ("weight", "bias")
VALUES = (*_NORM_PARTS, "renorm", *dict.fromkeys(word for takes, _, _ in _SCALINGS.values() for word in takes))
"""Words that name a value in the parentheses of a norm, a mixture of experts or a scaling."""
_SCALING_EXAMPLES = {"llama3": "llama3(8, low 1, high 4, original 8192)", "yarn": "yarn(32, original 4096)"}
BIAS_TARGETS: tuple[str, ...] = get_args(model.BiasTarget)
MERGES: tuple[str, ...] = get_args(Merge)

_NEGATED: dict[str, Any] = {
    "window": model.Window(size=None),
    "rope": model.Rope(kind="none"),
    "norm": model.Norm(kind="none"),
    "qk-norm": model.Norm(kind="none"),
    "ffn": model.Ffn(kind="none"),
    "bias": (),
    "diagonal": False,
    "softcap": 0.0,
    "final-norm": model.Norm(kind="none"),
    "layer-scalar": False,
    "v-norm": model.Norm(kind="none"),
    "values-from-keys": False,
    "sink-logits": False,
    "output-gate": False,
}
NEGATABLE: tuple[str, ...] = tuple(_NEGATED)
"""What may follow `no`."""
_SPREADS: dict[str, model.Spread] = {"across_heads": "across", "each_head": "each"}


class _RejectedError(Exception):
    """Carries the diagnostic of a clause that has no meaning."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic


def setting_of(clause: Clause) -> tuple[str | None, Any, Diagnostic | None]:
    """The setting's key, its value (None if it has no meaning), and what was wrong with it."""
    if clause.key == "negation":
        word = str(clause.args[0].value)
        if word not in _NEGATED:
            known = tuple(_NEGATED)
            unknown = errors.UnknownKind(span=clause.args[0].span, setting="no", word=word, known=known)
            return None, None, unknown
        return NEGATED_KEYS.get(word, word), _NEGATED[word], None
    key = OTHER_KEYS.get(clause.key, clause.key)
    try:
        return key, _READERS[clause.key](clause), None
    except _RejectedError as rejected:
        return key, None, rejected.diagnostic


def _count(atom: Atom, setting: str) -> int:
    if isinstance(atom.value, float):
        raise _RejectedError(errors.BadValue(span=atom.span, setting=setting, rule="must be a whole number"))
    if not isinstance(atom.value, int) or atom.value < 1:
        raise _RejectedError(errors.BadValue(span=atom.span, setting=setting, rule="must be at least 1"))
    return atom.value


def _positive(atom: Atom, setting: str) -> float:
    if atom.value == float("inf"):
        raise _RejectedError(errors.BadValue(span=atom.span, setting=setting, rule="is too large"))
    if isinstance(atom.value, str) or not 0 < atom.value < float("inf"):
        raise _RejectedError(errors.BadValue(span=atom.span, setting=setting, rule="must be more than 0"))
    return float(atom.value)


def _kind(atom: Atom, setting: str, known: tuple[str, ...]) -> Any:
    word = str(atom.value)
    if word not in known:
        raise _RejectedError(errors.UnknownKind(span=atom.span, setting=setting, word=word, known=known))
    return word


def _single_count(clause: Clause) -> int:
    return _count(clause.args[0], "layers" if clause.key == "total" else clause.key)


def _heads(clause: Clause) -> model.Heads:
    setting = clause.key.replace("_", " ")
    count, *size = clause.args
    return model.Heads(
        count=_count(count, setting), head_dim=_count(size[0], f"{setting} x head_dim") if size else None
    )


def _window(clause: Clause) -> model.Window:
    atom = clause.args[0]
    if not isinstance(atom.value, int) or atom.value < 1:
        rule = "must be at least 1: it counts the current token"
        raise _RejectedError(errors.BadValue(span=atom.span, setting="window", rule=rule))
    return model.Window(size=atom.value)


def _rope(clause: Clause) -> model.Rope:
    args = list(clause.args)
    kind: Any = _kind(args.pop(0), "rope", ROPE_KINDS) if isinstance(args[0].value, str) else "half"
    theta = _positive(args[0], "rope")
    percent = _count(args[1], "rope on ...%") if len(args) == 2 else 100
    if percent > 100:
        raise _RejectedError(errors.BadValue(span=args[1].span, setting="rope on ...%", rule="is at most 100%"))
    scaling = _scaling(clause.parts[0], kind, theta) if clause.parts else None
    return model.Rope(kind=kind, theta=theta, percent=percent, scaling=scaling)


def _scaling(clause: Clause, rope: str, theta: float) -> model.Scaling:
    """`scaled yarn(32, original 4096, no truncate)`: the factor, then values by name."""
    kind = _kind(clause.args[0], "scaled", tuple(_SCALINGS))
    takes, needs, make = _SCALINGS[kind]
    setting = f"scaled {kind}"
    values: dict[str, Any] = {"factor": _positive(clause.args[1], setting)}
    for part in clause.parts:
        word, value = _scaling_value(part, setting, takes)
        if word.replace("-", "_") in values:
            first = next(earlier for earlier in clause.parts if _named(earlier) == word)
            raise _RejectedError(errors.StatedTwice(span=part.span, setting=word, first=first.span))
        values[word.replace("-", "_")] = value
    missing = tuple(word for word in needs if word not in values)
    if missing:
        rule = f"needs {listing(missing, 'and')}: `{_SCALING_EXAMPLES[kind]}`"
        raise _RejectedError(errors.BadValue(span=clause.span, setting=setting, rule=rule))
    scaling = make(**values)
    problem = model.scaling_problem(rope, theta, scaling)
    if problem is not None:
        raise _RejectedError(errors.BadValue(span=clause.span, setting=setting, rule=problem))
    return scaling


def _named(part: Clause) -> str:
    """The value that a part of a scaling gives: `low 1`, `no truncate`."""
    return str(part.args[0].value).removeprefix("no ")


def _scaling_value(part: Clause, setting: str, takes: tuple[str, ...]) -> tuple[str, Any]:
    name, *number = part.args
    if not takes:
        raise _RejectedError(errors.BadValue(span=part.span, setting=setting, rule="takes a factor and nothing else"))
    known = tuple("no truncate" if word == "truncate" else word for word in takes)
    _kind(name, setting, known)
    word = _named(part)
    read = _count if word == "original" else _positive
    return word, read(number[0], word) if number else False


def _norm(clause: Clause) -> model.Norm:
    spread: model.Spread = next((_SPREADS[part.key] for part in clause.parts), "alike")
    if not clause.args:
        return model.Norm(kind="rms", spread=spread)
    setting = {"qk_norm": "qk-norm", "v_norm": "v-norm"}.get(clause.key, clause.key.replace("_", " "))
    kind = _kind(clause.args[0], setting, NORM_KINDS)
    values = clause.args[1:]
    eps = _positive(values[0], "norm eps") if values and not isinstance(values[0].value, str) else None
    options = _norm_options(kind, values if eps is None else values[1:])
    return model.Norm(kind=kind, eps=eps, spread=spread, **options)


def _norm_options(kind: str, atoms: tuple[Atom, ...]) -> dict[str, bool]:
    """`1+w`, `no weight`, `no bias`: each at most once, and none that another one settles."""
    found: dict[str, bool] = {}
    for atom in atoms:
        if not isinstance(atom.value, str):
            raise _RejectedError(
                errors.BadValue(span=atom.span, setting="norm", rule="has one number, and it is first")
            )
        word = atom.value
        if not word.startswith("no "):
            key, value = "plus_one", True
        else:
            key, value = _kind(Atom(word.removeprefix("no "), atom.span), "no", _NORM_PARTS), False
        needed = {"plus_one": "rms", "bias": "layernorm"}.get(key, kind)
        if kind != needed:
            raise _RejectedError(errors.BadValue(span=atom.span, setting=word, rule=f"belongs to `{needed}` norms"))
        if key in found or (found and key != "plus_one" and "weight" in {key, *found}):
            rule = "says what is said already: `no weight` leaves nothing to learn"
            raise _RejectedError(errors.BadValue(span=atom.span, setting=word, rule=rule))
        found[key] = value
    return found


def _ffn(clause: Clause) -> model.Ffn:
    return _sized_ffn(*clause.args)


def _sized_ffn(kind: Atom, size: Atom) -> model.Ffn:
    return model.Ffn(kind=_kind(kind, "ffn", FFN_KINDS), hidden_size=_count(size, "ffn"))


def _moe(clause: Clause) -> model.Moe:
    """`moe(top 8 of 128 swiglu(768), ...)`; every part at most once."""
    (top, num_experts, kind, size), *_ = (part.args for part in clause.parts)
    count = _count(num_experts, "moe")
    if _count(top, "top") > count:
        rule = f"must be at most the number of experts: {count}"
        raise _RejectedError(errors.BadValue(span=top.span, setting="top", rule=rule))
    values: dict[str, Any] = {}
    places: dict[str, Span] = {}
    for part in clause.parts[1:]:
        key, value = _moe_part(part)
        if key in places:
            twice = errors.StatedTwice(span=part.span, setting=part.span.text, first=places[key])
            raise _RejectedError(twice)
        places[key] = part.span
        values |= value
    groups = values.get("groups")
    if groups is not None:
        _check_groups(groups, count, int(top.value), places["groups"])
    return model.Moe(top=int(top.value), num_experts=count, expert=_sized_ffn(kind, size), **values)


def _moe_part(part: Clause) -> tuple[str, dict[str, Any]]:
    """A part's key, and the fields of `Moe` that it settles."""
    match part.key:
        case "shared":
            ffn = _sized_ffn(part.args[0], part.args[1])
            return part.key, {"shared": model.SharedFfn(ffn=ffn, gated=len(part.args) == 3)}
        case "router":
            return part.key, {"router": _kind(part.args[0], "router", ROUTERS)}
        case "router_bias" | "selection_bias":
            return part.key, {part.key: True}
        case "groups":
            chosen, total = (_count(atom, "groups") for atom in part.args)
            return part.key, {"groups": model.Groups(chosen=chosen, total=total)}
        case "weight_scale":
            return "scale", {"scale": _positive(part.args[0], "scale")}
        case _:
            _kind(part.args[0], "no", ("renorm",))
            return "renorm", {"renorm": False}


def _check_groups(groups: model.Groups, num_experts: int, top: int, span: Span) -> None:
    """Groups of equal size, of two experts or more, which between them have enough to choose from."""
    rule = ""
    if groups.chosen > groups.total:
        rule = f"must choose at most as many as there are: {groups.total}"
    elif num_experts % groups.total or num_experts < 2 * groups.total:
        rule = f"must divide {num_experts} experts into groups of the same size, at least 2 each"
    elif groups.chosen * (num_experts // groups.total) < top:
        rule = f"leaves {groups.chosen * (num_experts // groups.total)} experts to choose {top} from"
    if rule:
        raise _RejectedError(errors.BadValue(span=span, setting="groups", rule=rule))


def _positions(clause: Clause) -> model.Positions:
    kind, count, *first = clause.args
    _kind(kind, "positions", POSITIONS)
    first_row = first[0].value if first else 0
    return model.Positions(count=_count(count, "positions"), first_row=int(first_row))


def _bias(clause: Clause) -> tuple[str, ...]:
    chosen = {_kind(atom, "bias", BIAS_TARGETS) for atom in clause.args} or set(BIAS_TARGETS)
    return tuple(target for target in BIAS_TARGETS if target in chosen)


def _embed_scale(clause: Clause) -> float | str:
    atom = clause.args[0]
    return atom.value if isinstance(atom.value, str) else _positive(atom, "embed scale")


def _attention_scale(clause: Clause) -> float:
    if len(clause.args) == 1:
        return _positive(clause.args[0], "attention scale")
    _, size = clause.args
    if not isinstance(size.value, int) or size.value < 1:
        raise _RejectedError(errors.BadValue(span=size.span, setting="rsqrt", rule="needs a number of at least 1"))
    return float(size.value**-0.5)


def _sinks(clause: Clause) -> model.Window:
    """A window of which only the sinks are known; `elaborate` joins it with the size."""
    return model.Window(size=None, sinks=_count(clause.args[0], "sinks"))


def _embed_lookup(clause: Clause) -> Lookup:
    size, merge = clause.args
    return Lookup(size=_count(size, "embed lookup"), merge=_kind(merge, "embed lookup", MERGES))


_READERS: dict[str, Callable[[Clause], Any]] = {
    "total": _single_count,
    "width": _single_count,
    "vocab": _single_count,
    "embed_scale": _embed_scale,
    "embed_lookup": _embed_lookup,
    "tied": lambda clause: True,
    "heads": _heads,
    "kv_heads": _heads,
    "window": _window,
    "sinks": _sinks,
    "rope": _rope,
    "norm": _norm,
    "qk_norm": _norm,
    "embed_norm": _norm,
    "final_norm": _norm,
    "positions": _positions,
    "head_bias": lambda clause: True,
    "layer_scalar": lambda clause: True,
    "residual_scale": lambda clause: _positive(clause.args[0], "residual scale"),
    "logit_scale": lambda clause: _positive(clause.args[0], "logit scale"),
    "ffn": _ffn,
    "moe": _moe,
    "bias": _bias,
    "placement": lambda clause: str(clause.args[0].value),
    "attention_scale": _attention_scale,
    "attention_softcap": lambda clause: _positive(clause.args[0], "attention softcap"),
    "final_softcap": lambda clause: _positive(clause.args[0], "final softcap"),
    "residual": lambda clause: _kind(clause.args[0], "residual", RESIDUALS),
    "v_norm": _norm,
    "values_from_keys": lambda clause: True,
    "sink_logits": lambda clause: True,
    "output_gate": lambda clause: True,
}
