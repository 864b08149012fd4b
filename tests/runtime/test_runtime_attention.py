"""The masks and the backend against a plain loop."""

import math

import pytest
import torch

from archspec.runtime.attention import Scoring, Sight, Visibility, visible_mask
from archspec.runtime.backends import BACKENDS, pick_backend
from archspec.runtime.rope import rope_table, rotate, rotation_of
from archspec.spec.model import Rope


def attend_by_loop(q, keys, values, q_positions, k_positions, window, sinks=None):
    """Softmax attention, one query of one head at a time; `sinks` are logits without values, one a head."""
    out = torch.zeros_like(q)
    group = q.shape[1] // keys.shape[1]
    for b, n, s in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        at = int(q_positions[s])
        seen = [
            t
            for t, place in enumerate(k_positions.tolist())
            if 0 <= place <= at and (window is None or at - place < window)
        ]
        scores = keys[b, n // group, seen] @ q[b, n, s] / math.sqrt(q.shape[-1])
        total = scores.exp().sum() + (0 if sinks is None else sinks[n].exp())
        out[b, n, s] = scores.exp() / total @ values[b, n // group, seen]
    return out


@pytest.mark.parametrize("sinks", [None, torch.tensor([-30.0, -1.0, 0.0, 0.5, 2.0, 6.0])], ids=["plain", "sinks"])
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"flash"}))  # test_runtime_backends has a stand-in for it
@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize(
    ("q_positions", "k_positions"),
    [
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ([7], [5, 6, 7, 3, 4]),
        ([2], [0, 1, 2, -2, -1]),
        ([5, 6], [4, 1, 2, 3, 5, 6]),
        ([1, 2], [-3, 0, -1, 1, 2]),
    ],
    ids=["chunk", "ring", "ring-not-full", "ring-and-chunk", "ring-not-full-and-chunk"],
)
def test_backend_agrees_with_a_loop(sinks, backend, num_kv_heads, window, q_positions, k_positions):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 6, len(q_positions), 8, generator=generator)
    keys, values = torch.randn(2, 2, num_kv_heads, len(k_positions), 8, generator=generator)
    positions = torch.tensor(q_positions), torch.tensor(k_positions)
    expected = attend_by_loop(q, keys, values, *positions, window, sinks)
    for front in {None, 0 if q_positions == k_positions else None}:
        visibility = Visibility(*positions, Sight(window), front=front)
        with torch.no_grad():
            attend = pick_backend(backend, q.device, compile=False)
            found = attend(q, keys, values, visibility, Scoring(8**-0.5, None, sinks))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_window_counts_the_current_token():
    positions = torch.arange(4)
    assert visible_mask(positions, positions, Sight(2)).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]


def test_unknown_backend():
    with pytest.raises(ValueError, match="unknown attention backend 'flash9'; known: auto, sdpa, matmul, cpu"):
        pick_backend("flash9", torch.device("cpu"), compile=False)


@pytest.mark.parametrize("kind", ["half", "interleaved", "interleaved-linspace"])
@pytest.mark.parametrize("percent", [100, 25, 60])
def test_rotation_by_hand(kind, percent):
    head_dim, position = 8, 5
    rotation = rotation_of(Rope(kind=kind, theta=100.0, percent=percent), head_dim)
    size = {100: 8, 25: 2, 60: 4}[percent]
    x = torch.randn(1, 1, 1, head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = rotate(x, rotation, {rotation: rope_table(rotation, torch.tensor([position]))})[0, 0, 0]
    expected = x[0, 0, 0].clone()
    for i in range(size // 2):
        a, b = (i, i + size // 2) if kind == "half" else (2 * i, 2 * i + 1)
        exponent = i / max(size // 2 - 1, 1) if kind == "interleaved-linspace" else 2 * i / size
        angle = position * 100.0**-exponent
        left, right = float(x[0, 0, 0, a]), float(x[0, 0, 0, b])
        expected[a] = left * math.cos(angle) - right * math.sin(angle)
        expected[b] = right * math.cos(angle) + left * math.sin(angle)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_no_rotation():
    assert rotation_of(Rope(kind="none"), 8) is None
    assert rotation_of(Rope(kind="half", percent=10), 8) is None
