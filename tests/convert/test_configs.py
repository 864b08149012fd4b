"""Configs of every layout are read; what a spec cannot say is refused by name."""

from pathlib import Path

import pytest
from checkpoints import (
    GEMMA2,
    GOLDEN,
    GPT_NEOX,
    LCKV,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    YOCO,
    changed,
    write_checkpoint,
    write_config,
)

import archspec
from archspec.convert import CheckpointError, ImportRefused, import_checkpoint
from archspec.convert.detect import IMPORTED, TYPE
from archspec.spec.format import rope_text
from archspec.spec.model import Heads, Window


def spec_of(tmp_path, config):
    return import_checkpoint(write_checkpoint(tmp_path / "toy", config)).spec


def refusal_of(tmp_path, config):
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(write_config(tmp_path / "toy", config))
    assert str(caught.value).startswith("cannot import toy")
    return caught.value


def windows_of(spec):
    return [layer.mixer.window for layer in archspec.plan(spec).layers]


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500000, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
        {
            "rope_theta": 5e5,
            "rope_parameters": {"rope_theta": 5e5, "rope_type": "default", "partial_rotary_factor": 1.0},
        },
    ],
)
def test_rope_fields_of_old_and_new_configs(tmp_path, fields):
    rope = spec_of(tmp_path, {**LLAMA, **fields}).defaults.rope
    assert (rope.kind, rope.theta, rope.percent) == ("half", 5e5, 100)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
            "RoPE scaling of type llama3 without high_freq_factor and original_max_position_embeddings",
        ),
        (
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}},
            "RoPE scaling of type yarn without original_max_position_embeddings",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "RoPE scaling of type dynamic"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "RoPE scaling of type longrope"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "sections": 3}}, "rope_scaling.sections"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"type": "linear", "factor": 4.0}},
            "a RoPE scaling that differs from `rope_scaling`",
        ),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor",
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters.full_attention"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "differs from `rope_theta` 10000"),
        ({"hidden_act": "tanh"}, 'an activation that no ffn of a spec has (field `hidden_act` is "tanh")'),
        ({"architectures": ["LlamaForSequenceClassification"]}, "a class other than LlamaForCausalLM"),
        ({"sliding_window": 8}, "a field unknown to the importer (field `sliding_window` is 8)"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
    ],
)
def test_llama_features_that_are_refused(tmp_path, fields, named):
    assert named in str(refusal_of(tmp_path, {**LLAMA, **fields}))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 8}}, "linear(8)"),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                }
            },
            "llama3(8, low 1, high 4, original 8192)",
        ),
        (
            {
                "rope_parameters": {
                    "rope_theta": 1e4,
                    "rope_type": "yarn",
                    "factor": 32.0,
                    "original_max_position_embeddings": 4096,
                    "beta_fast": 32.0,
                    "beta_slow": 1.0,
                    "truncate": False,
                }
            },
            "yarn(32, original 4096, no truncate)",
        ),
        (
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 40,
                    "original_max_position_embeddings": 4096,
                    "mscale": 0.707,
                    "mscale_all_dim": 0.707,
                }
            },
            "yarn(40, original 4096, attention-factor 1)",
        ),
        (
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                    "attention_factor": 1.5,
                }
            },
            "yarn(4, original 64, attention-factor 1.5)",
        ),
    ],
)
def test_scaled_ropes(tmp_path, fields, text):
    spec = spec_of(tmp_path, {**LLAMA, **fields})
    assert rope_text(spec.defaults.rope) == f"rope 10000 scaled {text}"


def test_the_original_context_is_that_of_the_config_if_nothing_is_said(tmp_path):
    config = {**LLAMA, "max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4.0}}
    assert rope_text(spec_of(tmp_path, config).defaults.rope) == "rope 10000 scaled yarn(4, original 64)"


def test_code_that_a_checkpoint_brings_along(tmp_path):
    def config(name):
        return {**LLAMA, "auto_map": {"AutoConfig": "configuration.Own", "AutoModelForCausalLM": name}}

    assert spec_of(tmp_path, config("modeling_llama.LlamaForCausalLM")) == spec_of(tmp_path, LLAMA)
    assert "code other than that of LlamaForCausalLM" in str(refusal_of(tmp_path / "own", config("modeling.OwnModel")))


def test_scalings_that_cannot_be(tmp_path):
    values = {"factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    with pytest.raises(CheckpointError, match="needs a `high` of more than `low`"):
        spec_of(tmp_path, {**LLAMA, "rope_scaling": {"rope_type": "llama3", **values}})
    with pytest.raises(CheckpointError, match=r"`rope_scaling\.factor` must be a number above 0"):
        spec_of(tmp_path, {**LLAMA, "rope_scaling": {"type": "linear", "factor": 0}})
    for original in (0.5, 81.5):
        values = {"factor": 8.0, "original_max_position_embeddings": original}
        with pytest.raises(CheckpointError, match="must be a whole number"):
            spec_of(tmp_path, {**LLAMA, "rope_scaling": {"type": "yarn", **values}})


def test_all_features_are_refused_at_once(tmp_path):
    config = {**LLAMA, "hidden_act": "tanh", "rope_scaling": {"type": "dynamic"}, "logit_scale": 2.0}
    refusal = refusal_of(tmp_path, config)
    assert [problem.field for problem in refusal.problems] == ["hidden_act", "rope_scaling", "logit_scale"]
    assert str(refusal).count("\n  - ") == 3


def test_fields_that_say_nothing_are_ignored(tmp_path):
    config = {**LLAMA, "rope_scaling": None, "future_feature": False, "other": None, "more": 0, "list": []}
    assert spec_of(tmp_path, config) == spec_of(tmp_path, LLAMA)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": "16"}, '`hidden_size` must be a whole number of at least 1, not "16"'),
        ({"hidden_size": 0}, "`hidden_size` must be"),
        ({"num_hidden_layers": 10**9}, "`num_hidden_layers` must be at most 100000"),
        ({"rope_theta": 10**400}, "`rope_theta` must be a number above 0"),
        ({"vocab_size": "x" * 500}, "x ..."),
        ({"vocab_size": True}, "`vocab_size` must be"),
        ({"rms_norm_eps": float("nan")}, "`rms_norm_eps` must be a number above 0, not NaN"),
        ({"rope_theta": -1}, "`rope_theta` must be"),
        ({"rope_parameters": 3}, "`rope_parameters` must be an object"),
        ({"tie_word_embeddings": "no"}, "`tie_word_embeddings` must be true or false"),
        ({"intermediate_size": None}, "`intermediate_size` is missing"),
        ({"num_key_value_heads": 3}, "`num_key_value_heads` must be a divisor of num_attention_heads 4, not 3"),
        ({"head_dim": 5}, "describes no consistent model"),
    ],
)
def test_impossible_values(tmp_path, fields, said):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(write_config(tmp_path / "toy", changed(LLAMA, **fields)))
    assert said in str(caught.value)


def test_llama_head_sizes(tmp_path):
    assert spec_of(tmp_path / "a", LLAMA).defaults.heads == Heads(count=4, head_dim=4)
    spec = spec_of(tmp_path / "b", {**LLAMA, "head_dim": 6, "num_key_value_heads": None})
    assert (spec.defaults.heads, spec.defaults.kv_heads) == (Heads(count=4, head_dim=6), None)


def test_biases(tmp_path):
    assert spec_of(tmp_path / "a", {**LLAMA, "attention_bias": True}).defaults.bias == ("qkv", "out")
    assert spec_of(tmp_path / "b", {**LLAMA, "attention_bias": True, "mlp_bias": True}).defaults.bias == (
        "qkv",
        "out",
        "ffn",
    )
    assert spec_of(tmp_path / "c", QWEN2).defaults.bias == ("qkv",)
    assert spec_of(tmp_path / "d", QWEN3).defaults.bias is None


def test_activations(tmp_path):
    kinds = {"silu": "swiglu", "gelu": "geglu", "gelu_new": "geglu-tanh"}
    for name, kind in kinds.items():
        assert spec_of(tmp_path / name, {**LLAMA, "hidden_act": name}).defaults.ffn.kind == kind


def test_mistral_windows(tmp_path):
    assert spec_of(tmp_path / "a", MISTRAL).defaults.window == Window(size=8)
    assert spec_of(tmp_path / "b", {**MISTRAL, "sliding_window": None}).defaults.window is None
    absent = {key: value for key, value in MISTRAL.items() if key != "sliding_window"}
    assert spec_of(tmp_path / "c", absent).defaults.window == Window(size=4096)


@pytest.mark.parametrize("config", [QWEN2, QWEN3])
@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({}, [None, None]),
        ({"sliding_window": 8, "max_window_layers": 1}, [None, None]),
        ({"sliding_window": 8, "use_sliding_window": True}, [None, None]),
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}, [None, 8]),
        (
            {"sliding_window": 8, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
            [8, None],
        ),
        ({"sliding_window": None, "layer_types": ["full_attention", "full_attention"]}, [None, None]),
    ],
)
def test_qwen_windows(tmp_path, config, fields, windows):
    assert windows_of(spec_of(tmp_path, {**config, **fields})) == windows


@pytest.mark.parametrize(
    ("types", "named"),
    [
        (["sliding_attention", "full_attention"], "sliding layers without a window"),
        (["linear_attention", "full_attention"], "layers of type linear_attention"),
    ],
)
def test_qwen_layer_types_that_are_refused(tmp_path, types, named):
    refusal = refusal_of(tmp_path, {**QWEN3, "layer_types": types})
    assert [problem.feature for problem in refusal.problems] == [named]


@pytest.mark.parametrize(
    ("types", "owners", "windows"),
    [
        (None, [0, 1, 2], [None, None, None]),
        ("0_0s_2s", [0, 2], [None, 4, 4]),
        ("0s_0s_2", [0, 2], [4, 4, None]),
    ],
)
def test_lckv_layer_types(tmp_path, types, owners, windows):
    spec = spec_of(tmp_path, changed(LCKV, layer_types=types, num_hidden_layers=3, sliding_window=4))
    assert [slot.writer_idx for slot in archspec.plan(spec).slots] == owners
    assert windows_of(spec) == windows


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ("0_0", "must be 3 entries, one a layer"),
        ("0_0_x", "must be indices"),
        ("0_0_1", "layers that are their own source (not 1)"),
        ("0_0_7", "layers that are their own source (not 7)"),
        (7, "must be indices"),
    ],
)
def test_lckv_layer_types_that_are_wrong(tmp_path, types, said):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(write_config(tmp_path / "toy", {**LCKV, "num_hidden_layers": 3, "layer_types": types}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "named", "field"),
    [
        ({"layer_types": "0s_0_2"}, "a source with a window for layer 2", "layer_types"),
        ({"layer_types": "0_2_2s"}, "a source with a window for layer 2", "layer_types"),
        ({"layer_types": "0_0_0", "auto_map": {"AutoModel": "mine.Model"}}, "code other than", "auto_map"),
    ],
)
def test_lckv_features_that_are_refused(tmp_path, fields, named, field):
    (problem,) = refusal_of(tmp_path, {**LCKV, "num_hidden_layers": 3, **fields}).problems
    assert named in problem.feature
    assert problem.field == field


def iterations_of(spec):
    return [(s.first, s.last, s.forward, s.backward) for s in spec.statements if s.kind == "iterate"]


@pytest.mark.parametrize(
    ("fields", "iterations"),
    [
        ({"layer_types": "0_0_2_2"}, []),
        ({"layer_types": "0_2_2_3"}, [(2, 3, 7, 2)]),
        ({"layer_types": "2_3_2_3", "forward_passes": 3, "backward_passes": 1}, [(1, 4, 3, 1)]),
        ({"layer_types": "1_1_3_3"}, [(1, 2, 7, 2), (3, 4, 7, 2)]),
        ({"layer_types": "1s_1s_3_3", "backward_passes": None}, [(1, 2, 7, 2), (3, 4, 7, 2)]),
    ],
)
def test_lckv_iterations(tmp_path, fields, iterations):
    spec = spec_of(tmp_path, changed(LCKV, num_hidden_layers=4, **fields))
    assert iterations_of(spec) == iterations
    groups = archspec.plan(spec).groups
    assert [(group.forward, group.backward) for group in groups] == [passes[2:] for passes in iterations]


def test_lckv_passes_count_only_where_layers_iterate(tmp_path):
    assert iterations_of(spec_of(tmp_path / "a", {**LCKV, "forward_passes": 0})) == []
    with pytest.raises(CheckpointError, match="`forward_passes` must be a whole number of at least 1, not 0"):
        spec_of(tmp_path / "b", {**LCKV, "forward_passes": 0, "layer_types": "1_1"})


def test_lckv_without_diagonals_as_its_authors_publish_it(tmp_path):
    code = {
        "AutoConfig": "configuration_lckv.LCKVLlamaConfig",
        "AutoModelForCausalLM": "modeling_lckv.LCKVLlamaForCausalLM",
    }
    spec = spec_of(tmp_path, {**LCKV, "force_nodiag": True, "auto_map": code, "use_sequential": False})
    assert not any(layer.mixer.sees_self for layer in archspec.plan(spec).layers)
    assert archspec.format_spec(spec).count("no diagonal") == 1


def test_lckv_token_by_token_is_remarked_upon(tmp_path):
    folder = write_checkpoint(tmp_path / "toy", {**LCKV, "layer_types": "1_1", "use_sequential": True})
    assert "# use_sequential: the authors' code runs token by token" in import_checkpoint(folder).text


def test_gemma2_defaults(tmp_path):
    """What published configs leave out: tied embeddings, the window in every other layer, the softcaps."""
    spec = spec_of(tmp_path, changed(GEMMA2, hidden_activation=None, query_pre_attn_scalar=None, sliding_window=None))
    assert (spec.embedding.tied, spec.embedding.scale, spec.final_softcap) == (True, "sqrt(width)", 30)
    assert (spec.defaults.attention_softcap, spec.defaults.attention_scale) == (50, 1 / 16)
    assert (spec.defaults.norm.plus_one, spec.defaults.placement) == (True, "sandwich")
    assert spec.defaults.ffn.kind == "geglu-tanh"
    assert windows_of(spec) == [4096, None, 4096]


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({}, [8, None, 8]),
        ({"sliding_window_size": 8}, [8, None, 8]),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, [None, 8, None]),
    ],
)
def test_gemma2_windows(tmp_path, fields, windows):
    assert windows_of(spec_of(tmp_path, {**GEMMA2, **fields})) == windows


def test_gemma2_without_softcaps(tmp_path):
    spec = spec_of(tmp_path, {**GEMMA2, "attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (spec.final_softcap, spec.defaults.attention_softcap) == (None, None)
    assert "softcap" not in archspec.format_spec(spec)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_bidirectional_attention": True}, "attention to later tokens (field `use_bidirectional_attention`"),
        (
            {"hidden_activation": "tanh"},
            'an activation that no ffn of a spec has (field `hidden_activation` is "tanh")',
        ),
        ({"hidden_act": "gelu"}, "an activation that differs from `hidden_activation` gelu_pytorch_tanh"),
        ({"sliding_window_size": 16}, "a window that differs from `sliding_window` 8"),
        ({"sliding_window": None}, "sliding layers without a window"),
        ({"layer_types": ["chunked_attention"] * 3}, "layers of type chunked_attention"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "RoPE scaling of type dynamic"),
        ({"query_pre_attn_scaler": 256}, "query_pre_attn_scaler"),
    ],
)
def test_gemma2_features_that_are_refused(tmp_path, fields, named):
    assert named in str(refusal_of(tmp_path, {**GEMMA2, **fields}))


@pytest.mark.parametrize(
    ("fields", "theta", "percent"),
    [
        ({}, 1e4, 25),
        ({"rotary_pct": 0.5, "rotary_emb_base": 500}, 500, 50),
        ({"rotary_pct": 1.0}, 1e4, 100),
        ({"rotary_pct": 0.5, "partial_rotary_factor": 0.5, "rotary_emb_base": 500, "rope_theta": 500}, 500, 50),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75}}, 500, 75),
        ({"rope_scaling": None}, 1e4, 25),
    ],
)
def test_gpt_neox_rope(tmp_path, fields, theta, percent):
    rope = spec_of(tmp_path, {**GPT_NEOX, **fields}).defaults.rope
    assert (rope.kind, rope.theta, rope.percent) == ("half", theta, percent)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rotary_pct": 0.5, "partial_rotary_factor": 0.25}, "differs from `rotary_pct` 0.5"),
        ({"rotary_emb_base": 500, "rope_parameters": {"rope_theta": 1e4}}, "differs from `rotary_emb_base` 500"),
        ({"rotary_pct": 1.5}, "RoPE on a part of 1.5 of 8 dimensions (field `rotary_pct` is 1.5)"),
        ({"hidden_size": 512, "rotary_pct": 0.26}, "RoPE on a part of 0.26 of 128 dimensions"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "RoPE scaling of type dynamic"),
        ({"hidden_act": "mish"}, 'an activation that no ffn of a spec has (field `hidden_act` is "mish")'),
        ({"architectures": ["GPTNeoXForSequenceClassification"]}, "a class other than GPTNeoXForCausalLM"),
    ],
)
def test_gpt_neox_features_that_are_refused(tmp_path, fields, named):
    assert named in str(refusal_of(tmp_path, {**GPT_NEOX, **fields}))


@pytest.mark.parametrize(
    ("fields", "bias", "residual", "ffn"),
    [
        ({}, ("qkv", "out", "ffn"), "parallel", "gelu"),
        ({"attention_bias": False}, ("ffn",), "parallel", "gelu"),
        ({"use_parallel_residual": False}, ("qkv", "out", "ffn"), None, "gelu"),
        ({"hidden_act": "gelu_fast"}, ("qkv", "out", "ffn"), "parallel", "gelu-tanh"),
    ],
)
def test_gpt_neox_variants(tmp_path, fields, bias, residual, ffn):
    defaults = spec_of(tmp_path, {**GPT_NEOX, **fields}).defaults
    assert (defaults.bias, defaults.residual, defaults.ffn.kind) == (bias, residual, ffn)


def test_gpt_neox_heads_that_do_not_divide(tmp_path):
    with pytest.raises(CheckpointError, match="`num_attention_heads` must be a divisor of hidden_size 32, not 5"):
        spec_of(tmp_path, {**GPT_NEOX, "num_attention_heads": 5})


def test_yoco_in_the_file_that_its_code_writes(tmp_path):
    folder = write_checkpoint(tmp_path / "yoco", YOCO)
    (folder / "config.json").rename(folder / "params.json")
    assert import_checkpoint(folder).spec.statements[0].settings.window == Window(size=4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_self_heads": 3}, "`n_self_heads` must be a divisor of `dim` 16, not 3"),
        ({"n_attn_kv_heads": 3}, "`n_attn_kv_heads` must be a divisor of n_attn_heads 4, not 3"),
        ({"n_layers": 1}, "`n_layers` must be at least 2, not 1"),
        ({"sliding_window": True}, "`sliding_window` must be a whole number"),
    ],
)
def test_yoco_values_that_are_impossible(tmp_path, fields, said):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(write_config(tmp_path / "toy", {**YOCO, **fields}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"embed_scale": 1.0}, {"gate_logit_normalizer": 8}, {"self_head_dim": 4}, {"dropout": 0.1}]
)
def test_yoco_features_that_are_refused(tmp_path, fields):
    (problem,) = refusal_of(tmp_path, {**YOCO, **fields}).problems
    assert {problem.field: problem.value} == fields


REFUSED = {
    "hf_gemma3n_text": {
        "altup_num_inputs": "AltUp",
        "laurel_rank": "Laurel",
        "hidden_size_per_layer_input": "per-layer embeddings",
        "activation_sparsity_pattern": "sparse FFN",
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_checkpoints_beyond_the_language(name):
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(GOLDEN / name)
    found = {problem.field: problem.feature for problem in caught.value.problems}
    for field, feature in REFUSED[name].items():
        assert field in found
        assert feature in str(caught.value)
        assert f"`{field}`" in str(caught.value)


def test_what_the_language_has_is_not_refused():
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(GOLDEN / "hf_gemma3n_text")
    assert {problem.field for problem in caught.value.problems} == set(REFUSED["hf_gemma3n_text"])


@pytest.mark.parametrize("config", [{"model_type": "mamba"}, {"architectures": ["FooForCausalLM"]}, {}])
def test_unknown_families(tmp_path, config):
    refusal = str(refusal_of(tmp_path, config))
    assert "an unknown family" in refusal
    assert "arcee, archspec, codegen, cohere, cohere2, ernie4_5," in refusal
    assert "fields dim, n_layers, n_self_heads" in refusal


def test_the_docs_list_every_family():
    table = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
    for family in IMPORTED:
        if family.key.startswith(TYPE):
            assert f"`{family.key.removeprefix(TYPE)}`" in table
