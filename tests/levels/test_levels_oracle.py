"""Property tests over specs of two levels: all paths agree, plans tell the truth, text and JSON read back."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archspec
from archspec.spec.levels import LevelsSpec, spec_from_json
from archspec.testing.level_oracle import assert_level_oracle
from archspec.testing.level_strategies import level_specs
from archspec.testing.oracle import assert_sizes
from archspec.testing.strategies import contexts

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
TOLERANCE = 1e-3
"""In float64; recurrent states are float32 by contract, and their rounding grows with depth. Errors of structure are
larger by far."""


def sharp(spec: LevelsSpec, **options):
    """A model with larger weights than at initialisation, so that every part shows in the logits."""
    model = archspec.compile(spec, compile=False, **options)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty(parameter.shape, dtype=torch.float64).normal_(0, 1, generator=generator)
            if name.endswith("norm.weight"):
                parameter.add_(0.2 * noise)
            elif "embed" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * (0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2))
    return model


def random_ids(batch: int, num_tokens: int, vocab_size: int = 37):
    return torch.randint(0, vocab_size, (batch, num_tokens), generator=torch.Generator().manual_seed(0))


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(level_specs(), contexts(max_len=32))
def test_every_path_gives_the_same_logits(spec, context):
    batch, num_tokens, chunks = context
    assert_level_oracle(sharp(spec, dtype="float64"), random_ids(batch, num_tokens), chunks, tolerance=TOLERANCE)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(level_specs(iterate=True), contexts())
def test_levels_that_iterate(spec, context):
    batch, num_tokens, chunks = context
    assert_level_oracle(sharp(spec, dtype="float64"), random_ids(batch, num_tokens), chunks, tolerance=TOLERANCE)


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(level_specs(), st.integers(2, 30), st.data())
def test_left_padding_changes_nothing(spec, num_tokens, data):
    """A padded row gives what it gives alone, and what stands in the padding is of no concern."""
    blocks = archspec.plan(spec).blocks
    if any(slot.sinks for slot in blocks.slots) or any(getattr(layer.mixer, "sinks", 0) for layer in blocks.layers):
        return  # refused
    model = sharp(spec, dtype="float64")
    pads = data.draw(st.lists(st.integers(0, num_tokens - 1), min_size=2, max_size=3))
    ids = random_ids(len(pads), num_tokens)
    mask = torch.stack([(torch.arange(num_tokens) >= pad).long() for pad in pads])
    with torch.no_grad():
        rows = model(ids, mask)
        cache = model.new_cache(len(pads), num_tokens)
        last = model.prefill(ids, cache, mask)
        for row, pad in enumerate(pads):
            alone = model(ids[row : row + 1, pad:])
            torch.testing.assert_close(rows[row : row + 1, pad:], alone, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(last, rows[:, -1], atol=TOLERANCE, rtol=0)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(level_specs(), contexts())
def test_bfloat16_buffers_are_as_planned(spec, context):
    assert_sizes(archspec.compile(spec, dtype="bfloat16", compile=False), *context[:2])


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(level_specs(iterate=True))
def test_text_and_json_read_back(spec):
    text = archspec.format_spec(spec)
    assert archspec.parse_spec_text(text) == spec
    assert archspec.format_spec(archspec.parse_spec_text(text)) == text
    assert spec_from_json(spec.model_dump_json()) == spec
    assert archspec.plan(spec).num_parameters() > 0
