"""Specs made by Hypothesis, consistent or not: whatever text can express."""

from hypothesis import strategies as st

from archspec.spec.model import (
    CacheRef,
    CacheStatement,
    Embedding,
    Ffn,
    Groups,
    Heads,
    LayerRange,
    LayersStatement,
    LinearScaling,
    Llama3Scaling,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    PrefillExitStatement,
    Rope,
    Settings,
    SharedFfn,
    Window,
    YarnScaling,
)

MAX_LAYERS = 6
names = st.sampled_from(["main", "a", "b-2", "kv_x"])
places = st.one_of(st.integers(0, MAX_LAYERS + 1), st.just("last"))
positive = st.floats(min_value=1e-300, max_value=1e300, allow_nan=False, allow_infinity=False)
heads = st.builds(Heads, count=st.sampled_from([1, 2, 3, 4]), head_dim=st.sampled_from([None, 8, 16, 15]))
windows = st.builds(Window, size=st.sampled_from([None, 1, 4, 8]))
ropes = st.one_of(
    st.just(Rope(kind="none")),
    st.builds(
        Rope,
        kind=st.sampled_from(["half", "interleaved", "interleaved-linspace", "proportional"]),
        theta=st.one_of(st.just(10000.0), positive),
        percent=st.sampled_from([100, 50, 1]),
        scaling=st.none() | st.builds(LinearScaling, factor=positive),
    ),
    st.builds(
        Rope,
        kind=st.sampled_from(["half", "interleaved"]),
        theta=st.floats(min_value=1.001, max_value=1e300),
        scaling=st.builds(
            Llama3Scaling,
            factor=positive,
            low=st.floats(min_value=0.01, max_value=0.5),
            high=st.floats(min_value=0.51, max_value=1e300),
            original=st.integers(1, 10**17),
        )
        | st.builds(
            YarnScaling,
            factor=positive,
            original=st.integers(1, 10**17),
            fast=st.just(32.0) | st.floats(min_value=2.0, max_value=1e300),
            slow=st.just(1.0) | st.floats(min_value=1e-300, max_value=1.5),
            attention_factor=st.none() | positive,
            truncate=st.booleans(),
        ),
    ),
)
norms = st.one_of(
    st.just(Norm(kind="none")),
    st.builds(Norm, kind=st.sampled_from(["rms", "layernorm"]), eps=st.one_of(st.none(), positive)),
)
some_norms = st.one_of(
    norms.filter(lambda norm: norm.kind != "none"),
    st.just(Norm(kind="rms", plus_one=True)),
    st.just(Norm(kind="rms", eps=0.5, weight=False)),
    st.just(Norm(kind="layernorm", weight=False)),
    st.just(Norm(kind="layernorm", eps=1e-5, bias=False)),
)
head_norms = st.one_of(
    norms,
    st.tuples(some_norms, st.sampled_from(["across", "each"])).map(
        lambda made: made[0].model_copy(update={"spread": made[1]})
    ),
)
flags = st.booleans()
sized = st.builds(Ffn, kind=st.sampled_from(["swiglu", "gelu", "relu2"]), hidden_size=st.integers(1, 10**17))
moes = st.builds(
    Moe,
    top=st.integers(1, 4),
    num_experts=st.sampled_from([4, 8, 256]),
    expert=sized,
    shared=st.one_of(st.none(), st.builds(SharedFfn, ffn=sized, gated=st.booleans())),
    router=st.sampled_from(["softmax", "sigmoid"]),
    router_bias=st.booleans(),
    selection_bias=st.booleans(),
    renorm=st.booleans(),
    groups=st.sampled_from([None, Groups(chosen=2, total=2)]),
    scale=st.one_of(st.just(1.0), positive),
)
ffns = st.one_of(st.just(Ffn(kind="none")), sized, moes)
biases = st.sets(st.sampled_from(["qkv", "out", "ffn"])).map(
    lambda chosen: tuple(target for target in ("qkv", "out", "ffn") if target in chosen)
)
refs = st.one_of(st.builds(CacheRef, layer=places), st.builds(CacheRef, name=names))
MAKERS = {
    "residual": st.sampled_from(["sequential", "parallel", "parallel-one-norm"]),
    "residual_scale": positive,
    "layer_scalar": st.booleans(),
    "placement": st.sampled_from(["pre", "post", "sandwich"]),
    "heads": heads,
    "kv_heads": heads,
    "window": windows,
    "rope": ropes,
    "norm": norms | some_norms,
    "qk_norm": head_norms,
    "v_norm": head_norms,
    "values_from_keys": flags,
    "sink_logits": flags,
    "output_gate": flags,
    "ffn": ffns,
    "bias": biases,
}
TAKES = {
    "attend": tuple(MAKERS),
    "cross-attend": tuple(MAKERS),
    "retention": ("heads", "rope", "norm", "ffn", "bias", "residual", "residual_scale", "layer_scalar"),
    "ffn-only": ("norm", "ffn", "bias", "layer_scalar"),
    "cache": ("kv_heads", "window", "rope", "norm", "qk_norm", "bias", "v_norm", "values_from_keys"),
}


@st.composite
def settings_of(draw: st.DrawFn, keys: tuple[str, ...]) -> Settings:
    chosen = draw(st.sets(st.sampled_from(keys), max_size=3))
    return Settings(**{key: draw(MAKERS[key]) for key in keys if key in chosen})


# `first` is a number in every range of two ends: the grammar has no `last-3`.
@st.composite
def layer_ranges(draw: st.DrawFn) -> LayerRange:
    first, last = draw(places), draw(places)
    if draw(st.booleans()):
        return LayerRange(first=first, last=first)
    step = draw(st.sampled_from([1, 1, 2, 5]))
    first = first if isinstance(first, int) else 1
    return LayerRange(first=first, last=last, step=1 if first == last else step)


@st.composite
def layers_statements(draw: st.DrawFn) -> LayersStatement:
    mixer = draw(st.sampled_from(["attend", "cross-attend", "retention", "ffn-only"]))
    return LayersStatement(
        ranges=tuple(draw(st.lists(layer_ranges(), max_size=3))),
        mixer=mixer,
        source=draw(refs) if mixer == "cross-attend" else None,
        settings=draw(settings_of(TAKES[mixer])),
    )


caches = st.builds(CacheStatement, layer=places, name=st.one_of(st.none(), names), settings=settings_of(TAKES["cache"]))
exits = st.builds(PrefillExitStatement, after=refs)
embeddings = st.builds(
    Embedding,
    scale=st.one_of(st.just("sqrt(width)"), st.just(1.0), positive),
    tied=st.booleans(),
    positions=st.sampled_from([None, Positions(count=64), Positions(count=2048, first_row=2)]),
    norm=st.none() | some_norms,
)
specs = st.builds(
    ModelSpec,
    name=st.sampled_from(["m", "yoco-3b", "llama_3.1", "_"]),
    num_layers=st.integers(1, MAX_LAYERS),
    hidden_size=st.sampled_from([64, 100, 10**17]),
    vocab_size=st.integers(1, 10**17),
    embedding=embeddings,
    final_norm=st.none() | norms | some_norms,
    head_bias=st.booleans(),
    logit_scale=st.just(1.0) | positive,
    defaults=settings_of(tuple(MAKERS)),
    statements=st.lists(st.one_of(layers_statements(), layers_statements(), caches, exits), max_size=6).map(tuple),
)
