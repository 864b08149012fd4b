"""transformers as a peer: a `LlamaForCausalLM` of the same plan on the same weights.

Two contestants: eager with a `DynamicCache`, as `generate` runs by default, and decoding with a `StaticCache` under
`torch.compile`, as transformers' documentation on fast inference has it. transformers is imported when one is made.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from archspec.bench.contestants import WARM_TOKENS, Compiled, decoded, random_ids
from archspec.bench.rounds import Trial
from archspec.bench.traffic import step_bytes
from archspec.bench.workloads import Workload
from archspec.convert.llama import tensor_name
from archspec.levels_plan import AnyPlan
from archspec.plan import NO_NORM, AttentionPlan, LayerPlan, Plan
from archspec.spec.model import Ffn, Norm


def llama_config(plan: AnyPlan) -> dict[str, Any] | None:
    """The fields of a `LlamaConfig` that gives the same model; None for a plan that is no Llama."""
    if not isinstance(plan, Plan) or not plan.layers or not _plain_ends(plan):
        return None
    first = plan.layers[0]
    mixer, ffn = first.mixer, first.ffn
    if not isinstance(mixer, AttentionPlan) or not isinstance(ffn, Ffn) or not _is_llama(first, mixer, ffn):
        return None
    if plan.hidden_size % mixer.num_heads:
        return None  # refused there
    slot = plan.slots[mixer.slot_idx]
    alike = all(
        (layer.norm, layer.ffn, layer.ffn_bias) == (first.norm, ffn, False)
        and isinstance(layer.mixer, AttentionPlan)
        and _is_llama(layer, layer.mixer, ffn)
        and (layer.mixer.num_heads, layer.mixer.head_dim, layer.mixer.rope)
        == (mixer.num_heads, mixer.head_dim, mixer.rope)
        and (plan.slots[layer.mixer.slot_idx].num_kv_heads, plan.slots[layer.mixer.slot_idx].v_norm)
        == (slot.num_kv_heads, NO_NORM)
        and not plan.slots[layer.mixer.slot_idx].values_from_keys
        for layer in plan.layers
    )
    if not alike or len(plan.slots) != len(plan.layers) or plan.final_norm != first.norm:
        return None
    return {
        "vocab_size": plan.vocab_size,
        "hidden_size": plan.hidden_size,
        "intermediate_size": ffn.hidden_size,
        "num_hidden_layers": len(plan.layers),
        "num_attention_heads": mixer.num_heads,
        "num_key_value_heads": slot.num_kv_heads,
        "head_dim": mixer.head_dim,
        "rms_norm_eps": first.norm.eps,
        "tie_word_embeddings": plan.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": mixer.rope.theta},
        "max_position_embeddings": 1 << 20,
    }


def _plain_ends(plan: Plan) -> bool:
    """Nothing but an embedding before the layers, and norm and output matrix behind them."""
    return (
        (plan.embed_scale, plan.logit_scale, plan.final_softcap) == (1.0, 1.0, None)
        and plan.positions is None
        and plan.embed_norm == NO_NORM
        and not plan.head_bias
        and not plan.states
    )


def _is_llama(layer: LayerPlan, mixer: AttentionPlan, ffn: Ffn) -> bool:
    rope = mixer.rope
    return (
        (mixer.owns_kv, mixer.window, mixer.sees_self, mixer.softcap) == (True, None, True, None)
        and not (mixer.qkv_bias or mixer.out_bias or mixer.sink_logits or mixer.output_gate)
        and mixer.q_norm == NO_NORM
        and mixer.scale == mixer.head_dim**-0.5
        and (rope.kind, rope.percent, rope.scaling) == ("half", 100, None)
        and layer.norm == Norm(kind="rms", eps=layer.norm.eps)
        and (layer.residual, layer.placement, layer.residual_scale) == ("sequential", "pre", 1.0)
        and not layer.layer_scalar
        and ffn.kind == "swiglu"
    )


def make_llama(plan: AnyPlan, weights: dict[str, Tensor]) -> nn.Module:
    """A `LlamaForCausalLM` whose parameters are these very tensors.

    Errors: ValueError for a plan that is no Llama, ModuleNotFoundError without transformers.
    """
    fields = llama_config(plan)
    if fields is None:
        raise ValueError(f"{plan.name} is no Llama")
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**fields))
    named = {tensor_name(name): tensor for name, tensor in weights.items()}
    model.load_state_dict(named, strict=not plan.tied_embeddings, assign=True)
    model.tie_weights()
    # What is no weight was made on the meta device as well.
    example = next(iter(weights.values()))
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(example.device)
    return model.eval()  # type: ignore[no-any-return]


def peer_name(name: str, static: bool) -> str:
    """What the peers of a model are called."""
    return f"{name} in transformers" + (", compiled" if static else "")


class Transformers:
    """transformers' Llama in place of a compiled plan, with its weights."""

    def __init__(self, owner: Compiled, static: bool) -> None:
        self.name, self.static, self.owner = peer_name(owner.name, static), static, owner
        self.model: Any = make_llama(owner.plan, dict(owner.model.state_dict()))

    @property
    def plan(self) -> AnyPlan:
        return self.owner.plan

    def offers(self, workload: Workload) -> bool:
        return workload.kind in (("decode",) if self.static else ("prefill", "decode", "train"))

    def trial(self, workload: Workload, batch: int) -> Trial:
        if workload.kind == "decode":
            return (self._decode_static if self.static else self._decode)(batch, workload.context)
        return (self._prefill if workload.kind == "prefill" else self._train)(batch, workload.context)

    def _prefill(self, batch: int, context: int) -> Trial:
        ids_BT = self._ids(batch, context)

        @torch.no_grad()
        def prefill(num_tokens: int) -> None:
            self.model(ids_BT[:, :num_tokens], past_key_values=self._dynamic(), use_cache=True, logits_to_keep=1)

        return Trial(
            self.name,
            begin=lambda: None,
            run=lambda: prefill(context),
            warm=lambda: prefill(WARM_TOKENS),
            tokens=batch * context,
            batch=batch,
            weight_bytes=self.owner.weight_bytes,
            cache_bytes=self._cache_bytes(batch, context),
        )

    def _train(self, batch: int, context: int) -> Trial:
        ids_BT = self._ids(batch, context)
        return Trial(
            self.name,
            begin=lambda: self.model.zero_grad(set_to_none=True),
            run=lambda: self.model(ids_BT, labels=ids_BT, use_cache=False).loss.backward(),
            tokens=batch * context,
            batch=batch,
            weight_bytes=self.owner.weight_bytes,
        )

    def _decode(self, batch: int, context: int) -> Trial:
        most = decoded(context, 1)
        cache = self._dynamic()
        keys, values = self._random_kv(batch, context - most)
        for idx in range(self.model.config.num_hidden_layers):
            cache.update(keys, values, idx)

        def begin() -> None:
            cache.crop(context - most - cache.get_seq_length())

        def step(ids_B1: Tensor) -> Tensor:
            return self.model(ids_B1, past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]

        return self._decoding(batch, context, begin, step)

    def _decode_static(self, batch: int, context: int) -> Trial:
        from transformers import StaticCache

        config, start = self.model.config, context - decoded(context, 1)
        cache = StaticCache(config=config, max_cache_len=context)
        heads, size = config.num_key_value_heads, config.head_dim
        cache.early_initialization(batch, heads, size, self.model.dtype, self.model.device)
        keys, values = self._random_kv(batch, context)
        for layer in cache.layers:
            layer.keys.copy_(keys)
            layer.values.copy_(values)

        def begin() -> None:
            for layer in cache.layers:
                layer.cumulative_length.fill_(start)

        call = _compiled_step(self.model.device.type == "cuda")
        return self._decoding(batch, context, begin, lambda ids_B1: call(self.model, ids_B1, cache))

    def _decoding(
        self, batch: int, context: int, begin: Callable[[], object], step: Callable[[Tensor], Tensor]
    ) -> Trial:
        ids_B1, most = self._ids(batch, 1), decoded(context, 1)

        @torch.no_grad()
        def run() -> None:
            nonlocal ids_B1
            ids_B1 = step(ids_B1)[:, -1].argmax(-1, keepdim=True)

        dtype = self.owner.dtype
        return Trial(
            self.name,
            begin=begin,
            run=run,
            tokens=batch,
            batch=batch,
            most=most,
            weight_bytes=self.owner.weight_bytes,
            cache_bytes=self._cache_bytes(batch, context),
            run_bytes=step_bytes(self.owner.plan, batch, context - most // 2, dtype),
        )

    def _ids(self, batch: int, num_tokens: int) -> Tensor:
        return random_ids(self.owner.plan, batch, num_tokens, self.model.device)

    def _random_kv(self, batch: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        config = self.model.config
        shape = (batch, config.num_key_value_heads, num_tokens, config.head_dim)
        keys, values = (torch.randn(shape, dtype=self.model.dtype, device=self.model.device) for _ in range(2))
        return keys, values

    def _dynamic(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _cache_bytes(self, batch: int, context: int) -> int:
        return self.owner.plan.cache_bytes(batch, context, self.owner.dtype)


def _compiled_step(graphs: bool) -> Callable[[Any, Tensor, Any], Tensor]:
    """One token as a fresh `torch.compile`, for one batch and cache length. `graphs`: with CUDA graphs."""

    def step(model: Any, ids_B1: Tensor, cache: Any) -> Tensor:
        return model(ids_B1, past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]

    # Graphs are counted, and limited, per code object; one for each batch and length needs one of its own.
    copy = types.FunctionType(step.__code__.replace(), step.__globals__, "step")
    mode = "reduce-overhead" if graphs else "default"
    return torch.compile(copy, fullgraph=True, dynamic=False, mode=mode)
