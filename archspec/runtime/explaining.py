"""Which backends a model's layers will be computed by, and why, before anything runs.

Legend: N heads, H head_dim.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from archspec.plan import CacheSlot
from archspec.runtime import flash
from archspec.runtime.attention import Order
from archspec.runtime.backends import name_of
from archspec.runtime.choosing import Call, Choice, why
from archspec.runtime.layers import Attention, Block
from archspec.runtime.retention import Retention
from archspec.runtime.retention_kernels import has_fla

if TYPE_CHECKING:
    from archspec.runtime.network import Network


class Explained(NamedTuple):
    """What computes some layers in one phase."""

    layers: tuple[int, ...]
    """Numbers of layers, counted from 1."""
    phase: str
    backend: str
    reason: str
    stack: str = ""
    """The level that the layers are of, where there are two."""


def explain(network: "Network") -> list[Explained]:
    """Backends of all layers with a mixer, by phase; layers that have the same stand together."""
    found: dict[tuple[str, Choice], list[int]] = {}
    for number, block in enumerate(network.layers, 1):
        for phase, choice in _choices(network, block):  # type: ignore[arg-type]
            found.setdefault((phase, choice), []).append(number)
    return [Explained(tuple(layers), phase, *choice) for (phase, choice), layers in found.items()]


def _choices(network: "Network", block: Block) -> Iterator[tuple[str, Choice]]:
    match block.mixer:
        case Retention():
            on_cuda = network.device.type == "cuda"
            reason = "fla is installed" if has_fla() else "fla is not installed"
            backend = "fla" if on_cuda and has_fla() else "torch"
            yield "all", Choice(backend, reason if on_cuda else "fla is for CUDA")
        case Attention() as mixer:
            slot = network.plan.slots[mixer.slot_idx]
            wanted, compiled = name_of(network.attend), network.call.compile
            for phase, call in calls(mixer, slot, network.device, network.dtype).items():
                yield phase, why(call, wanted, flash.installed, compiled)


def calls(mixer: Attention, slot: CacheSlot, device: torch.device, dtype: torch.dtype) -> dict[str, Call]:
    """What a layer asks for when a prompt begins, when it goes on, for one more token, and in training."""
    window, sinks, sees_self = mixer.sight
    start = Call(
        device.type,
        dtype,
        mixer.heads[1],
        one_row=False,
        order="line",
        window=window,
        sinks=sinks,
        sees_self=sees_self,
        softcap=mixer.scoring.softcap is not None,
        sink_logits=mixer.sink_logits is not None,
        turned_apart=mixer.sink_rotation is not None,
    )
    in_front = sinks if slot.window is None else slot.sinks
    further: Order = "line" if window is None else "mixed" if in_front else "front"
    whole_ring = slot.window is not None and window is not None and slot.sinks + slot.window == sinks + window
    one: Order = "line" if slot.window is None else "ring" if whole_ring else "mixed"
    return {
        "prefill": start,
        "prefill, later chunks": start._replace(order=further, from_start=False),
        "decode": start._replace(order=one, from_start=False, one_row=True),
        "training": start._replace(grad=True),
    }


def reads_lengths(network: "Network") -> bool:
    """Whether attention of a decode step takes the lengths of caches from tensors, so that views need not be cut."""
    mixers = [block.mixer for block in network.layers if isinstance(block.mixer, Attention)]
    decode = (
        calls(mixer, network.plan.slots[mixer.slot_idx], network.device, network.dtype)["decode"] for mixer in mixers
    )
    wanted = name_of(network.attend)
    return all(why(call, wanted, flash.installed, network.call.compile).backend == "flash" for call in decode)
