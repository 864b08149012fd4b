"""Kernels called by address: what a row of launches is made of, and the loop that runs it (`rows.cpp`)."""

import ctypes
import struct
from functools import cache
from typing import Any

import torch
from torch import Tensor

from archspec.runtime.kernels.rows import library

MOST_WORDS = 64
"""What a kernel of inductor's can be given."""

Given = Tensor | int | None
"""What a kernel is given: the address of a tensor's first element, a whole number, or no address."""


class LaunchError(RuntimeError):
    """A kernel refused what it was given."""


@cache
def _loaded(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


@cache
def _launch() -> Any:
    launch = _loaded(str(library())).archspec_launch
    launch.argtypes, launch.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_char_p
    return launch


def launch(words: ctypes.Array[ctypes.c_int64]) -> None:
    """Run the launches that stand in `words`. Errors: LaunchError."""
    message = _launch()(words, len(words))
    if message is not None:
        raise LaunchError(message.decode(errors="replace"))


def array(words: list[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(words))(*words)


def address_of_row_kernel(name: str, dtype: torch.dtype) -> int:
    """Of "linear" or "attend"."""
    return _symbol(str(library()), f"archspec_{name}_{str(dtype).removeprefix('torch.')}")


def address_of_inductor_kernel(kernel: Any) -> int | None:
    """Of what inductor compiled and Python calls as `kernel`; None for anything else."""
    file = getattr(getattr(kernel, "__self__", None), "__file__", None)
    if file is None or getattr(kernel, "__name__", None) != "kernel":
        return None
    return _symbol(file, "kernel")


@cache
def _symbol(path: str, name: str) -> int:
    found = ctypes.cast(getattr(_loaded(path), name), ctypes.c_void_p).value
    assert found is not None
    return found


def linear_words(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> list[Given]:
    """`Linear` of linear.h."""
    outputs, inputs = weight.shape
    return [x, weight, bias, out, x.numel() // inputs, inputs, outputs]


def attend_words(
    out: Tensor,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    k_positions: Tensor,
    q_position: Tensor,
    window: int,
    sinks: int,
    sees_self: bool,
    pads: Tensor | None,
    scale: float,
    softcap: float,
    sink_logits: Tensor | None,
) -> list[Given]:
    """`Attend` of attend.h."""
    batch, num_heads, _, width = q.shape
    sizes = [batch, num_heads, width, *keys.shape[1:], values.shape[3]]
    strides = [*keys.stride()[:3], *values.stride()[:3]]
    tensors = [q, keys, values, k_positions, q_position, pads, sink_logits, out]
    return [*tensors, *sizes, *strides, window, sinks, int(sees_self), _bits(scale), _bits(softcap)]


def _bits(number: float) -> int:
    """A double as a word."""
    bits: int = struct.unpack("q", struct.pack("d", number))[0]
    return bits
