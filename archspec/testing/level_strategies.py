"""Hypothesis strategies for specs with two levels that the checker accepts."""

from functools import cache

from hypothesis import strategies as st

from archspec.spec.levels import BlockLevel, LevelsSpec, Lookup, Take, TokenLevel, merged
from archspec.spec.model import Embedding, ModelSpec, Settings
from archspec.testing.strategies import VOCAB_SIZE, consistent, iterated_specs, recurs, settled, specs

MAX_LENGTH = 8


@cache
def stacks(iterate: bool) -> st.SearchStrategy[ModelSpec]:
    """Specs of one stack; with `iterate`, also such that iterate, more often than a test has positions."""
    return specs(max_layers=4) | iterated_specs(max_layers=4, passes=24) if iterate else specs(max_layers=4)


@cache
def _takes() -> st.SearchStrategy[Take]:
    prefix = st.builds(Take, kind=st.just("prefix"), door=st.just("context"), length=st.integers(1, 3))
    return prefix | st.just(Take(kind="summation", door="context"))


@st.composite
def level_specs(draw: st.DrawFn, iterate: bool = False) -> LevelsSpec:
    """Small valid specs of two levels, each of which is any stack."""
    blocks, tokens = draw(stacks(iterate)), draw(stacks(iterate))
    length = draw(st.integers(1, MAX_LENGTH))
    width = length * draw(st.integers(1, 4)) if draw(st.booleans()) else None
    lookup = Lookup(size=width // length, merge="concat") if width else Lookup(size=blocks.hidden_size, merge="sum")
    if recurs(blocks) or recurs(tokens):
        blocks, tokens = settled(blocks), settled(tokens)
    common = draw(st.booleans()) and consistent(merged(blocks.defaults, tokens.defaults))
    return LevelsSpec(
        name="generated",
        vocab_size=VOCAB_SIZE,
        final_norm=tokens.final_norm,
        head_bias=tokens.head_bias,
        logit_scale=tokens.logit_scale,
        final_softcap=tokens.final_softcap,
        defaults=blocks.defaults if common else Settings(),
        blocks=BlockLevel(
            length=length,
            num_layers=blocks.num_layers,
            hidden_size=width or blocks.hidden_size,
            lookup=lookup,
            emit="context",
            embed_scale=blocks.embedding.scale,
            defaults=Settings() if common else blocks.defaults,
            statements=blocks.statements,
        ),
        tokens=TokenLevel(
            num_layers=tokens.num_layers,
            hidden_size=tokens.hidden_size,
            take=draw(_takes()),
            embedding=Embedding(scale=tokens.embedding.scale, tied=tokens.embedding.tied),
            defaults=tokens.defaults,
            statements=tokens.statements,
        ),
    )
