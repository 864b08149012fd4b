"""E0305, W0310 and E0905: whether a model can be spread over devices as somebody wants to.

How a model is spread is no part of a spec: these checks run when `archspec check` is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from archspec.checks.context import Context, cache_name
from archspec.diagnostics import Diagnostic, Help, Label, layer_numbers, listing
from archspec.graph.layer_graph import CacheNode
from archspec.source import Span

_ELEMENT = 2
"""Bytes of a bfloat16."""


@dataclass(frozen=True)
class Deployment:
    """`tensor_parallel` devices share every layer's heads; pipeline stages end behind layers `pipeline_split`."""

    tensor_parallel: int = 1
    pipeline_split: tuple[int, ...] = ()


class HeadsDoNotSplit(Diagnostic):
    """Heads that cannot be spread evenly over the devices.

    What: tensor parallelism gives each device the same number of query heads, and the kv heads that they read.
    Why it is bad: serving engines refuse it; one device would wait for another, or hold half a head.
    Example: with `archspec check --tensor-parallel 3`
        # --tensor-parallel 3
        layers 1-4 attend
    Mended:
        # --tensor-parallel 2
        layers 1-4 attend
    """

    code = "E0305"
    count: int
    kind: str
    devices: int

    def message(self) -> str:
        return f"{self.count} {self.kind} heads cannot be spread evenly over {self.devices} devices"

    def helps(self) -> tuple[Help, ...]:
        fits = [n for n in range(1, 2 * self.count) if self.count % n == 0]
        near = sorted(sorted(fits, key=lambda n: abs(n - self.devices))[:4])
        return (Help(f"with {self.count} heads, devices may be {listing([str(n) for n in near], quote=False)}"),)


class KvHeadsReplicated(Diagnostic):
    """More devices than kv heads.

    What: each device needs the kv heads that its query heads read. With more devices than kv heads, several devices
    keep the same one.
    Why it is bad: nothing breaks, but the copies are memory on every device for every token.
    Example: with `archspec check --tensor-parallel 4`
        # --tensor-parallel 4
        layers 1-4 attend, kv heads 2
    Mended:
        # --tensor-parallel 2
        layers 1-4 attend, kv heads 2
    """

    code = "W0310"
    severity = "warning"
    caches: str
    kv_heads: int
    devices: int
    token_bytes: int

    def message(self) -> str:
        copies = self.devices // self.kv_heads
        heads = f"{self.kv_heads} kv head{'s' if self.kv_heads > 1 else ''}"
        return f"{self.caches}: {heads} for {self.devices} devices, so that each is kept {copies} times"

    def remark(self) -> str:
        return f"the copies cost {self.token_bytes} bytes a token in bfloat16, over all devices"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"use at most {self.kv_heads} devices, or `kv heads {self.devices}` if they shall differ"),)


class SplitSharesCache(Diagnostic):
    """A pipeline stage that reads what another one keeps.

    What: a pipeline stage holds some of the layers and their caches; between stages only hidden states pass.
    Why it is bad: the keys and values would have to be sent for every token, or kept on both sides.
    Example: with `archspec check --pipeline-split 3`
        # --pipeline-split 3
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    Mended:
        # --pipeline-split 1
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0905"
    split: int
    readers: str
    cache: str
    token_bytes: int
    owner_span: Span
    possible: tuple[int, ...]
    """The nearest splits that separate no reader from its source."""

    def message(self) -> str:
        return f"a split behind layer {self.split} parts {self.readers} from {self.cache}, which is their source"

    def remark(self) -> str:
        return f"{self.token_bytes} bytes a token in bfloat16 would have to be sent, or kept twice"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.owner_span, f"{self.cache} is written here, in the other stage"),)

    def helps(self) -> tuple[Help, ...]:
        if not self.possible:
            return (Help("no split leaves every reader with its source: all layers share one stage"),)
        shown = listing([f"--pipeline-split {number}" for number in self.possible])
        return (Help(f"{shown} would keep readers and sources together"),)


def check_deployment(context: Context, deployment: Deployment) -> Iterator[Diagnostic]:
    """Judge a spec without errors. Findings that the same words cause are equal, and said once by the driver."""
    if deployment.tensor_parallel > 1:
        yield from _heads(context, deployment.tensor_parallel)
        yield from _kv_heads(context, deployment.tensor_parallel)
    for split in deployment.pipeline_split:
        yield from _split(context, split)


def _heads(context: Context, devices: int) -> Iterator[Diagnostic]:
    for idx, layers in context.by_statement.items():
        heads = layers[0].heads
        if heads is not None and heads.count % devices:
            span = context.spans.setting(idx, "heads")
            yield HeadsDoNotSplit(span=span, count=heads.count, kind="query", devices=devices)


def _kv_heads(context: Context, devices: int) -> Iterator[Diagnostic]:
    groups: dict[tuple[Span, int, int], list[CacheNode]] = {}
    for cache in context.graph.caches.values():
        if cache.kv_heads is not None and cache.kv_heads.head_dim is not None:
            key = (_kv_span(context, cache), cache.kv_heads.count, cache.kv_heads.head_dim)
            groups.setdefault(key, []).append(cache)
    for (span, count, head_dim), caches in groups.items():
        if devices % count and count % devices:
            if context.graph.layers[caches[0].layer].kv_heads != context.graph.layers[caches[0].layer].heads:
                yield HeadsDoNotSplit(span=span, count=count, kind="kv", devices=devices)
        elif devices > count:
            numbers = layer_numbers([cache.layer - 1 for cache in caches], short=True)
            shown = cache_name(caches[0]) if len(caches) == 1 else f"caches of {numbers}"
            copies = len(caches) * (devices - count) * 2 * head_dim * _ELEMENT
            yield KvHeadsReplicated(span=span, caches=shown, kv_heads=count, devices=devices, token_bytes=copies)


def _kv_span(context: Context, cache: CacheNode) -> Span:
    own = context.places(cache.statement)
    return own.settings.get("kv_heads") or context.spans.settings.get("kv_heads") or own.head


def _split(context: Context, split: int) -> Iterator[Diagnostic]:
    possible = _possible(context, split)
    for readers in context.readers:
        cache = readers.cache
        if cache is None:
            continue
        parted = [layer.number - 1 for layer in readers.layers if _parts(context, split, layer.number, cache)]
        if parted:
            heads = cache.kv_heads
            yield SplitSharesCache(
                span=context.source_span(readers.idx),
                split=split,
                readers=layer_numbers(parted, short=True),
                cache=cache_name(cache),
                token_bytes=2 * _ELEMENT * heads.count * heads.head_dim if heads and heads.head_dim else 0,
                owner_span=context.head(cache.statement),
                possible=possible,
            )


def _parts(context: Context, split: int, reader: int, cache: CacheNode) -> bool:
    """Whether reader and cache are in different stages. A projection may be computed behind the split of its layer."""
    if cache.projected and cache.layer == split:
        return min(context.graph.readers_of(cache.key)) <= split
    return (cache.layer <= split) != (reader <= split)


def _possible(context: Context, split: int) -> tuple[int, ...]:
    """The nearest split on each side that parts nothing."""
    reads = [(number, context.graph.caches[key]) for number, key in context.graph.sources.items()]
    blocked = [0] * (context.spec.num_layers + 2)
    for number, cache in reads:  # every split between the two is blocked
        first, last = sorted((number, cache.layer))
        if cache.projected and min(context.graph.readers_of(cache.key)) > cache.layer:
            first += 1  # it can be computed behind the split of its layer
        if first < last:
            blocked[first] += 1
            blocked[last] -= 1
    free, depth = [], 0
    for place in range(1, context.spec.num_layers):
        depth += blocked[place]
        if depth == 0:
            free.append(place)
    below = [place for place in free if place < split][-1:]
    return (*below, *[place for place in free if place > split][:1])
