"""Checkpoints of models that also take images or sound: the text model in them, which has a config of its own.

With text alone, such a model computes what its text model computes; the other parts are left out, and the spec says so.
"""

import re
from dataclasses import replace

from archspec.convert.config import Config
from archspec.convert.errors import ImportRefused, Problem
from archspec.convert.family import Blueprint, Family, Reader, transformers_family
from archspec.convert.llama import HARMLESS

PART, TIED = "text_config", "tie_word_embeddings"
_TEXT = re.compile(r"(?:language_model\.|model\.language_model\.)(?:model\.)?")
"""Where checkpoints have the text model, in the layouts before and since transformers 4.52."""
_HEAD = re.compile(r"(?:language_model\.)?lm_head\.")
_OTHERS = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector|audio_tower|embed_vision|embed_audio)\.")


def text_family(name: str, model_type: str, architecture: str, read_text: Reader, harmless: frozenset[str]) -> Family:
    """A family whose text model `read_text` reads; `harmless` fields concern the other parts."""

    def read(config: Config, model_name: str) -> Blueprint:
        blueprint, problems = _read(read_text, _text_config(config), model_name)
        try:
            config.finish(model_name, HARMLESS | harmless)
        except ImportRefused as refused:
            problems = (*refused.problems, *problems)
        if problems or blueprint is None:
            raise ImportRefused(model_name, problems)
        ignored = blueprint.ignored
        return replace(
            blueprint,
            renamed=_renamed,
            ignored=lambda tensor: _OTHERS.match(tensor) is not None or ignored(tensor),
            remarks=(*blueprint.remarks, "The text model alone: parts for images and sound are left out."),
        )

    return transformers_family(f"{name}, with its text model", model_type, architecture, read)


def _text_config(config: Config) -> Config:
    """The config of the text model; whether embeddings are tied stands outside of it as well, and counts there."""
    text, tied = config.part(PART), config.get(TIED)
    if tied is None:
        return text
    if text.fields.get(TIED, tied) != tied:
        config.refuse(f"embeddings that are tied otherwise in `{PART}`", TIED, tied)
    return text.changed({TIED: tied})


def _read(read_text: Reader, text: Config, name: str) -> tuple[Blueprint | None, tuple[Problem, ...]]:
    try:
        return read_text(text, name), ()
    except ImportRefused as refused:
        return None, refused.problems


def _renamed(tensor: str) -> str:
    """The name that a tensor of the text model has in a checkpoint of it alone."""
    head = _HEAD.match(tensor)
    if head is not None:
        return f"lm_head.{tensor[head.end() :]}"
    text = _TEXT.match(tensor)
    return tensor if text is None else f"model.{tensor[text.end() :]}"
