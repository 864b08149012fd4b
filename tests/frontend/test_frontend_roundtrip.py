"""Text and JSON say the same as the spec they were printed from, consistent or not."""

from hypothesis import example, given, settings
from made import specs

from archspec.driver import analyse_text
from archspec.source import Source
from archspec.spec.elaborate import elaborate
from archspec.spec.format import format_spec
from archspec.spec.model import ModelSpec, Rope, Settings
from archspec.syntax.parser import parse_text


def read(text: str) -> ModelSpec:
    """Parse and elaborate, without checks; neither finds anything."""
    parsed, found = parse_text(Source("made.arch", text))
    assert parsed is not None
    elaborated, problems = elaborate(parsed)
    assert found == problems == [], text
    return elaborated.spec


LONG = ModelSpec(  # 20 digits behind the point
    name="m",
    num_layers=1,
    hidden_size=1,
    vocab_size=1,
    defaults=Settings(rope=Rope(kind="half", theta=0.00039154649176284653)),
)


@settings(max_examples=400, deadline=None)
@given(specs)
@example(LONG)
def test_text_reads_back(spec):
    assert read(format_spec(spec)) == spec


@settings(max_examples=200, deadline=None)
@given(specs)
def test_format_is_idempotent(spec):
    text = format_spec(spec)
    assert format_spec(read(text)) == text


@settings(max_examples=200, deadline=None)
@given(specs)
def test_json_reads_back(spec):
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


@settings(max_examples=400, deadline=None)
@given(specs)
def test_check_and_plan_never_raise(spec):
    """And a spec without errors has a plan that knows its sizes."""
    analysis = analyse_text(format_spec(spec))
    if analysis.ok:
        plan = analysis.plan()
        assert plan.num_parameters() > 0
        assert len(plan.layers) == spec.num_layers
        assert plan.cache_bytes(1, 16) >= 0
