"""LCKV checkpoints (github.com/whyNLP/LCKV): Llama whose layers name the layer that they take keys and values from.

`layer_types` such as `0_0_2_2` or `0s_1s_1` has, for every layer, the index (from 0) of its source, and `s` for a
sliding window, which counts the current token. Only sources have k and v projections. Layers with a later source
(arXiv 2405.10637, 2410.14442) are iterated over: `forward_passes` without gradient, then `backward_passes` with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Family
from archspec.convert.llama import HARMLESS, is_table, read_base, tensor_name
from archspec.diagnostics import layer_numbers
from archspec.graph.iteration import cycles
from archspec.graph.lower import lower
from archspec.spec.model import BiasTarget, IterateStatement, ModelSpec

PASSES = frozenset({"forward_passes", "backward_passes", "use_sequential"})
"""How later layers' keys and values are iterated over: without such layers they mean nothing."""
CODE = {
    "AutoConfig": "configuration_lckv.LCKVLlamaConfig",
    "AutoModelForCausalLM": "modeling_lckv.LCKVLlamaForCausalLM",
}
"""The authors' own code, which their checkpoints bring along."""
NOTES = words(
    "reference reference_commit case tensor_sets measured grad_norms verbatim_eager_grad_norms "
    "verbatim_flash_grad_norms"
)
"""What exports for comparison add: sources, measurements."""


@dataclass(frozen=True)
class LayerType:
    """One entry of `layer_types`: the source's index, and whether a window applies."""

    source: int
    sliding: bool


def read_lckv(config: Config, name: str) -> Blueprint:
    """An LCKV Llama. Layer numbers of the spec are one more than in `layer_types`."""
    config.must("architectures", "a class other than LCKVLlamaForCausalLM", ["LCKVLlamaForCausalLM"])
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    if config.flag("mlp_bias"):
        bias = (*bias, "ffn")
    base = read_base(config, bias=bias)
    types = read_layer_types(config, base.num_layers)
    window = config.count("sliding_window", 4096)
    if config.flag("force_nodiag"):
        base = replace(base, common=base.common.model_copy(update={"diagonal": False}))
    config.must("auto_map", "code other than that of whyNLP/LCKV", CODE)
    _check_sources(config, types)
    layers = [
        base.layer(window if kind.sliding else None, None if kind.source == idx else kind.source + 1)
        for idx, kind in enumerate(types)
    ]
    spec = _iterated(config, base.spec(name, layers))
    config.finish(name, HARMLESS | PASSES | NOTES)
    text = config.fields.get("layer_types")
    remarks = [
        f"layer_types {text}, where layers count from 0" if text else "every layer has keys and values of its own"
    ]
    if config.flag("use_sequential"):
        remarks.append("use_sequential: the authors' code runs token by token, which is `exact=True` here")
    return Blueprint(spec, tensor_name, ignored=is_table, remarks=tuple(remarks))


def _iterated(config: Config, spec: ModelSpec) -> ModelSpec:
    """The spec with an `iterate` statement for each group of layers that depend on one another."""
    groups = [cycle.layers for cycle in cycles(lower(spec))]
    if not groups:
        return spec
    forward, backward = config.count("forward_passes", 7), config.count("backward_passes", 2)
    iterations = (
        IterateStatement(first=layers[0], last=layers[-1], forward=forward, backward=backward) for layers in groups
    )
    return spec.model_copy(update={"statements": (*spec.statements, *iterations)})


def read_layer_types(config: Config, num_layers: int) -> list[LayerType]:
    """`layer_types`, entry by entry. An absent one means that every layer has keys and values of its own."""
    text = config.get("layer_types")
    if text is None:
        return [LayerType(idx, False) for idx in range(num_layers)]
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,9}s?(_\d{1,9}s?)*", text, re.ASCII):
        raise config.bad("layer_types", "indices with or without `s`, joined by `_`, as `0_0_2s_2s`", text)
    types = [LayerType(int(entry.rstrip("s")), entry.endswith("s")) for entry in text.split("_")]
    if len(types) != num_layers:
        raise config.bad("layer_types", f"{num_layers} entries, one a layer,", text)
    for kind in types:
        if kind.source >= num_layers or types[kind.source].source != kind.source:
            raise config.bad("layer_types", f"indices of layers that are their own source (not {kind.source})", text)
    return types


def _check_sources(config: Config, types: list[LayerType]) -> None:
    """Refuse sources that a spec cannot have."""
    text = config.fields.get("layer_types")
    far = [idx for idx, kind in enumerate(types) if types[kind.source].sliding and not kind.sliding]
    if far:
        feature = f"a source with a window for {layer_numbers(far)}, which looks back over everything"
        config.refuse(feature, "layer_types", text)


def _matches(fields: Mapping[str, object]) -> bool:
    return fields.get("model_type") == "lckv-llama" or fields.get("architectures") == ["LCKVLlamaForCausalLM"]


FAMILIES = (Family("LCKV Llama (whyNLP/LCKV)", "model_type lckv-llama", _matches, read_lckv),)
