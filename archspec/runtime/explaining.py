"""Which backends a model's layers will be computed by, and why, before anything runs.

Legend: N heads, H head_dim.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from archspec.plan import CacheSlot, flattened
from archspec.runtime import flash
from archspec.runtime.attention import Order
from archspec.runtime.backends import name_of
from archspec.runtime.choosing import Call, Choice, Keys, why
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


LATER = "prefill, later chunks"
"""The phase of a prompt's chunks but the first."""


def explain(network: "Network", early_exit: bool = True) -> list[Explained]:
    """Backends of all layers with a mixer, by phase; layers that have the same stand together."""
    found: dict[tuple[str, Choice], list[int]] = {}
    for number, block in enumerate(network.layers, 1):
        for phase, choice in _choices(network, block, early_exit):  # type: ignore[arg-type]
            found.setdefault((phase, choice), []).append(number)
    return [Explained(tuple(layers), phase, *choice) for (phase, choice), layers in found.items()]


def _choices(network: "Network", block: Block, early_exit: bool) -> Iterator[tuple[str, Choice]]:
    match block.mixer:
        case Retention():
            on_cuda = network.device.type == "cuda"
            reason = "fla is installed" if has_fla() else "fla is not installed"
            backend = "fla" if on_cuda and has_fla() else "torch"
            yield "all", Choice(backend, reason if on_cuda else "fla is for CUDA")
        case Attention() as mixer:
            wanted, compiled = name_of(network.attend), network.call.compile
            for phase, call, place in asked(network, mixer, early_exit and behind_exit(network, block)):
                backend, reason = why(call, wanted, flash.installed, compiled)
                yield phase, Choice(backend, f"{place}{reason}")


def behind_exit(network: "Network", block: Block) -> bool:
    """Whether prefill runs a layer for the last position only."""
    plan = network.plan
    rest = flattened(plan.body[plan.exit_idx :], plan.groups)
    return any(step.op == "layer" and network.layers[step.idx] is block for step in rest)


def asked(network: "Network", mixer: Attention, behind_exit: bool) -> Iterator[tuple[str, Call, str]]:
    """`calls` of a layer by phase, and a word on what is special about one."""
    slot = network.plan.slots[mixer.slot_idx]
    for phase, call in calls(mixer, slot, network.device, network.dtype).items():
        if behind_exit and phase in ("prefill", LATER):
            on_line = phase == "prefill" or slot.window is None
            order: Order = "line" if on_line else "mixed"
            yield phase, call._replace(one_row=True, from_start=False, order=order), "last position only, "
        else:
            yield phase, call, ""


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
        keys="ordered" if window is None else "near",
    )
    in_front = sinks if slot.window is None else slot.sinks
    further: Order = "line" if window is None else "mixed" if in_front else "front"
    fits = slot.window is None or slot.sinks in (0, sinks)
    keys: Keys = "near" if window is not None and fits else "tail" if slot.window is None else "ordered"
    whole_ring = slot.window is not None and window is not None and slot.sinks + slot.window == sinks + window
    one: Order = "line" if slot.window is None else "ring" if whole_ring else "mixed"
    return {
        "prefill": start,
        LATER: start._replace(order=further, from_start=False, keys=keys),
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
