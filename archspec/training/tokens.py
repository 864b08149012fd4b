"""Texts -> token ids: bytes, or any tokenizer of `tokenizers` and transformers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archspec.hf.tokens import NUM_BYTES, byte_tokenizer

BYTES = "bytes"
Ids = NDArray[np.generic]


class Tokens:
    """A tokenizer, by its name, with the token that ends a document, if it has one."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.num_ids = NUM_BYTES if name == BYTES else 1 + max(tokenizer.get_vocab().values())
        self.end: int | None = tokenizer.eos_token_id
        self.dtype = np.dtype(next(kind for kind in ("uint8", "uint16", "uint32") if self._fits(kind)))

    def _fits(self, kind: str) -> bool:
        return self.num_ids <= np.iinfo(kind).max + 1

    def encode(self, texts: Iterable[str]) -> list[Ids]:
        """Ids of each text, with the end."""
        if self.name == BYTES:
            return [np.frombuffer(text.encode() + b"\0", np.uint8) for text in texts]
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        ends = [] if self.end is None else [self.end]
        return [np.array([*ids, *ends], self.dtype) for ids in found]

    def check(self, vocab_size: int, model: str) -> None:
        """Errors: ValueError if there are ids that a model of this vocabulary has not."""
        if self.num_ids > vocab_size:
            raise ValueError(
                f"the tokenizer {self.name} has {self.num_ids:,} ids, and {model} a vocabulary of {vocab_size:,}: "
                f"write `vocab {self.num_ids}` in the spec, or choose another tokenizer"
            )


def open_tokens(name: str = BYTES) -> Tokens:
    """`bytes`, a `tokenizer.json`, a folder with a tokenizer, or the name of one that transformers finds.

    Errors: ValueError for what is none.
    """
    if name == BYTES:
        return Tokens(name, byte_tokenizer())
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if Path(name).is_file():
            tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # what parsers in Rust raise is no more than an Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name} is no tokenizer: give `{BYTES}`, a tokenizer.json, or a folder or name that transformers' "
            f"AutoTokenizer takes ({reason})"
        ) from error
    return Tokens(name, tokenizer)
