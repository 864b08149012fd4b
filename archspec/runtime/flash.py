"""Attention by the kernels of FlashAttention 2, 3 or 4, whichever the device runs and is installed.

They see keys as a line (B, T, K, H) whose last one belongs to the last query: query i of S sees key j of T if
i + T - S - left <= j <= i + T - S, both ends included. Lengths of rows, and padding before them, are tensors.

Legend: B batch, S query tokens, T keys in a view, N heads, K kv heads, H head_dim.
Source: flash-attn 2.8 (`flash_attn_func`, `flash_attn_with_kvcache`), the same names of its `hopper` folder, module
`flash_attn_interface` (3), and `flash_attn.cute` (4).
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from archspec.runtime.attention import Scoring, Visibility
from archspec.runtime.choosing import Kernels
from archspec.runtime.rerun import gradients

MODULES = {
    "FlashAttention 4": "flash_attn.cute",
    "FlashAttention 3": "flash_attn_interface",
    "flash-attn 2": "flash_attn",
}
MAJORS = {"FlashAttention 4": (10,), "FlashAttention 3": (9,), "flash-attn 2": (8, 9, 10, 11, 12)}
"""Major compute capabilities that they are used on, best first."""
CUTE_MOST_DIMS = 128

installed: Kernels | None = None
"""What `load` found. Graphs read it, so it is settled before any is made."""
_functions: dict[str, Callable[..., Any]] = {}


def load(device: torch.device) -> Kernels | None:
    """Find the kernels for `device`. Effects: imports them, and notes them for all calls that follow."""
    global installed
    if device.type != "cuda" or installed is not None:
        return installed
    major, _ = torch.cuda.get_device_capability(device)
    found = {name: module for name in MODULES if major in MAJORS[name] and (module := _imported(MODULES[name]))}
    return use(found) if found else None


def use(modules: dict[str, Any], device_type: str = "cuda") -> Kernels:
    """Take kernels from these modules, by their names in `MODULES`, best first. Effects: as of `load`."""
    global installed
    rows = next((name for name, module in modules.items() if hasattr(module, "flash_attn_func")), None)
    cached = next((name for name, module in modules.items() if hasattr(module, "flash_attn_with_kvcache")), None)
    if rows is not None:
        _functions["rows"] = modules[rows].flash_attn_func
    if cached is not None:
        _functions["cached"] = modules[cached].flash_attn_with_kvcache
    installed = Kernels(rows, cached, device_type, CUTE_MOST_DIMS if rows == "FlashAttention 4" else 256)
    return installed


def _imported(name: str) -> Any:
    try:
        return import_module(name) if find_spec(name) is not None else None
    except (ImportError, OSError, RuntimeError):  # built for another torch, or for another CUDA
        return None


def attend_rows(
    q_BNSH: Tensor, keys_BKSH: Tensor, values_BKSH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention of many queries to their own positions, from the first on; differentiable."""
    late = 0 if visibility.sight.sees_self else 1
    num_keys = keys_BKSH.shape[2] - late  # the last key is nobody's, and the alignment makes queries one late
    q, keys, values = (x.transpose(1, 2) for x in (q_BNSH, keys_BKSH[:, :, :num_keys], values_BKSH[:, :, :num_keys]))
    o: Tensor = torch.ops.archspec.flash_rows(q, keys, values, scoring.scale, scoring.softcap or 0.0, _left(visibility))
    return o.transpose(1, 2)


def attend_cached(
    q_BNSH: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention over a line or a ring of keys, of which a tensor says how many there are."""
    q, keys, values = (x.transpose(1, 2) for x in (q_BNSH, keys_BKTH, values_BKTH))
    lengths, before = _lengths(visibility, q.shape[0], keys.shape[1])
    ring = visibility.order == "ring"
    args = (scoring.sink_logits, scoring.scale, scoring.softcap or 0.0, not ring, -1 if ring else _left(visibility))
    o: Tensor = torch.ops.archspec.flash_cached(q, keys, values, lengths, before, *args)
    return o.transpose(1, 2)


def _left(visibility: Visibility) -> int:
    """Keys that a query sees before the one it is aligned with; -1: all."""
    window, _, sees_self = visibility.sight
    return -1 if window is None else window - (1 if sees_self else 2)


def _lengths(visibility: Visibility, batch: int, num_keys: int) -> tuple[Tensor, Tensor | None]:
    """End of the visible keys of every row, and how many before them are not visible; int32 (B,) each."""
    pads, last = visibility.pad_lens, visibility.q_positions[-1:]
    late = 0 if visibility.sight.sees_self else 1
    before: Tensor | None = None
    match visibility.order:
        case "ring":
            lengths = (last + 1).clamp(max=num_keys)
        case "front":
            lengths = torch.full_like(last, num_keys - late)
            first = torch.zeros_like(last) if pads is None else pads
            before = (visibility.k_positions < first[:, None]).sum(1)
        case _:
            lengths, before = last + 1 - late, pads
    if before is not None:
        before = torch.minimum(before, lengths).to(torch.int32).expand(batch).contiguous()
    return lengths.to(torch.int32).expand(batch).contiguous(), before


@torch.library.custom_op("archspec::flash_rows", mutates_args=())
def flash_rows(q: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float, left: int) -> Tensor:
    """`flash_attn_func`, causal. One operator, so that graphs hold whatever version there is. Shapes: (B, S, N, H)."""
    return _call_rows(q, keys, values, scale, softcap, left).contiguous()


def _call_rows(q: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float, left: int) -> Tensor:
    options: dict[str, Any] = {"softmax_scale": scale, "causal": True}
    if softcap:
        options["softcap"] = softcap
    if left >= 0:
        options["window_size"] = (left, 0)
    out = _functions["rows"](q, keys, values, **options)
    found: Tensor = out if isinstance(out, Tensor) else out[0]  # 4 gives log-sum-exps as well
    return found


@flash_rows.register_fake
def _rows_shape(q: Tensor, *rest: object) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("archspec::flash_rows_backward", mutates_args=())
def flash_rows_backward(
    grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float, left: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `flash_rows`."""
    found = gradients(
        lambda q, keys, values: _call_rows(q, keys, values, scale, softcap, left), (q, keys, values), (grad,)
    )
    return found[0], found[1], found[2]


@flash_rows_backward.register_fake
def _gradient_shapes(
    grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*torch.ops.archspec.flash_rows_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None)


flash_rows.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("archspec::flash_cached", mutates_args=())
def flash_cached(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    before: Tensor | None,
    sink_logits: Tensor | None,
    scale: float,
    softcap: float,
    causal: bool,
    left: int,
) -> Tensor:
    """`flash_attn_with_kvcache`, which writes nothing here. Shapes: (B, S, N, H); lengths, before int32 (B,).

    A logit without a value makes weights smaller by e^lse / (e^lse + e^logit), whatever the keys are.
    """
    options: dict[str, Any] = {"cache_seqlens": lengths, "softmax_scale": scale, "causal": causal}
    if before is not None:
        options["cache_leftpad"] = before
    if softcap:
        options["softcap"] = softcap
    if left >= 0:
        options["window_size"] = (left, 0)
    if sink_logits is None:
        out: Tensor = _functions["cached"](q, keys, values, **options)
        return out.contiguous()
    out, lse_BNS, *_ = _functions["cached"](q, keys, values, **options, return_softmax_lse=True)
    share_BNS = torch.sigmoid(lse_BNS - sink_logits.to(lse_BNS.dtype)[:, None])
    return (out * share_BNS.transpose(1, 2)[..., None]).to(q.dtype).contiguous()


@flash_cached.register_fake
def _cached_shape(q: Tensor, *rest: object) -> Tensor:
    return q.new_empty(q.shape)
