"""Small plans, made by hand, so that the runtime is tested without the phases before it."""

from dataclasses import replace

import torch

from archspec.plan import AttentionPlan, CacheSlot, IterationGroup, LayerPlan, Plan, RetentionPlan, StateSlot, Step
from archspec.runtime.build import build_model
from archspec.runtime.model import Model
from archspec.spec.model import Ffn, LinearScaling, Norm, Rope, YarnScaling

HALF = Rope(kind="half")
RMS = Norm(kind="rms", eps=1e-5)
NONE = Norm(kind="none")
WIDTH = 32
VOCAB = 61


def slot(
    idx, writer, readers, *, window=None, projected=False, name=None, heads=2, dim=8, rope=HALF, k_norm=NONE, sinks=0
):
    norm = RMS if projected else NONE
    name = name or f"cache@{writer + 1}"
    return CacheSlot(idx, name, writer, projected, tuple(readers), heads, dim, window, rope, norm, k_norm, False, sinks)


def attend(idx, slot, *, window=None, owns=True, heads=4, q_norm=NONE, ffn="swiglu", norm=RMS, scale=None, **options):
    """`options` of the mixer, or of the layer: `placement`, `residual`."""
    of_layer = {name: options.pop(name) for name in ("placement", "residual") if name in options}
    scale = scale or slot.head_dim**-0.5
    mixer = AttentionPlan(
        heads, slot.head_dim, slot.idx, owns, window, slot.rope, q_norm, False, False, scale, **options
    )
    return LayerPlan(idx, mixer, Ffn(kind=ffn, hidden_size=48), norm, False, **of_layer)


def retain(idx, state, decay="gated"):
    rope = Rope(kind="interleaved-linspace")
    return LayerPlan(
        idx,
        RetentionPlan(state.num_heads, state.head_dim, state.idx, rope, 1e-5, decay),
        Ffn(kind="swiglu", hidden_size=48),
        RMS,
        False,
    )


def plan(name, layers, slots, body, exit_idx, *, states=(), **changes):
    made = Plan(name, WIDTH, VOCAB, 1.0, False, RMS, tuple(layers), tuple(slots), tuple(states), tuple(body), exit_idx)
    return replace(made, **changes)


def write(idx):
    return Step("write", idx)


def layer(idx):
    return Step("layer", idx)


def dense():
    slots = [slot(i, i, [i]) for i in range(2)]
    return plan("dense", [attend(i, slots[i]) for i in range(2)], slots, [write(0), layer(0), write(1), layer(1)], 3)


def windowed():
    """A ring of 7, and a layer that sees 3 positions of a ring of 7."""
    slots = [slot(0, 0, [0, 1], window=7), slot(1, 2, [2])]
    layers = [
        attend(0, slots[0], window=7),
        attend(1, slots[0], window=3, owns=False),
        attend(2, slots[1]),
    ]
    return plan("windowed", layers, slots, [write(0), layer(0), layer(1), write(1), layer(2)], 4)


def shared():
    """Layers 2 and 3 read layer 1's K/V; qk norms, gelu, tied, scaled embedding."""
    slots = [slot(0, 0, [0, 1, 2], k_norm=RMS, rope=Rope(kind="half", percent=50)), slot(1, 3, [3])]
    layers = [
        attend(0, slots[0], q_norm=RMS, ffn="gelu"),
        attend(1, slots[0], owns=False, heads=2),
        attend(2, slots[0], owns=False, window=5),
        attend(3, slots[1]),
    ]
    body = [write(0), layer(0), layer(1), layer(2), write(1), layer(3)]
    return plan("shared", layers, slots, body, 5, tied_embeddings=True, embed_scale=WIDTH**0.5)


def projected():
    """A ring layer, then a cache projected from its output (called like a method of Module), then two readers."""
    rope = Rope(kind="interleaved-linspace")
    slots = [slot(0, 0, [0], window=4, rope=rope), slot(1, 0, [1, 2], projected=True, name="half", rope=rope)]
    layers = [attend(0, slots[0], window=4), attend(1, slots[1], owns=False), attend(2, slots[1], owns=False)]
    return plan("projected", layers, slots, [write(0), layer(0), write(1), layer(1), layer(2)], 3)


def retention():
    """Two retention layers and a projected cache behind them."""
    states = [StateSlot(i, f"state@{i + 1}", i, 2, 16) for i in range(2)]
    slots = [slot(0, 1, [2, 3], projected=True, name="main")]
    layers = [*(retain(i, states[i]) for i in range(2)), *(attend(i, slots[0], owns=False) for i in (2, 3))]
    body = [layer(0), layer(1), write(0), layer(2), layer(3)]
    return plan("retention", layers, slots, body, 3, states=states)


def mixed():
    """Everything at once: retention, a ring with a narrower reader, a projected cache with partial rotation."""
    state = StateSlot(0, "state@1", 0, 2, 16)
    slots = [
        slot(0, 1, [1, 2], window=6, k_norm=RMS),
        slot(1, 2, [3], projected=True, name="main", heads=1, rope=Rope(kind="half", percent=50)),
    ]
    layers = [
        retain(0, state),
        attend(1, slots[0], window=6, q_norm=RMS),
        attend(2, slots[0], window=3, owns=False),
        attend(3, slots[1], owns=False, ffn="gelu"),
    ]
    body = [layer(0), write(0), layer(1), layer(2), write(1), layer(3)]
    return plan("mixed", layers, slots, body, 5, states=[state])


def capped():
    """Softcaps, scales, norms of every placement, 1 + w norms, and the other activations."""
    plus = Norm(kind="rms", eps=1e-6, plus_one=True)
    slots = [slot(i, i, [i], window=window, k_norm=plus) for i, window in enumerate((None, 5, None, None))]
    layers = [
        attend(0, slots[0], norm=plus, placement="sandwich", softcap=2.0, scale=0.5, q_norm=plus, ffn="geglu-tanh"),
        attend(1, slots[1], window=5, placement="post", softcap=3.0, ffn="gelu-tanh"),
        attend(2, slots[2], placement="sandwich", residual="parallel", ffn="geglu"),
        attend(3, slots[3], scale=0.1, placement="post", residual="parallel"),
    ]
    body = [step for i in range(4) for step in (write(i), layer(i))]
    return plan("capped", layers, slots, body, 7, final_norm=plus, final_softcap=4.0)


def families():
    """What single families have: sink logits, gates, norms of values and over heads, values from keys, scaled ropes."""
    across, bare = Norm(kind="rms", eps=1e-5, spread="across"), Norm(kind="rms", eps=1e-5, weight=False)
    each = Norm(kind="layernorm", eps=1e-5, bias=False, spread="each")
    yarn = Rope(kind="half", scaling=YarnScaling(factor=4.0, original=16, truncate=False))
    part = Rope(kind="proportional", percent=50, scaling=LinearScaling(factor=2.0))
    slots = [
        replace(slot(0, 0, [0, 1], window=5, rope=yarn, k_norm=across), v_norm=bare),
        replace(slot(1, 2, [2, 3], rope=part, k_norm=each), values_from_keys=True),
        replace(slot(2, 3, [4], projected=True, rope=Rope(kind="none"), name="bare"), values_from_keys=True),
    ]
    layers = [
        attend(0, slots[0], window=5, q_norm=across, sink_logits=True),
        attend(1, slots[0], window=3, owns=False, heads=2, sink_logits=True, softcap=3.0),
        attend(2, slots[1], q_norm=each, output_gate=True, sink_logits=True),
        attend(3, slots[1], owns=False, q_norm=each, output_gate=True),
        attend(4, slots[2], owns=False, sink_logits=True),
    ]
    body = [write(0), layer(0), layer(1), write(1), layer(2), layer(3), write(2), layer(4)]
    return plan("families", layers, slots, body, 7)


def sunk():
    """Sinks in rings: partial rotation, a narrower reader, a query norm, a projected slot; nothing grows."""
    slots = [
        slot(0, 0, [0, 1], window=5, sinks=2, rope=Rope(kind="half", percent=50)),
        slot(1, 1, [2, 3], window=6, sinks=3, projected=True, heads=1, rope=Rope(kind="interleaved")),
        slot(2, 4, [4], window=4, sinks=1, rope=Rope(kind="none")),
    ]
    layers = [
        attend(0, slots[0], window=5, sinks=2, q_norm=RMS),
        attend(1, slots[0], window=3, sinks=1, owns=False, heads=2),
        attend(2, slots[1], window=6, sinks=3, owns=False),
        attend(3, slots[1], window=4, owns=False, softcap=3.0),
        attend(4, slots[2], window=4, sinks=1),
    ]
    body = [write(0), layer(0), layer(1), write(1), layer(2), layer(3), write(2), layer(4)]
    return plan("sunk", layers, slots, body, 7)


def decays():
    """Retention of the three decays."""
    states = [StateSlot(i, f"state@{i + 1}", i, 2, 16) for i in range(3)]
    layers = [retain(i, states[i], decay) for i, decay in enumerate(("gated", "fixed", "none"))]
    return plan("decays", layers, [], [layer(0), layer(1), layer(2)], 3, states=states)


def late(forward=2, backward=2):
    """Layers 2 and 3 read layer 5's K/V, a ring, before it is written; a full slot and a state in between."""
    state = StateSlot(0, "state@4", 3, 2, 16)
    slots = [slot(0, 0, [0]), slot(1, 2, [2]), slot(2, 4, [1, 2, 4, 5], window=6)]
    layers = [
        attend(0, slots[0]),
        attend(1, slots[2], window=6, owns=False, sees_self=False),
        attend(2, slots[1], window=None),
        retain(3, state),
        attend(4, slots[2], window=6),
        attend(5, slots[2], window=4, owns=False, heads=2),
    ]
    inner = (layer(1), write(1), layer(2), layer(3), write(2))
    body = [write(0), layer(0), Step("iterate", 0), layer(4), layer(5)]
    group = IterationGroup(0, inner, (2,), forward, backward)
    return plan("late", layers, slots, body, 3, states=[state], groups=(group,))


def late_twice(forward=2, backward=2):
    """Two groups; the first has two late slots, one of them projected, the second a ring with sinks."""
    slots = [
        slot(0, 1, [0, 2], projected=True, name="main"),
        slot(1, 2, [1, 2]),
        slot(2, 4, [3, 4], window=5, sinks=2),
    ]
    layers = [
        attend(0, slots[0], owns=False, sees_self=False, window=7),
        attend(1, slots[1], owns=False, sees_self=False, heads=2),
        attend(2, slots[1]),
        attend(3, slots[2], owns=False, sees_self=False, window=5, sinks=2),
        attend(4, slots[2], window=5, sinks=2, sees_self=False),
    ]
    groups = (
        IterationGroup(0, (layer(0), layer(1), write(0), write(1)), (0, 1), forward, backward),
        IterationGroup(1, (layer(3), write(2)), (2,), forward, backward),
    )
    body = [Step("iterate", 0), layer(2), Step("iterate", 1), layer(4)]
    return plan("late_twice", layers, slots, body, 3, groups=groups)


PADDABLE = {
    make.__name__: make for make in (dense, windowed, shared, projected, retention, mixed, capped, decays, families)
}
ALL = {**PADDABLE, "sunk": sunk}
LATE = {make.__name__: make for make in (late, late_twice)}


def sharp_model(plan: Plan, **options) -> Model:
    """A model whose logits are of order 1: with the usual initial weights an error would hide below a tolerance."""
    model = build_model(plan, **{"compile": False, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:
                parameter *= 10
    return model


def tokens(batch, length, seed=0):
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
