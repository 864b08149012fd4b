"""Configs of every layout are read; what a spec cannot say is refused by name."""

import pytest
from checkpoints import GOLDEN, LCKV, LLAMA, MISTRAL, QWEN2, QWEN3, YOCO, changed, write_checkpoint, write_config

import archspec
from archspec.convert import CheckpointError, ImportRefused, import_checkpoint
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
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "RoPE scaling of type llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling of type linear"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}}, "RoPE scaling of type yarn"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor",
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters.full_attention"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "differs from `rope_theta` 10000"),
        ({"hidden_act": "gelu"}, '`hidden_act` is "gelu"'),
        ({"architectures": ["LlamaForSequenceClassification"]}, "a class other than LlamaForCausalLM"),
        ({"sliding_window": 8}, "a field unknown to the importer (field `sliding_window` is 8)"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
    ],
)
def test_llama_features_that_are_refused(tmp_path, fields, named):
    assert named in str(refusal_of(tmp_path, {**LLAMA, **fields}))


def test_all_features_are_refused_at_once(tmp_path):
    config = {**LLAMA, "hidden_act": "gelu", "rope_scaling": {"type": "yarn"}, "logit_scale": 2.0}
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
        ({"layer_types": "0_2_2"}, "keys and values of a later layer in layer 2", "layer_types"),
        ({"layer_types": "0s_0_2"}, "a source with a window for layer 2", "layer_types"),
        (
            {"force_nodiag": True, "layer_types": "0_0_0"},
            "attention without the diagonal in every layer",
            "force_nodiag",
        ),
    ],
)
def test_lckv_features_that_are_refused(tmp_path, fields, named, field):
    (problem,) = refusal_of(tmp_path, {**LCKV, "num_hidden_layers": 3, **fields}).problems
    assert named in problem.feature
    assert problem.field == field


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
    "block_b4_prefix2": {
        "block_length": "blocks of tokens",
        "embedder.cls": "embedder",
        "token_decoder.expansion_ratio": "expansion",
        "block_decoder.config.use_parallel_residual": "parallel residuals",
    },
    "hf_gemma2": {
        "attn_logit_softcapping": "softcap on attention scores",
        "final_logit_softcapping": "softcap on logits",
        "query_pre_attn_scalar": "attention scale",
        "model_type": "sandwich norms",
        "hidden_activation": "GELU",
    },
    "hf_gemma3n_text": {
        "altup_num_inputs": "AltUp",
        "laurel_rank": "Laurel",
        "hidden_size_per_layer_input": "per-layer embeddings",
        "activation_sparsity_pattern": "sparse FFN",
    },
    "hf_gpt_neox": {"use_parallel_residual": "parallel residuals"},
    "lckv_sandwich_mid": {"layer_types": "keys and values of a later layer in layers 2-4"},
    "lckv_w2": {"layer_types": "keys and values of a later layer in layers 2-6"},
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


@pytest.mark.parametrize("config", [{"model_type": "mamba"}, {"architectures": ["FooForCausalLM"]}, {}])
def test_unknown_families(tmp_path, config):
    refusal = str(refusal_of(tmp_path, config))
    assert "an unknown family" in refusal
    assert "YOCO (microsoft/unilm)" in refusal
