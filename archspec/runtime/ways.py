"""How attention is computed where no kernel of a GPU does it: by whom, over which keys, with what mask; and why.

What `backends.attend_cpu`, `attend_sdpa` and `attend_matmul` do is said here before anything runs.
"""

from typing import TYPE_CHECKING, Literal

import torch

from archspec.runtime import near

if TYPE_CHECKING:
    from archspec.runtime.choosing import Call

ROW_DTYPES = (torch.float32, torch.bfloat16)
"""What archspec's kernels for single rows take."""

Way = Literal["row", "near in turn", "near at once", "shifted", "past", "far", "plain"]
"""A kernel for single rows; the keys near each block of queries, one block after the other or all as one batch; causal
order a place to the right; two parts without masks; blocks of queries over all keys; all queries at once."""


def way_of(call: "Call", wanted: str) -> Way:
    """How backend `wanted`, one of `cpu`, `sdpa` and `matmul`, computes a call without padding."""
    if call.one_row:
        return "row" if wanted == "cpu" and call.dtype in ROW_DTYPES and not call.grad else "plain"
    if call.keys == "near":
        return "near in turn" if call.device == "cpu" and not call.grad else "near at once"
    if call.from_start:
        return "plain" if call.sees_self else "shifted"
    if call.keys == "ordered" or call.grad:
        return "plain"
    return "past" if _past_obstacle(call, wanted) is None else "far"


def reason(call: "Call", wanted: str) -> str:
    """`way_of` in words, and what made it so."""
    window = call.window or 1
    match way_of(call, wanted):
        case "row":
            return "a single row by archspec's kernel, which reads each key once"
        case "near in turn":
            blocks = f"blocks of {near.turn_len(window)} queries in turn"
            return f"near: {blocks}, each over its window alone, {_by(call, wanted)}"
        case "near at once":
            blocks = f"blocks of {near.block_len(window)} queries as one batch"
            return f"near: {blocks}, each over its window alone, {_by(call, wanted)}"
        case "shifted":
            return f"causal order a place to the right, since rows do not see themselves, {_by(call, wanted)}"
        case "past":
            return "past: torch's flash kernel for what is stored and for the chunk itself, put together, no mask"
        case "far":
            why = _past_obstacle(call, wanted)
            return f"blocks of queries over all that is stored, each with a mask ({why}), {_by(call, wanted)}"
    if call.one_row:
        return f"a single row over what is stored, {_by(call, wanted)}"
    return f"{'causal order, no mask' if call.from_start else 'a mask of all places'}, {_by(call, wanted)}"


def _past_obstacle(call: "Call", wanted: str) -> str | None:
    """Why attention to what is stored cannot be put together from two parts without masks; None if it can."""
    if call.device != "cpu":
        return "the kernel for parts is for CPUs"
    if wanted == "matmul":
        return "plain products were asked for"
    if call.softcap:
        return "softcap"
    if not call.sees_self:
        return "rows do not see themselves"
    if call.window is not None:
        return "a window that reaches among the sinks"
    return None if call.keys == "tail" else "keys are not in order"


def _by(call: "Call", wanted: str) -> str:
    """Whose product it is."""
    if wanted == "matmul":
        return "by plain products"
    if call.softcap:
        return "by plain products: torch's attention knows no softcap"
    if call.sink_logits:
        return "by plain products" if call.one_row else "by torch's attention with one key more, the sink"
    if wanted == "cpu" and call.one_row and call.dtype not in ROW_DTYPES:
        return "by torch's attention: archspec's kernels for rows take float32 and bfloat16"
    return "by torch's attention"
