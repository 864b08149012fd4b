"""Layers one by one -> statements; lowering the statements gives the layers back."""

from hypothesis import given
from hypothesis import strategies as st

from archspec.graph.lower import lower
from archspec.spec.fold import LayerDescription, fold_layers
from archspec.spec.format import format_spec
from archspec.spec.model import CacheRef, Ffn, Heads, ModelSpec, Norm, Rope, Settings, Window

SIZES = Settings(heads=Heads(count=4, head_dim=8), ffn=Ffn(kind="swiglu", hidden_size=64), rope=Rope(kind="half"))


def attend(window=None):
    settings = SIZES.model_copy(update={"window": Window(size=window) if window else None})
    return LayerDescription("attend", settings)


def read(layer, window=None):
    return LayerDescription("cross-attend", attend(window).settings, CacheRef(layer=layer))


def spec_of(layers):
    folded = fold_layers(layers)
    return ModelSpec(
        name="m",
        num_layers=len(layers),
        hidden_size=32,
        vocab_size=8,
        defaults=folded.defaults,
        statements=folded.statements,
    )


def lines_of(layers):
    return [line.strip() for line in format_spec(spec_of(layers)).partition("\n\n")[2].splitlines()[:-1]]


def test_equal_layers_are_one_range():
    assert lines_of([attend()] * 4) == ["layers 1-4 attend"]


def test_what_is_common_stands_in_the_header():
    folded = fold_layers([attend(8)] * 2)
    assert folded.defaults == attend(8).settings
    assert folded.statements[0].settings == Settings()


def test_a_window_of_some_layers_stays_with_them():
    assert lines_of([attend(8), attend(8), attend()]) == ["layers 1-2 attend, window 8", "layers 3 attend"]


def test_alternating_layers_are_steps():
    layers = [attend(), read(1), attend(), read(3), attend(), read(5)]
    assert lines_of(layers)[0] == "layers 1-5 step 2 attend"


def test_two_distant_layers_are_no_step():
    assert lines_of([attend(), attend(4), attend()]) == ["layers 1, 3 attend", "layers 2 attend, window 4"]


def test_the_scattered_majority_is_the_rest():
    layers = [attend(4) if number % 6 else attend() for number in range(1, 27)]
    assert lines_of(layers) == ["layers 6-24 step 6 attend", "layers rest attend, window 4"]


def test_a_setting_counts_only_where_it_means_something():
    retention = LayerDescription("retention", SIZES)
    assert fold_layers([retention, attend(8)]).defaults.window == Window(size=8)
    kv = LayerDescription("attend", SIZES.model_copy(update={"kv_heads": Heads(count=2, head_dim=8)}))
    assert fold_layers([kv, read(1)]).defaults.kv_heads == Heads(count=2, head_dim=8)


SETTINGS = st.builds(
    Settings,
    heads=st.sampled_from([Heads(count=4, head_dim=8), Heads(count=2, head_dim=16)]),
    kv_heads=st.sampled_from([None, Heads(count=2, head_dim=8)]),
    window=st.sampled_from([None, Window(size=4), Window(size=9)]),
    rope=st.sampled_from([Rope(kind="half"), Rope(kind="half", theta=1e6), Rope(kind="none")]),
    norm=st.sampled_from([Norm(kind="rms", eps=1e-5), Norm(kind="layernorm", eps=1e-6)]),
    qk_norm=st.sampled_from([None, Norm(kind="rms", eps=1e-3)]),
    ffn=st.sampled_from([Ffn(kind="gelu", hidden_size=8), Ffn(kind="swiglu", hidden_size=8)]),
    bias=st.sampled_from([None, ("qkv",), ("qkv", "out", "ffn")]),
)
LAYERS = st.lists(
    st.builds(LayerDescription, st.sampled_from(["attend", "retention", "ffn-only"]), SETTINGS), min_size=1, max_size=20
)


@given(LAYERS)
def test_folding_loses_nothing(layers):
    """Each layer, described alone in a statement, lowers to what it lowers to in the folded spec."""
    folded = lower(spec_of(layers)).layers
    assert list(folded) == list(range(1, len(layers) + 1))
    for number, layer in enumerate(layers, start=1):
        alone = lower(spec_of([layer])).layers[1]
        for key in ("mixer", "heads", "kv_heads", "window", "rope", "norm", "qk_norm", "ffn", "bias"):
            assert getattr(folded[number], key) == getattr(alone, key), key
