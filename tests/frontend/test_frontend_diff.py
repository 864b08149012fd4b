"""`archspec diff`: another spelling is no difference, another meaning is one and is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import archspec
from archspec.cli.main import app
from archspec.diff import diff_plans
from archspec.driver import analyse_spec
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import (
    CacheRef,
    CacheStatement,
    Ffn,
    Heads,
    LayerRange,
    LayersStatement,
    ModelSpec,
    Norm,
    Rope,
    Settings,
    Statement,
    Window,
)
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.arch"))


def changes(a: str | ModelSpec, b: str | ModelSpec) -> list[tuple[str, str, str | None, str | None]]:
    plans = [archspec.plan(archspec.parse_spec_text(each) if isinstance(each, str) else each) for each in (a, b)]
    return [(each.place, each.what, each.a, each.b) for each in diff_plans(*plans).changes]


# Other spellings


def _respelt(draw: st.DrawFn, statements: tuple[Statement, ...], defaults: Settings) -> tuple[Statement, ...]:
    """Ranges split, layers listed one by one, statements in any order, defaults written out, caches renamed."""
    out: list[Statement] = []
    names = {
        each.name or each.layer: draw(st.sampled_from([None, f"n{number}"]))
        for number, each in enumerate(statements)
        if isinstance(each, CacheStatement)
    }
    for each in statements:
        if isinstance(each, CacheStatement):
            out.append(each.model_copy(update={"name": names[each.name or each.layer]}))
        elif isinstance(each, LayersStatement):
            out += _split(draw, each, defaults, _renamed(each.source, names, statements))
        else:
            out.append(each)
    return tuple(draw(st.permutations(out)))


def _renamed(source: CacheRef | None, names: dict[Any, Any], statements: tuple[Statement, ...]) -> CacheRef | None:
    key = source and (source.name or source.layer)
    if key not in names:
        return source
    layer = next(s.layer for s in statements if isinstance(s, CacheStatement) and (s.name or s.layer) == key)
    return CacheRef(name=names[key]) if names[key] else CacheRef(layer=layer)


def _split(draw: st.DrawFn, each: LayersStatement, defaults: Settings, source: CacheRef | None) -> list[Statement]:
    own = each.settings
    if each.mixer in ("attend", "cross-attend") and own.norm is None and draw(st.booleans()):
        own = own.model_copy(update={"norm": defaults.norm})
    parts = [
        LayerRange(first=number, last=number)
        for part in each.ranges
        for number in range(int(part.first), int(part.last) + 1, part.step)
    ]
    groups = [tuple(parts)] if draw(st.booleans()) else [(part,) for part in parts]
    return [each.model_copy(update={"ranges": group, "settings": own, "source": source}) for group in groups]


def _merged(spec: ModelSpec) -> ModelSpec:
    """Statements of one layer that are alike joined to lists of ranges."""
    joined: dict[Any, LayersStatement] = {}
    others: list[Statement] = []
    for each in spec.statements:
        if isinstance(each, LayersStatement):
            key = (each.mixer, each.source, each.settings)
            ranges = joined[key].ranges if key in joined else ()
            joined[key] = each.model_copy(update={"ranges": (*ranges, *each.ranges)})
        else:
            others.append(each)
    return spec.model_copy(update={"statements": (*joined.values(), *others)})


@settings(max_examples=100, deadline=None)
@given(specs() | iterated_specs(), st.data())
def test_other_spellings_are_no_difference(spec: ModelSpec, data: st.DataObject) -> None:
    merged = _merged(spec)
    statements = data.draw(st.composite(lambda draw: _respelt(draw, merged.statements, merged.defaults))())
    other = merged.model_copy(update={"statements": statements, "name": "other"})
    assert changes(spec, other) == []


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_is_the_same_as_its_json(path: Path, tmp_path: Path) -> None:
    spec = archspec.parse(path)
    copy = tmp_path / "copy.json"
    copy.write_text(spec.model_dump_json())
    assert changes(spec, archspec.parse(copy)) == []


# Other meanings


def _plain(plan: AnyPlan) -> AnyPlan:
    """A plan without names."""
    if isinstance(plan, LevelsPlan):
        return replace(plan, name="", blocks=_plain(plan.blocks), tokens=_plain(plan.tokens))
    slots = tuple(replace(slot, name="") for slot in plan.slots)
    layers = tuple(layer if layer.ffn else replace(layer, ffn_bias=False) for layer in plan.layers)
    return replace(plan, name="", slots=slots, layers=layers)


SETTINGS = st.one_of(
    st.builds(lambda value: {"heads": value}, st.builds(Heads, count=st.integers(1, 9), head_dim=st.just(8))),
    st.builds(lambda value: {"kv_heads": value}, st.builds(Heads, count=st.integers(1, 3), head_dim=st.just(4))),
    st.builds(lambda value: {"window": value}, st.builds(Window, size=st.integers(1, 9), sinks=st.integers(0, 2))),
    st.builds(
        lambda value: {"rope": value}, st.builds(Rope, kind=st.sampled_from(("none", "half")), theta=st.just(9.0))
    ),
    st.builds(
        lambda value: {"norm": value}, st.builds(Norm, kind=st.sampled_from(("rms", "layernorm")), eps=st.just(0.5))
    ),
    st.builds(
        lambda value: {"qk_norm": value}, st.builds(Norm, kind=st.sampled_from(("rms", "none")), eps=st.just(0.5))
    ),
    st.just({"ffn": Ffn(kind="gelu", hidden_size=5)}),
    st.sampled_from(({"bias": ("qkv",)}, {"bias": ()}, {"residual": "parallel"}, {"placement": "post"})),
    st.sampled_from(({"attention_scale": 0.125}, {"attention_softcap": 7.0}, {"diagonal": False})),
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[ModelSpec, ModelSpec]:
    """A spec, and the same with one setting of a statement, of the header, or of the model replaced."""
    spec = draw(specs() | iterated_specs())
    update = draw(SETTINGS)
    match draw(st.sampled_from(["statement", "statement", "header", "model"])):
        case "statement":
            able = [idx for idx, each in enumerate(spec.statements) if hasattr(each, "settings")]
            idx = draw(st.sampled_from(able))
            each = spec.statements[idx]
            mutated = each.model_copy(update={"settings": each.settings.model_copy(update=update)})
            statements = (*spec.statements[:idx], mutated, *spec.statements[idx + 1 :])
            return spec, spec.model_copy(update={"statements": statements})
        case "header":
            return spec, spec.model_copy(update={"defaults": spec.defaults.model_copy(update=update)})
        case _:
            values = [{"hidden_size": 48}, {"vocab_size": 5}, {"final_softcap": 9.0}]
            embedding = [
                {"embedding": spec.embedding.model_copy(update=each)} for each in ({"tied": True}, {"scale": 3.0})
            ]
            return spec, spec.model_copy(update=draw(st.sampled_from([*values, *embedding])))


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_a_difference_is_found_exactly_where_plans_differ(pair) -> None:
    """Facts against the whole plan: nothing that decides what is computed is passed over, and nothing else counts."""
    analyses = [analyse_spec(spec) for spec in pair]
    assume(all(analysis.ok for analysis in analyses))
    a, b = (analysis.plan() for analysis in analyses)
    found = diff_plans(a, b)
    assert found.same == (_plain(a) == _plain(b))
    assert diff_plans(a, a).same
    assert [(each.place, each.a, each.b) for each in found.changes] == [
        (each.place, each.b, each.a) for each in _in_order_of(found, diff_plans(b, a))
    ]


def _in_order_of(found, other):
    places = {(each.place, each.what): each for each in other.changes}
    return [places[each.place, each.what] for each in found.changes]


@settings(max_examples=60, deadline=None)
@given(level_specs(), st.integers(0, 3))
def test_levels(spec: LevelsSpec, choice: int) -> None:
    assert changes(spec, spec) == []
    blocks, tokens = spec.blocks, spec.tokens
    update, expected = [
        ({"tokens": tokens.model_copy(update={"take": tokens.take.model_copy(update={"length": 11, "kind": "prefix"})})}, ("model", "vectors of a context")),
        ({"vocab_size": 1000}, ("tokens: model", "vocab")),
        ({"blocks": blocks.model_copy(update={"embed_scale": 17.0})}, ("blocks: model", "embedding scale")),
        ({"tokens": tokens.model_copy(update={"embedding": tokens.embedding.model_copy(update={"scale": 17.0})})}, ("model", "embedding scale of tokens")),
    ][choice]  # fmt: skip
    other = spec.model_copy(update=update)
    assert expected in [(place, what) for place, what, _, _ in changes(spec, other)]


YOCO = """
model yoco {
  layers 8, width 64, vocab 256, ffn swiglu(8), norm rms(1e-5), rope 10000, heads 4 x 16
  layers 1-4 attend, window 64
  cache@4: kv heads 2 x 16
  layers 5-8 cross-attend to cache@4
}
"""


def test_sharing_taken_away() -> None:
    other = YOCO.replace("  cache@4: kv heads 2 x 16\n", "").replace("cross-attend to cache@4", "attend, kv heads 2")
    assert changes(YOCO, other) == [
        ("layers 5-8", "mixer", "cross-attend to cache@4", "attend"),
        ("layers 5-8", "kv heads", None, "2 x 16"),
        ("layers 5-8", "rope", None, "10000"),
        ("K/V of layers 5-8", "cache", None, "kv heads 2 x 16, bytes a token (bfloat16) 128, keeps all, read by itself"),
        ("cache@4", "cache", "kv heads 2 x 16, bytes a token (bfloat16) 128, keeps all, read by layers 5-8, rope 10000, norm rms(1e-5)", None),
        ("prefill", "exit", "after cache@4: layers 5-8 for the last position only", "after layer 8's K/V: layer 8 for the last position only"),
    ]  # fmt: skip


def test_settings_of_a_cache() -> None:
    named = YOCO.replace("cache@4: kv heads 2 x 16", "cache big@4: kv heads 4 x 16, no norm")
    found = changes(YOCO, named.replace("to cache@4", "to cache big"))
    assert found == [
        ("cache@4", "kv heads", "2 x 16", "4 x 16"),
        ("cache@4", "bytes a token (bfloat16)", "128", "256"),
        ("cache@4", "norm", "rms(1e-5)", None),
    ]


def test_readers_and_numbers_of_layers() -> None:
    longer = YOCO.replace("layers 8,", "layers 9,").replace("layers 5-8 cross", "layers 5-9 cross")
    assert [each[:2] for each in changes(YOCO, longer)] == [
        ("model", "layers"),
        ("layer 9", "layer"),
        ("cache@4", "read by"),
        ("prefill", "exit"),
    ]


def test_layers_that_change_alike_up_to_their_number_are_one_change() -> None:
    text = "model m {{\n  layers 8, width 64, vocab 256, ffn gelu(8), rope 10000, heads 4 x 16\n{}\n}}\n"
    plain = text.format("  layers 1-8 attend")
    cla = text.format("  layers 1-7 step 2 attend\n  layers rest cross-attend to cache@below")
    found = changes(plain, cla)
    assert ("layers 2-8 step 2", "mixer", "attend", "cross-attend to layer N-1's K/V") in found
    assert ("K/V of layers 1-7 step 2", "read by", "itself", "layers N and N+1") in found
    assert len(found) <= 8


def test_iteration() -> None:
    text = (ROOT / "specs" / "nano" / "nano_lckv.arch").read_text()
    assert "7 forward" in text
    found = changes(text, text.replace("7 forward", "3 forward"))
    assert [(what, a, b) for _, what, a, b in found] == [("iterates", "7 forward, 2 backward", "3 forward, 2 backward")]


def run(*args: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["diff", *map(str, args)])
    return done.exit_code, done.stdout, done.stderr


def test_command(tmp_path: Path) -> None:
    a, b, broken = (tmp_path / name for name in ("a.arch", "b.arch", "broken.arch"))
    a.write_text(YOCO)
    b.write_text(YOCO.replace("layers 1-4 attend", "layers 1, 2 .. 4 attend"))
    broken.write_text("model m {")
    code, out, err = run(a, b)
    assert (code, err) == (0, "")
    assert "mean the same" in out
    b.write_text(YOCO.replace("window 64", "window 32"))
    code, out, _ = run(a, b, "--context", "1K")
    assert code == 1
    assert "layers 1-4" in out
    assert "cache bytes, 1K tokens" in out
    code, out, _ = run(a, b, "--json", "--context", "16,1K", "--dtype", "float32")
    facts = json.loads(out)
    assert (code, facts["same"]) == (1, False)
    assert facts["changes"][0] == {
        "place": "layers 1-4",
        "what": "window",
        "a": "64",
        "b": "32",
        "layers": [1, 2, 3, 4],
    }
    plan = archspec.plan(archspec.parse(a))
    assert [each["a"] for each in facts["cache_bytes"]] == [plan.cache_bytes(1, n, "float32") for n in (16, 1024)]
    code, _, err = run(a, broken)
    assert code == 2
    assert "broken.arch" in err
    assert run(a)[0] == 2


def test_a_stack_against_levels() -> None:
    code, out, _ = run(ROOT / "specs/nano/nano_yoco.arch", ROOT / "specs/nano/nano_block.arch")
    assert code == 1
    assert "over blocks of 4 tokens" in out
