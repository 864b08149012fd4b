"""What configs call an activation, and the ffn of a spec that has it.

Source: `ACT2FN` in transformers. `gelu_new`, `gelu_fast` and `gelu_pytorch_tanh` are one tanh approximation, written
three times; `gelu` and `gelu_python` are exact.
"""

from collections.abc import Mapping
from typing import Literal

from archspec.convert.config import Config

FfnKind = Literal["swiglu", "geglu", "geglu-tanh", "gelu", "gelu-tanh"]
_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_EXACT = ("gelu", "gelu_python")

GATED: Mapping[str, FfnKind] = {
    "silu": "swiglu",
    "swish": "swiglu",
    **dict.fromkeys(_EXACT, "geglu"),
    **dict.fromkeys(_TANH, "geglu-tanh"),
}
PLAIN: Mapping[str, FfnKind] = {**dict.fromkeys(_EXACT, "gelu"), **dict.fromkeys(_TANH, "gelu-tanh")}


def read_ffn_kind(config: Config, field: str, default: str, kinds: Mapping[str, FfnKind]) -> FfnKind:
    """The ffn with the activation that a field names; an absent or null one has the default."""
    stated = config.get(field)
    activation = default if stated is None else str(stated)
    if activation not in kinds:
        named = "SiLU and GELU" if "silu" in kinds else "GELU"
        config.refuse(f"an activation other than {named}", field, stated)
        activation = default
    return kinds[activation]
