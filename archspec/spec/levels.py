"""The pydantic models of a spec with two levels (Block Transformer, arXiv 2406.02657), and each level as a spec.

A stack over blocks of tokens reads the past a block at a time; a stack over the tokens of one block writes the next
block, given what the first emits. Each is all that a one-level spec can be, and is checked, lowered and planned as one.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import from_json

from archspec.spec.model import CacheName, Count, Embedding, ModelSpec, Node, Positive, Settings, Statement

Merge = Literal["concat", "sum"]
TakeKind = Literal["prefix", "summation"]


class Lookup(Node):
    """`embed lookup 192 concat`: a block is the rows of its tokens, one behind the other; `sum` adds them."""

    size: Count
    merge: Merge

    def width(self, length: int) -> int:
        """Numbers that a block of `length` tokens becomes."""
        return self.size * length if self.merge == "concat" else self.size


class Take(Node):
    """`prefix 2 from blocks.context`: the context becomes 2 vectors before the block's tokens.

    `summation from blocks.context`: it becomes one vector a token, added to the embedding of the token before.
    """

    kind: TakeKind
    door: CacheName
    length: Count | None = None
    """Vectors of a prefix; None for `summation`, which has as many as a block has tokens."""


class BlockLevel(Node):
    """`blocks of 4 tokens { ... }`: a stack that sees each block of tokens as one vector."""

    length: Count
    num_layers: Count
    hidden_size: Count
    lookup: Lookup
    emit: CacheName
    """`emit context`: the name under which the token level takes the output of this one, shifted by one block."""
    embed_scale: Positive | Literal["sqrt(width)"] = 1.0
    defaults: Settings = Settings()
    statements: tuple[Statement, ...] = ()


class TokenLevel(Node):
    """`tokens in block { ... }`: a stack over the tokens of one block; its caches live for that block."""

    num_layers: Count
    hidden_size: Count
    take: Take
    embedding: Embedding = Embedding()
    defaults: Settings = Settings()
    statements: tuple[Statement, ...] = ()


class LevelsSpec(ModelSpec):
    """One `model NAME { ... }` with `blocks of L tokens { }` and `tokens in block { }`; `defaults` count in both.

    What a one-level spec says once follows from the levels here, and is no part of the JSON form.
    """

    num_layers: Annotated[int, Field(exclude=True)] = 0
    """Of both levels."""
    hidden_size: Annotated[int, Field(exclude=True)] = 0
    """Of the token level."""
    embedding: Annotated[Embedding, Field(exclude=True)] = Embedding()
    """Of the token level."""
    statements: Annotated[tuple[Statement, ...], Field(exclude=True)] = ()
    blocks: BlockLevel
    tokens: TokenLevel

    @model_validator(mode="after")
    def _derive(self) -> "LevelsSpec":
        derived = {
            "num_layers": self.blocks.num_layers + self.tokens.num_layers,
            "hidden_size": self.tokens.hidden_size,
            "embedding": self.tokens.embedding,
            "statements": (),
        }
        stated = {key: getattr(self, key) for key in derived if key in self.model_fields_set}
        wrong = [key for key, value in stated.items() if value != derived[key]]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} of a spec with levels belong into its levels")
        self.__dict__.update(derived)
        return self


def merged(defaults: Settings, own: Settings) -> Settings:
    """The settings of a level: its own, else the model's."""
    stated = {key: value for key in Settings.model_fields if (value := getattr(own, key)) is not None}
    return defaults.model_copy(update=stated)


def block_view(spec: LevelsSpec) -> ModelSpec:
    """The block level as a spec of its own. Its vocabulary is the model's; nothing is looked up in it."""
    level = spec.blocks
    return ModelSpec(
        name=f"{spec.name}.blocks",
        num_layers=level.num_layers,
        hidden_size=level.hidden_size,
        vocab_size=spec.vocab_size,
        embedding=Embedding(scale=level.embed_scale),
        final_norm=spec.final_norm,
        defaults=merged(spec.defaults, level.defaults),
        statements=level.statements,
    )


def token_view(spec: LevelsSpec) -> ModelSpec:
    """The token level as a spec of its own: a model of one block."""
    level = spec.tokens
    return ModelSpec(
        name=f"{spec.name}.tokens",
        num_layers=level.num_layers,
        hidden_size=level.hidden_size,
        vocab_size=spec.vocab_size,
        embedding=level.embedding,
        final_norm=spec.final_norm,
        head_bias=spec.head_bias,
        logit_scale=spec.logit_scale,
        final_softcap=spec.final_softcap,
        defaults=merged(spec.defaults, level.defaults),
        statements=level.statements,
    )


def spec_from_json(text: str) -> ModelSpec:
    """The spec in a JSON text, with or without levels. Errors: pydantic's ValidationError."""
    try:
        value = from_json(text)
    except ValueError:
        return ModelSpec.model_validate_json(text)  # says what is wrong with it
    has_levels = isinstance(value, dict) and not {"blocks", "tokens"}.isdisjoint(value)
    return (LevelsSpec if has_levels else ModelSpec).model_validate_json(text)
