"""What is measured: the work, and the models that do it. No torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.spec.model import ModelSpec
from archspec.units import format_bytes, format_count

Kind = Literal["prefill", "decode", "budget", "compile", "train"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Role = Literal["spec", "dense", "package", "peer"]


@dataclass(frozen=True)
class Workload:
    """One cell of a table.

    - `prefill`: a prompt of `context` tokens, from an empty cache to the logits of its last token.
    - `decode`: tokens one by one, the last of them at position `context`; the cache is filled without a prefill.
    - `budget`: `decode` with the largest batch whose planned caches fit `budget` bytes, another one for each model.
    - `compile`: the first token of a new process, with an empty compile cache (cold) and with a full one (warm).
    - `train`: forward and backward of the loss.
    """

    kind: Kind
    dtype: str = "float32"
    batch: int = 1
    context: int = 512
    budget: int | None = None

    def __str__(self) -> str:
        if self.kind == "compile":
            return f"first token, {self.dtype}"
        size = f"batch {self.batch}" if self.budget is None else f"caches of {format_bytes(self.budget)}"
        verb = "decode" if self.kind == "budget" else self.kind
        return f"{verb} at {format_count(self.context)}, {size}, {self.dtype}"

    def batch_of(self, plan: AnyPlan) -> int:
        """Sequences that a model takes here; 0 if not one of them fits the budget."""
        return self.batch if self.budget is None else largest_batch(plan, self.context, self.dtype, self.budget)


@dataclass(frozen=True)
class Entry:
    """A model that is measured. Names are unique in a run."""

    name: str
    role: Role
    spec: ModelSpec
    plan: AnyPlan


def largest_batch(plan: AnyPlan, context: int, dtype: str, budget: int) -> int:
    """Sequences of `context` tokens whose planned caches fit `budget` bytes; caches are linear in the batch."""
    return budget // max(plan.cache_bytes(1, context, dtype), 1)


def block_length(plan: AnyPlan) -> int:
    """Tokens after which decoding has done the same work again: those of a block, or one."""
    return plan.block_length if isinstance(plan, LevelsPlan) else 1
