"""What configs call an activation, and the ffn of a spec that has it.

Source: `ACT2FN` in transformers. what `_TANH` lists is one tanh approximation, written in several
ways; `gelu` and `gelu_python` are exact.
"""

from collections.abc import Mapping
from typing import Literal

from archspec.convert.config import Config

FfnKind = Literal["swiglu", "geglu", "geglu-tanh", "reglu", "gelu", "gelu-tanh", "gelu-quick", "silu", "relu", "relu2"]
_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh")
_EXACT = ("gelu", "gelu_python")
_SILU = ("silu", "swish")

GATED: Mapping[str, FfnKind] = {
    **dict.fromkeys(_SILU, "swiglu"),
    **dict.fromkeys(_EXACT, "geglu"),
    **dict.fromkeys(_TANH, "geglu-tanh"),
    "relu": "reglu",
}
PLAIN: Mapping[str, FfnKind] = {
    **dict.fromkeys(_SILU, "silu"),
    **dict.fromkeys(_EXACT, "gelu"),
    **dict.fromkeys(_TANH, "gelu-tanh"),
    "quick_gelu": "gelu-quick",
    "relu": "relu",
    "relu2": "relu2",
}


def read_ffn_kind(config: Config, field: str, default: str, kinds: Mapping[str, FfnKind]) -> FfnKind:
    """The ffn with the activation that a field names; an absent or null one has the default."""
    stated = config.get(field)
    activation = default if stated is None else str(stated)
    if activation not in kinds:
        config.refuse("an activation that no ffn of a spec has", field, stated)
        activation = default
    return kinds[activation]
