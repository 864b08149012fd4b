"""Frequencies of rotary positions, and how scaling stretches them.

In float32 and in the order in which transformers' `modeling_rope_utils` computes them, so that imported models agree to
the last bit. Legend: R rotated dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.spec.model import LinearScaling, Llama3Scaling, Scaling, YarnScaling


class Stretch(NamedTuple):
    """A scaling as plain values. `low` and `high` are yarn's `slow` and `fast`."""

    kind: str
    factor: float
    original: int = 0
    low: float = 0.0
    high: float = 0.0
    attention_factor: float = 1.0
    truncate: bool = True


def stretch_of(scaling: Scaling | None) -> Stretch | None:
    """The values of a scaling, with yarn's attention factor settled."""
    match scaling:
        case None:
            return None
        case LinearScaling(factor=factor):
            return Stretch("linear", factor)
        case Llama3Scaling():
            return Stretch("llama3", scaling.factor, scaling.original, scaling.low, scaling.high)
        case YarnScaling():
            # arXiv 2309.00071, section 3.4; a model that is not stretched has 1.
            default = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
            attention_factor = scaling.attention_factor or default
            return Stretch(
                "yarn",
                scaling.factor,
                scaling.original,
                scaling.slow,
                scaling.fast,
                attention_factor,
                scaling.truncate,
            )


def frequencies(kind: str, theta: float, size: int, turning: int, stretch: Stretch | None, like: Tensor) -> Tensor:
    """Radians a position of each pair of dimensions, float32 (R // 2,), on the device of `like`.

    Pairs from `turning` on do not turn. Source: `half` and `interleaved` as in Llama and GPT-J; `interleaved-linspace`
    as in YOCO's released code, whose exponents include the end point 1; `proportional` as in Gemma 4.
    """
    if kind == "interleaved-linspace":
        exponents = torch.linspace(0, 1, size // 2, device=like.device, dtype=torch.float32)
    else:
        exponents = torch.arange(0, size, 2, device=like.device, dtype=torch.float32) / size
    # The reciprocal of a power, not a negative power: it is what the references compute, to the last bit.
    powers = theta**exponents
    if stretch is not None and stretch.kind == "yarn":
        return _yarn(powers, theta, size, stretch)
    plain = 1.0 / powers
    if turning < size // 2:
        plain = torch.cat((plain[:turning], torch.zeros_like(plain[turning:])))
    if stretch is None:
        return plain
    return plain / stretch.factor if stretch.kind == "linear" else _llama3(plain, stretch)


def _llama3(plain: Tensor, stretch: Stretch) -> Tensor:
    """Long waves are stretched, short ones are not. Source: Llama 3.1's `apply_scaling`."""
    original, factor, low, high = stretch.original, stretch.factor, stretch.low, stretch.high
    wave_lens = 2 * math.pi / plain
    stretched = torch.where(wave_lens > original / low, plain / factor, plain)
    kept = (original / wave_lens - low) / (high - low)
    between = ~(wave_lens < original / high) * ~(wave_lens > original / low)
    return torch.where(between, (1 - kept) * stretched / factor + kept * stretched, stretched)


def _yarn(powers: Tensor, theta: float, size: int, stretch: Stretch) -> Tensor:
    """Pairs that turn often keep their frequency, slow ones are stretched. Source: arXiv 2309.00071, section 3.2."""

    def dimension(turns: float) -> float:
        """Where a pair turns so often within the original context."""
        return size * math.log(stretch.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dimension(stretch.high), dimension(stretch.low)
    if stretch.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    if first == last:
        last += 0.001
    pairs = torch.arange(size // 2, device=powers.device, dtype=torch.float32)
    kept = 1 - ((pairs - first) / (last - first)).clamp(0, 1)
    return 1.0 / (stretch.factor * powers) * (1 - kept) + 1.0 / powers * kept
