"""A model folder -> another architecture that starts from its weights, to be trained on (uptraining)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from archspec.convert.importing import COMPANIONS, write_folder
from archspec.convert.matching import match
from archspec.convert.recipes import CannotMatch, KvWay, Matching, Recipe, counted
from archspec.levels_plan import AnyPlan
from archspec.runtime.build import AnyModel, build_model

SHOWN = 8
"""Mismatches that a message lists."""


@dataclass(frozen=True)
class Line:
    """One line of the report: what was made in one way."""

    how: str
    tensors: int
    parameters: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Converted:
    """A model that starts from another."""

    model: AnyModel
    matching: Matching

    def lines(self) -> list[Line]:
        """How many parameters were made how; what of the source was not used comes last."""
        found = [
            Line(how, len(group), sum(prod(recipe.shape) for recipe in group), tuple(map(_example, group)))
            for how, group in counted(self.matching.recipes)
        ]
        if self.matching.dropped:
            sizes = [prod(shape) for _, shape in self.matching.dropped]
            found.append(Line("dropped", len(sizes), sum(sizes), tuple(name for name, _ in self.matching.dropped)))
        return found


def _example(recipe: Recipe) -> str:
    return f"{recipe.target} ({recipe.reason})" if recipe.reason else recipe.target


@torch.no_grad()
def convert(
    source: AnyModel,
    plan: AnyPlan,
    *,
    kv: KvWay = "writer",
    layers: Sequence[int] | None = None,
    refit: bool = False,
    seed: int = 0,
    dtype: str | None = None,
) -> Converted:
    """A model of `plan` that starts from the weights of `source`, on the CPU.

    `kv`: keys and values of a cache come from its writer's layer, or from the mean over the layers that read it;
    `layers` as for `match`. What has no source is drawn from `seed`, as by `archspec.compile`, and so is what has
    another size there if `refit`.

    Errors: CannotMatch for other numbers of layers or levels, and for other sizes unless `refit`, with each place.
    """
    matching = match(source.plan, plan, kv=kv, layers=layers)
    if matching.mismatches and not refit:
        listed = [str(mismatch) for mismatch in matching.mismatches]
        more = [f"... and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
        text = "".join(f"\n  - {line}" for line in listed[:SHOWN] + more)
        raise CannotMatch(f"{len(listed)} parameters have another size in the source:{text}")
    stored = dtype or str(source.dtype).removeprefix("torch.")
    model = build_model(plan, dtype=stored, seed=seed, compile=False)
    fill(model.state_dict(), source.state_dict(), matching.recipes)
    return Converted(model, matching)


def fill(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], recipes: Sequence[Recipe]) -> None:
    """Effects: overwrites every target that has a source."""
    for recipe in recipes:
        if recipe.sources:
            made = [_headed(sources[name], recipe) for name in recipe.sources]
            value = made[0] if len(made) == 1 else torch.stack([_wide(part) for part in made]).mean(0)
            _put(targets[recipe.target], value, recipe)


def _put(target: Tensor, value: Tensor, recipe: Recipe) -> None:
    if recipe.widened is None:
        target.copy_(value.reshape(target.shape))
        return
    size = value.shape[recipe.widened]
    target.narrow(recipe.widened, 0, size).copy_(value)
    if recipe.widened == 1:
        # New units of an ffn say nothing at first, so that the function stays what it was.
        target.narrow(1, size, target.shape[1] - size).zero_()


def _headed(tensor: Tensor, recipe: Recipe) -> Tensor:
    """With as many heads as the target has."""
    if (heads := recipe.heads) is None:
        return tensor
    by_head = tensor.reshape(heads.before, heads.dim, -1)
    if heads.after > heads.before:
        return by_head.repeat_interleave(heads.after // heads.before, 0)
    return _wide(by_head).unflatten(0, (heads.after, -1)).mean(1)


def _wide(tensor: Tensor) -> Tensor:
    """Means are taken in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def write_converted(converted: Converted, text: str, source: Path, output: Path) -> None:
    """Write OUTPUT/model.arch (`text`), OUTPUT/model.safetensors and the tokenizer of SOURCE, all or nothing.

    Errors: CannotMatch if both are one folder; CheckpointError for a folder of another kind.
    """
    if output.resolve() == source.resolve():
        raise CannotMatch(f"{output} is the model that is converted: choose another folder to write to")
    tensors = {name: tensor.detach().contiguous() for name, tensor in converted.model.state_dict().items()}
    companions = tuple(path for name in COMPANIONS if (path := source / name).is_file())
    write_folder(output, text, tensors, companions)
