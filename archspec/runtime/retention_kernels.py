"""Who computes retention: flash-linear-attention's kernels on CUDA if they are installed, torch elsewhere.

Legend: B batch, S tokens, N heads, H head_dim.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.runtime.recurrence import retain_chunks, retain_one

FLA_MODULE = "fla.ops.simple_gla"

Retain = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`retain(q, k, v, log_decay, state) -> o, state`.

S_t = exp(log_decay_t) S_{t-1} + outer(k_t, v_t), o_t = q_t S_t; no scale is applied.

Shapes: q, k, v, o (B, N, S, H), log_decay (B, N, S), state (B, N, H, H). The state is float32 or wider.
"""


class Kernels(NamedTuple):
    """A `Retain` for many tokens, and one for a single token."""

    chunk: Retain
    step: Retain


TORCH = Kernels(retain_chunks, retain_one)


def pick_kernels(q_BNSH: Tensor) -> Kernels:
    """The kernels for these queries: their device decides, and what can be traced into a compiled graph."""
    if not q_BNSH.is_cuda or torch.compiler.is_compiling():
        # Triton kernels behind an autograd function would break a compiled graph; torch code becomes part of it.
        return TORCH
    return fla_kernels() or TORCH


@cache
def fla_kernels() -> Kernels | None:
    """Those of the package `fla`; None where it is not installed."""
    if find_spec("fla") is None:
        return None
    ops = import_module(FLA_MODULE)
    return Kernels(_adapted(ops.chunk_simple_gla), _adapted(ops.fused_recurrent_simple_gla))


def _adapted(kernel: Callable[..., tuple[Tensor, Tensor]]) -> Retain:
    """A kernel of layout (B, S, N, H) as a `Retain`."""

    def retain(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, log_decay = (tensor.transpose(1, 2).contiguous() for tensor in (q, k, v, log_decay))
        o, final = kernel(q, k, v, g=log_decay, scale=1.0, initial_state=state, output_final_state=True)
        return o.transpose(1, 2), final

    return retain
