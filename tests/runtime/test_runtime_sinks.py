"""The first tokens of a window stay in sight, and sequences have no end."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

from archspec.runtime.attention import Scoring, Sight, View, Visibility
from archspec.runtime.backends import attend_sdpa
from archspec.runtime.layers import Attention
from archspec.runtime.rope import rope_table, rotate
from archspec.runtime.units import Env
from archspec.spec.model import Rope

WINDOW, SINKS = 4, 2


def attend_by_place(module, h, keys, values):
    """Every query over a list of kept keys, all rotated by their place in the list (StreamingLLM, section 3.2)."""
    q = module.q_norm(module.q_proj(h).unflatten(-1, module.heads)).transpose(1, 2)
    group = q.shape[1] // keys.shape[1]
    keys, values = (t.repeat_interleave(group, 1) for t in (keys, values))
    rows = []
    for p in range(h.shape[1]):
        kept = [k for k in range(p + 1) if k < SINKS or k > p - WINDOW]
        places = torch.arange(len(kept))
        tables = {module.rotation: rope_table(module.rotation, places)} if module.rotation else {}
        turned = rotate(keys[:, :, kept], module.rotation, tables)
        query = rotate(q[:, :, p : p + 1].expand(-1, -1, len(kept), -1), module.rotation, tables)[:, :, -1]
        scores = (turned @ query[..., None])[..., 0] * module.scoring.scale
        rows.append((scores.softmax(-1)[..., None] * values[:, :, kept]).sum(2))
    return module.o_proj(torch.stack(rows, 2).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["none", "half", "interleaved", "interleaved-linspace"])
@pytest.mark.parametrize("percent", [50, 100])
@torch.no_grad()
def test_positions_are_places_in_the_cache(kind, percent):
    rope = Rope(kind=kind, percent=percent)
    slot = hand_plans.slot(0, 0, [0], window=WINDOW, sinks=SINKS, rope=rope)
    plan = hand_plans.attend(0, slot, window=WINDOW, sinks=SINKS, q_norm=hand_plans.RMS).mixer
    torch.manual_seed(0)
    module = Attention(plan, slot, 32)
    h, (keys, values) = torch.randn(2, 17, 32), torch.randn(2, 2, 2, 17, 8)
    positions = torch.arange(17)
    tables = {r: rope_table(r, positions) for r in module.rotations()}
    turned = rotate(keys, module.rotation, tables)
    for front in (None, 0):
        view = View(turned, values, positions, front)
        found = module(h, tables, view, Env(positions, tables), attend_sdpa)
        torch.testing.assert_close(found, attend_by_place(module, h, keys, values), atol=1e-5, rtol=0)


def test_sinks_are_seen_beside_the_window():
    positions = torch.arange(7)
    mask = Visibility(positions, positions, Sight(2, 2)).mask()
    assert [row.nonzero()[:, 0].tolist() for row in mask] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 3, 4], [0, 1, 4, 5], [0, 1, 5, 6],
    ]  # fmt: skip
    assert Scoring(1.0).softcap is None


@torch.no_grad()
def test_no_end():
    """Three thousand tokens in a cache of eleven places, each like teacher forcing."""
    model, ids = sharp_model(hand_plans.sunk()), tokens(1, 3000)
    expected = model(ids)
    cache = model.new_cache(1, 11)
    assert cache.capacity is None
    sizes = cache.nbytes
    worst = 0.0
    for t in range(3000):
        worst = max(worst, float((model.decode(ids[:, t], cache) - expected[:, t]).abs().max()))
    assert worst < 2e-4
    assert cache.nbytes == sizes
    assert cache.num_cached_tokens == 3000


@torch.no_grad()
def test_chunks_beyond_the_allocation():
    model, ids = sharp_model(hand_plans.sunk()), tokens(2, 70)
    expected, cache, end = model(ids), model.new_cache(2, 9), 0
    for size in (30, 1, 7, 2, 1, 29):
        begin, end = end, end + size
        found = model.prefill(ids[:, begin:end], cache)
        torch.testing.assert_close(found, expected[:, end - 1], atol=1e-4, rtol=0)


def test_what_does_fill_up():
    sunk = sharp_model(hand_plans.sunk())
    small = sunk.new_cache(1, 8)  # one slot keeps 3 + 6 positions
    assert small.capacity == 8
    with pytest.raises(ValueError, match="room for 8 tokens and holds 0: 9 more do not fit"):
        sunk.prefill(tokens(1, 9), small)
    assert sharp_model(hand_plans.decays()).new_cache(1, 1).capacity is None
    assert sharp_model(hand_plans.windowed()).new_cache(1, 50).capacity == 50
