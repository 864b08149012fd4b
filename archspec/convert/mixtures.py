"""Mixtures of experts: Mixtral (arXiv 2401.04088), Qwen2-MoE and Qwen3-MoE, OLMoE (arXiv 2409.02060), gpt-oss.

Experts are one tensor each in a checkpoint, and one tensor in all here; gpt-oss has them the other way round, with the
columns of gate and up by turns. Source: the config classes in transformers for what an absent field means.
"""

from collections.abc import Callable, Mapping, Sequence

from archspec.convert.config import Config
from archspec.convert.family import TRANSPOSED, Blueprint, Fused, transformers_family
from archspec.convert.granite import TRAINING
from archspec.convert.hf import HEAD_NORM, part_of
from archspec.convert.llama import (
    HARMLESS,
    NAMES,
    Absent,
    Base,
    is_table,
    patterned,
    read_base,
    tensor_names,
    typed_windows,
    uniform_windows,
)
from archspec.convert.olmo import ACROSS
from archspec.convert.rope import RopeFields
from archspec.spec.model import BiasTarget, Ffn, Moe, Rope, SharedFfn

EXPERTS = ("ffn.experts.gate_proj", "ffn.experts.up_proj", "ffn.experts.down_proj")
_MIXTRAL = {
    "ffn.router": "block_sparse_moe.gate",
    "ffn.experts.gate_proj": "block_sparse_moe.experts.{}.w1",
    "ffn.experts.up_proj": "block_sparse_moe.experts.{}.w3",
    "ffn.experts.down_proj": "block_sparse_moe.experts.{}.w2",
}
_QWEN = {
    "ffn.router": "mlp.gate",
    "ffn.experts.gate_proj": "mlp.experts.{}.gate_proj",
    "ffn.experts.up_proj": "mlp.experts.{}.up_proj",
    "ffn.experts.down_proj": "mlp.experts.{}.down_proj",
    "ffn.shared.gate_proj": "mlp.shared_expert.gate_proj",
    "ffn.shared.up_proj": "mlp.shared_expert.up_proj",
    "ffn.shared.down_proj": "mlp.shared_expert.down_proj",
    "ffn.shared_gate": "mlp.shared_expert_gate",
}
_GPT_OSS = {
    "mixer.sink_logits": "self_attn.sinks",
    "ffn.router": "mlp.router",
    "ffn.experts.gate_proj.weight": "mlp.experts.gate_up_proj",
    "ffn.experts.gate_proj.bias": "mlp.experts.gate_up_proj_bias",
    "ffn.experts.up_proj.weight": "mlp.experts.gate_up_proj",
    "ffn.experts.up_proj.bias": "mlp.experts.gate_up_proj_bias",
    "ffn.experts.down_proj.weight": "mlp.experts.down_proj",
    "ffn.experts.down_proj.bias": "mlp.experts.down_proj_bias",
}


def read_mixtral(config: Config, name: str) -> Blueprint:
    """Mixtral: weights of the chosen experts add up to 1."""
    base = read_base(config, absent=Absent(kv_heads=8, eps=1e-5), rope=RopeFields(default_theta=1e6))
    moe = Moe(top=config.count("num_experts_per_tok", 2), num_experts=_num_experts(config, 8), expert=base.ffn)
    windows = uniform_windows(config, base.num_layers, config.optional_count("sliding_window"))
    return _blueprint(config, name, base, moe, windows, _MIXTRAL)


def read_olmoe(config: Config, name: str) -> Blueprint:
    """OLMoE: queries and keys normed over all heads; weights of the chosen experts are as they were among all."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, qk_norm=ACROSS, absent=Absent(eps=1e-5))
    config.must("clip_qkv", "clipping of queries, keys and values")
    moe = _qwen_moe(config, base.ffn, _num_experts(config, 64), 8)
    return _blueprint(config, name, base, moe, uniform_windows(config, base.num_layers, None), _QWEN)


def read_qwen2_moe(config: Config, name: str) -> Blueprint:
    """Qwen2-MoE: a shared expert behind a gate; some layers may have one ffn in place of a mixture."""
    bias: tuple[BiasTarget, ...] = ("qkv",) if config.flag("qkv_bias", True) else ()
    base = read_base(config, bias=bias, absent=Absent(kv_heads=16))
    shared = Ffn(kind=base.ffn.kind, hidden_size=config.count("shared_expert_intermediate_size", 5632))
    expert = Ffn(kind=shared.kind, hidden_size=config.count("moe_intermediate_size", 1408))
    moe = _qwen_moe(config, expert, _num_experts(config, 60), 4, SharedFfn(ffn=shared, gated=True))
    return _mixed(config, name, base, moe, _qwen2_windows(config, base.num_layers))


def read_qwen3_moe(config: Config, name: str) -> Blueprint:
    """Qwen3-MoE: norms on the queries and keys of every head, and one window for all layers if any."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, qk_norm=HEAD_NORM, absent=Absent(kv_heads=4))
    expert = Ffn(kind=base.ffn.kind, hidden_size=config.count("moe_intermediate_size", 768))
    moe = _qwen_moe(config, expert, _num_experts(config, 128), 8)
    window = config.optional_count("sliding_window") if config.flag("use_sliding_window") else None
    config.skip("sliding_window", "max_window_layers")
    return _mixed(config, name, base, moe, uniform_windows(config, base.num_layers, window))


def read_gpt_oss(config: Config, name: str) -> Blueprint:
    """gpt-oss (arXiv 2508.10925): sink logits, clamped experts with biases, every other layer with a window."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out", "ffn") if config.flag("attention_bias", True) else ("ffn",)
    if config.get("rope_parameters") is None and config.get("rope_scaling") is None:
        raise config.bad("rope_parameters", "stated", None)
    absent = Absent(kv_heads=8, head_dim=64, eps=1e-5)
    base = read_base(config, bias=bias, absent=absent, rope=RopeFields(default_theta=150000.0))
    config.must("hidden_act", "an activation other than that of gpt-oss", "silu")
    config.must("swiglu_limit", "a clamp other than 7", 7.0)
    config.must("swiglu_alpha", "a slope of the gate other than 1.702", 1.702)
    top, num_experts = config.count("num_experts_per_tok", 4), _num_experts(config, 128)
    config.must("experts_per_token", f"a number that differs from `num_experts_per_tok` {top}", top)
    config.must("initial_context_length", "a context that differs from that of RoPE", _original(base.common.rope))
    expert = Ffn(kind="swiglu-clamped", hidden_size=base.ffn.hidden_size)
    moe = Moe(top=top, num_experts=num_experts, expert=expert, router_bias=True)
    base = base.having(sink_logits=True)
    window = config.optional_count("sliding_window", 128)
    windows = typed_windows(config, base.num_layers, patterned(base.num_layers, 2), window)
    config.finish(name, HARMLESS | TRAINING)
    spec = base.spec(name, [base.layer(window, ffn=moe) for window in windows])
    fused = _by_turns(expert.hidden_size or 1)
    return Blueprint(spec, tensor_names({**NAMES, **_GPT_OSS}), fused=fused, ignored=is_table)


def _original(rope: Rope | None) -> int | None:
    scaling = None if rope is None else rope.scaling
    return None if scaling is None or scaling.kind == "linear" else scaling.original


def _by_turns(expert_size: int) -> Callable[[str], Fused | None]:
    """Parts of gpt-oss's experts, stored (experts, inputs, outputs); biases are stored as they are."""

    def fused(name: str) -> Fused | None:
        part, is_weight = part_of(name), name.endswith(".weight")
        if part == EXPERTS[2]:
            return TRANSPOSED if is_weight else None
        if part not in EXPERTS:
            return None
        return Fused(EXPERTS.index(part), 2, num_groups=expert_size, axis=1, transposed=is_weight)

    return fused


def _qwen_moe(config: Config, expert: Ffn, num_experts: int, top: int, shared: SharedFfn | None = None) -> Moe:
    return Moe(
        top=config.count("num_experts_per_tok", top),
        num_experts=num_experts,
        expert=expert,
        shared=shared,
        renorm=config.flag("norm_topk_prob"),
    )


def _num_experts(config: Config, default: int) -> int:
    """Either of the two names that transformers has for it."""
    first = config.optional_count("num_experts")
    second = config.optional_count("num_local_experts", first or default)
    if first not in (None, second):
        config.refuse(f"a number of experts that differs from `num_local_experts` {second}", "num_experts", first)
    return second or default


def _qwen2_windows(config: Config, num_layers: int) -> list[int | None]:
    """Those of `layer_types`, else every other one of the first `max_window_layers`; if `use_sliding_window` is set."""
    if not config.flag("use_sliding_window"):
        config.skip("sliding_window", "max_window_layers")
        return uniform_windows(config, num_layers, None)
    first = config.get("max_window_layers", 28)
    if isinstance(first, bool) or not isinstance(first, int):
        raise config.bad("max_window_layers", "a whole number", first)
    types = ["full_attention" if idx % 2 or idx >= first else "sliding_attention" for idx in range(num_layers)]
    return typed_windows(config, num_layers, types, config.optional_count("sliding_window", 4096))


def _mixed(config: Config, name: str, base: Base, moe: Moe, windows: list[int | None]) -> Blueprint:
    """A model that has one ffn in place of a mixture where `mlp_only_layers` and `decoder_sparse_step` say so."""
    step, dense = config.count("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or any(isinstance(idx, bool) or not isinstance(idx, int) for idx in dense):
        raise config.bad("mlp_only_layers", "a list of indices", dense)
    ffns = [base.ffn if idx in dense or (idx + 1) % step else moe for idx in range(base.num_layers)]
    return _blueprint(config, name, base, moe, windows, _QWEN, ffns)


def _blueprint(
    config: Config,
    name: str,
    base: Base,
    moe: Moe,
    windows: list[int | None],
    names: Mapping[str, str],
    ffns: Sequence[Ffn | Moe] | None = None,
) -> Blueprint:
    """A model whose layers have these windows, and the mixture unless `ffns` say otherwise."""
    config.finish(name, HARMLESS | TRAINING)
    layers = [base.layer(window, ffn=ffn) for window, ffn in zip(windows, ffns or [moe] * base.num_layers, strict=True)]
    counts = dict.fromkeys(EXPERTS, moe.num_experts)
    return Blueprint(base.spec(name, layers), tensor_names({**NAMES, **names}, counts=counts), ignored=is_table)


FAMILIES = (
    transformers_family("Mixtral", "mixtral", "MixtralForCausalLM", read_mixtral),
    transformers_family("Qwen2-MoE", "qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe),
    transformers_family("Qwen3-MoE", "qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe),
    transformers_family("OLMoE", "olmoe", "OlmoeForCausalLM", read_olmoe),
    transformers_family("gpt-oss", "gpt_oss", "GptOssForCausalLM", read_gpt_oss),
)
