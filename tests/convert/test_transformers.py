"""Checkpoints of transformers' models compute here what they compute there: logits, and the tokens of `generate`."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import archspec
from archspec.convert import CheckpointError, ImportRefused, import_checkpoint, write_imported
from archspec.convert.config import Config, words
from archspec.convert.detect import detect
from archspec.convert.importing import COMPANIONS
from archspec.convert.llama import HARMLESS
from archspec.driver import analyse_text
from archspec.fmt import format_source
from archspec.runtime.model import Model
from archspec.source import Source

pytest.importorskip("transformers")

from hf_models import FAMILIES, TOKENS, VOCAB, Fields, make_config, randomise, save

NEW_TOKENS = 10
SEEDS = range(3)


def imported_model(folder: Path) -> tuple[Any, Any]:
    imported = import_checkpoint(folder)
    analysis = analyse_text(imported.text)
    assert analysis.diagnostics == (), imported.text
    assert analysis.elaborated.spec == imported.spec
    assert format_source(Source("m.arch", imported.text)).text == imported.text
    write_imported(imported, folder / "out")
    return imported, archspec.load(folder / "out", compile=False)


def exported_model(folder: Path) -> Any:
    """There and back: the imported model as one of transformers again."""
    from transformers import AutoModelForCausalLM

    from archspec.hf.export import export

    export(folder, folder.parent / "back")
    model = AutoModelForCausalLM.from_pretrained(folder.parent / "back").eval()
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
def assert_same(reference: Any, model: Any, atol: float = 1e-4) -> float:
    """The largest difference between logits."""
    ids = torch.randint(3, VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    expected, found = reference(ids).logits, model(ids)
    found = found if isinstance(found, torch.Tensor) else found.logits
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    mask = torch.ones_like(ids)
    tokens = reference.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)
    own = {} if isinstance(model, Model) else {"attention_mask": mask, "do_sample": False}
    assert torch.equal(model.generate(ids, max_new_tokens=NEW_TOKENS, **own), tokens)
    return float((expected - found).abs().max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_random_models_of_every_family(tmp_path, family, seed):
    fields = FAMILIES[family](random.Random(f"{family}{seed}"))
    reference = save(tmp_path, family, fields, seed)
    _, model = imported_model(tmp_path)
    assert_same(reference, model)
    if seed == 0:
        assert_same(reference, exported_model(tmp_path / "out"))


TEXTS = {
    "Gemma3Text": (
        {"sliding_window": 6, "num_hidden_layers": 13},
        """\
  layers 1-5, 7-11, 13 attend, window 6, rope 10000
  layers 6, 12 attend, rope 1000000
""",
    ),
    "Gemma4Text": (
        {
            "hidden_size_per_layer_input": 0,
            "num_hidden_layers": 12,
            "num_kv_shared_layers": 6,
            "use_double_wide_mlp": True,
        },
        """\
  layers 1-5 attend, window 512, rope 10000
  layers 6 attend, heads 2 x 512, rope proportional(1000000) on 25%
  layers 7-11 cross-attend to cache@5, window 512, ffn geglu-tanh(80)
  layers 12 cross-attend to cache@6, heads 2 x 512, ffn geglu-tanh(80)
""",
    ),
    "Gemma2": (
        {"sliding_window": 6, "num_hidden_layers": 4},
        """\
  layers 1, 3 attend, window 6
  layers 2, 4 attend
""",
    ),
    "SmolLM3": (
        {"num_hidden_layers": 12},
        """\
  layers 1-3, 5-7, 9-11 attend, rope 2000000
  layers 4-12 step 4 attend, no rope
""",
    ),
}
SMALL: Fields = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("family", TEXTS)
def test_the_spec_reads_as_a_person_would_write_it(tmp_path, family):
    fields, text = TEXTS[family]
    save(tmp_path, family, {**SMALL, **fields})
    assert text in imported_model(tmp_path)[0].text


def test_defaults_that_a_config_leaves_out(tmp_path):
    """What transformers makes of a config of sizes alone, is made of it here."""
    for family in ("Llama", "Qwen2", "Cohere2", "Olmo3", "Gemma3Text", "StableLm", "Starcoder2", "Mistral", "SmolLM3"):
        folder = tmp_path / family
        reference = save(folder, family, {**SMALL, "num_hidden_layers": 4, "hidden_size": 32})
        config = json.loads((folder / "config.json").read_text())
        kept = (*SMALL, "model_type", "architectures", "head_dim", "num_hidden_layers")
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in kept if key in config}))
        assert_same(reference, imported_model(folder)[1])


@pytest.mark.parametrize("family", ["Gemma3", "Gemma4"])
def test_the_text_part_of_models_that_see_images(tmp_path, family):
    import transformers

    text = FAMILIES[f"{family}Text"](random.Random(3))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 28, "patch_size": 14} if family == "Gemma3" else {**sizes, "head_dim": 8}
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    randomise(model, 3)
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path)
    model.config.text_config.output_hidden_states = True
    imported, loaded = imported_model(tmp_path)
    assert "The text model alone" in imported.text
    assert_same(model, loaded)


def test_shards_in_bfloat16_and_a_tokenizer(tmp_path):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = save(tmp_path / "saved", "Qwen3", FAMILIES["Qwen3"](random.Random(1))).to(torch.bfloat16)
    folder = tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name in COMPANIONS:
        (folder / name).write_text(json.dumps({"of": name}))
    (folder / "README.md").write_text("not of the model")
    write_imported(import_checkpoint(folder), tmp_path / "out")
    assert all((tmp_path / "out" / name).read_text() == json.dumps({"of": name}) for name in COMPANIONS)
    assert not (tmp_path / "out" / "README.md").exists()
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    loaded = archspec.load(tmp_path / "out", dtype="float32", compile=False)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    reference.generation_config.eos_token_id = None
    assert_same(reference, loaded)


REFUSED: dict[str, tuple[str, Fields, str]] = {
    "longrope": (
        "Phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 32,
            }
        },
        "RoPE scaling of type longrope, where its factors change when the context grows (field `rope_parameters`",
    ),
    "per-layer embeddings": (
        "Gemma4Text",
        {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB},
        "per-layer embeddings (field `hidden_size_per_layer_input` is 8)",
    ),
    "a mixture beside an ffn": (
        "Gemma4Text",
        {
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 8,
        },
        "(field `enable_moe_block` is true)",
    ),
    "bidirectional attention": (
        "Gemma3Text",
        {"use_bidirectional_attention": True},
        "attention to later tokens (field `use_bidirectional_attention` is true)",
    ),
    "clipping": ("Olmo", {"clip_qkv": 8.0}, "clipping of queries, keys and values (field `clip_qkv` is 8.0)"),
    "norms behind": (
        "OPT",
        {"do_layer_norm_before": False, "ffn_dim": 32, "word_embed_proj_dim": 16},
        "norms behind the residual sum (field `do_layer_norm_before` is false)",
    ),
    "narrow embeddings": (
        "OPT",
        {"ffn_dim": 32, "word_embed_proj_dim": 8},
        "embeddings narrower than the layers (field `word_embed_proj_dim` is 8)",
    ),
    "alibi": ("Falcon", {"alibi": True}, "ALiBi: biases by distance in place of positions (field `alibi` is true)"),
    "another clamp": (
        "GptOss",
        {"num_local_experts": 4, "swiglu_limit": 5.0},
        "a clamp other than 7 (field `swiglu_limit` is 5.0)",
    ),
}


@pytest.mark.parametrize("feature", REFUSED)
def test_what_cannot_be_said_is_refused_by_feature_field_and_value(tmp_path, feature):
    family, fields, text = REFUSED[feature]
    kept = {"max_position_embeddings": 64, "num_hidden_layers": 2, **SMALL, **fields}
    if family in ("OPT", "Falcon"):
        kept = {key: value for key, value in kept.items() if key not in ("intermediate_size", "num_key_value_heads")}
    save(tmp_path, family, kept)
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(tmp_path)
    assert text in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_field_is_passed_over(tmp_path, family):
    """A field that no family reads is refused in every one of them."""
    save(tmp_path, family, FAMILIES[family](random.Random(0)))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "new_feature": 3, "quantization_config": {"bits": 4}}))
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(tmp_path)
    assert "a field unknown to the importer (field `new_feature` is 3)" in str(caught.value)
    assert 'quantized weights (field `quantization_config` is {"bits": 4})' in str(caught.value)


@pytest.mark.parametrize("family", ["Gemma4Text", "Qwen3Moe", "GptOss", "Phi3", "StableLm", "GPT2"])
def test_tensors_that_are_missing_or_too_many(tmp_path, family):
    from safetensors.torch import load_file, save_file

    save(tmp_path, family, FAMILIES[family](random.Random(0)))
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    first = next(name for name in sorted(tensors) if "mlp" in name)
    save_file({**tensors, "model.layers.0.extra": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="1 unexpected"):
        import_checkpoint(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, path)
    with pytest.raises(CheckpointError, match=f"1 missing: {first}"):
        import_checkpoint(tmp_path)
    save_file({**tensors, first: torch.zeros(3, 5, 7)}, path)
    with pytest.raises(CheckpointError, match="of another shape"):
        import_checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["GPT2", "OPT"])
def test_names_of_older_checkpoints(tmp_path, family):
    from safetensors.torch import load_file, save_file

    reference = save(tmp_path, family, FAMILIES[family](random.Random(2)))
    path = tmp_path / "model.safetensors"
    prefix = {"GPT2": "transformer.", "OPT": "model."}[family]
    tensors = load_file(path)
    assert any(name.startswith(prefix) for name in tensors)
    save_file({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, path)
    assert_same(reference, imported_model(tmp_path)[1])


def test_the_text_part_in_the_older_layout(tmp_path):
    """As before transformers 4.52, with the part for images beside it."""
    from safetensors.torch import load_file, save_file

    reference = save(tmp_path, "Gemma3Text", FAMILIES["Gemma3Text"](random.Random(4)))
    text = json.loads((tmp_path / "config.json").read_text())
    wrapper = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps({**wrapper, "vision_config": {"image_size": 28}}))
    path = tmp_path / "model.safetensors"
    tensors = {f"language_model.{name}": tensor for name, tensor in load_file(path).items()}
    images = {"vision_tower.x": torch.zeros(1), "multi_modal_projector.x": torch.zeros(1)}
    save_file({**tensors, **images}, path)
    assert_same(reference, imported_model(tmp_path)[1])
    (tmp_path / "config.json").write_text(json.dumps({**wrapper, "text_config": {**text, "new": 1}, "more": 2}))
    with pytest.raises(ImportRefused) as caught:
        import_checkpoint(tmp_path)
    assert [problem.field for problem in caught.value.problems] == ["more", "new"]


ELSEWHERE = words(
    "_sliding_window_pattern attention_layers attention_softmax_in_fp32 embed_dropout n_ctx resid_dropout "
    "scale_attention_softmax_in_fp32 classifier_dropout decoder_sparse_step dropout init_std layer_types layerdrop "
    "max_window_layers mlp_only_layers moe_intermediate_size n_positions no_rope_layer_interval no_rope_layers "
    "norm_topk_prob num_experts num_experts_per_tok num_kv_heads num_local_experts original_max_position_embeddings "
    "output_router_logits reorder_and_upcast_attn router_aux_loss_coef router_jitter_noise shared_expert_intermediate_size "
    "sliding_window sliding_window_pattern summary_activation summary_first_dropout summary_proj_to_labels summary_type "
    "summary_use_proj top_k_experts use_double_wide_mlp use_sliding_window vocab_size_per_layer_input"
)
"""Fields of training, or that others may switch off: what they say is held to transformers' logits above."""


def changed_values(value: Any) -> list[Any]:
    match value:
        case bool():
            return [not value]
        case None:
            return [3]
        case int() | float():
            return [value * 2 + 1]
        case str():
            return ["unknown"]
        case dict():
            inner = [{**value, key: other} for key, old in value.items() for other in changed_values(old)]
            return [*inner, {**value, "new": 1}]
        case _:
            return []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_counts(tmp_path, family):
    """Another value of any field is another model, or refused."""

    def spec_of(fields: Fields) -> Any:
        config = Config(fields, tmp_path / "config.json")
        return detect(config, "model").read(config, "model").spec

    make_config(family, FAMILIES[family](random.Random(0))).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    spec = spec_of(fields)
    for name in set(fields) - HARMLESS - ELSEWHERE:
        for value in changed_values(fields[name]):
            try:
                assert spec_of({**fields, name: value}) != spec, (name, value)
            except (ImportRefused, CheckpointError):
                pass
