"""What each parameter of a model is made of when it starts from another: matched by place in the layer graph.

A parameter comes from the same part of the layer that it is mapped to. Keys and values of a cache come from the layer
that writes it, or from all layers that read it; where they have fewer heads, from the mean of neighbouring ones.

Sources: mean over the layers that read: LCKV (arXiv 2405.10637, `convert_pretrained.py` of whyNLP/LCKV) and MLKV
(arXiv 2406.09297, whose code takes running means); mean over heads: GQA (arXiv 2305.13245, section 2.1).
"""

from collections.abc import Sequence
from dataclasses import replace

from archspec.convert.places import Place, Stack, layer_place, stack_of
from archspec.convert.recipes import CannotMatch, Heads, KvWay, Matching, Mismatch, Origin, Recipe
from archspec.convert.settings import differences
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.parameters import Shape
from archspec.plan import AttentionPlan, CacheSlot, Plan


def match(source: AnyPlan, target: AnyPlan, *, kv: KvWay = "writer", layers: Sequence[int] | None = None) -> Matching:
    """Recipes for all parameters and buffers of `target`.

    `layers` has, for every layer of the target, the index of the layer of the source that it starts from; needed where
    their numbers differ. Errors: CannotMatch.
    """
    if isinstance(source, LevelsPlan) or isinstance(target, LevelsPlan):
        matching = _match_levels(source, target, kv, layers)
    else:
        matching = _match_stacks(source, target, kv, layers)
    used = {name for recipe in matching.recipes for name in recipe.sources}
    dropped = tuple((name, shape) for name, shape in _shapes(source).items() if name not in used)
    return replace(matching, dropped=dropped)


def _match_levels(source: AnyPlan, target: AnyPlan, kv: KvWay, layers: Sequence[int] | None) -> Matching:
    if not (isinstance(source, LevelsPlan) and isinstance(target, LevelsPlan)):
        one, two = (target, source) if isinstance(source, LevelsPlan) else (source, target)
        raise CannotMatch(
            f"{two.name} has a stack over blocks and one over tokens, {one.name} a single stack: "
            "which of its layers would stand where is not defined; convert between models of equal levels"
        )
    if layers is not None:
        raise CannotMatch("a mapping of layers is for models of one stack")
    recipes: list[Recipe] = []
    mismatches: list[Mismatch] = []
    origins: list[Origin] = []
    notes: list[str] = []
    for (word, theirs), (_, ours) in zip(source.levels(), target.levels(), strict=True):
        found = _match_stacks(theirs, ours, kv, None, f"the {word} level of ")
        recipes += [_prefixed(word, recipe) for recipe in found.recipes]
        mismatches += [
            replace(each, target=f"{word}.{each.target}", source=f"{word}.{each.source}") for each in found.mismatches
        ]
        origins += [replace(each, cache=f"{word}.{each.cache}") for each in found.origins]
        notes += found.notes
    known, have = {recipe.target for recipe in recipes}, _shapes(source)
    for name, shape in _shapes(target).items():
        if name not in known:  # what connects the levels
            recipe = Recipe(name, shape, (name,))
            if (problem := _size_problem(recipe, have[name])) is None:
                recipes.append(recipe)
            else:
                mismatches.append(problem)
                recipes.append(Recipe(name, shape, reason="of another size"))
    return Matching(tuple(recipes), tuple(mismatches), tuple(origins), (), tuple(notes))


def _prefixed(word: str, recipe: Recipe) -> Recipe:
    sources = tuple(f"{word}.{name}" for name in recipe.sources)
    return replace(recipe, target=f"{word}.{recipe.target}", sources=sources)


def _match_stacks(source: Plan, target: Plan, kv: KvWay, layers: Sequence[int] | None, of: str = "") -> Matching:
    pair = _Pair(stack_of(source), stack_of(target), _mapping(source, target, layers, of), kv)
    recipes = tuple(pair.recipe(name, shape) for name, shape in _shapes(target).items())
    origins = tuple(pair.origin(slot) for slot in target.slots)
    notes = tuple(f"{of}{note}" for note in differences(source, target, pair.mapping))
    return Matching(recipes, tuple(pair.mismatches), origins, (), notes)


def _mapping(source: Plan, target: Plan, layers: Sequence[int] | None, of: str) -> tuple[int, ...]:
    have, need = len(source.layers), len(target.layers)
    if layers is None:
        if have != need:
            raise CannotMatch(
                f"{of}{source.name} has {have} layers, {target.name} has {need}: say which layer each of the {need} "
                f"starts from, for example `--layers {_example(have, need)}`"
            )
        return tuple(range(need))
    if len(layers) != need:
        raise CannotMatch(f"{len(layers)} layers are named, and {target.name} has {need}: name one for each")
    beyond = [idx for idx in layers if not 0 <= idx < have]
    if beyond:
        raise CannotMatch(f"there is no layer {beyond[0] + 1} in {source.name}, which has layers 1-{have}")
    return tuple(layers)


def _example(have: int, need: int) -> str:
    """Layers of the source that are spread evenly."""
    return ",".join(str(idx * have // need + 1) for idx in range(need))


def _shapes(plan: AnyPlan) -> dict[str, Shape]:
    return dict((*plan.parameter_shapes(), *plan.buffer_shapes()))


class _Pair:
    """A source and a target of one stack each."""

    def __init__(self, source: Stack, target: Stack, mapping: tuple[int, ...], kv: KvWay) -> None:
        self.source, self.target, self.mapping, self.kv = source, target, mapping, kv
        self.have = _shapes(source.plan)
        self.mismatches: list[Mismatch] = []
        self.slots = {prefix: slot for slot, prefix in zip(target.plan.slots, target.prefixes, strict=True)}

    def recipe(self, name: str, shape: Shape) -> Recipe:
        for prefix, slot in self.slots.items():
            if name.startswith(prefix):
                return self._checked(self._of_slot(slot, name.removeprefix(prefix), Recipe(name, shape)))
        return self._checked(self._of_place(layer_place(name), Recipe(name, shape)))

    def origin(self, slot: CacheSlot) -> Origin:
        sources = self._source_slots(slot)
        layers = self._layers(slot)
        before = sources[0].num_kv_heads if sources else slot.num_kv_heads
        own = not slot.projected and layers == [self.mapping[slot.writer_idx]]
        return Origin(slot.name, tuple(sorted(set(layers))) if sources else (), before, slot.num_kv_heads, own)

    def _of_place(self, place: Place, recipe: Recipe) -> Recipe:
        """The same part of the layer that it is mapped to, or of the stack."""
        source = place if place.layer is None else replace(place, layer=self.mapping[place.layer])
        name = source.name
        if place.name == "lm_head.weight" and name not in self.have:
            name = "embed.weight"  # the source ties them
        if name not in self.have:
            return replace(recipe, reason="the source has none")
        ours, theirs = self.target.kind(place), self.source.kind(source)
        if ours != theirs:
            return replace(recipe, reason=f"{ours}, not {theirs}")
        if place.part.startswith("mixer."):
            if (found := self._other_heads(place, source)) is not None:
                return self._refused(recipe, name, found)
        widened = self._widened(place, recipe.shape, self.have[name])
        return replace(recipe, sources=(name,), widened=widened)

    def _other_heads(self, place: Place, source: Place) -> str | None:
        """Rows of queries and outputs mean heads: an equal product is not enough."""
        if place.layer is None or source.layer is None:
            return None
        ours, theirs = self.target.plan.layers[place.layer].mixer, self.source.plan.layers[source.layer].mixer
        if ours is None or theirs is None:
            return None
        if (ours.num_heads, ours.head_dim) == (theirs.num_heads, theirs.head_dim):
            return None
        return f"{theirs.num_heads} x {theirs.head_dim} heads in the source, {ours.num_heads} x {ours.head_dim} here"

    def _widened(self, place: Place, shape: Shape, have: Shape) -> int | None:
        """A wider ffn begins with what there is (MLKV spends what it saves on K/V there)."""
        if place.layer is None or not place.part.startswith(("ffn.up_proj", "ffn.gate_proj", "ffn.down_proj")):
            return None
        axis = 1 if place.part == "ffn.down_proj.weight" else 0
        if place.part == "ffn.down_proj.bias" or len(shape) != len(have):
            return None
        others_equal = shape[:axis] + shape[axis + 1 :] == have[:axis] + have[axis + 1 :]
        return axis if others_equal and shape[axis] > have[axis] else None

    def _layers(self, slot: CacheSlot) -> list[int]:
        """Layers of the source whose keys and values a cache starts with."""
        if self.kv == "mean" and slot.readers:
            return [self.mapping[reader] for reader in slot.readers]
        # What is projected from a layer's output sees what the next layer's own keys and values see.
        behind = slot.writer_idx + 1 if slot.projected else slot.writer_idx
        return [self.mapping[min(behind, len(self.mapping) - 1)]]

    def _source_slots(self, slot: CacheSlot) -> list[CacheSlot]:
        """Each once: layers of the source may share theirs. The cache at the same place goes first."""
        plan = self.source.plan
        if self.kv == "writer" or not slot.readers:
            same = [
                each
                for each in plan.slots
                if each.projected == slot.projected and each.writer_idx == self.mapping[slot.writer_idx]
            ]
            named = [each for each in same if each.name == slot.name]
            if slot.projected and (named or same):
                return (named or same)[:1]
        mixers = [plan.layers[idx].mixer for idx in self._layers(slot)]
        read = [mixer.slot_idx for mixer in mixers if isinstance(mixer, AttentionPlan)]
        return [plan.slots[idx] for idx in dict.fromkeys(read)]

    def _of_slot(self, slot: CacheSlot, part: str, recipe: Recipe) -> Recipe:
        sources = self._source_slots(slot)
        if not sources:
            return replace(recipe, reason="the layers it would come from have no keys and values")
        if part.startswith("norm."):
            return self._norm_of_slot(slot, part, sources, recipe)
        names = []
        for source in sources:
            prefix = self.source.prefixes[source.idx]
            name = f"{prefix}{part}"
            if source.values_from_keys and part.startswith("v_proj"):
                name = f"{prefix}k{part.removeprefix('v')}"
            if part.split(".")[0] in ("k_norm", "v_norm") and not self._norms_agree(slot, source, part):
                return replace(recipe, reason="norms of another kind")
            if name not in self.have:
                return replace(recipe, reason="the source has none")
            names.append(name)
        first = sources[0]
        kinds = {(source.num_kv_heads, source.head_dim) for source in sources}
        shown = " and ".join(f"{heads} x {dim}" for heads, dim in sorted(kinds))
        if len(kinds) > 1:
            return self._refused(recipe, names[0], f"kv heads {shown} in the source cannot be averaged")
        before, after = first.num_kv_heads, slot.num_kv_heads
        if first.head_dim != slot.head_dim or (before % after and after % before):
            ours = f"{after} x {slot.head_dim}"
            return self._refused(recipe, names[0], f"kv heads {shown} in the source, {ours} here")
        shared = part.split(".")[0].endswith("_norm") and recipe.shape == self.have[names[0]] and len(recipe.shape) == 1
        heads = None if before == after or shared else Heads(before, after, slot.head_dim)
        return replace(recipe, sources=tuple(names), heads=heads)

    def _norms_agree(self, slot: CacheSlot, source: CacheSlot, part: str) -> bool:
        ours, theirs = (slot.k_norm, source.k_norm) if part.startswith("k") else (slot.v_norm, source.v_norm)
        kinds = [(norm.kind, norm.plus_one, norm.spread) for norm in (ours, theirs)]
        return kinds[0] == kinds[1]

    def _norm_of_slot(self, slot: CacheSlot, part: str, sources: list[CacheSlot], recipe: Recipe) -> Recipe:
        """The norm before a projection: that of the projection, or of the layers whose own K/V are taken."""
        names = []
        for source in sources:
            norm = source.norm if source.projected else self.source.plan.layers[source.writer_idx].norm
            prefix = self.source.prefixes[source.idx]
            name = f"{prefix}{part}" if source.projected else f"layers.{source.writer_idx}.mixer_{part}"
            if name not in self.have:
                return replace(recipe, reason="the source has none")
            if (norm.kind, norm.plus_one) != (slot.norm.kind, slot.norm.plus_one):
                return replace(recipe, reason="norms of another kind")
            names.append(name)
        return replace(recipe, sources=tuple(names))

    def _refused(self, recipe: Recipe, source: str, problem: str) -> Recipe:
        self.mismatches.append(Mismatch(recipe.target, source, problem))
        return replace(recipe, reason="of another size")

    def _checked(self, recipe: Recipe) -> Recipe:
        """Without sources of another shape."""
        for name in recipe.sources:
            if recipe.heads is None and recipe.widened is None:
                if (problem := _size_problem(recipe, self.have[name])) is not None:
                    self.mismatches.append(problem)
                    return Recipe(recipe.target, recipe.shape, reason="of another size")
        return recipe


def _size_problem(recipe: Recipe, have: Shape) -> Mismatch | None:
    if have == recipe.shape:
        return None
    return Mismatch(recipe.target, recipe.sources[0], f"{list(have)} in the source, {list(recipe.shape)} here")
