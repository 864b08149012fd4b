"""One clause -> one setting: `heads 24 x 128` -> ("heads", Heads(24, 128))."""

from collections.abc import Callable
from typing import Any, get_args

from archspec.diagnostics import Diagnostic
from archspec.spec import errors, model
from archspec.spec.levels import Lookup, Merge
from archspec.syntax.tree import Atom, Clause

ROPE_KINDS = ("half", "interleaved", "interleaved-linspace")
NORM_KINDS = ("rms", "layernorm")
FFN_KINDS = ("swiglu", "geglu", "geglu-tanh", "gelu", "gelu-tanh")
RESIDUALS: tuple[str, ...] = get_args(model.Residual)
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
}
NEGATABLE: tuple[str, ...] = tuple(_NEGATED)
"""What may follow `no`."""
_NEGATED_KEYS = {"qk-norm": "qk_norm", "softcap": "attention_softcap"}


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
        return _NEGATED_KEYS.get(word, word), _NEGATED[word], None
    key = "layers" if clause.key == "total" else clause.key
    try:
        return key, _READERS[clause.key](clause), None
    except _RejectedError as rejected:
        return key, None, rejected.diagnostic


def _count(atom: Atom, setting: str) -> int:
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
    return model.Rope(kind=kind, theta=theta, percent=percent)


def _norm(clause: Clause) -> model.Norm:
    if not clause.args:
        return model.Norm(kind="rms")
    kind = _kind(clause.args[0], clause.key.replace("_", "-"), NORM_KINDS)
    plus_one = len(clause.args) == 3
    if plus_one and kind != "rms":
        raise _RejectedError(errors.BadValue(span=clause.args[2].span, setting="1+w", rule="belongs to `rms` norms"))
    eps = _positive(clause.args[1], "norm eps") if len(clause.args) > 1 else None
    return model.Norm(kind=kind, eps=eps, plus_one=plus_one)


def _ffn(clause: Clause) -> model.Ffn:
    kind = _kind(clause.args[0], "ffn", FFN_KINDS)
    return model.Ffn(kind=kind, hidden_size=_count(clause.args[1], "ffn"))


def _bias(clause: Clause) -> tuple[str, ...]:
    chosen = {_kind(atom, "bias", BIAS_TARGETS) for atom in clause.args} or set(BIAS_TARGETS)
    return tuple(target for target in BIAS_TARGETS if target in chosen)


def _embed_scale(clause: Clause) -> float | str:
    atom = clause.args[0]
    return atom.value if isinstance(atom.value, str) else _positive(atom, "embed scale")


def _attention_scale(clause: Clause) -> float:
    atom = clause.args[0]
    if not isinstance(atom.value, str):
        return _positive(atom, "attention scale")
    value = int(atom.value.removeprefix("rsqrt(").removesuffix(")").replace("_", ""))
    if value < 1:
        raise _RejectedError(errors.BadValue(span=atom.span, setting="rsqrt", rule="needs a number of at least 1"))
    return float(value**-0.5)


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
    "ffn": _ffn,
    "bias": _bias,
    "placement": lambda clause: str(clause.args[0].value),
    "attention_scale": _attention_scale,
    "attention_softcap": lambda clause: _positive(clause.args[0], "attention softcap"),
    "final_softcap": lambda clause: _positive(clause.args[0], "final softcap"),
    "residual": lambda clause: _kind(clause.args[0], "residual", RESIDUALS),
}
