"""Where a parameter stands in a stack, and what it is part of."""

import re
from dataclasses import dataclass

from archspec.plan import AttentionPlan, CacheSlot, Plan, RetentionPlan
from archspec.spec.model import Moe, Norm

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Place:
    """A parameter's name taken apart."""

    layer: int | None
    part: str

    @property
    def name(self) -> str:
        return self.part if self.layer is None else f"layers.{self.layer}.{self.part}"


def layer_place(name: str) -> Place:
    found = _LAYER.fullmatch(name)
    return Place(None, name) if found is None else Place(int(found[1]), found[2])


@dataclass(frozen=True)
class Stack:
    """A plan, and the beginning of the names of each slot's keys and values."""

    plan: Plan
    prefixes: tuple[str, ...]

    def kind(self, place: Place) -> str:
        """What a parameter is part of, in words: parts of different kinds have nothing to do with each other."""
        if place.layer is None:
            norms = {"embed_norm": self.plan.embed_norm, "norm": self.plan.final_norm}
            norm = norms.get(place.part.split(".")[0])
            return "" if norm is None else _norm(norm)
        layer, first = self.plan.layers[place.layer], place.part.split(".")[0]
        if first.endswith("_norm"):
            return _norm(layer.norm)
        if first == "mixer":
            match layer.mixer:
                case AttentionPlan() as mixer:
                    q_norm = f" with {mixer.q_norm.spread} {_norm(mixer.q_norm)}" if ".q_norm" in place.part else ""
                    return f"attention{q_norm}"
                case RetentionPlan():
                    return "retention"
                case None:
                    return "no mixer"
        if first == "ffn" and layer.ffn is not None:
            ffn = layer.ffn
            return f"a mixture of {ffn.num_experts} {ffn.expert.kind}" if isinstance(ffn, Moe) else ffn.kind
        return first


def stack_of(plan: Plan) -> Stack:
    return Stack(plan, tuple(_prefix(slot) for slot in plan.slots))


def _prefix(slot: CacheSlot) -> str:
    return f"caches.{slot.name}." if slot.projected else f"layers.{slot.writer_idx}.mixer.kv."


def _norm(norm: Norm) -> str:
    return f"{norm.kind} norms of 1 + w" if norm.plus_one else f"{norm.kind} norms"
