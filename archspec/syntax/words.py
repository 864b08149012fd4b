"""Words that people type and that the language does not have: other spellings, other names, what is still to come."""

from collections.abc import Iterable

from archspec.diagnostics import is_slip, suggest

OTHER_NAMES: dict[str, str] = {
    # settings, by their names in config files and papers
    "layer": "layers",
    "n_layers": "layers",
    "n_layer": "layers",
    "num_layers": "layers",
    "num_hidden_layers": "layers",
    "depth": "layers",
    "hidden": "width",
    "hidden_size": "width",
    "d_model": "width",
    "dim": "width",
    "n_embd": "width",
    "vocab_size": "vocab",
    "vocabulary": "vocab",
    "n_heads": "heads",
    "n_head": "heads",
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "head": "heads",
    "kv-heads": "kv heads",
    "kv_heads": "kv heads",
    "kvheads": "kv heads",
    "n_kv_heads": "kv heads",
    "num_kv_heads": "kv heads",
    "num_key_value_heads": "kv heads",
    "kv-head": "kv heads",
    "sliding_window": "window",
    "sliding-window": "window",
    "swa": "window",
    "rope_theta": "rope",
    "rotary": "rope",
    "mlp": "ffn",
    "feed-forward": "ffn",
    "intermediate_size": "ffn",
    "qk_norm": "qk-norm",
    "qknorm": "qk-norm",
    "v_norm": "v-norm",
    "vnorm": "v-norm",
    "value-norm": "v-norm",
    "k-eq-v": "values-from-keys",
    "k_eq_v": "values-from-keys",
    "attention_k_eq_v": "values-from-keys",
    "sink_logits": "sink-logits",
    "attention-sinks": "sink-logits",
    "attn_sinks": "sink-logits",
    "output_gate": "output-gate",
    "attn_output_gate": "output-gate",
    "scaling": "scaled",
    "rope_scaling": "scaled",
    "tie_word_embeddings": "tied embeddings",
    "tied-embeddings": "tied embeddings",
    "embedding": "embed",
    "prefill-exit": "prefill exit",
    "others": "rest",
    "remaining": "rest",
    "end": "last",
    "final": "last",
    "exit": "prefill exit",
    "prev": "below",
    "previous": "below",
    "architecture": "model",
    "network": "model",
    "by": "step",
    "from": "to",
    "reads": "to",
    "at": "after",
    # kinds
    "rmsnorm": "rms",
    "rms-norm": "rms",
    "rms_norm": "rms",
    "layer-norm": "layernorm",
    "layer_norm": "layernorm",
    "ln": "layernorm",
    "gated-silu": "swiglu",
    "squared-relu": "relu2",
    "quick-gelu": "gelu-quick",
    "quick_gelu": "gelu-quick",
    "mixture-of-experts": "moe",
    "experts": "moe",
    "one-norm": "parallel-one-norm",
    "layer_scalar": "layer-scalar",
    "lm-head-bias": "head-bias",
    "head_bias": "head-bias",
    "logits": "logit",
    "position": "positions",
    "wpe": "positions",
    "neox": "half",
    "gptj": "interleaved",
    # composition
    "import": "use",
    "include": "use",
    "template": "define",
    "def": "define",
    "const": "let",
    "param": "let",
    "inherits": "extends",
    # mixers
    "attn": "attend",
    "attention": "attend",
    "attends": "attend",
    "self-attend": "attend",
    "self-attention": "attend",
    "self_attention": "attend",
    "full-attention": "attend",
    "sliding-attention": "attend",
    "softmax-attention": "attend",
    "causal-attention": "attend",
    "local-attention": "attend",
    "sliding-window-attention": "attend",
    "dense": "attend",
    "mha": "attend",
    "gqa": "attend",
    "mqa": "attend",
    "cross": "cross-attend",
    "cross-attention": "cross-attend",
    "cross_attention": "cross-attend",
    "crossattend": "cross-attend",
    "reuse": "cross-attend",
    "share": "cross-attend",
    "read": "cross-attend",
    "retnet": "retention",
    "gated-retention": "retention",
    "mlp-only": "ffn-only",
}

LOOSE_NAMES = frozenset(
    (
        *("hidden", "intermediate_size", "silu", "gated-silu", "exit"),
        *("mha", "gqa", "mqa", "sliding-attention", "sliding-window-attention", "local-attention", "dense"),
        *("cross", "reuse", "share", "read", "retnet"),
    )
)
"""Other names that may stand for something else as well, or for more than the word that is proposed."""

MIXER_WORDS = frozenset(("attend", "cross-attend", "retention", "fixed-retention", "linear-attention", "ffn-only"))
KIND_OF = {
    **dict.fromkeys(("swiglu", "geglu", "geglu-tanh", "gelu", "gelu-tanh"), "ffn"),
    **dict.fromkeys(("rms", "layernorm", "rmsnorm", "layer-norm"), "norm"),
    **dict.fromkeys(("interleaved", "interleaved-linspace"), "rope"),
}
"""Kinds that people write without the setting that they are a kind of."""
WHICH_LAYERS = {
    "all": "1-last",
    "*": "1-last",
    "every": "1-last step 2",
    "each": "1-last",
    "odd": "1-last step 2",
    "even": "2-last step 2",
    "first": "1",
    "top": "last",
    "bottom": "1",
    "range": "1-4",
    "from": "1-4",
}
"""Words for layers, and the numbers that say the same, or an example of them."""
FILLERS = frozenset({"with", "using", "and", "having", "where"})
NONE = frozenset({"none", "off", "false", "full", "null", "infinite", "inf", "unlimited"})
FIELDS = {
    "layer_types": "layers are declared by statements, a kind each: `layers 1-4 attend`",
    "max_position_embeddings": "a spec has no longest text: how much is allocated is said when the model runs",
    "max_seq_len": "a spec has no longest text: how much is allocated is said when the model runs",
    "block_size": "a spec has no longest text: how much is allocated is said when the model runs",
    "context_length": "a spec has no longest text: how much is allocated is said when the model runs",
    "q-norm": "`qk-norm` norms queries and keys: of a reader its queries, of a cache its keys",
    "k-norm": "keys are normed once, where they are made: `qk-norm` of the layer or cache that has them",
    "head_dim": "the size of a head stands behind their number: `heads 8 x 128`",
    "dtype": "a spec has no dtype: it is chosen when the model is built",
    "torch_dtype": "a spec has no dtype: it is chosen when the model is built",
    "hidden_act": "the activation is the kind of ffn: `ffn swiglu(8192)`",
    "activation": "the activation is the kind of ffn: `ffn swiglu(8192)`",
    "rms_norm_eps": "the epsilon belongs to the norm: `norm rms(1e-5)`",
    "layer_norm_eps": "the epsilon belongs to the norm: `norm layernorm(1e-5)`",
    "attention_bias": "biases are a setting: `bias`, or `bias qkv`",
    "num_kv_shared_layers": "layers that share keys and values read a cache: `layers 21-30 cross-attend to cache@20`",
    "first_k_dense_replace": "layers that differ are declared by a statement of their own",
    "pos_emb": "positions are `rope 10000`, or `no rope`",
}
"""Fields of config files that no setting is named after, and what stands for them."""
YES = frozenset({"true", "yes", "on", "enabled"})

NO_NAMES = MIXER_WORDS | NONE | WHICH_LAYERS.keys()
"""Words that the grammar does not know, and that cannot be the name of a number either."""

NEGATED_KEYS = {
    "qk-norm": "qk_norm",
    "softcap": "attention_softcap",
    "final-norm": "final_norm",
    "layer-scalar": "layer_scalar",
    "v-norm": "v_norm",
    "values-from-keys": "values_from_keys",
    "sink-logits": "sink_logits",
    "output-gate": "output_gate",
}
"""Settings whose key is not the word behind `no`."""
OTHER_KEYS = {"total": "layers", "moe": "ffn"}
"""Clauses that make a setting of another name."""

NOT_YET: dict[str, str] = {
    "keep": "a cache keeps what its `window` says",
    "alibi": "positions come from `rope`",
    "dropout": "a spec describes the model, not its training",
    "altup": "a layer adds to one residual stream",
    "hyper-connections": "a layer adds to one residual stream",
    "laurel": "a layer adds what its mixer and its ffn make",
    "per-layer-embedding": "tokens are looked up once, before the first layer",
    "sparsity": "activations are dense",
    "mamba": "the recurrent mixer is `retention`",
    "mamba2": "the recurrent mixer is `retention`",
    "ssm": "the recurrent mixer is `retention`",
    "gmu": "the recurrent mixer is `retention`",
    "rwkv": "the recurrent mixer is `retention`",
    "conv": "the mixers are `attend`, `cross-attend`, `retention` and `ffn-only`",
    "mla": "keys and values are stored per head",
    "delta-net": "the recurrent mixer is `retention`",
    "deltanet": "the recurrent mixer is `retention`",
    "longrope": "rope is scaled by `linear`, `llama3` or `yarn`",
    "dynamic": "rope is scaled by `linear`, `llama3` or `yarn`",
    "ntk": "rope is scaled by `linear`, `llama3` or `yarn`",
}
"""Words of the language to come, or of architectures that it cannot express; and what holds without them."""

STATEMENTS_TO_COME = frozenset({"keep"})
"""Those that mean something only where a statement or a model starts."""

LIKE_A_DASH = frozenset("\u2010\u2011\u2012\u2015\u2212\ufe63\uff0d\u00ad")
LIKE_A_BLANK = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u2060\u3000\ufeff"
)


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant: the same in lower case, another name of it, or a misspelling."""
    candidates = tuple(known)
    lower = word.lower()
    if lower in candidates:
        return lower
    other = OTHER_NAMES.get(lower) or OTHER_NAMES.get(lower.replace("_", "-"))
    if other is None and lower.replace("_", "-") in candidates:
        return lower.replace("_", "-")
    if other is not None:
        return other if other in candidates else None
    if lower in NOT_YET:
        return None
    return suggest(lower, candidates) if len(word) > 2 else None


def surely_means(word: str, guess: str, known: Iterable[str]) -> bool:
    """Whether `guess`, which `meant` proposes for `word`, is no choice: the same word, or the only one near to it."""
    lower = word.lower()
    spelt = lower if lower in OTHER_NAMES else lower.replace("_", "-")
    if guess in (lower, spelt):
        return True
    if spelt in OTHER_NAMES:
        return spelt not in LOOSE_NAMES
    return is_slip(lower, guess, tuple(known))
