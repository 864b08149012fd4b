"""Specs built in Python are those that text makes, and their findings are as readable."""

from pathlib import Path

import pytest
from hypothesis import given, settings

import archspec
from archspec.builder import Builder, Stack
from archspec.fmt import format_source
from archspec.source import Source
from archspec.spec.format import positions_text, settings_text
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import (
    CacheStatement,
    Ffn,
    Heads,
    IterateStatement,
    LayerRange,
    LayersStatement,
    ModelSpec,
    Norm,
    PrefillExitStatement,
    Rope,
    Settings,
    Statement,
)
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

SPECS = Path(__file__).parents[2] / "specs"


def test_yoco() -> None:
    m = archspec.Builder(
        "yoco_3b",
        layers=26,
        width=3072,
        vocab=100288,
        ffn="swiglu(8192)",
        norm="rms(1e-5)",
        embed_scale="sqrt(width)",
        rope="interleaved-linspace(10000)",
    )
    m.layers("1-13", "retention", heads=(24, 128))
    kv = m.cache(13, kv_heads=(8, 128), norm="rms")
    m.layers("14-26", "cross-attend", to=kv, heads=(24, 128))
    assert archspec.plan(m.build()) == archspec.plan(archspec.parse(SPECS / "yoco" / "yoco_3b.arch"))


def test_levels() -> None:
    m = Builder(
        "block_main_b4_85",
        vocab=50304,
        norm=Norm(kind="layernorm", eps=1e-5),
        ffn=Ffn(kind="gelu", hidden_size=3072),
        rope=Rope(kind="half", percent=25),
        bias=True,
        residual="parallel",
    )
    blocks = m.blocks(length=4, layers=6, width=768, embed_lookup=(192, "concat"))
    blocks.layers("1-6", "attend", heads=Heads(count=12, head_dim=64))
    context = blocks.emit()
    tokens = m.tokens(layers=6, width=768)
    tokens.prefix(2, context)
    tokens.layers(LayerRange(first=1, last=6), "attend", "heads 12 x 64")
    assert m.build() == archspec.parse(SPECS / "block" / "block_main_b4_85.arch")


def test_every_spelling_of_an_argument() -> None:
    m = Builder("m", "tied embeddings", layers=9, width=64, vocab=100, ffn="gelu(8)", heads=4, final_softcap=30)
    m.layers([1, "2-3"], "attend", kv_heads="2 x 16", window=64, sinks=4, rope=1e4, qk_norm=True, attention_scale=0.5)
    m.layers(4, "attend", rope="interleaved(100) on 50%", qk_norm="rms(1e-6)", bias="qkv out", norms="sandwich")
    m.cache(4, name="main", kv_heads=4, window=False, norm=False)
    m.layers("5-last step 2", "cross-attend", to="cache main", rope=False, ffn=False, bias=False)
    m.layers("rest", "attend, heads 4 x 16", diagonal=False, attention_softcap=50)
    lines = m.text().splitlines()[3:-1]
    assert lines == [
        "  layers 1, 2-3 attend, kv heads 2 x 16, window 64, sinks 4, rope 10000.0, qk-norm,",
        "      attention scale 0.5",
        "  layers 4 attend, rope interleaved(100) on 50%, qk-norm rms(1e-6), bias qkv out, sandwich norms",
        "  cache main@4: kv heads 4, no window, no norm",
        "  layers 5-last step 2 cross-attend to cache main, no rope, no ffn, no bias",
        "  layers rest attend, heads 4 x 16, no diagonal, attention softcap 50",
    ]


def test_findings_point_into_the_text() -> None:
    m = Builder("m", layers=2, width=64, vocab=100, ffn="gelu(8)", heads="4 x 16", rope=10000)
    m.layers("1-3", "attend")
    with pytest.raises(archspec.SpecError) as raised:
        m.build()
    (found,) = raised.value.diagnostics
    assert found.code == "E0101"
    assert found.span.text == "1-3"
    assert found.span.source.text == m.text()
    assert "--> <m>:4:10" in str(raised.value)


def test_a_wrong_word_is_found_by_the_parser() -> None:
    m = Builder("m", layers=2, width=64, vocab=100, ffn="swigloo(8)", heads="4 x 16", rope=10000)
    m.layers("1-2", "atend")
    with pytest.raises(archspec.SpecError, match=r"did you mean `attend`"):
        m.build()


@pytest.mark.parametrize("text", ["rms(1e-5)\n layers 3 attend", "rms } model b {", "rms # the rest"])
def test_an_argument_is_no_way_around_a_statement(text: str) -> None:
    m = Builder("m", layers=2)
    with pytest.raises(ValueError, match="one call makes one statement"):
        m.layers("1-2", "attend", norm=text)


def _settings(of: Settings) -> dict[str, object]:
    """A spec's settings as the builder takes them: objects where it has a place for them."""
    values = {key: value for key in Settings.model_fields if (value := getattr(of, key)) is not None}
    for old, new in (("placement", "norms"), ("attention_softcap", "attention_softcap")):
        if old in values:
            values[new] = values.pop(old)
    if "bias" in values:
        values["bias"] = " ".join(values["bias"]) or False
    if values.get("attention_softcap") == 0:
        del values["attention_softcap"]
        values["softcap"] = False
    return values


def _replay(stack: Stack, statements: tuple[Statement, ...]) -> None:
    for each in statements:
        match each:
            case LayersStatement():
                stack.layers(each.ranges or "rest", each.mixer, to=each.source, **_settings(each.settings))
            case CacheStatement():
                stack.cache(each.layer, name=each.name, **_settings(each.settings))
            case IterateStatement():
                ranges = LayerRange(first=each.first, last=each.last)
                stack.iterate(ranges, forward=each.forward, backward=each.backward)
            case PrefillExitStatement():
                stack.prefill_exit(each.after)


def _norm(norm: Norm) -> str | bool:
    return norm.kind != "none" and settings_text(Settings(norm=norm))[0].removeprefix("norm ")


def _ending(spec: ModelSpec) -> dict[str, object]:
    made = {} if spec.final_softcap is None else {"final_softcap": spec.final_softcap}
    if spec.final_norm is not None:
        made["final_norm"] = _norm(spec.final_norm)
    return {**made, **({"head_bias": True} if spec.head_bias else {}), "logit_scale": spec.logit_scale}


def _header(spec: ModelSpec, embedding: object) -> dict[str, object]:
    made = {"embed_scale": embedding.scale, **({"tied_embeddings": True} if embedding.tied else {})}
    if embedding.positions is not None:
        made["positions"] = positions_text(embedding.positions).removeprefix("positions ")
    if embedding.norm is not None:
        made["embed_norm"] = _norm(embedding.norm)
    return {"layers": spec.num_layers, "width": spec.hidden_size, **made, **_settings(spec.defaults)}


@settings(max_examples=50, deadline=None)
@given(specs() | iterated_specs() | level_specs())
def test_every_spec_can_be_built(spec: ModelSpec) -> None:
    ending = _ending(spec)
    if isinstance(spec, LevelsSpec):
        m = Builder(spec.name, vocab=spec.vocab_size, **ending, **_settings(spec.defaults))
        level = spec.blocks
        blocks = m.blocks(
            length=level.length,
            layers=level.num_layers,
            width=level.hidden_size,
            embed_lookup=(level.lookup.size, level.lookup.merge),
            embed_scale=level.embed_scale,
            **_settings(level.defaults),
        )
        _replay(blocks, level.statements)
        door = blocks.emit(level.emit)
        tokens = m.tokens(**_header(spec.tokens, spec.tokens.embedding))
        take = spec.tokens.take
        tokens.summation(door) if take.length is None else tokens.prefix(take.length, door)
        _replay(tokens, spec.tokens.statements)
    else:
        m = Builder(spec.name, vocab=spec.vocab_size, **ending, **_header(spec, spec.embedding))
        _replay(m, spec.statements)
    assert m.build() == spec
    assert format_source(Source("m", m.text())).text == m.text()


def test_importing_archspec_does_not_import_the_builder() -> None:
    assert "Builder" in archspec.__all__
    assert archspec.Builder is Builder
    with pytest.raises(AttributeError, match="no_such_name"):
        archspec.no_such_name  # noqa: B018
