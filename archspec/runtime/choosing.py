"""Which backend computes a call of attention, and why: decided from what is known before any number is.

Legend: N heads, H head_dim, E head_dim of queries.
"""

from typing import Literal, NamedTuple

import torch

from archspec.runtime import ways
from archspec.runtime.attention import Order

FLASH_DTYPES = (torch.float16, torch.bfloat16)
FLEX_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FLEX_FEWEST_DIMS = 16
"""FlexAttention's kernels for CUDA refuse smaller heads."""


class Kernels(NamedTuple):
    """What of FlashAttention is there: its name for many rows from the start, and for rows over a cache."""

    rows: str | None
    cached: str | None
    device: str = "cuda"
    most_dims: int = 256
    """Largest head_dim of those for rows; those for caches take 256."""


Keys = Literal["near", "ordered", "tail", "stored"]
"""In order from where the first row's window begins; in order; in order up to the last row's own; as stored."""


class Call(NamedTuple):
    """What a call of attention asks for, as far as it decides about the backend."""

    device: str
    dtype: torch.dtype
    head_dim: int
    one_row: bool
    """One query a sequence, as in decoding."""
    order: Order
    from_start: bool = True
    """Keys are the queries' own positions, and there is none before them."""
    window: int | None = None
    sinks: int = 0
    sees_self: bool = True
    padded: bool = False
    softcap: bool = False
    sink_logits: bool = False
    turned_apart: bool = False
    """Sinks are scored with a vector of their own: E = 2 H."""
    grad: bool = False
    keys: Keys = "stored"
    """How the keys of many rows lie; known only where nothing has run yet."""


class Choice(NamedTuple):
    """A backend's name, and the reason in words."""

    backend: str
    reason: str


def why(call: Call, wanted: str, flash: Kernels | None, compiled: bool) -> Choice:
    """Who computes `call` where `wanted` was asked for; others than `auto`, `flash` and `flex` take all that they get.

    `flash`: what is installed; `compiled`: whether the call is part of a compiled graph.
    """
    if wanted not in ("auto", "flash", "flex"):
        return Choice(wanted, ways.reason(call, wanted))
    no_flash, no_flex = flash_obstacle(call, flash), flex_obstacle(call, compiled)
    if wanted == "flash":
        return Choice("flash", _flash_name(call, flash)) if no_flash is None else Choice("sdpa", f"flash: {no_flash}")
    if wanted == "flex":
        return Choice("flex", "asked for") if no_flex is None else Choice("sdpa", f"flex: {no_flex}")
    if call.device != "cuda":
        return Choice("sdpa", f"flash: {no_flash}; flex: {no_flex}")
    if no_flash is None:
        return Choice("flash", _flash_name(call, flash))
    if call.one_row:
        return Choice("sdpa", f"one row over the live part of a cache; flash: {no_flash}")
    if _plainly_causal(call):
        return Choice("sdpa", f"causal and nothing else, which torch has a kernel for; flash: {no_flash}")
    if no_flex is None:
        return Choice("flex", f"a block mask instead of a mask of all places; flash: {no_flash}")
    return Choice("sdpa", f"flash: {no_flash}; flex: {no_flex}")


def flash_obstacle(call: Call, flash: Kernels | None) -> str | None:
    """Why FlashAttention's kernels cannot compute `call`; None if they can."""
    if flash is None:
        return "no flash-attn is installed that this device can run"
    if call.device != flash.device:
        return f"its kernels are for {flash.device}"
    if call.dtype not in FLASH_DTYPES:
        return "its kernels take float16 and bfloat16"
    if call.turned_apart:
        return "sinks are scored with a vector of their own"
    rows = for_rows(call)
    if (flash.rows if rows else flash.cached) is None:
        return f"{flash.rows or flash.cached} has no kernel for {'rows from the start' if rows else 'caches'}"
    most = flash.most_dims if rows else 256
    if call.head_dim > most or call.head_dim % 8:
        return f"head_dim must be a multiple of 8 up to {most}"
    return _places_obstacle(call) or (_gradient_obstacle(call) if call.grad else None)


def for_rows(call: Call) -> bool:
    """Whether `call` is for the kernels for many rows from the start; otherwise it is for those over a cache."""
    return call.from_start and not (call.one_row or call.padded or call.sink_logits)


def _places_obstacle(call: Call) -> str | None:
    """What a length, a window and the order of keys cannot say."""
    if call.order == "mixed":
        return "neither a length nor a window says which keys are visible"
    if call.order == "ring":
        if not call.one_row:
            return "keys lie in a ring"
        if call.padded:
            return "padding may lie anywhere in a ring"
        return None if call.sees_self else "one place of a ring is hidden from a late reader"
    if call.sinks:
        return "sinks are visible beside the window"
    return "a late reader with a window of 1 sees nothing" if call.window == 1 and not call.sees_self else None


def _gradient_obstacle(call: Call) -> str | None:
    return None if for_rows(call) else "its kernels over a cache, for padding and sink logits too, have no gradient"


def flex_obstacle(call: Call, compiled: bool) -> str | None:
    """Why FlexAttention cannot compute `call`; None if it can."""
    if not compiled:
        return "outside compiled graphs it holds all scores at once"
    if call.dtype not in FLEX_DTYPES:
        return "its kernels take float16, bfloat16 and float32"
    if call.device == "cuda" and call.head_dim < FLEX_FEWEST_DIMS:
        return f"head_dim must be at least {FLEX_FEWEST_DIMS}"
    # torch 2.13 generates C++ that does not compile where sizes are symbols of their own, as they are in our graphs.
    return "its kernels for CPUs are for one length, and have no gradient" if call.device == "cpu" else None


def _plainly_causal(call: Call) -> bool:
    return call.from_start and call.window is None and not (call.padded or call.softcap or call.sinks)


def _flash_name(call: Call, flash: Kernels | None) -> str:
    name = None if flash is None else flash.rows if for_rows(call) else flash.cached
    return f"{name}, {'rows from the start' if for_rows(call) else 'lengths as a tensor'}"
