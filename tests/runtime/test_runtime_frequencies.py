"""Frequencies of scaled ropes against the papers' formulas, one pair of dimensions at a time, in Python's floats."""

import math

import pytest
import torch

from archspec.runtime.rope import rope_table, rotate, rotation_of
from archspec.spec.model import LinearScaling, Llama3Scaling, Rope, YarnScaling

POSITIONS = [0, 1, 2, 17, 1000]


def turned(rope, head_dim):
    """Radians that each pair of a head turns a position, and the length of the rotated vector (cos 0)."""
    rotation = rotation_of(rope, head_dim)
    cos, sin = rope_table(rotation, torch.tensor([0, 1]))
    assert cos.dtype == sin.dtype == torch.float32
    return torch.atan2(sin[1], cos[1]).tolist(), float(cos[0, 0])


def plain(theta, size):
    return [theta ** (-2 * i / size) for i in range(size // 2)]


def llama3(frequency, factor, low, high, original):
    """Meta's `apply_scaling` for one frequency."""
    wave_len = 2 * math.pi / frequency
    if wave_len < original / high:
        return frequency
    if wave_len > original / low:
        return frequency / factor
    smooth = (original / wave_len - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def yarn_kept(i, theta, size, original, fast, slow, truncate):
    """YaRN's 1 - gamma for pair i: the share that is stretched, in the form of gpt-oss's reference code."""
    half = size / 2
    low = half * math.log(original / (fast * 2 * math.pi)) / math.log(theta)
    high = half * math.log(original / (slow * 2 * math.pi)) / math.log(theta)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return min(1.0, max(0.0, (i - low) / (high - low)))


def test_linear_scaling_divides_every_frequency():
    got, _ = turned(Rope(kind="half", theta=1e6, scaling=LinearScaling(factor=8.0)), 256)
    assert got == pytest.approx([f / 8 for f in plain(1e6, 256)], rel=1e-5)


def test_llama_3_1():
    scaling = Llama3Scaling(factor=8.0, low=1.0, high=4.0, original=8192)
    got, length = turned(Rope(kind="half", theta=500000.0, scaling=scaling), 128)
    wanted = [llama3(f, 8.0, 1.0, 4.0, 8192) for f in plain(500000.0, 128)]
    assert got == pytest.approx(wanted, rel=1e-5)
    assert length == 1
    changed = [i for i, (a, b) in enumerate(zip(wanted, plain(500000.0, 128), strict=True)) if a != b]
    between = [i for i in changed if wanted[i] != plain(500000.0, 128)[i] / 8]
    assert changed == list(range(29, 64))  # the first 29 wavelengths are below 2048 tokens
    assert between == [29, 30, 31, 32, 33, 34]  # up to 8192 tokens


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("theta", "size", "factor", "original", "fast", "slow"),
    [(150000.0, 64, 32.0, 4096, 32.0, 1.0), (10000.0, 128, 40.0, 4096, 32.0, 1.0), (1e6, 128, 4.0, 32768, 16.0, 2.0)],
    ids=["gpt-oss", "deepseek", "qwen"],
)
def test_yarn(theta, size, factor, original, fast, slow, truncate):
    scaling = YarnScaling(factor=factor, original=original, fast=fast, slow=slow, truncate=truncate)
    got, length = turned(Rope(kind="half", theta=theta, scaling=scaling), size)
    wanted = []
    for i, frequency in enumerate(plain(theta, size)):
        stretched = yarn_kept(i, theta, size, original, fast, slow, truncate)
        wanted.append(frequency / factor * stretched + frequency * (1 - stretched))
    assert got == pytest.approx(wanted, rel=1e-5)
    assert length == pytest.approx(0.1 * math.log(factor) + 1)


def test_yarn_of_gpt_oss_in_numbers():
    """Ends of the ramp and concentration as worked out by hand from base 150000, 64 dimensions, 4096 tokens."""
    assert 32 * math.log(4096 / (32 * 2 * math.pi)) / math.log(150000) == pytest.approx(8.0928, abs=1e-3)
    assert 32 * math.log(4096 / (2 * math.pi)) / math.log(150000) == pytest.approx(17.398, abs=1e-3)
    scaling = YarnScaling(factor=32.0, original=4096, truncate=False)
    got, length = turned(Rope(kind="half", theta=150000.0, scaling=scaling), 64)
    unscaled = plain(150000.0, 64)
    assert got[:9] == pytest.approx(unscaled[:9], rel=1e-5)
    assert got[18:] == pytest.approx([f / 32 for f in unscaled[18:]], rel=1e-5)
    assert length == pytest.approx(1.3465736)


def test_stated_attention_factor_counts():
    scaling = YarnScaling(factor=40.0, original=4096, attention_factor=1.0)
    assert turned(Rope(kind="interleaved", scaling=scaling), 64)[1] == 1
    shrunk = YarnScaling(factor=0.5, original=4096)
    assert turned(Rope(kind="half", scaling=shrunk), 64)[1] == 1


def test_proportional_turns_the_first_pairs_with_the_frequencies_of_the_whole_head():
    got, _ = turned(Rope(kind="proportional", theta=1e6, percent=25), 512)
    assert len(got) == 256
    assert got[:64] == pytest.approx(plain(1e6, 512)[:64], rel=1e-5)
    assert got[64:] == [0.0] * 192
    halved, _ = turned(Rope(kind="proportional", theta=1e6, percent=25, scaling=LinearScaling(factor=2.0)), 512)
    assert halved == pytest.approx([f / 2 for f in got], rel=1e-5)


@pytest.mark.parametrize("kind", ["half", "interleaved", "proportional"])
@pytest.mark.parametrize("percent", [25, 50, 100])
def test_rotation_by_pairs(kind, percent):
    """The rotated vector, pair by pair: which two dimensions turn together, and which stay."""
    head_dim = 16
    scaling = None if kind == "proportional" else YarnScaling(factor=4.0, original=8)
    rope = Rope(kind=kind, theta=100.0, percent=percent, scaling=scaling)
    rotation = rotation_of(rope, head_dim)
    x = torch.randn(1, 1, len(POSITIONS), head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = rotate(x, rotation, {rotation: rope_table(rotation, torch.tensor(POSITIONS))})
    size = head_dim * percent // 100
    pairs = {
        "half": [(i, i + size // 2) for i in range(size // 2)],
        "interleaved": [(2 * i, 2 * i + 1) for i in range(size // 2)],
        "proportional": [(i, i + head_dim // 2) for i in range(size // 2)],
    }[kind]
    over = head_dim if kind == "proportional" else size
    wanted = x.clone()
    for row, position in enumerate(POSITIONS):
        for i, (a, b) in enumerate(pairs):
            frequency, length = 100.0 ** (-2 * i / over), 1.0
            if scaling is not None:
                low = math.floor(over / 2 * math.log(8 / (32 * 2 * math.pi)) / math.log(100))
                high = math.ceil(over / 2 * math.log(8 / (2 * math.pi)) / math.log(100))
                low, high = max(low, 0), min(high, over - 1)
                stretched = min(1.0, max(0.0, (i - low) / (high - low)))
                frequency = frequency / 4 * stretched + frequency * (1 - stretched)
                length = 0.1 * math.log(4) + 1
            cos, sin = length * math.cos(position * frequency), length * math.sin(position * frequency)
            wanted[..., row, a] = x[..., row, a] * cos - x[..., row, b] * sin
            wanted[..., row, b] = x[..., row, b] * cos + x[..., row, a] * sin
    assert torch.allclose(got, wanted, atol=2e-4)
