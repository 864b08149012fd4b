"""Which family a config is of."""

from archspec.convert import (
    block,
    cohere,
    exported,
    falcon,
    gemma,
    gemma4,
    gpt,
    gpt_code,
    gpt_neox,
    granite,
    hf,
    layer_norms,
    lckv,
    mixtures,
    olmo,
    pairs,
    refused,
    yoco,
)
from archspec.convert.config import Config
from archspec.convert.errors import ImportRefused, Problem
from archspec.convert.family import Family

IMPORTED: tuple[Family, ...] = (
    *hf.FAMILIES,
    *gemma.FAMILIES,
    *gemma4.FAMILIES,
    *olmo.FAMILIES,
    *pairs.FAMILIES,
    *granite.FAMILIES,
    *cohere.FAMILIES,
    *layer_norms.FAMILIES,
    *mixtures.FAMILIES,
    *gpt_neox.FAMILIES,
    *gpt.FAMILIES,
    *gpt_code.FAMILIES,
    *falcon.FAMILIES,
    *lckv.FAMILIES,
    *yoco.FAMILIES,
    *block.FAMILIES,
    *exported.FAMILIES,
)

TYPE = "model_type "
"""How the key of a family begins that says its type."""


def detect(config: Config, name: str) -> Family:
    """The family of a config. Errors: ImportRefused for an unknown one, with those that are known."""
    for family in (*IMPORTED, *refused.FAMILIES):
        if family.matches(config.fields):
            return family
    types = sorted(family.key.removeprefix(TYPE) for family in IMPORTED if family.key.startswith(TYPE))
    others = [family.key for family in IMPORTED if not family.key.startswith(TYPE)]
    known = "; ".join([f"{TYPE}{', '.join(types)}", *others])
    field = next((field for field in ("model_type", "architectures") if field in config.fields), "model_type")
    problem = Problem(f"an unknown family (known are {known})", field, config.fields.get(field))
    raise ImportRefused(name, (problem,))
