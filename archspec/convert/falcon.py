"""Falcon (arXiv 2311.16867): q, k and v in one matrix, kv head by kv head; mixer and ffn mostly in parallel.

Falcon-7B has one kv head; the new architecture has several, and one or two norms. Source: transformers' FalconConfig
for what an absent field means.
"""

from archspec.convert.activations import PLAIN, read_ffn_kind
from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Fused, transformers_family
from archspec.convert.gpt_neox import is_mask, read_heads
from archspec.convert.hf import QKV, part_of
from archspec.convert.llama import HARMLESS, Base, tensor_names
from archspec.convert.rope import LLAMA, read_rope
from archspec.spec.model import Embedding, Ffn, Heads, Norm, Residual, Settings

NOTES = words("num_kv_heads n_head_kv")
"""Read where they count."""
_NAMES = {
    "embed": "transformer.word_embeddings",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
    **dict.fromkeys(QKV, "self_attention.query_key_value"),
    "mixer.o_proj": "self_attention.dense",
    "ffn.up_proj": "mlp.dense_h_to_4h",
    "ffn.down_proj": "mlp.dense_4h_to_h",
}
_ONE_OR_TWO = {"mixer_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_PARALLEL = {"mixer_norm": "ln_attn", "ffn_norm": "ln_mlp"}


def read_falcon(config: Config, name: str) -> Blueprint:
    """Falcon with RoPE; those with ALiBi are refused."""
    width = config.count("hidden_size")
    heads = read_heads(config, width)
    if config.flag("alibi"):
        config.refuse("ALiBi: biases by distance in place of positions", "alibi", True)
    config.must("apply_residual_connection_post_layernorm", "residuals behind the norms", False)
    num_kv, residual = _num_kv_heads(config, heads.count), _residual(config)
    base = Base(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(tied=config.flag("tie_word_embeddings", True)),
        common=Settings(
            heads=heads,
            ffn=Ffn(
                kind=read_ffn_kind(config, "activation", "gelu", PLAIN),
                hidden_size=config.optional_count("ffn_hidden_size") or 4 * width,
            ),
            norm=Norm(kind="layernorm", eps=config.number("layer_norm_epsilon", 1e-5)),
            rope=read_rope(config, heads.head_dim or 1, LLAMA),
            bias=("qkv", "out", "ffn") if config.flag("bias") else None,
            residual=None if residual == "sequential" else residual,
        ),
        kv_heads=Heads(count=num_kv) if num_kv != heads.count else None,
    )
    config.finish(name, HARMLESS | NOTES)
    names = tensor_names({**_NAMES, **(_PARALLEL if residual == "parallel" else _ONE_OR_TWO)}, "transformer.h")
    spec = base.spec(name, [base.layer()] * base.num_layers)
    parts = _parts(heads.count // num_kv, num_kv)
    return Blueprint(spec, names, fused=lambda parameter: parts.get(part_of(parameter)), ignored=is_mask)


def _num_kv_heads(config: Config, count: int) -> int:
    """`num_kv_heads` counts in the new architecture only; else there is one, or as many as heads."""
    if config.flag("new_decoder_architecture"):
        num_kv = config.optional_count("num_kv_heads") or count
        if count % num_kv:
            raise config.bad("num_kv_heads", f"a divisor of num_attention_heads {count}", num_kv)
        config.skip("multi_query")
        return num_kv
    return 1 if config.flag("multi_query", True) else count


def _residual(config: Config) -> Residual:
    """In parallel behind one norm or two, or one after the other."""
    is_new, norms = config.flag("new_decoder_architecture"), config.optional_count("num_ln_in_parallel_attn")
    if not config.flag("parallel_attn", True):
        if is_new:
            config.refuse("a new architecture without parallel attention", "parallel_attn", False)
        return "sequential"
    norms = norms or (2 if is_new else 1)
    if norms not in (1, 2) or (norms == 2 and not is_new):
        config.refuse("another number of norms in parallel", "num_ln_in_parallel_attn", norms)
    return "parallel" if norms == 2 else "parallel-one-norm"


def _parts(group: int, num_kv: int) -> dict[str, Fused]:
    """For each kv head its queries, its keys, its values."""
    total = group + 2
    kv = {part: Fused(group + idx, total, num_kv) for idx, part in enumerate(QKV[1:])}
    return {QKV[0]: Fused(0, total, num_kv, width=group), **kv}


FAMILIES = (transformers_family("Falcon", "falcon", "FalconForCausalLM", read_falcon),)
