"""`flash_attn` as its documentation has it, in torch, for machines without: the signatures of version 2.8."""

import torch


def _attend(q, keys, values, ends, before, scale, causal, window_size, softcap):
    """Row b sees keys `before[b]` to `ends[b]`, the last of which is aligned with the last query."""
    outs, sums = [], []
    for b in range(q.shape[0]):
        k, v = keys[b, before[b] : ends[b]].double(), values[b, before[b] : ends[b]].double()
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("snh,tnh->nst", q[b].double(), k) * scale
        scores = softcap * torch.tanh(scores / softcap) if softcap > 0 else scores
        i, j = torch.arange(q.shape[1])[:, None] + k.shape[0] - q.shape[1], torch.arange(k.shape[0])
        left, right = window_size[0], 0 if causal else window_size[1]
        hidden = torch.zeros_like(i > j)
        hidden |= (j < i - left) if left >= 0 else False
        hidden |= (j > i + right) if right >= 0 else False
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0) if k.shape[0] else scores
        outs.append(torch.einsum("nst,tnh->snh", weights, v))
        sums.append(scores.logsumexp(-1))
    out, lse = torch.stack(outs).to(q.dtype), torch.stack(sums).float()
    return out, lse.masked_fill(lse == -torch.inf, torch.inf)


def _check(q, keys, values):
    assert all(x.ndim == 4 and x.stride(-1) == 1 for x in (q, keys, values))
    assert q.dtype == keys.dtype == values.dtype
    assert q.dtype in (torch.float16, torch.bfloat16)
    assert q.shape[-1] == keys.shape[-1] == values.shape[-1]
    assert q.shape[-1] % 8 == 0
    assert q.shape[0] == keys.shape[0] == values.shape[0]
    assert q.shape[2] % keys.shape[2] == 0


def flash_attn_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    _check(q, k, v)
    ends = [k.shape[1]] * q.shape[0]
    out, _ = _attend(q, k, v, ends, [0] * q.shape[0], softmax_scale, causal, window_size, softcap)
    return out


def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    _check(q, k_cache, v_cache)
    assert k is v is None
    for lengths in (cache_seqlens, cache_leftpad):
        if lengths is not None:
            assert lengths.dtype == torch.int32
            assert lengths.shape == q.shape[:1]
            assert lengths.is_contiguous()
    ends = cache_seqlens.tolist()
    before = [0] * len(ends) if cache_leftpad is None else cache_leftpad.tolist()
    assert all(0 <= b <= e <= k_cache.shape[1] for b, e in zip(before, ends, strict=True))
    out, lse = _attend(q, k_cache, v_cache, ends, before, softmax_scale, causal, window_size, softcap)
    return (out, lse) if return_softmax_lse else out
