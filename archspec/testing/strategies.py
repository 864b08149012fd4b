"""Hypothesis strategies for specs that the checker accepts."""

from dataclasses import dataclass

from hypothesis import strategies as st

from archspec.spec.model import (
    CacheRef,
    CacheStatement,
    Embedding,
    Ffn,
    Heads,
    LayerRange,
    LayersStatement,
    ModelSpec,
    Norm,
    Rope,
    Settings,
    Window,
)

VOCAB_SIZE = 37


@dataclass(frozen=True)
class _Source:
    """A cache that layers above may read."""

    ref: CacheRef
    kv_heads: Heads
    window: int | None


def ropes() -> st.SearchStrategy[Rope]:
    """Every kind of rope; half of the dimensions or all, so that a head_dim of 4 still has a pair."""
    return st.builds(
        Rope,
        kind=st.sampled_from(("none", "half", "interleaved", "interleaved-linspace")),
        theta=st.sampled_from((100.0, 10000.0)),
        percent=st.sampled_from((50, 100)),
    )


def norms() -> st.SearchStrategy[Norm]:
    """Norms with visible differences in eps."""
    return st.builds(Norm, kind=st.sampled_from(("rms", "layernorm")), eps=st.sampled_from((1e-6, 1e-3)))


def _bias() -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from(((), ("qkv",), ("qkv", "out"), ("ffn",), ("qkv", "out", "ffn")))


def _ffns() -> st.SearchStrategy[Ffn]:
    return st.builds(Ffn, kind=st.sampled_from(("swiglu", "gelu")), hidden_size=st.sampled_from((8, 24)))


def _kv_heads() -> st.SearchStrategy[Heads]:
    return st.builds(Heads, count=st.integers(1, 3), head_dim=st.sampled_from((4, 8)))


def _windows() -> st.SearchStrategy[Window | None]:
    return st.none() | st.builds(Window, size=st.integers(1, 9))


@st.composite
def specs(draw: st.DrawFn, max_layers: int = 6) -> ModelSpec:
    """Small valid specs: any mixture of owners, readers, projections, windows, retention and plain layers."""
    num_layers = draw(st.integers(1, max_layers))
    sources: list[_Source] = []
    statements: list[LayersStatement | CacheStatement] = []
    for number in range(1, num_layers + 1):
        statements.append(_layer(draw, number, sources))
        if draw(st.integers(0, 4)) == 0:
            statements.append(_projection(draw, number, sources))
    return ModelSpec(
        name="generated",
        num_layers=num_layers,
        hidden_size=draw(st.sampled_from((16, 24))),
        vocab_size=VOCAB_SIZE,
        embedding=Embedding(scale=draw(st.sampled_from((1.0, 0.5, "sqrt(width)"))), tied=draw(st.booleans())),
        defaults=Settings(
            norm=draw(norms()),
            rope=draw(ropes()),
            ffn=draw(_ffns()),
            qk_norm=draw(st.none() | norms()),
            bias=draw(_bias()),  # type: ignore[arg-type]
            residual=draw(st.sampled_from((None, "parallel"))),  # type: ignore[arg-type]
        ),
        statements=tuple(statements),
    )


def _layer(draw: st.DrawFn, number: int, sources: list[_Source]) -> LayersStatement:
    """One layer; owners of K/V are appended to `sources`."""
    mixers = ["attend", "attend", "retention", "ffn-only", *(["cross-attend"] * 3 if sources else [])]
    mixer = draw(st.sampled_from(mixers))
    ranges = (LayerRange(first=number, last=number),)
    if mixer == "cross-attend":
        return _reader(draw, ranges, draw(st.sampled_from(sources)))
    if mixer == "ffn-only":
        return LayersStatement(ranges=ranges, mixer="ffn-only")
    kv_heads = draw(_kv_heads())
    if mixer == "retention":
        return LayersStatement(ranges=ranges, mixer="retention", settings=Settings(heads=kv_heads))
    window = draw(_windows())
    sources.append(_Source(CacheRef(layer=number), kv_heads, window.size if window else None))
    settings = Settings(
        heads=_query_heads(draw, kv_heads), kv_heads=kv_heads, window=window, rope=draw(st.none() | ropes())
    )
    return LayersStatement(ranges=ranges, mixer="attend", settings=settings)


def _query_heads(draw: st.DrawFn, kv_heads: Heads) -> Heads:
    return Heads(count=kv_heads.count * draw(st.integers(1, 3)), head_dim=kv_heads.head_dim)


def _reader(draw: st.DrawFn, ranges: tuple[LayerRange, ...], source: _Source) -> LayersStatement:
    """A reader whose window is at most what the cache keeps."""
    window = draw(_windows())
    if source.window is not None:
        window = Window(size=min(source.window, window.size or 1) if window else source.window)
    ffn = draw(st.none() | _ffns() | st.just(Ffn(kind="none")))
    settings = Settings(heads=_query_heads(draw, source.kv_heads), window=window, ffn=ffn)
    return LayersStatement(ranges=ranges, mixer="cross-attend", source=source.ref, settings=settings)


def _projection(draw: st.DrawFn, number: int, sources: list[_Source]) -> CacheStatement:
    """A projection of layer `number`'s output, named or not. It takes the place of the layer's own K/V for readers."""
    name = draw(st.none() | st.just(f"c{number}"))
    kv_heads, window = draw(_kv_heads()), draw(_windows())
    ref = CacheRef(name=name) if name else CacheRef(layer=number)
    sources[:] = [source for source in sources if source.ref.layer != number]
    sources.append(_Source(ref, kv_heads, window.size if window else None))
    settings = Settings(kv_heads=kv_heads, window=window, norm=draw(st.none() | norms() | st.just(Norm(kind="none"))))
    return CacheStatement(layer=number, name=name, settings=settings)


@st.composite
def contexts(draw: st.DrawFn, max_len: int = 24) -> tuple[int, int, tuple[int, ...]]:
    """Batch size, number of tokens, and a partition of a prompt that leaves at least one token to decode."""
    batch, num_tokens = draw(st.integers(1, 2)), draw(st.integers(2, max_len))
    prompt = draw(st.integers(1, num_tokens - 1))
    chunks: list[int] = []
    while sum(chunks) < prompt:
        chunks.append(draw(st.integers(1, prompt - sum(chunks))))
    return batch, num_tokens, tuple(chunks)
