"""An archspec cache as a cache of transformers.

Legend: B batch.
"""

from typing import Any

from torch import Tensor
from transformers import Cache

from archspec.runtime.cache_rows import AnyCache, can_drop, drop_newest, repeated_rows, select_rows, with_room


class ArchSpecCache(Cache):
    """What generation keeps of a model: its slots and states, allocated once, of the bytes that the plan says.

    There are no layers inside for others to update: layers share slots, and only the model knows how. It grows if more
    tokens come than it was made for (`with_room`); made by `generate`, it has its final size from the start.
    """

    def __init__(self, cache: AnyCache) -> None:
        super().__init__(layers=[])
        self.cache = cache

    @property
    def nbytes(self) -> int:
        """Bytes of all slots and states: `plan.cache_bytes(batch, context, dtype)`."""
        return self.cache.nbytes

    @property
    def batch_size(self) -> int:
        return self.cache.batch

    @property
    def is_initialized(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return can_drop(self.cache)

    def __len__(self) -> int:
        return len(self.cache.plan.layers)

    def __repr__(self) -> str:
        return f"ArchSpecCache({self.cache!r})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens taken up, whether or not the slots still hold them."""
        return self.cache.num_cached_tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: it grows."""
        return -1

    def make_room(self, num_tokens: int) -> None:
        """See that `num_tokens` more fit."""
        self.cache = with_room(self.cache, num_tokens)

    def reset(self) -> None:
        self.cache.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row b becomes what row `beam_idx[b]` was, in place."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.cache = select_rows(self.cache, indices.to(self.cache.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(repeated_rows(self.cache.batch, repeats, self.cache.device))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget that many of the newest tokens, given as a negative number, as transformers does.

        Errors: ValueError where something older was forgotten for them; see `is_croppable`.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"`crop` takes the number of tokens to forget as a negative one, not {tokens_to_remove}")
        drop_newest(self.cache, -tokens_to_remove)

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("layers share the slots of an archspec cache: only the model writes them")
