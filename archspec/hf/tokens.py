"""Bytes as tokens, for models that read text as UTF-8: `archspec generate --prompt` does."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NUM_BYTES = 256
NUL = "\0"
"""Fills batches, and begins or ends a text where a program asks for such a token: byte 0 stands in no text."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose token ids are the bytes of a text in UTF-8, one token a byte."""
    vocab = {NUL: 0} | {symbol: byte for byte, symbol in enumerate(_symbols()) if byte}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=NUL,
        eos_token=NUL,
        bos_token=NUL,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _symbols() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself if it can be printed, else one from
    256 on (`bytes_to_unicode` of GPT-2)."""
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(NUM_BYTES) if byte not in printed]
    return [chr(byte if byte in printed else NUM_BYTES + hidden.index(byte)) for byte in range(NUM_BYTES)]
