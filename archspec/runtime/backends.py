"""Who computes attention: torch's products, and the kernels of a device. `pick_backend` chooses.

Legend: B batch, S query tokens, T keys in a view, N heads, K kv heads, H head_dim.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.runtime import flash, flex, kernels, near, past
from archspec.runtime.attention import EVERYTHING, Backend, Scoring, Sight, Visibility, apart, cap
from archspec.runtime.choosing import Call, for_rows, why

FAR_SCORES = 1 << 22
"""Scores of one head that `attend_in_turn` holds a mask for at a time."""


def attend_sdpa(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention by `scaled_dot_product_attention`; nothing of size S x T is held where order or a window say it all."""
    return _by_structure(_sdpa, q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def attend_matmul(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention by plain products; holds all scores that it must at once, in float32 or wider."""
    return _by_structure(_matmul, q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def attend_cpu(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """`attend_sdpa`, but single queries by a kernel that reads the cache once."""
    if q_BNSE.shape[2] == 1 and kernels.serves(q_BNSE):
        return kernels.attend_row(q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)
    return attend_sdpa(q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def attend_auto(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Whoever is best for the call on a GPU: see `choosing.why`."""
    return _chosen("auto", q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def attend_flash(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """FlashAttention where its kernels can, `attend_sdpa` elsewhere."""
    return _chosen("flash", q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def attend_flex(
    q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """FlexAttention inside compiled graphs, `attend_sdpa` elsewhere."""
    return _chosen("flex", q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)


def _chosen(
    wanted: str, q_BNSE: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    call = call_of(q_BNSE, keys, visibility, scoring)
    match why(call, wanted, flash.installed, torch.compiler.is_compiling()).backend:
        case "flash" if for_rows(call):
            return flash.attend_rows(q_BNSE, keys, values, visibility, scoring)
        case "flash":
            return flash.attend_cached(q_BNSE, keys, values, visibility, scoring)
        case "flex":
            return flex.attend(q_BNSE, keys, values, visibility, scoring)
    return attend_sdpa(q_BNSE, keys, values, visibility, scoring)


def call_of(q_BNSE: Tensor, keys: Tensor, visibility: Visibility, scoring: Scoring) -> Call:
    """What decides about the backend."""
    window, sinks, sees_self = visibility.sight
    return Call(
        q_BNSE.device.type,
        q_BNSE.dtype,
        keys.shape[-1],
        one_row=q_BNSE.shape[2] == 1,
        order=visibility.order,
        from_start=visibility.front == 0,
        window=window,
        sinks=sinks,
        sees_self=sees_self,
        padded=visibility.pad_lens is not None,
        softcap=scoring.softcap is not None,
        sink_logits=scoring.sink_logits is not None,
        turned_apart=q_BNSE.shape[-1] != keys.shape[-1],
        grad=torch.is_grad_enabled(),
    )


def _by_structure(
    attend: Backend, q: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    if q.shape[-1] != keys.shape[-1]:
        keys = apart(keys, visibility.k_positions < visibility.sight.sinks)
    if q.shape[2] > 1 and near.fits(visibility):
        if q.device.type == "cpu" and not torch.is_grad_enabled():
            return _in_turn(attend, q, keys, values, visibility, scoring)
        return near.attend_near(attend, q, keys, values, visibility, scoring)
    if q.shape[2] > 1 and visibility.by_order and not visibility.sight.sees_self:
        # One place to the right, and it is the order of queries that see themselves; the first sees nothing.
        places = visibility.k_positions[:-1]
        later = replace(visibility, q_positions=places, k_positions=places, sight=EVERYTHING)
        rest = attend(q[:, :, 1:], keys[:, :, :-1], values[:, :, :-1], later, scoring)
        return F.pad(rest, (0, 0, 1, 0))
    if q.shape[2] > 1 and visibility.front is None and not torch.is_grad_enabled():
        if attend is _sdpa and past.fits(q, values, visibility, scoring):
            return past.attend_past(q, keys, values, visibility, scoring)
        return _in_turn(attend, q, keys, values, visibility, scoring)
    return attend(q, keys, values, visibility, scoring)


def _in_turn(
    attend: Backend, q: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Many queries, a block of them at a time, so that masks stay small and nothing is put together for all blocks."""
    sight = visibility.sight
    front = visibility.front if near.fits(visibility) and visibility.front is not None else -1
    in_turn = torch.ops.archspec.attend_in_turn if torch.compiler.is_compiling() else attend_blocks
    out: Tensor = in_turn(
        q, keys, values, visibility.q_positions, visibility.k_positions, visibility.pad_lens, scoring.sink_logits,
        -1 if sight.window is None else sight.window, sight.sinks, sight.sees_self,
        front, visibility.stored_sinks,
        scoring.scale, scoring.softcap or 0.0, attend is _matmul,
    )  # fmt: skip
    return out


def attend_blocks(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    pad_lens: Tensor | None,
    sink_logits: Tensor | None,
    window: int,
    sinks: int,
    sees_self: bool,
    front: int,
    stored_sinks: int,
    scale: float,
    softcap: float,
    by_products: bool,
) -> Tensor:
    """Attention in blocks of queries. With a `front`, 0 or more, each looks at the keys near it; else at all of them,
    and masks have at most `FAR_SCORES` places.
    """
    attend = _matmul if by_products else _sdpa
    sight = Sight(None if window < 0 else window, sinks, sees_self)
    scoring = Scoring(scale, softcap or None, sink_logits)
    size = max(1, FAR_SCORES // keys.shape[2]) if front < 0 else near.turn_len(window)
    out = _in_turn_shape(q, keys, values)
    for begin in range(0, q.shape[2], size):
        rows = slice(begin, begin + size)
        seen = keys, values, k_positions
        if front >= 0:
            first = stored_sinks + front + begin
            seen = near.seen(*seen, first, first + q[:, :, rows].shape[2], sight, stored_sinks)
        visibility = Visibility(q_positions[rows], seen[2], sight, pad_lens)
        out[:, :, rows] = attend(q[:, :, rows], *seen[:2], visibility, scoring)
    return out


def _in_turn_shape(q: Tensor, keys: Tensor, values: Tensor, *rest: object) -> Tensor:
    batch, num_heads, num_tokens, _ = q.shape
    return q.new_empty((batch, num_tokens, num_heads, values.shape[3])).transpose(1, 2)


attend_in_turn = torch.library.custom_op("archspec::attend_in_turn", attend_blocks, mutates_args=())
"""`attend_blocks` as one operator, so that no graph holds the loop: how often it runs depends on lengths."""
attend_in_turn.register_fake(_in_turn_shape)


def _sdpa(q_BNSE: Tensor, keys_BKTE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring) -> Tensor:
    """torch's attention, which knows no softcap: with one, plain products."""
    batch, num_heads, num_tokens, _ = q_BNSE.shape
    num_kv_heads, scale = keys_BKTE.shape[1], scoring.scale
    if scoring.softcap is not None or (scoring.sink_logits is not None and num_tokens == 1):
        return _matmul(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring)
    if scoring.sink_logits is not None:
        return _sdpa_with_sink(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring, scoring.sink_logits)
    grouped = _differ(num_kv_heads, num_heads)
    if visibility.by_order:
        return F.scaled_dot_product_attention(
            q_BNSE, keys_BKTE, values_BKTH, is_causal=True, scale=scale, enable_gqa=grouped
        )
    mask = visibility.mask()
    if num_tokens == 1:
        # One row sees the same keys in every head: the heads of a group become rows, and no K/V is repeated.
        q_BKGE = q_BNSE.reshape(batch, num_kv_heads, num_heads // num_kv_heads, -1)
        rows = F.scaled_dot_product_attention(q_BKGE, keys_BKTE, values_BKTH, attn_mask=mask, scale=scale)
        return rows.reshape(batch, num_heads, 1, -1)
    return F.scaled_dot_product_attention(
        q_BNSE, keys_BKTE, values_BKTH, attn_mask=mask, scale=scale, enable_gqa=grouped
    )


def _differ(size: int, other: int) -> bool:
    """A plain bool: compilers have sizes that compare to symbols."""
    return False if size == other else True  # noqa: SIM211


SINK_DIMS = 8
"""Dimensions that queries and keys grow by for a sink: kernels want sizes that 8 divides."""


def _sdpa_with_sink(
    q_BNSE: Tensor,
    keys_BKTE: Tensor,
    values_BKTH: Tensor,
    visibility: Visibility,
    scoring: Scoring,
    sink_logits_N: Tensor,
) -> Tensor:
    """A sink as one key more, in front, that is zero but for a dimension of its own, and whose value is zero.

    In that dimension every query holds its head's logit over the scale. So no scores are ever held at once, and plain
    causal attention stays so, with a query in front whose output is dropped.
    """
    num_heads, size, head_dim = q_BNSE.shape[1], q_BNSE.shape[3], values_BKTH.shape[3]
    front = 1 if visibility.by_order else 0
    q = F.pad(q_BNSE, (0, 0, front, 0))
    own_N1E = F.pad((sink_logits_N / scoring.scale)[:, None, None], (0, SINK_DIMS - 1)).to(q.dtype)
    q = torch.cat((q, own_N1E.expand(*q.shape[:3], SINK_DIMS)), dim=-1)
    keys = F.pad(keys_BKTE, (0, SINK_DIMS))
    sink_111E = F.pad(keys.new_ones(1, 1, 1, 1), (size, SINK_DIMS - 1))
    keys = torch.cat((sink_111E.expand(*keys.shape[:2], 1, -1), keys), dim=2)
    values = F.pad(values_BKTH, (0, keys.shape[-1] - head_dim, 1, 0))
    mask = None if visibility.by_order else F.pad(visibility.mask(), (1, 0), value=True)
    o_BNSE = F.scaled_dot_product_attention(
        q,
        keys,
        values,
        attn_mask=mask,
        is_causal=visibility.by_order,
        scale=scoring.scale,
        enable_gqa=_differ(keys.shape[1], num_heads),
    )
    return o_BNSE[:, :, front:, :head_dim]


def _matmul(q_BNSE: Tensor, keys_BKTE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring) -> Tensor:
    """Plain products; holds all scores at once, in float32 or wider."""
    num_kv_heads, num_tokens = keys_BKTE.shape[1], q_BNSE.shape[2]
    # The heads of a group and their queries become rows, so that no K/V is repeated. One name for all scores on their
    # way to weights: nothing that is as large is kept longer than it must.
    rows_BKRE = q_BNSE.unflatten(1, (num_kv_heads, -1)).flatten(2, 3)
    scores = (rows_BKRE @ keys_BKTE.transpose(-1, -2)) * scoring.scale
    scores = cap(scores.to(torch.promote_types(scores.dtype, torch.float32)), scoring.softcap)
    scores = scores.unflatten(2, (-1, num_tokens)).flatten(1, 2).masked_fill(~visibility.mask(), -torch.inf)
    if scoring.sink_logits is not None:
        sinks_BNS1 = scoring.sink_logits.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((sinks_BNS1, scores), dim=-1)
    weights_BNST = scores.softmax(-1).to(values_BKTH.dtype)
    if scoring.sink_logits is not None:
        weights_BNST = weights_BNST[..., 1:]
    weights_BKRT = weights_BNST.unflatten(1, (num_kv_heads, -1)).flatten(2, 3)
    return (weights_BKRT @ values_BKTH).unflatten(2, (-1, num_tokens)).flatten(1, 2)


BACKENDS: dict[str, Backend] = {
    "sdpa": attend_sdpa,
    "matmul": attend_matmul,
    "cpu": attend_cpu,
    "flex": attend_flex,
    "flash": attend_flash,
}


def name_of(attend: Backend) -> str:
    """The name that a backend is asked for by."""
    return next((name for name, backend in BACKENDS.items() if backend is attend), "auto")


def pick_backend(name: str, device: torch.device, compile: bool) -> Backend:
    """The backend called `name`; `auto` is the best one for the device, and on CUDA for each call.

    Effects: loads what it needs. Errors: ValueError for a name that is not known, or not to be had here.
    """
    if name not in ("auto", *BACKENDS):
        known = ", ".join(["auto", *BACKENDS])
        raise ValueError(f"unknown attention backend '{name}'; known: {known}")
    if name in ("auto", "flash") and flash.load(device) is None and name == "flash":
        raise ValueError(
            f"attention backend 'flash' needs a CUDA device and flash-attn, and there is none for '{device}'; "
            "`auto` takes what there is"
        )
    if name == "auto" and device.type == "cuda":
        return attend_auto
    if name == "auto":
        # Without compilation nothing is compiled: neither graphs nor kernels.
        name = "cpu" if device.type == "cpu" and compile and kernels.load_rows() else "sdpa"
    elif name == "cpu" and not kernels.load_rows():
        name = "sdpa"
    return BACKENDS[name]
