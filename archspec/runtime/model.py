"""The public model: teacher forcing, prefill, decode, generation, loss.

Legend: B batch, T tokens, V vocab.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.plan import Plan
from archspec.runtime.attention import Backend
from archspec.runtime.cache import Cache
from archspec.runtime.compiling import RunPass, compiled_pass, mark_ids, mark_slots, run_pass
from archspec.runtime.network import Network, Phase
from archspec.runtime.sampling import check_sampling, sample
from archspec.runtime.weights import save_model


class Model(Network):
    """A runnable decoder. Row t of its logits scores token t + 1."""

    def __init__(self, plan: Plan, *, attend: Backend, compile: bool) -> None:
        super().__init__(plan, attend)
        self.compiled = compile
        self.arch_text = ""
        """The text of the spec, for `save`."""
        self._passes: dict[Phase, RunPass] = {}

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.weight.dtype

    def forward(self, input_ids: Tensor, exact: bool = False) -> Tensor:
        """Logits (B, T, V) by teacher forcing. `exact` is for plans with iteration; there are none here."""
        self._check_ids(input_ids, ("B", "T"))
        return self._run("forward", input_ids, None)

    def new_cache(self, batch: int, context: int) -> Cache:
        """An empty cache for `batch` sequences of up to `context` tokens, all of it allocated now."""
        cache = Cache(self.plan, batch, context, dtype=self.dtype, device=self.device)
        if self.compiled:
            mark_slots(cache)
        return cache

    @torch.no_grad()
    def prefill(self, input_ids: Tensor, cache: Cache, early_exit: bool = True, exact: bool = False) -> Tensor:
        """Logits (B, V) of the last position; call again with the next chunk of a long prompt.

        `early_exit=False` runs every layer for every position, to the same result. Effects: fills `cache`.
        """
        self._check_ids(input_ids, ("B", "T"))
        num_tokens = input_ids.shape[1]
        self._check_cache(cache, input_ids.shape[0], num_tokens)
        if num_tokens == 1:
            return self.decode(input_ids[:, 0], cache)
        logits_B1V = self._run("prefill" if early_exit else "prefill in full", input_ids, cache)
        cache.advance(num_tokens)
        return logits_B1V[:, 0]

    @torch.no_grad()
    def decode(self, token_ids: Tensor, cache: Cache) -> Tensor:
        """Logits (B, V) after one more token a sequence. Shapes: token_ids (B,). Effects: fills `cache`."""
        self._check_ids(token_ids, ("B",))
        self._check_cache(cache, token_ids.shape[0], 1)
        logits_B1V = self._run("decode", token_ids[:, None], cache)
        cache.advance(1)
        return logits_B1V[:, 0]

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos_token_id: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Continue prompts of equal length: (B, T) -> (B, T + max_new_tokens), the prompt included.

        A row that has ended is filled with `eos_token_id`. Without a `seed`, sampling uses the global generator.
        """
        check_sampling(temperature, top_k, top_p)
        self._check_ids(input_ids, ("B", "T"))
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must not be negative, but is {max_new_tokens}")
        batch, num_tokens = input_ids.shape
        fill = 0 if eos_token_id is None else eos_token_id
        tokens = F.pad(input_ids, (0, max_new_tokens), value=fill)
        if max_new_tokens == 0:
            return tokens
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        ended_B = torch.zeros(batch, dtype=torch.bool, device=self.device)
        cache = self.new_cache(batch, num_tokens + max_new_tokens)
        logits_BV = self.prefill(input_ids, cache)
        for position in range(num_tokens, num_tokens + max_new_tokens):
            next_B = sample(logits_BV, temperature, top_k, top_p, generator)
            if eos_token_id is not None:
                next_B = next_B.masked_fill(ended_B, eos_token_id)
                ended_B |= next_B == eos_token_id
            tokens[:, position] = next_B
            if position + 1 == tokens.shape[1] or (eos_token_id is not None and bool(ended_B.all())):
                break
            logits_BV = self.decode(next_B, cache)
        return tokens

    def loss(self, input_ids: Tensor) -> Tensor:
        """Mean cross entropy of the next token, in float32 or wider; differentiable."""
        self._check_ids(input_ids, ("B", "T"))
        if input_ids.shape[1] < 2:
            raise ValueError("a loss needs at least 2 tokens: every token but the first is predicted")
        logits_BTV = self(input_ids[:, :-1])
        wide = torch.promote_types(logits_BTV.dtype, torch.float32)
        return F.cross_entropy(logits_BTV.flatten(0, 1).to(wide), input_ids[:, 1:].flatten())

    def save(self, directory: str | Path) -> None:
        """Write DIRECTORY/model.arch and DIRECTORY/model.safetensors."""
        save_model(self, directory, self.arch_text)

    def _run(self, phase: Phase, input_ids: Tensor, cache: Cache | None) -> Tensor:
        if cache is None:
            start = torch.zeros(1, dtype=torch.int64, device=input_ids.device)
            storage, live_lens = None, {}
        else:
            start, storage, live_lens = cache.input_pos, cache.storage, cache.live_lens(input_ids.shape[1])
        if not self.compiled:
            return run_pass(self, phase, input_ids, start, storage, live_lens)
        if phase not in self._passes:
            self._passes[phase] = compiled_pass()
        return self._passes[phase](self, phase, mark_ids(input_ids), start, storage, live_lens)

    def _check_ids(self, ids: Tensor, axes: tuple[str, ...]) -> None:
        if ids.ndim != len(axes) or ids.dtype != torch.int64:
            raise ValueError(
                f"token ids must be int64 of shape ({', '.join(axes)}), "
                f"not {str(ids.dtype).removeprefix('torch.')} of shape {tuple(ids.shape)}"
            )
        if ids.numel() == 0:
            raise ValueError(f"no tokens: token ids have shape {tuple(ids.shape)}")
        if ids.device != self.device:
            raise ValueError(f"token ids are on {ids.device}, the model is on {self.device}")
        # Elsewhere than on a CPU this look would make every step wait for the device.
        if ids.device.type == "cpu" and (int(ids.min()) < 0 or int(ids.max()) >= self.plan.vocab_size):
            low, high = int(ids.min()), int(ids.max())
            raise ValueError(f"token ids must be 0 to {self.plan.vocab_size - 1}; these are {low} to {high}")

    def _check_cache(self, cache: Cache, batch: int, num_tokens: int) -> None:
        if cache.plan is not self.plan and cache.plan != self.plan:
            raise ValueError(f"this cache was made for model {cache.plan.name}, not for {self.plan.name}")
        if (cache.dtype, cache.device) != (self.dtype, self.device):
            raise ValueError(
                f"this cache holds {cache.dtype} on {cache.device}, the model is {self.dtype} on {self.device}"
            )
        if cache.batch != batch:
            raise ValueError(f"this cache is for {cache.batch} sequences, but {batch} were given")
        if cache.num_cached_tokens + num_tokens > cache.context:
            raise ValueError(
                f"the cache has room for {cache.context} tokens and holds {cache.num_cached_tokens}: "
                f"{num_tokens} more do not fit"
            )
