"""Hypothesis strategies for specs that the checker accepts.

Each is made once: Hypothesis looks through a new one before it draws from it, which takes longer than drawing.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, get_args

from hypothesis import strategies as st

from archspec.graph.iteration import cycles
from archspec.graph.lower import lower
from archspec.spec.model import (
    DECAYS,
    CacheRef,
    CacheStatement,
    Embedding,
    Ffn,
    FfnKind,
    Groups,
    Heads,
    IterateStatement,
    LayerRange,
    LayersStatement,
    LinearScaling,
    Llama3Scaling,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    Rope,
    Scaling,
    Settings,
    SharedFfn,
    Statement,
    Window,
    YarnScaling,
)

VOCAB_SIZE = 37
MAX_CONTEXT = 6000
"""Tokens for which specs with learned positions have any."""


@dataclass(frozen=True)
class _Source:
    """A cache that other layers may read."""

    ref: CacheRef
    layer: int
    kv_heads: Heads
    window: Window | None


@lru_cache(maxsize=None, typed=True)
def _one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@cache
def _between(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@cache
def _optional(strategy: st.SearchStrategy[Any], *others: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy, *map(st.just, others))


@cache
def ropes() -> st.SearchStrategy[Rope]:
    """Every kind of rope; half of the dimensions or all, so that a head_dim of 4 still has a pair."""
    theta, percent = st.sampled_from((100.0, 10000.0)), st.sampled_from((50, 100))
    odd = st.sampled_from(("interleaved-linspace", "proportional"))
    linear = st.builds(LinearScaling, factor=st.just(4.0))
    return (
        st.just(Rope(kind="none"))
        | st.builds(
            Rope,
            kind=st.sampled_from(("half", "interleaved")),
            theta=theta,
            percent=percent,
            scaling=st.none() | linear | _scalings(),
        )
        | st.builds(Rope, kind=odd, theta=theta, percent=percent, scaling=st.none() | linear)
    )


@cache
def _scalings() -> st.SearchStrategy[Scaling]:
    """Contexts short enough for their wavelengths to show in a few tokens."""
    original = st.sampled_from((4, 64))
    yarn = st.builds(
        YarnScaling,
        factor=st.sampled_from((0.5, 8.0)),
        original=original,
        fast=st.just(4.0),
        slow=st.sampled_from((0.25, 1.0)),
        attention_factor=st.sampled_from((None, 0.7)),
        truncate=st.booleans(),
    )
    return yarn | st.builds(
        Llama3Scaling, factor=st.just(8.0), low=st.just(1.0), high=st.sampled_from((4.0, 16.0)), original=original
    )


@cache
def norms() -> st.SearchStrategy[Norm]:
    """Norms with visible differences in eps; RMS norms also with a weight around zero.

    No eps is tiny: a norm of nearly nothing would magnify the rounding of float32 states past every bound.
    """
    eps = st.sampled_from((1e-3, 1e-1))
    rms = st.builds(Norm, kind=st.just("rms"), eps=eps, plus_one=st.booleans())
    layernorm = st.builds(Norm, kind=st.just("layernorm"), eps=eps, bias=st.booleans())
    return rms | layernorm | st.builds(Norm, kind=st.sampled_from(("rms", "layernorm")), eps=eps, weight=st.just(False))


@cache
def head_norms() -> st.SearchStrategy[Norm]:
    """Norms of queries, keys and values: of each head or across them, with weights or without."""
    eps, spread = st.sampled_from((1e-3, 1e-1)), st.sampled_from(("alike", "across", "each"))
    bare = st.builds(Norm, kind=st.sampled_from(("rms", "layernorm")), eps=eps, weight=st.just(False), spread=spread)
    rms = st.builds(Norm, kind=st.just("rms"), eps=eps, plus_one=st.booleans(), spread=spread)
    return bare | rms | st.builds(Norm, kind=st.just("layernorm"), eps=eps, bias=st.booleans(), spread=spread)


@cache
def _header() -> st.SearchStrategy[Settings]:
    return st.builds(
        Settings,
        residual_scale=st.sampled_from((None, 0.5)),
        layer_scalar=st.sampled_from((None, True)),
        norm=norms(),
        rope=ropes(),
        ffn=ffns(),
        qk_norm=st.none() | head_norms(),
        bias=st.sampled_from(((), ("qkv",), ("qkv", "out"), ("ffn",), ("qkv", "out", "ffn"))),
        residual=st.sampled_from((None, "parallel", "parallel-one-norm")),
        placement=st.sampled_from((None, "post", "sandwich")),
        attention_scale=st.sampled_from((None, 0.25)),
        attention_softcap=st.sampled_from((None, 2.0)),
        v_norm=st.none() | head_norms(),
        values_from_keys=st.sampled_from((None, None, True)),
        sink_logits=st.sampled_from((None, True)),
        output_gate=st.sampled_from((None, None, True)),
    ).filter(consistent)


@cache
def ffns() -> st.SearchStrategy[Ffn | Moe]:
    """Every kind of ffn, and mixtures of experts."""
    return _dense() | moes()


@cache
def _dense() -> st.SearchStrategy[Ffn]:
    return st.builds(Ffn, kind=st.sampled_from(get_args(FfnKind)), hidden_size=st.sampled_from((8, 24)))


@cache
def _groups() -> st.SearchStrategy[Groups]:
    return st.builds(Groups, chosen=st.integers(1, 2), total=st.just(2))


@cache
def _shared() -> st.SearchStrategy[SharedFfn]:
    return st.builds(SharedFfn, ffn=_dense(), gated=st.booleans())


@cache
@st.composite
def moes(draw: st.DrawFn) -> Moe:
    """Mixtures of experts with every kind of router."""
    groups = draw(_optional(_groups()))
    num_experts = draw(_one_of(1, 2, 5, 6)) if groups is None else 4
    return Moe(
        top=draw(_between(1, num_experts if groups is None else 2 * groups.chosen)),
        num_experts=num_experts,
        expert=draw(_dense()),
        shared=draw(_optional(_shared())),
        router=draw(_one_of("softmax", "sigmoid")),
        router_bias=draw(st.booleans()),
        selection_bias=draw(st.booleans()),
        renorm=draw(st.booleans()),
        groups=groups,
        scale=draw(_one_of(1.0, 2.5)),
    )


@cache
def _embeddings() -> st.SearchStrategy[Embedding]:
    return st.builds(
        Embedding,
        scale=st.sampled_from((1.0, 0.5, "sqrt(width)")),
        tied=st.booleans(),
        positions=st.none() | st.builds(Positions, count=st.just(MAX_CONTEXT), first_row=st.sampled_from((0, 2))),
        norm=st.none() | norms(),
    )


@cache
def _kv_heads() -> st.SearchStrategy[Heads]:
    return st.builds(Heads, count=st.integers(1, 3), head_dim=st.sampled_from((4, 8)))


@cache
def _windows() -> st.SearchStrategy[Window | None]:
    sized = st.builds(Window, size=st.integers(1, 9), sinks=st.sampled_from((0, 0, 1, 3)))
    return st.none() | sized


@st.composite
def specs(draw: st.DrawFn, max_layers: int = 6) -> ModelSpec:
    """Small valid specs: any mixture of owners, readers, projections, windows, sinks, recurrent and plain layers."""
    num_layers = draw(_between(1, max_layers))
    sources: list[_Source] = []
    statements: list[Statement] = []
    for number in range(1, num_layers + 1):
        statements.append(_layer(draw, number, sources))
        if draw(_between(0, 4)) == 0:
            statements.append(_projection(draw, number, sources))
    return _model(draw, num_layers, statements)


def recurs(spec: ModelSpec) -> bool:
    """Whether some layer keeps a recurrent state, which is float32 in models of any dtype."""
    return any(isinstance(statement, LayersStatement) and statement.mixer in DECAYS for statement in spec.statements)


def settled(spec: ModelSpec) -> ModelSpec:
    """The same with every expert chosen for every token.

    Which experts are best is no continuous function: where paths differ by the rounding of float32, so may the choice,
    and then the logits differ by far more.
    """
    statements = [
        part.model_copy(update={"settings": _settled(part.settings)}) if isinstance(part, LayersStatement) else part
        for part in spec.statements
    ]
    return spec.model_copy(update={"defaults": _settled(spec.defaults), "statements": tuple(statements)})


def _settled(made: Settings) -> Settings:
    if not isinstance(made.ffn, Moe):
        return made
    every = made.ffn.model_copy(update={"top": made.ffn.num_experts, "groups": None})
    return made.model_copy(update={"ffn": every})


def consistent(made: Settings) -> bool:
    """Whether these settings of a header agree."""
    return (made.residual, made.placement) != ("parallel-one-norm", "post")


@st.composite
def iterated_specs(draw: st.DrawFn, max_layers: int = 6, passes: int = 12) -> ModelSpec:
    """Valid specs in which some layer reads a later cache, with `passes` in all for every group.

    After n passes exactly the first n positions are exact, so that `passes` bounds the lengths to compare.
    """
    num_layers = draw(_between(2, max_layers))
    sources: list[_Source] = []
    statements: list[Statement] = []
    for number in range(1, num_layers + 1):
        statements.append(_layer(draw, number, sources, owner=number == num_layers))
        if draw(_between(0, 4)) == 0:
            statements.append(_projection(draw, number, sources))
    late = draw(st.sets(st.integers(1, num_layers - 1), min_size=1))
    for idx, statement in enumerate(statements):
        if isinstance(statement, LayersStatement) and statement.ranges[0].first in late:
            later = [source for source in sources if source.layer > statement.ranges[0].first]
            if not _is_read(statement.ranges[0].first, statements):
                statements[idx] = _reader(draw, statement.ranges, draw(st.sampled_from(later)))
    spec = _model(draw, num_layers, statements)
    iterates = [
        IterateStatement(first=cycle.layers[0], last=cycle.layers[-1], forward=passes - 1, backward=1)
        for cycle in cycles(lower(spec))
    ]
    return spec.model_copy(update={"statements": (*spec.statements, *iterates)})


def _is_read(number: object, statements: list[Statement]) -> bool:
    """Whether some statement reads the layer's own K/V, so that it must stay an owner."""
    return any(
        isinstance(statement, LayersStatement) and statement.source is not None and statement.source.layer == number
        for statement in statements
    )


def _model(draw: st.DrawFn, num_layers: int, statements: list[Statement]) -> ModelSpec:
    spec = ModelSpec(
        name="generated",
        num_layers=num_layers,
        hidden_size=draw(_one_of(16, 24)),
        vocab_size=VOCAB_SIZE,
        embedding=draw(_embeddings()),
        final_norm=draw(_one_of(None, None, Norm(kind="none"), Norm(kind="layernorm", eps=1e-2))),
        head_bias=draw(st.booleans()),
        logit_scale=draw(_one_of(1.0, 0.25)),
        final_softcap=draw(_one_of(None, 3.0)),
        defaults=draw(_header()),
        statements=tuple(statements),
    )
    return settled(spec) if recurs(spec) else spec


def _layer(draw: st.DrawFn, number: int, sources: list[_Source], owner: bool = False) -> LayersStatement:
    """One layer; owners of K/V are appended to `sources`."""
    mixers = ["attend", "attend", *DECAYS, "ffn-only", *(["cross-attend"] * 4 if sources else [])]
    mixer: Any = "attend" if owner else draw(_one_of(*mixers))
    ranges = (LayerRange(first=number, last=number),)
    if mixer == "cross-attend":
        return _reader(draw, ranges, draw(st.sampled_from(sources)))
    if mixer == "ffn-only":
        return LayersStatement(ranges=ranges, mixer="ffn-only")
    kv_heads = draw(_kv_heads())
    if mixer in DECAYS:
        return LayersStatement(ranges=ranges, mixer=mixer, settings=Settings(heads=kv_heads))
    window = draw(_windows())
    sources.append(_Source(CacheRef(layer=number), number, kv_heads, window))
    settings = Settings(
        heads=_query_heads(draw, kv_heads),
        kv_heads=kv_heads,
        window=window,
        rope=draw(_optional(ropes())),
        diagonal=draw(_one_of(None, None, None, False)),
        v_norm=draw(_one_of(None, None, Norm(kind="none"), Norm(kind="rms", eps=1e-2))),
        values_from_keys=draw(_one_of(None, None, True, False)),
    )
    return LayersStatement(ranges=ranges, mixer="attend", settings=settings)


def _query_heads(draw: st.DrawFn, kv_heads: Heads) -> Heads:
    return Heads(count=kv_heads.count * draw(_between(1, 3)), head_dim=kv_heads.head_dim)


def _reader(draw: st.DrawFn, ranges: tuple[LayerRange, ...], source: _Source) -> LayersStatement:
    """A reader that looks for nothing which the cache does not keep."""
    window = draw(_windows())
    if source.window is not None:
        size, sinks = (window.size or 1, window.sinks) if window else (source.window.size or 1, source.window.sinks)
        window = Window(size=min(source.window.size or 1, size), sinks=min(source.window.sinks, sinks))
    ffn = draw(_optional(ffns(), Ffn(kind="none")))
    sink_logits = draw(_one_of(None, True, False))
    heads = _query_heads(draw, source.kv_heads)
    settings = Settings(heads=heads, window=window, ffn=ffn, sink_logits=sink_logits)
    return LayersStatement(ranges=ranges, mixer="cross-attend", source=source.ref, settings=settings)


def _projection(draw: st.DrawFn, number: int, sources: list[_Source]) -> CacheStatement:
    """A projection of layer `number`'s output, named or not. It takes the place of the layer's own K/V for readers."""
    name = f"c{number}" if draw(st.booleans()) else None
    kv_heads, window = draw(_kv_heads()), draw(_windows())
    ref = CacheRef(name=name) if name else CacheRef(layer=number)
    sources[:] = [source for source in sources if source.ref.layer != number]
    sources.append(_Source(ref, number, kv_heads, window))
    settings = Settings(kv_heads=kv_heads, window=window, norm=draw(_optional(norms(), Norm(kind="none"))))
    return CacheStatement(layer=number, name=name, settings=settings)


@st.composite
def contexts(draw: st.DrawFn, max_len: int = 24) -> tuple[int, int, tuple[int, ...]]:
    """Batch size, number of tokens, and a partition of a prompt that leaves at least one token to decode."""
    batch, num_tokens = draw(_between(1, 2)), draw(_between(2, max_len))
    prompt = draw(_between(1, num_tokens - 1))
    chunks: list[int] = []
    while sum(chunks) < prompt:
        chunks.append(draw(_between(1, prompt - sum(chunks))))
    return batch, num_tokens, tuple(chunks)
