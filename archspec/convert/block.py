"""Block Transformer checkpoints (arXiv 2406.02657, itsnamgyu/block-transformer): two GPT-NeoX stacks and an embedder.

The config is that of the authors' training code: `block_length`, and an object each for `embedder`, `block_decoder` and
`token_decoder` with a transformers config inside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from archspec.convert import gpt_neox
from archspec.convert.config import Config, words
from archspec.convert.errors import ImportRefused, Problem
from archspec.convert.family import Blueprint, Family, Fused
from archspec.convert.llama import HARMLESS
from archspec.parameters import Shape
from archspec.spec.levels import BlockLevel, LevelsSpec, Lookup, Take, TokenLevel
from archspec.spec.model import Embedding, Heads, LayerRange, LayersStatement, Settings

TRAINING = words(
    "name wandb wandb_project wandb_entity wandb_run_name wandb_run_id output_dir resume_from_checkpoint "
    "pythia_pile_idxmaps_path dataset block_split total_batch_size per_device_train_batch_size "
    "gradient_accumulation_steps batch_size_rampup_steps max_length tokenizer adaptive_lr_auto_encoder freeze "
    "learning_rate adam_beta1 adam_beta2 weight_decay precision num_train_steps stop_steps num_warmup_steps save_steps "
    "save_total_limit logging_steps dataloader_num_workers deepspeed zero_shot_eval "
    "token_decoding_loss block_decoding_loss auto_encoding_loss"
)
"""Fields of the authors' trainer that change no logits."""
NOTES = words("reference reference_commit generation oracle io")
"""What exports for comparison add."""
_PART = words("cls config attn_implementation model_name_or_path use_pretrained_weights loss_name")
_CONTEXT = "context"


@dataclass(frozen=True)
class _KernelOfOne(Fused):
    """A matrix that is stored as a convolution of kernel 1."""

    def whole(self, shape: Shape) -> Shape:
        return (*shape, 1)

    def part(self, tensor: Tensor) -> Tensor:
        return tensor[..., 0].clone()


_EXPANSION = _KernelOfOne(0, 1, 1)


@dataclass(frozen=True)
class _Stack:
    """A decoder's config, read."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    heads: Heads
    settings: Settings
    tied: bool


def read_block(config: Config, name: str) -> Blueprint:
    """A Block Transformer with a lookup embedder, and prefixes or summation in its token decoder."""
    length = config.count("block_length")
    embedder, blocks, tokens = (config.part(key) for key in ("embedder", "block_decoder", "token_decoder"))
    embedder_config = embedder.part("config")
    lookup = _read_lookup(embedder, embedder_config)
    take = _read_take(tokens, length)
    decoders = tuple(_filled(part.part("config"), lookup.vocab_size) for part in (blocks, tokens))
    _check_ids(embedder_config, decoders[1], take)
    for part in (blocks, tokens):
        part.must("cls", "a decoder other than GPT-NeoX", "gpt-neo-x")
    block_stack, token_stack = (_read_stack(decoder) for decoder in decoders)
    if lookup.vocab_size != token_stack.vocab_size:
        tokens.refuse("vocabularies that differ between embedder and token decoder", "config", token_stack.vocab_size)
    _finish(
        name,
        (config, TRAINING | NOTES),
        *((part, _PART) for part in (embedder, blocks, tokens)),
        (embedder_config, HARMLESS),
        *((decoder, HARMLESS | gpt_neox.NOTES) for decoder in decoders),
    )
    spec = _spec(name, length, lookup.size, block_stack, token_stack, take)
    counts = {"blocks": block_stack.heads.count, "tokens": token_stack.heads.count}
    return Blueprint(spec, tensor_name, fused=lambda name: _fused(name, counts), ignored=_ignored)


def tensor_name(name: str) -> str:
    """Parameter name -> name in a checkpoint."""
    level, _, rest = name.partition(".") if name.startswith(("blocks.", "tokens.")) else ("tokens", "", name)
    if name == "blocks.embed.weight":
        return "embedder.embeddings.weight"
    if rest.startswith("expansion."):
        return f"token_decoder.expansion_layer.{rest.removeprefix('expansion.')}"
    return f"{'block' if level == 'blocks' else 'token'}_decoder.{gpt_neox.tensor_name(rest)}"


def _fused(name: str, head_counts: Mapping[str, int]) -> Fused | None:
    if name == "tokens.expansion.weight":
        return _EXPANSION
    level, _, rest = name.partition(".")
    return gpt_neox.fused(rest, head_counts[level])


def _ignored(name: str) -> bool:
    """The block decoder has an embedding of tokens that its code never uses."""
    return name == "block_decoder.gpt_neox.embed_in.weight" or gpt_neox.is_mask(name)


def _filled(config: Config, vocab_size: int) -> Config:
    """A decoder's config with what the authors' `util/config.py` and the Pythia config under it fill in."""
    width = config.count("hidden_size")
    head_dim = 32 if width <= 256 else 64 if width <= 1536 else 128
    derived = {
        "num_attention_heads": max(width // head_dim, 1),
        "intermediate_size": 4 * width,
        "vocab_size": vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return config.filled(derived)


@dataclass(frozen=True)
class _Lookup:
    size: int
    vocab_size: int


def _read_lookup(embedder: Config, config: Config) -> _Lookup:
    embedder.must("cls", "an embedder other than a lookup table", "lookup")
    embedder.must("n_embedding_tokens", "more than one vector a block", 1)
    embedder.must("projection_method", "a projection of the block's embedding", "concat")
    return _Lookup(config.count("hidden_size"), config.count("vocab_size"))


def _read_take(tokens: Config, length: int) -> Take:
    strategy = tokens.get("decoding_strategy")
    tokens.must("decoding_strategy", "contexts other than prefixes and sums", "prefix", "summation")
    tokens.must("expansion_method", "contexts without an expansion layer", "expansion_layer")
    if strategy != "summation":
        return Take(kind="prefix", door=_CONTEXT, length=tokens.count("expansion_ratio"))
    ratio = tokens.optional_count("expansion_ratio")
    if ratio not in (None, length):
        raise tokens.bad("expansion_ratio", f"the block length {length} for summation", ratio)
    return Take(kind="summation", door=_CONTEXT)


def _check_ids(embedder: Config, tokens: Config, take: Take) -> None:
    """Padding, and where there is no prefix the start of a block, is token 0."""
    embedder.must("pad_token_id", "a padding token other than 0", 0)
    start = tokens.get("bos_token_id")
    if take.kind == "summation" and (tokens.get("eos_token_id") if start is None else start) != 0:
        tokens.refuse("a start token other than 0", "bos_token_id", start)


def _read_stack(config: Config) -> _Stack:
    width = config.count("hidden_size")
    heads = gpt_neox.read_heads(config, width)
    return _Stack(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        heads=heads,
        settings=gpt_neox.read_settings(config, heads),
        tied=config.flag("tie_word_embeddings"),
    )


def _spec(name: str, length: int, lookup: int, blocks: _Stack, tokens: _Stack, take: Take) -> LevelsSpec:
    common = {
        key: value
        for key in Settings.model_fields
        if key != "heads" and (value := getattr(blocks.settings, key)) == getattr(tokens.settings, key)
    }
    return LevelsSpec(
        name=name,
        vocab_size=tokens.vocab_size,
        defaults=Settings(**common),
        blocks=BlockLevel(
            length=length,
            num_layers=blocks.num_layers,
            hidden_size=blocks.hidden_size,
            lookup=Lookup(size=lookup, merge="concat"),
            emit=_CONTEXT,
            defaults=_own(blocks, common),
            statements=_layers(blocks),
        ),
        tokens=TokenLevel(
            num_layers=tokens.num_layers,
            hidden_size=tokens.hidden_size,
            take=take,
            embedding=Embedding(tied=tokens.tied),
            defaults=_own(tokens, common),
            statements=_layers(tokens),
        ),
    )


def _own(stack: _Stack, common: Mapping[str, object]) -> Settings:
    return stack.settings.model_copy(update={"heads": None, **dict.fromkeys(common)})


def _layers(stack: _Stack) -> tuple[LayersStatement, ...]:
    every = LayerRange(first=1, last=stack.num_layers)
    return (LayersStatement(ranges=(every,), mixer="attend", settings=Settings(heads=stack.heads)),)


def _finish(name: str, *parts: tuple[Config, frozenset[str]]) -> None:
    """`Config.finish` of all parts. Errors: ImportRefused with the problems of all."""
    problems: list[Problem] = []
    for part, harmless in parts:
        try:
            part.finish(name, harmless)
        except ImportRefused as refused:
            problems += refused.problems
    if problems:
        raise ImportRefused(name, tuple(problems))


FAMILIES = (
    Family(
        "Block Transformer (itsnamgyu/block-transformer)",
        "field block_decoder",
        lambda fields: "block_decoder" in fields,
        read_block,
    ),
)
