"""What a model needs in memory, line by line."""

from dataclasses import dataclass
from functools import lru_cache

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.memory.activations import decode_peak, prefill_peak
from archspec.memory.allocators import EXACT, Allocator, slot_bytes, state_bytes
from archspec.plan import CACHE_DTYPE_BYTES, DTYPE_BYTES


@dataclass(frozen=True)
class Terms:
    """On what conditions memory is counted."""

    dtype: str = "bfloat16"
    """Of weights and activations; all weights have it, and tied ones exist once."""
    cache_dtype: str | None = None
    """Of caches; `dtype` unless given. Recurrent states are float32 whatever it is."""
    allocator: Allocator = EXACT
    chunk: int | None = None
    """Tokens of a prompt that are prefilled at a time; None: as many as the plan says."""

    def chunk_of(self, plan: AnyPlan) -> int | None:
        """What that comes to for a plan, which may take whole blocks only; None: all."""
        if self.chunk is None:
            return plan.prefill_chunk
        return plan.whole_blocks(self.chunk) if isinstance(plan, LevelsPlan) else self.chunk

    @property
    def cache_element(self) -> int:
        return CACHE_DTYPE_BYTES[self.cache_dtype or self.dtype]


@dataclass(frozen=True)
class Account:
    """Bytes, for `batch` sequences of `context` tokens."""

    batch: int
    context: int
    weights: int
    slots: int
    """Keys and values."""
    states: int
    """Recurrent states."""
    rope_tables: int
    """Made anew for each pass of prefill, and part of its peak; nothing is kept between passes."""
    prefill_peak: int
    """Estimated: activations of prefill."""
    decode_peak: int
    """Estimated: activations of one decoded token."""

    @property
    def caches(self) -> int:
        """What a model remembers: slots and states."""
        return self.slots + self.states

    @property
    def total(self) -> int:
        """The most at any time: prefill and decode do not run together."""
        return self.weights + self.caches + max(self.prefill_peak, self.decode_peak)


def account(plan: AnyPlan, batch: int, context: int, terms: Terms) -> Account:
    """All lines for one batch and context."""
    element = DTYPE_BYTES[terms.dtype]
    prefill = prefill_peak(plan, batch, context, element, terms.chunk_of(plan))
    return Account(
        batch=batch,
        context=context,
        weights=weight_bytes(plan, terms.dtype),
        slots=slot_bytes(plan, batch, context, terms.cache_element, terms.allocator),
        states=state_bytes(plan, batch),
        rope_tables=prefill.rope_bytes,
        prefill_peak=prefill.nbytes,
        decode_peak=decode_peak(plan, batch, context, element).nbytes,
    )


def weight_bytes(plan: AnyPlan, dtype: str) -> int:
    """Bytes of all parameters."""
    return _num_parameters(plan) * DTYPE_BYTES[dtype]


@lru_cache(maxsize=64)
def _num_parameters(plan: AnyPlan) -> int:
    return plan.num_parameters()
