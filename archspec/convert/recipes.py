"""What a conversion consists of: a recipe for each parameter, what does not fit, and where caches begin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from archspec.diagnostics import layer_numbers
from archspec.parameters import Shape

KvWay = Literal["writer", "mean"]
How = Literal["copied", "averaged", "pooled", "repeated", "widened", "new"]


@dataclass(frozen=True)
class Heads:
    """Another number of heads, `dim` rows each: means of neighbours, or each one several times."""

    before: int
    after: int
    dim: int


@dataclass(frozen=True)
class Recipe:
    """What a parameter is made of. Without sources it stays as `archspec compile` would start it."""

    target: str
    shape: Shape
    sources: tuple[str, ...] = ()
    heads: Heads | None = None
    widened: int | None = None
    """The axis along which there is more than the source has."""
    reason: str = ""
    """Why there is no source."""

    @property
    def how(self) -> How:
        if not self.sources:
            return "new"
        if len(self.sources) > 1:
            return "averaged"
        if self.heads is not None:
            return "pooled" if self.heads.after < self.heads.before else "repeated"
        return "copied" if self.widened is None else "widened"


@dataclass(frozen=True)
class Mismatch:
    """A part that both models have, in another size."""

    target: str
    source: str
    problem: str

    def __str__(self) -> str:
        of = "" if self.source == self.target else f" (from {self.source})"
        return f"{self.target}{of}: {self.problem}"


@dataclass(frozen=True)
class Origin:
    """Whose keys and values a cache starts with."""

    cache: str
    layers: tuple[int, ...]
    """Of the source, from 0."""
    before: int
    after: int
    """Heads."""
    own: bool
    """It is a layer's own cache, and starts with what this layer has in the source."""

    def __str__(self) -> str:
        heads = "" if self.before == self.after else f", {self.before} heads -> {self.after}"
        layers = layer_numbers(self.layers) if self.layers else "nothing"
        return f"{self.cache} from {'the mean of ' if len(self.layers) > 1 else ''}{layers}{heads}"


@dataclass(frozen=True)
class Matching:
    """Everything about one conversion; decided without reading a weight."""

    recipes: tuple[Recipe, ...]
    mismatches: tuple[Mismatch, ...]
    origins: tuple[Origin, ...]
    dropped: tuple[tuple[str, Shape], ...]
    """Parameters of the source that nothing is made of."""
    notes: tuple[str, ...] = ()
    """Settings without weights in which the models differ, so that equal weights do not mean equal outputs."""


class CannotMatch(ValueError):  # noqa: N818
    """Two models of which one cannot start from the other."""


def counted(recipes: Sequence[Recipe]) -> Iterator[tuple[How, list[Recipe]]]:
    """Recipes by how they are made, in the order of `How`."""
    order: tuple[How, ...] = ("copied", "averaged", "pooled", "repeated", "widened", "new")
    for how in order:
        if found := [recipe for recipe in recipes if recipe.how == how]:
            yield how, found
