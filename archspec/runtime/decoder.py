"""What every runnable model has in common: generation, saving, and a look at what it is given.

Legend: B batch, T tokens, V vocab.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.runtime.network import Network
from archspec.runtime.passes import Checkpointing, plain_checkpointing
from archspec.runtime.sampling import Chooser
from archspec.runtime.weights import save_model


class AnyCache(Protocol):
    """What the checks ask of a cache."""

    plan: Any
    batch: int
    dtype: torch.dtype
    device: torch.device
    num_cached_tokens: int

    @property
    def capacity(self) -> int | None: ...


class Decoder(nn.Module):
    """A model with `prefill` and `decode`. Row t of its logits scores token t + 1."""

    plan: Any
    arch_text: str = ""
    """The text of the spec, for `save`."""
    _prefill_chunk: int | None = None

    @property
    def prefill_chunk(self) -> int | None:
        """Tokens of a prompt that are prefilled at a time, so that activations do not grow with it; None: all.

        The plan's, unless it is set. Models of levels take whole blocks of them, one at least. Where layers iterate,
        the plan's is None: chunks give other numbers there, as calls of `prefill` one after the other do.
        Errors: ValueError if it is set to less than 1.
        """
        return self._prefill_chunk

    @prefill_chunk.setter
    def prefill_chunk(self, chunk: int | None) -> None:
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
            raise ValueError(f"prefill_chunk must be 1 token or more, or None for whole prompts, but is {chunk!r}")
        self._prefill_chunk = chunk

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def new_cache(self, batch: int, context: int) -> Any:
        raise NotImplementedError

    def prefill(
        self,
        input_ids: Tensor,
        cache: Any,
        attention_mask: Tensor | None = None,
        *,
        chooser: Chooser | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def decode(self, token_ids: Tensor, cache: Any, *, chooser: Chooser | None = None) -> Tensor:
        raise NotImplementedError

    def gradient_checkpointing_enable(self, way: Checkpointing | None = None) -> None:
        """From now on the backward pass runs every layer again, instead of keeping what it computed: about a third more
        work, for memory of one layer's activations and of what layers hand on."""
        self._checkpoint(way or plain_checkpointing())

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations for the backward pass."""
        self._checkpoint(None)

    def _checkpoint(self, way: Checkpointing | None) -> None:
        for module in self.modules():
            if isinstance(module, Network):
                module.checkpointing = way

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        attention_mask: Tensor | None = None,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos_token_id: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Continue prompts: (B, T) -> (B, T + max_new_tokens), the prompt included.

        A row that has ended is filled with `eos_token_id`, and once all have, no more is computed: so the host looks at
        every token, while otherwise nothing waits for the device. Without a `seed`, sampling uses the global generator.
        """
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        chooser = Chooser(temperature, top_k, top_p, generator)
        self._check_ids(input_ids, ("B", "T"))
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must not be negative, but is {max_new_tokens}")
        batch, num_tokens = input_ids.shape
        fill = 0 if eos_token_id is None else eos_token_id
        tokens = F.pad(input_ids, (0, max_new_tokens), value=fill)
        if max_new_tokens == 0:
            return tokens
        ended_B = torch.zeros(batch, dtype=torch.bool, device=self.device)
        cache = self.new_cache(batch, num_tokens + max_new_tokens)
        next_B = self.prefill(input_ids, cache, attention_mask, chooser=chooser)
        for position in range(num_tokens, num_tokens + max_new_tokens):
            if eos_token_id is not None:
                next_B = next_B.masked_fill(ended_B, eos_token_id)
                ended_B |= next_B == eos_token_id
            tokens[:, position] = next_B
            if position + 1 == tokens.shape[1] or (eos_token_id is not None and bool(ended_B.all())):
                break
            next_B = self.decode(next_B, cache, chooser=chooser)
        return tokens

    def save(self, directory: str | Path) -> None:
        """Write DIRECTORY/model.arch and DIRECTORY/model.safetensors."""
        save_model(self, directory, self.arch_text)

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

    def _check_cache(self, cache: AnyCache, batch: int, num_tokens: int) -> None:
        if cache.plan is not self.plan and cache.plan != self.plan:
            raise ValueError(f"this cache was made for model {cache.plan.name}, not for {self.plan.name}")
        if (cache.dtype, cache.device) != (self.dtype, self.device):
            raise ValueError(
                f"this cache holds {cache.dtype} on {cache.device}, the model is {self.dtype} on {self.device}"
            )
        if cache.batch != batch:
            raise ValueError(f"this cache is for {cache.batch} sequences, but {batch} were given")
        if cache.capacity is not None and cache.num_cached_tokens + num_tokens > cache.capacity:
            raise ValueError(
                f"the cache has room for {cache.capacity} tokens and holds {cache.num_cached_tokens}: "
                f"{num_tokens} more do not fit"
            )
