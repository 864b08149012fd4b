"""The plan of a model with two levels: a plan for each, and what passes between them. Frozen, printable, torch-free.

Source: Block Transformer, arXiv 2406.02657, and itsnamgyu/block-transformer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from archspec.formula import CacheTerm, Length
from archspec.parameters import Shape
from archspec.plan import CacheSlot, LayerPlan, Plan, Sizes, StateSlot
from archspec.spec.levels import Lookup, TakeKind


@dataclass(frozen=True)
class LevelsPlan(Sizes):
    """A complete model of two levels.

    A block of `block_length` tokens becomes one vector (`lookup`). `blocks` runs over these; its output for block k,
    after the final norm, is the context of block k + 1. A linear map with bias (`expansion`) makes `num_context`
    vectors of it. `tokens` runs over one block, with positions from 0 in every block:

    - `prefix`: over the context's vectors, then the block's tokens but the last; the last of the vectors scores the
      first token;
    - `summation`: over `start_token` and the block's tokens but the last, one of the context's vectors added to each.

    The token level's caches are cleared at the end of every block, so that nothing has to be computed in it for the
    blocks of a prompt: prefill is the block level's, and one step of the token level.
    """

    name: str
    block_length: int
    lookup: Lookup
    take: TakeKind
    num_context: int
    blocks: Plan
    """Vectors in, vectors out."""
    tokens: Plan
    """Vectors in, logits out: `embed` of the token level stands before it, since a context is no token."""
    token_embed_scale: float
    start_token: int = 0
    """What stands before a block's first token where a context is added to it (the reference's `bos_token_id`)."""
    pad_token: int = 0
    """Fills a first block that a prompt leaves incomplete."""

    @property
    def vocab_size(self) -> int:
        return self.tokens.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.tokens.hidden_size

    @property
    def tied_embeddings(self) -> bool:
        return self.tokens.tied_embeddings

    @property
    def block_positions(self) -> int:
        """Positions that the token level has in a block: the vectors before the tokens, and all tokens but the last."""
        return self.num_context + self.block_length - 1 if self.take == "prefix" else self.block_length

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        """Of the block level, then of the token level."""
        return (*self.blocks.layers, *self.tokens.layers)

    @property
    def slots(self) -> tuple[CacheSlot, ...]:
        """Of both levels, with the level before the name; indices are those within the level."""
        return tuple(replace(slot, name=f"{word}.{slot.name}") for word, plan in self.levels() for slot in plan.slots)

    @property
    def states(self) -> tuple[StateSlot, ...]:
        """As `slots`."""
        named = ((state, f"{word}.{state.name}") for word, plan in self.levels() for state in plan.states)
        return tuple(replace(state, name=name) for state, name in named)

    def levels(self) -> tuple[tuple[str, Plan], tuple[str, Plan]]:
        return ("blocks", self.blocks), ("tokens", self.tokens)

    def num_blocks(self, num_tokens: int) -> int:
        """Blocks of `num_tokens` tokens, the first or the last of them incomplete."""
        return -(-num_tokens // self.block_length)

    def padding(self, prompt_len: int) -> int:
        """Tokens before a prompt that complete its first block."""
        return -prompt_len % self.block_length

    def cache_terms(self) -> Iterator[CacheTerm]:
        """Of the block level, whose positions are blocks, then of the token level, which keeps one block."""
        for term in self.blocks.cache_terms():
            each = None if term.length.tokens_each is None else self.block_length
            yield replace(term, length=Length(each, term.length.limit))
        for term in self.tokens.cache_terms():
            yield replace(term, length=Length(tokens_each=None, limit=term.length.of(self.block_positions)))

    @property
    def prefill_chunk(self) -> int | None:
        """Tokens of a prompt that are prefilled at a time, whole blocks; None: all."""
        chunk = self.blocks.prefill_chunk
        return None if chunk is None else chunk * self.block_length

    def whole_blocks(self, num_tokens: int) -> int:
        """The tokens of as many whole blocks as `num_tokens` make, one at least."""
        return max(num_tokens // self.block_length, 1) * self.block_length

    @property
    def max_context(self) -> None:
        return None

    def num_idle_parameters(self) -> int:
        return sum(plan.num_idle_parameters() for _, plan in self.levels())

    def buffer_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of what is stored with the weights and not trained by gradient: no parameters."""
        return ((f"{word}.{name}", shape) for word, plan in self.levels() for name, shape in plan.buffer_shapes())

    def parameter_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of every parameter, in the order of the model's `state_dict`."""
        width, expanded = self.tokens.hidden_size, self.num_context * self.tokens.hidden_size
        yield from ((f"blocks.{name}", shape) for name, shape in self.blocks.parameter_shapes())
        yield "blocks.embed.weight", (self.vocab_size, self.lookup.size)
        yield from ((f"tokens.{name}", shape) for name, shape in self.tokens.parameter_shapes())
        yield "tokens.embed.weight", (self.vocab_size, width)
        yield "tokens.expansion.weight", (expanded, self.blocks.hidden_size)
        yield "tokens.expansion.bias", (expanded,)


AnyPlan = Plan | LevelsPlan
