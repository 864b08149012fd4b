"""Who computes retention: flash-linear-attention's kernels on CUDA if they are installed, torch elsewhere.

Legend: B batch, S tokens, N heads, H head_dim.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from archspec.runtime.recurrence import retain_chunks, retain_one
from archspec.runtime.rerun import gradients

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
    """The kernels for these queries: their device decides."""
    return (fla_kernels() or TORCH) if q_BNSH.is_cuda else TORCH


@torch.compiler.assume_constant_result
def has_fla() -> bool:
    """Whether the package `fla` is installed."""
    return find_spec("fla") is not None


def fla_kernels() -> Kernels | None:
    """Those of the package `fla`; None where it is not installed."""
    return FLA if has_fla() else None


@cache
def _kernel(one_row: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    ops = import_module(FLA_MODULE)
    kernel: Callable[..., tuple[Tensor, Tensor]] = ops.fused_recurrent_simple_gla if one_row else ops.chunk_simple_gla
    return kernel


@torch.library.custom_op("archspec::fla_retain", mutates_args=())
def fla_retain(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, one_row: bool
) -> tuple[Tensor, Tensor]:
    """A `Retain` by `fla`. One operator, so that graphs hold it: its Triton kernels stand behind an autograd function,
    which would break them."""
    o, final = _call(q, k, v, log_decay, state, one_row)
    return o.contiguous(), final.contiguous()


def _call(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, one_row: bool) -> tuple[Tensor, Tensor]:
    """The kernel, whose layout is (B, S, N, H)."""
    q, k, v, log_decay = (tensor.transpose(1, 2).contiguous() for tensor in (q, k, v, log_decay))
    options = {"g": log_decay, "scale": 1.0, "initial_state": state.contiguous(), "output_final_state": True}
    o, final = _kernel(one_row)(q, k, v, **options)
    return o.transpose(1, 2), final


@fla_retain.register_fake
def _shapes(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, one_row: bool) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), state.new_empty(state.shape)


@torch.library.custom_op("archspec::fla_retain_backward", mutates_args=())
def fla_retain_backward(
    o_grad: Tensor,
    final_grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    one_row: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `fla_retain`."""
    inputs, grads = (q, k, v, log_decay, state), (o_grad, final_grad)
    found = gradients(lambda q, k, v, g, state: _call(q, k, v, g, state, one_row), inputs, grads)
    return found[0], found[1], found[2], found[3], found[4]


@fla_retain_backward.register_fake
def _gradient_shapes(
    o_grad: Tensor,
    final_grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    one_row: bool,
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v, log_decay, state))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.one_row = inputs[5]


def _backward(ctx: Any, o_grad: Tensor, final_grad: Tensor) -> tuple[Any, ...]:
    grads = torch.ops.archspec.fla_retain_backward(o_grad, final_grad, *ctx.saved_tensors, ctx.one_row)
    return (*grads, None)


fla_retain.register_autograd(_backward, setup_context=_keep)


def _fla_chunk(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = torch.ops.archspec.fla_retain(q, k, v, log_decay, state, False)
    return out


def _fla_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = torch.ops.archspec.fla_retain(q, k, v, log_decay, state, True)
    return out


FLA = Kernels(_fla_chunk, _fla_step)
