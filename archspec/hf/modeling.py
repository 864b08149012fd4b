"""A compiled spec as a causal language model of transformers.

Legend: B batch, T tokens, S new tokens, V vocab.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from archspec.driver import plan
from archspec.hf.cache import ArchSpecCache
from archspec.hf.configuration import ArchSpecConfig
from archspec.hf.padding import check_continued, predicted_labels, without_right_padding
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.runtime.build import AnyModel, build_empty, fresh_values
from archspec.runtime.loss import IGNORED, Rows
from archspec.runtime.passes import Checkpointing
from archspec.spec.format import format_spec

MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)


@dataclass(frozen=True)
class Asked:
    """What a call wants besides the cache."""

    labels: Tensor | None
    to_keep: int | Tensor
    """Of logits: so many rows at the end, 0 for all; or their numbers."""
    num_items: Tensor | int | None

    @property
    def keeps_all(self) -> bool:
        return isinstance(self.to_keep, int) and self.to_keep == 0

    @property
    def keeps_last(self) -> bool:
        return isinstance(self.to_keep, int) and self.to_keep == 1

    def kept(self, rows_BSX: Tensor) -> Tensor:
        return rows_BSX[:, slice(-self.to_keep, None) if isinstance(self.to_keep, int) else self.to_keep]


class ArchSpecForCausalLM(PreTrainedModel, GenerationMixin):
    """`model` is archspec's own model, uncompiled; names in `state_dict` are its names behind `model.`.

    With two levels (Block Transformer) the rows before the end of a sequence's first block are zeros and are no part
    of the loss; blocks are counted so that the last given token ends one, in generation the last of the prompt.
    """

    config_class = ArchSpecConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _no_split_modules = ["Model", "LevelsModel"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_context_parallel = False
    _is_stateful = True
    """Tokens cannot be taken back: slots and states forget."""

    def __init__(self, config: ArchSpecConfig, model: AnyModel | None = None) -> None:
        """`model` is one of the config's spec, to be used as it is; otherwise a new one is made."""
        super().__init__(config)
        self.gradient_checkpointing = False
        self.model = _empty(config) if model is None else model
        for tensor in () if model is None else (*model.parameters(), *model.buffers()):
            tensor._is_hf_initialized = True  # type: ignore[attr-defined]
        self.post_init()

    @property
    def plan(self) -> AnyPlan:
        """What the model is made by."""
        found: AnyPlan = self.model.plan
        return found

    def new_cache(self, batch: int, context: int) -> ArchSpecCache:
        """An empty cache for `batch` sequences of `context` tokens, allocated now; for `past_key_values`."""
        return ArchSpecCache(self.model.new_cache(batch, context))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: ArchSpecCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        skip_logits: bool | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), row t scores token t + 1, and the loss of `labels` (B, T), shifted here, -100 ignored.

        The loss holds the logits of a part of the tokens at a time. In training mode with labels there are no others,
        and `logits` is None, unless `logits_to_keep` asks for some or `skip_logits` is false; without a cache no other
        logits are computed than those that are kept.

        Padding, zeros of `attention_mask` (B, T), may stand on the left, on the right or on both sides; with a cache on
        the left only. A cache is filled without gradient, and made only if `use_cache` is true. With
        `logits_to_keep` 1 filling it leaves the layers behind the prefill exit to the last token.

        Errors: ValueError for what the model has not: embeddings as inputs, positions, attention weights, ...
        """
        given = [name for name, value in others.items() if not (value is None or value is False)]
        if given or input_ids is None:
            wrong = f"not {', '.join(given)}" if given else "and they are missing"
            raise ValueError(f"{self.plan.name} takes input_ids, attention_mask, labels and a cache, {wrong}")
        asked = Asked(labels, logits_to_keep, num_items_in_batch)
        if skip_logits is None:
            skip_logits = self.training and labels is not None and asked.keeps_all
        if past_key_values is None and not use_cache:
            logits, loss = self._read(input_ids, attention_mask, asked, skip_logits)
        else:
            past_key_values = self._cache_for(input_ids, past_key_values)
            logits, loss = self._extend(input_ids, attention_mask, past_key_values, asked)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def _read(
        self, input_ids: Tensor, attention_mask: Tensor | None, asked: Asked, skip_logits: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Logits and loss by teacher forcing."""
        padded = without_right_padding(self.plan, input_ids, attention_mask)

        def read(turned: Rows) -> tuple[Tensor | None, Tensor | None]:
            rows = turned.moved(padded.turned_back)
            loss = None if asked.labels is None else self._loss(rows, attention_mask, asked)
            return None if skip_logits else rows.moved(asked.kept).logits(), loss

        # Within the model's own call, in which its parameters are there whoever has put them elsewhere.
        found: tuple[Tensor | None, Tensor | None] = self.model(padded.input_ids, padded.attention_mask, read=read)
        return found

    def _loss(self, rows: Rows, mask: Tensor | None, asked: Asked) -> Tensor:
        """Mean cross entropy of what is predicted.

        `num_items` is the number of labels of the whole batch, of which this is a part. Labels that no row predicts are
        counted in it, hence its share of them is put right.
        """
        assert asked.labels is not None
        labels, count = asked.labels.to(rows.hidden.device), asked.num_items
        predicted = predicted_labels(self.plan, labels, mask)
        if count is not None:
            counted = (labels[:, 1:] != IGNORED).sum().clamp(min=1)
            if isinstance(count, Tensor):
                count = count.to(counted.device)
            count = count * (predicted != IGNORED).sum().clamp(min=1) / counted
        return rows.loss(F.pad(predicted[:, 1:], (0, 1), value=IGNORED), count)

    def _cache_for(self, input_ids: Tensor, cache: Any) -> ArchSpecCache:
        """The given cache, or a new one, with room for these tokens."""
        if cache is None:
            return self.new_cache(*input_ids.shape)
        if not isinstance(cache, ArchSpecCache):
            raise ValueError(
                f"{self.plan.name} keeps its shared caches in an ArchSpecCache (`model.new_cache(batch, context)`), "
                f"not in a {type(cache).__name__}"
            )
        cache.make_room(input_ids.shape[1])
        return cache

    def _extend(
        self, ids_BS: Tensor, mask: Tensor | None, holder: ArchSpecCache, asked: Asked
    ) -> tuple[Tensor | None, Tensor | None]:
        """Take up tokens: logits and loss. Effects: fills the cache."""
        cache: Any = holder.cache
        keep_last = asked.labels is None and asked.keeps_last
        if cache.num_cached_tokens == 0:
            if mask is not None and mask.shape == ids_BS.shape and bool((mask[:, -1] == 0).any()):
                raise ValueError("generation needs padding on the left: tokenizer.padding_side = 'left'")
            found = None if keep_last else self._read(ids_BS, mask, asked)
            last_BV = self.model.prefill(ids_BS, cache, mask)
            return (last_BV[:, None], None) if found is None else found
        if asked.labels is not None:
            raise ValueError("a loss is that of whole sequences: give labels with all tokens, or with an empty cache")
        # Elsewhere than on a CPU this look would make every step wait for the device.
        if mask is not None and (ids_BS.shape[1] > 1 or mask.device.type == "cpu"):
            check_continued(mask, cache, ids_BS.shape[1])
        if keep_last and ids_BS.shape[1] > 1:
            return self.model.prefill(ids_BS, cache)[:, None], None
        rows_BSV = torch.stack([self.model.decode(ids_B, cache) for ids_B in ids_BS.unbind(1)], dim=1)
        return asked.kept(rows_BSV), None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As `archspec.compile` does, from the global generator."""
        for tensor, value in fresh_values(module):
            if value is None:
                init.normal_(tensor, 0.0, self.config.initializer_range)
            else:
                init.constant_(tensor, value)

    def _prepare_cache_for_generation(  # type: ignore[override]
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Our cache, of the final size, for all beams."""
        by_blocks = isinstance(self.plan, LevelsPlan)
        if by_blocks and generation_config.use_cache is False:
            raise ValueError("blocks begin where the prompt ends: generation of two levels needs use_cache=True")
        if by_blocks and generation_config.prefill_chunk_size is not None:
            raise ValueError("blocks begin where the prompt ends: generation of two levels cannot prefill by chunks")
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation {generation_config.cache_implementation!r}: {self.plan.name} has one kind of "
                "cache, that of its plan; leave it out"
            )
        given = model_kwargs.get("past_key_values")
        if given is not None:
            given._is_user_defined = True
            return
        if generation_config.use_cache is not False:
            rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
            context = max(max_cache_length, generation_config.max_cache_len or 0, 1)
            model_kwargs["past_key_values"] = self.new_cache(rows, context)

    def _validate_generation_mode(self, generation_mode: Any, *args: Any) -> None:
        if generation_mode not in MODES:
            raise ValueError(
                f"{self.plan.name} generates greedily, by sampling and with beams, not by "
                f"{generation_mode.value.replace('_', ' ')}: slots and states forget, so tokens cannot be taken back"
            )
        super()._validate_generation_mode(generation_mode, *args)  # type: ignore[misc]

    def _get_deprecated_gen_repo(self, generation_mode: Any, *args: Any, **kwargs: Any) -> str | None:
        """None: modes that live in other people's repositories are refused before they are fetched."""
        self._validate_generation_mode(generation_mode, self.generation_config, {})
        return None

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = checkpoint, every_n_layers: int = 1
    ) -> None:
        if isinstance(gradient_checkpointing_func, partial) and gradient_checkpointing_func.keywords.get(
            "use_reentrant"
        ):
            raise ValueError("keys and values pass between layers: checkpointing needs use_reentrant=False")
        self.gradient_checkpointing = enable
        if enable:
            # Dropout of adapters is drawn again, from the same state of the generator unless the caller says otherwise.
            function = partial(gradient_checkpointing_func, use_reentrant=False)
            self.model.gradient_checkpointing_enable(Checkpointing(function, every_n_layers))
        else:
            self.model.gradient_checkpointing_disable()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens; with two levels that of the token level."""
        stack: Any = self.model.tokens if isinstance(self.plan, LevelsPlan) else self.model
        found = stack.embed
        assert isinstance(found, nn.Module)
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        raise ValueError(_VOCABULARY)

    def get_output_embeddings(self) -> nn.Module | None:
        """The matrix of the logits; None if it is that of the embedding."""
        stack: Any = self.model.tokens if isinstance(self.plan, LevelsPlan) else self.model
        head = stack.lm_head
        return head if isinstance(head, nn.Linear) else None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        raise ValueError(_VOCABULARY)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Errors: ValueError for another number of tokens than the spec's."""
        if new_num_tokens not in (None, self.plan.vocab_size):
            raise ValueError(_VOCABULARY)
        return self.get_input_embeddings()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As of transformers, onto one device. Errors: ValueError for a `device_map` over several."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        places = set(getattr(model, "hf_device_map", {}).values())
        if len(places) > 1:
            raise ValueError(
                f"device_map puts the model on {', '.join(sorted(map(str, places)))}: layers that share caches "
                'stand on one device; use device_map={"": 0} or {"": "cpu"}'
            )
        return loaded

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModelForCausalLM") -> None:
        """Nothing: saving writes the config's shims, and must not copy archspec's sources."""


def _empty(config: ArchSpecConfig) -> AnyModel:
    """A model where `from_pretrained` wants parameters, and of what dtype: it says so by context.

    `attn_implementation` "eager" is attention written out, "sdpa" torch's.
    """
    here = torch.empty(0)
    dtype = str(here.dtype).removeprefix("torch.")
    spec = config.read_spec()
    backend = "matmul" if config._attn_implementation == "eager" else "auto"
    model = build_empty(plan(spec), device=here.device, dtype=dtype, backend=backend, compile=False)
    model.arch_text = format_spec(spec)
    return model


_VOCABULARY = (
    "the size of the vocabulary is the spec's: write `vocab N` there, and train or convert the rows that are new"
)
