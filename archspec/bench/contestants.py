"""A compiled plan at work: prefill, decode and training step as trials.

Legend: B batch, T tokens of context.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from archspec.bench.filling import fill, move_to
from archspec.bench.rounds import Trial
from archspec.bench.traffic import step_bytes
from archspec.bench.workloads import Workload, block_length
from archspec.levels_plan import AnyPlan
from archspec.runtime.build import AnyModel, build_empty

DECODED = 16
"""Tokens of each sequence that a sample decodes at most; the last of them stands at the end of the context."""
WARM_TOKENS = 2048
"""A prompt of so many tokens behind a first chunk compiles all that a longer one needs."""


class Contestant(Protocol):
    """Who can be measured."""

    name: str

    @property
    def plan(self) -> AnyPlan: ...

    def offers(self, workload: Workload) -> bool:
        """Whether it has a trial for such a workload."""

    def trial(self, workload: Workload, batch: int) -> Trial:
        """A trial with memory of its own. Errors: ValueError for a context that is too short, RuntimeError."""


class Compiled:
    """A plan, built and compiled with random weights."""

    def __init__(self, name: str, plan: AnyPlan, *, device: str, dtype: str, compile: bool = True) -> None:
        self.name, self.plan, self.dtype = name, plan, dtype
        self.model = random_model(plan, device=device, dtype=dtype, compile=compile)
        self.weight_bytes = sum(tensor.nbytes for tensor in self.model.parameters())

    def offers(self, workload: Workload) -> bool:
        return workload.kind != "compile"

    def trial(self, workload: Workload, batch: int) -> Trial:
        if workload.kind == "prefill":
            return self._prefill(batch, workload.context)
        return (self._train if workload.kind == "train" else self._decode)(batch, workload.context)

    def _prefill(self, batch: int, context: int) -> Trial:
        ids_BT = random_ids(self.plan, batch, context, self.model.device)
        cache: Any = self.model.new_cache(batch, context)
        return Trial(
            self.name,
            begin=cache.reset,
            run=lambda: self.model.prefill(ids_BT, cache),
            warm=lambda: self.model.prefill(ids_BT[:, : (self.plan.prefill_chunk or 0) + WARM_TOKENS], cache),
            tokens=batch * context,
            batch=batch,
            weight_bytes=self.weight_bytes,
            cache_bytes=cache.nbytes,
        )

    def _decode(self, batch: int, context: int) -> Trial:
        length = block_length(self.plan)
        most = decoded(context, length) // length
        start = (context - most * length) // length * length
        cache: Any = self.model.new_cache(batch, context)
        fill(cache, start)
        ids_B = random_ids(self.plan, batch, 1, self.model.device)[:, 0]

        @torch.no_grad()
        def run() -> None:
            nonlocal ids_B
            for _ in range(length):
                ids_B = self.model.decode(ids_B, cache).argmax(-1)

        return Trial(
            self.name,
            begin=lambda: move_to(cache, start),
            run=run,
            tokens=batch * length,
            batch=batch,
            most=most,
            weight_bytes=self.weight_bytes,
            cache_bytes=cache.nbytes,
            run_bytes=length * step_bytes(self.plan, batch, context - most * length // 2, self.dtype),
        )

    def _train(self, batch: int, context: int) -> Trial:
        ids_BT = random_ids(self.plan, batch, context, self.model.device)
        return Trial(
            self.name,
            begin=lambda: self.model.zero_grad(set_to_none=True),
            run=lambda: self.model.loss(ids_BT).backward(),
            tokens=batch * context,
            batch=batch,
            weight_bytes=self.weight_bytes,
        )


def decoded(context: int, length: int) -> int:
    """Tokens of a sequence that are decoded at most: whole blocks, and half of the context at most.

    Errors: ValueError for a context without room for one block behind another.
    """
    if context < 2 * length:
        raise ValueError(f"decoding is measured from a context of {2 * length} tokens on, not {context}")
    return max(min(DECODED, context // 2) // length, 1) * length


def random_ids(plan: AnyPlan, batch: int, num_tokens: int, device: torch.device) -> Tensor:
    """Token ids (B, T), the same in every run."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randint(plan.vocab_size, (batch, num_tokens), generator=generator).to(device)


@torch.no_grad()
def random_model(plan: AnyPlan, *, device: str, dtype: str, compile: bool) -> AnyModel:
    """A model with random weights, drawn on its device: a billion numbers a second there, not a hundredth of that."""
    model = build_empty(plan, device=device, dtype=dtype, compile=compile)
    generator = torch.Generator(model.device).manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.ndim > 1:
            tensor.normal_(0.0, 0.02, generator=generator)
        else:
            tensor.fill_(0.0 if name.endswith(("bias", "sink_logits")) else 1.0)
    return model
