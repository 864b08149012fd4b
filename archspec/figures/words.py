"""How a figure calls things. Settings are those of the plan; nothing is known of families or models."""

from dataclasses import replace
from typing import Any

from archspec.plan import AttentionPlan, CacheSlot, LayerPlan, Plan, RetentionPlan
from archspec.spec.format import ffn_text, rope_text
from archspec.spec.model import DECAYS, Norm

_MIXERS = {decay: mixer for mixer, decay in DECAYS.items()}
_RETENTIONS = {"gated": "Gated retention", "fixed": "Retention, fixed decay", "none": "Linear attention"}


def mixer_word(layer: LayerPlan) -> str:
    """What a spec calls it."""
    match layer.mixer:
        case AttentionPlan() as mixer:
            return "attend" if mixer.owns_kv else "cross-attend"
        case RetentionPlan() as mixer:
            return _MIXERS[mixer.decay]
        case None:
            return "ffn-only" if layer.ffn else "nothing"


def mixer_title(layer: LayerPlan) -> str:
    """What a paper calls it."""
    match layer.mixer:
        case AttentionPlan() as mixer:
            if not mixer.owns_kv:
                return "Cross-attention"
            return "Attention" if mixer.window is None else "Sliding-window attention"
        case RetentionPlan() as mixer:
            return _RETENTIONS[mixer.decay]
        case None:
            return "FFN only" if layer.ffn else "No mixer, no FFN"


def heads_text(layer: LayerPlan) -> str:
    return f"{layer.mixer.num_heads} x {layer.mixer.head_dim}" if layer.mixer else ""


def window_text(layer: LayerPlan) -> str:
    """`all`, `1024`, `4 + 1020` (first and last positions); nothing for what has no window."""
    match layer.mixer:
        case AttentionPlan(window=None):
            return "all"
        case AttentionPlan() as mixer:
            return f"{mixer.sinks} + {mixer.window}" if mixer.sinks else f"{mixer.window}"
        case _:
            return ""


def traits(plan: Plan, layer: LayerPlan) -> dict[str, str]:
    """Settings that a figure names where the layers of a stack differ in them, and once where they do not."""
    found = {
        "norm": "" if layer.norm.kind == "none" else norm_text(layer.norm),
        "placement": "" if layer.placement == "pre" else f"{layer.placement} norms",
        "residual": {"sequential": "", "parallel": "parallel residual"}.get(
            layer.residual, "parallel residual, one norm"
        ),
        "residual scale": "" if layer.residual_scale == 1 else f"residual scale {layer.residual_scale:.4g}",
        "scalar": "layer scalar" if layer.layer_scalar else "",
    }
    if layer.mixer is not None:
        found["rope"] = rope_text(layer.mixer.rope)
    if isinstance(layer.mixer, AttentionPlan):
        mixer = layer.mixer
        found |= {
            "q norm": "" if mixer.q_norm.kind == "none" else "qk norm",
            "scale": "" if mixer.scale == mixer.head_dim**-0.5 else f"scale {mixer.scale:.4g}",
            "softcap": f"softcap {mixer.softcap:.10g}" if mixer.softcap else "",
            "sink logits": "sink logits" if mixer.sink_logits else "",
            "gate": "output gate" if mixer.output_gate else "",
        }
        if mixer.owns_kv:
            found["diagonal"] = "" if mixer.sees_self else "earlier tokens only"
    return {"ffn": ffn_text(layer.ffn) if layer.ffn else "no ffn", **found}


def norm_text(norm: Norm) -> str:
    return {"rms": "RMSNorm", "layernorm": "LayerNorm", "none": "no norm"}[norm.kind]


def placeless(layer: LayerPlan) -> LayerPlan:
    """Equal for layers that differ in nothing but their place and whose caches they use."""
    changes: dict[str, Any] = {"idx": 0}
    if isinstance(layer.mixer, AttentionPlan):
        changes["mixer"] = replace(layer.mixer, slot_idx=0)
    elif isinstance(layer.mixer, RetentionPlan):
        changes["mixer"] = replace(layer.mixer, state_idx=0)
    return replace(layer, **changes)


def placeless_slot(slot: CacheSlot) -> CacheSlot:
    """The same for slots."""
    return replace(slot, idx=0, name="", writer_idx=0, readers=())
