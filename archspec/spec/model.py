"""The pydantic models of a spec: what a `.arch` file says, statement by statement, before anything is derived.

A spec keeps ranges folded as they were written, so that it prints back as text, and it may be inconsistent:
`archspec.checks` is where a spec is judged, whether it came from text, from JSON or from Python.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from archspec.notebook import Shown

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]
CacheName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*$")]


Spread = Literal["alike", "across", "each"]
"""How the norm of queries, keys or values goes over heads: each by itself with the weights that all share; all heads
together (`across heads`, OLMo 2); each by itself with weights of its own (`each head`, Cohere)."""


class Node(BaseModel):
    """Base of every spec model: immutable, no unknown fields, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Heads(Node):
    """`heads 24 x 128`, `kv heads 8 x 128`; without a head_dim, `heads 24` divide the width, kv heads follow."""

    count: Count
    head_dim: Count | None = None


class Window(Node):
    """`window 1024`: the current token and the 1023 before it. `no window` (`size=None`): everything.

    `window 1020, sinks 4` keeps the first 4 positions as well (StreamingLLM, arXiv 2309.17453).
    """

    size: Count | None
    sinks: Annotated[int, Field(ge=0)] = 0


class LinearScaling(Node):
    """`scaled linear(8)`: every frequency divided by `factor` (arXiv 2306.15595)."""

    kind: Literal["linear"] = "linear"
    factor: Positive


class Llama3Scaling(Node):
    """`scaled llama3(8, low 1, high 4, original 8192)` (Llama 3.1, arXiv 2407.21783).

    Wavelengths longer than original / low tokens are stretched by `factor`, those shorter than original / high stay;
    between them the share that is stretched falls linearly in original / wavelength.
    """

    kind: Literal["llama3"] = "llama3"
    factor: Positive
    low: Positive
    high: Positive
    original: Count
    """Tokens of context before it was extended."""


class YarnScaling(Node):
    """`scaled yarn(32, original 4096)` (arXiv 2309.00071): `slow` to `fast` rotations in the original context are
    where stretching by `factor` fades out, linearly in the dimension.

    Cosines and sines are multiplied by `attention_factor`; 0.1 ln(factor) + 1 if nothing is said. With `no truncate`
    the ends of the ramp are not rounded to whole dimensions (gpt-oss).
    """

    kind: Literal["yarn"] = "yarn"
    factor: Positive
    original: Count
    fast: Positive = 32.0
    slow: Positive = 1.0
    attention_factor: Positive | None = None
    truncate: bool = True


Scaling = LinearScaling | Llama3Scaling | YarnScaling


def scaling_problem(rope: str, theta: float, scaling: Scaling) -> str | None:
    """What is wrong with a scaling for a kind and base of rope; None if nothing is."""
    if scaling.kind != "linear" and rope not in ("half", "interleaved"):
        return f"needs the frequencies of `half` or `interleaved`; `{rope}` takes `scaled linear` alone"
    if scaling.kind == "llama3" and scaling.low >= scaling.high:
        return "needs a `high` of more than `low`"
    if scaling.kind == "yarn" and scaling.slow >= scaling.fast:
        return "needs a `fast` of more than `slow`"
    if scaling.kind == "yarn" and theta <= 1:
        return "needs a base of more than 1"
    return None


class Rope(Node):
    """`rope 10000`, `rope interleaved(10000)`, `rope 10000 on 25%`: rotary positions (arXiv 2104.09864).

    `half` rotates dimension i with i + head_dim / 2 (Llama), `interleaved` rotates pairs 2i, 2i + 1 (GPT-J),
    `interleaved-linspace` is the latter with frequencies theta ** -linspace(0, 1, head_dim / 2), end point
    included (YOCO's code). `none` is `no rope`. `percent` of the dimensions, the first ones, are rotated.

    `proportional` pairs as `half` does over the whole head, with the frequencies of the whole head, of which all but
    the first `percent` are zero (Gemma 4).
    """

    kind: Literal["none", "half", "interleaved", "interleaved-linspace", "proportional"]
    theta: Positive = 10000.0
    percent: Annotated[int, Field(ge=1, le=100)] = 100
    scaling: Annotated[Scaling, Field(discriminator="kind")] | None = None
    """`rope 500000 scaled llama3(...)`: longer contexts than the frequencies were trained for."""


class Norm(Node):
    """`norm rms(1e-5)` (arXiv 1910.07467), `norm layernorm(1e-5)` (weight and bias). `none` is `no norm`."""

    kind: Literal["none", "rms", "layernorm"]
    eps: Positive | None = None
    plus_one: bool = False
    """`rms(1e-6, 1+w)`: the factor is 1 + weight, and in float32 (Gemma)."""
    weight: bool = True
    """False is `no weight`: neither weight nor bias are learned (OLMo's layernorm, arXiv 2402.00838)."""
    bias: bool = True
    """False is `layernorm(1e-5, no bias)` (Cohere); RMS norms have none anyway."""
    spread: Spread = "alike"
    """Of `qk-norm` and `v-norm` only."""


FfnKind = Literal[
    "swiglu",
    "geglu",
    "geglu-tanh",
    "reglu",
    "swiglu-clamped",
    "gelu",
    "gelu-tanh",
    "gelu-quick",
    "silu",
    "relu",
    "relu2",
]


class Ffn(Node):
    """`ffn swiglu(8192)`: down(silu(gate x) * up x), `geglu` and `reglu` the same with GELU and ReLU.

    `gelu`: down(gelu(up x)), and so `silu`, `relu`, `relu2` (its square). GELU is exact; `-tanh` is the tanh
    approximation (Gemma), `-quick` x * sigmoid(1.702 x). `swiglu-clamped` is gpt-oss's: g * sigmoid(1.702 g) * (u + 1)
    with g = min(gate x, 7) and u = up x between -7 and 7. `none` is `no ffn`.
    """

    kind: Literal["none"] | FfnKind
    hidden_size: Count | None = None


class Groups(Node):
    """`groups 4 of 8`: experts come from the 4 groups whose two best scores add up to most (DeepSeek-V3)."""

    chosen: Count
    total: Count


class SharedFfn(Node):
    """`shared swiglu(2048)`, `shared swiglu(2048) gated`; several experts that every token takes are one wide ffn."""

    ffn: Ffn
    gated: bool = False


class Moe(Node):
    """`ffn moe(top 8 of 128 swiglu(768), shared swiglu(2048))`: a mixture of experts (arXiv 1701.06538).

    Every token goes through the `top` experts with the highest scores, of equal ones the first. An expert's output
    counts by its weight: the softmax or sigmoid of its logit, divided by the sum over the chosen ones (not with
    `no renorm`), times `scale`. Every token also goes through the shared ffn; `gated` multiplies that by the sigmoid of
    one more linear map (Qwen2-MoE).
    """

    kind: Literal["moe"] = "moe"
    top: Count
    num_experts: Count
    expert: Ffn
    shared: SharedFfn | None = None
    router: Literal["softmax", "sigmoid"] = "softmax"
    router_bias: bool = False
    """`router bias`: of the logits (gpt-oss)."""
    selection_bias: bool = False
    """`selection bias`: a stored number an expert, added to the scores that choose, not to the weights (DeepSeek-V3,
    arXiv 2412.19437, section 2.1.2). A buffer: no gradient trains it."""
    renorm: bool = True
    groups: Groups | None = None
    scale: Positive = 1.0


BiasTarget = Literal["qkv", "out", "ffn"]
Placement = Literal["pre", "post", "sandwich"]
Decay = Literal["gated", "fixed", "none"]
DECAYS: dict[str, Decay] = {"retention": "gated", "fixed-retention": "fixed", "linear-attention": "none"}
"""Mixers that keep a recurrent state, and how it forgets."""
Residual = Literal["sequential", "parallel", "parallel-one-norm"]
"""`residual parallel`: mixer and ffn both see the layer's input, each through a norm of its own (GPT-NeoX).
`residual parallel-one-norm`: both through the same (GPT-J, Phi-2, Falcon-7B, Cohere)."""


class Settings(Node):
    """What the header may give as default and a statement may say for itself; `no rope` takes a default back.

    None means "not said here".
    """

    heads: Heads | None = None
    kv_heads: Heads | None = None
    window: Window | None = None
    rope: Rope | None = None
    norm: Norm | None = None
    qk_norm: Norm | None = None
    """`qk-norm`, `qk-norm rms(1e-6)`: norm of each query and key head before rotation."""
    ffn: Annotated[Ffn | Moe, Field(discriminator="kind")] | None = None
    bias: tuple[BiasTarget, ...] | None = None
    """`bias qkv out ffn`: which projections have a bias; `bias` alone is all of them, `no bias` none."""
    residual: Residual | None = None
    """`residual parallel`: x + mixer(norm x) + ffn(norm' x) in place of `sequential`, one after the other."""
    residual_scale: Positive | None = None
    """`residual scale 0.22`: factor on what mixer and ffn add (Granite's residual_multiplier)."""
    layer_scalar: bool | None = None
    """`layer-scalar`: the layer's output times a stored number. A buffer: no gradient trains it (Gemma 4)."""
    placement: Placement | None = None
    """`pre norms`: x + mixer(norm x); `post norms`: x + norm(mixer x) (OLMo 2); `sandwich norms`: both (Gemma 2)."""
    attention_scale: Positive | None = None
    """`attention scale 0.25`, `attention scale rsqrt(16)`; head_dim ** -0.5 if nothing is said."""
    attention_softcap: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """`attention softcap 50`: c * tanh(scores / c) (Gemma 2); 0 is `no softcap`."""
    diagonal: bool | None = None
    """`no diagonal`: a token does not see itself (LCKV's `force_nodiag`)."""
    v_norm: Norm | None = None
    """`v-norm rms(1e-6, no weight)`: norm of each value head (Gemma 3n and 4)."""
    values_from_keys: bool | None = None
    """`values-from-keys`: values are the keys' projection before norm and rotation (Gemma 4's `attention_k_eq_v`)."""
    sink_logits: bool | None = None
    """`sink-logits`: a learned logit a head takes part in the softmax, and has no value (gpt-oss, arXiv 2508.10925)."""
    output_gate: bool | None = None
    """`output-gate`: attention's output times sigmoid(gate x), before the output projection (arXiv 2505.06708)."""


class CacheRef(Node):
    """`cache@12` (the K/V that exist once layer 12 has run), `cache@last`, or `cache main`; exactly one is given.

    `cache@below` is the nearest cache that a layer below the reader writes: another one for each reader.
    """

    layer: int | Literal["last", "below"] | None = None
    name: CacheName | None = None

    def __str__(self) -> str:
        return f"cache {self.name}" if self.name is not None else f"cache@{self.layer}"


class LayerRange(Node):
    """`13-24`, `6-30 step 6`, `7` (first == last), `21-last`; counted from 1, both ends included."""

    first: int | Literal["last"]
    last: int | Literal["last"]
    step: Count = 1

    def __str__(self) -> str:
        if self.step != 1:
            return f"{self.first}-{self.last} step {self.step}"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


Mixer = Literal["attend", "cross-attend", "retention", "fixed-retention", "linear-attention", "ffn-only"]
"""What mixes the tokens of a layer.

- `attend`: softmax attention over the layer's own keys and values.
- `cross-attend`: `cross-attend to cache@12`, softmax attention over a cache; the layer owns queries only.
- `retention`: a recurrent state of constant size that forgets as the input says (YOCO, arXiv 2405.05254).
- `fixed-retention`: a recurrent state that each head forgets at a rate of its own (RetNet, arXiv 2307.08621).
- `linear-attention`: a recurrent state that never forgets (arXiv 2006.16236).
- `ffn-only`: no mixer; the layer is its ffn.
"""


class LayersStatement(Node):
    """`layers 13-24 cross-attend to cache@12, heads 24 x 128`: which layers, their mixer, what differs from the header.

    `ranges == ()` is `layers rest`: every layer that no other statement declares.
    """

    kind: Literal["layers"] = "layers"
    ranges: tuple[LayerRange, ...]
    mixer: Mixer
    source: CacheRef | None = None
    settings: Settings = Settings()


class CacheStatement(Node):
    """`cache main@13: kv heads 8 x 128, norm rms`: a new projection of layer 13's output (YOCO, arXiv 2405.05254)."""

    kind: Literal["cache"] = "cache"
    layer: int | Literal["last"]
    name: CacheName | None = None
    settings: Settings = Settings()


class IterateStatement(Node):
    """`iterate layers 2-21: 7 forward, 2 backward` (LCKV, arXiv 2405.10637): passes over readers of later layers."""

    kind: Literal["iterate"] = "iterate"
    first: int | Literal["last"]
    last: int | Literal["last"]
    forward: Annotated[int, Field(ge=0)]
    backward: Annotated[int, Field(ge=0)]


class PrefillExitStatement(Node):
    """`prefill exit after cache@13`: an assertion that the checker verifies against the derived exit."""

    kind: Literal["prefill-exit"] = "prefill-exit"
    after: CacheRef


Statement = Annotated[
    LayersStatement | CacheStatement | IterateStatement | PrefillExitStatement, Field(discriminator="kind")
]


class Positions(Node):
    """`positions learned 1024`: a vector for each of 1024 positions, added to the embedding (GPT-2).

    `from 2`: the first position has row 2 of a table with as many rows more (OPT).
    """

    kind: Literal["learned"] = "learned"
    count: Count
    first_row: Annotated[int, Field(ge=0)] = 0

    @property
    def num_rows(self) -> int:
        return self.first_row + self.count


class Embedding(Node):
    """`embed scale sqrt(width)`, `embed scale 0.5`, `tied embeddings` (the output matrix is the input matrix).

    What enters the first layer is norm(scale * row of the token + row of the position).
    """

    scale: Positive | Literal["sqrt(width)"] = 1.0
    """`embed scale sqrt(width)`, `embed scale 0.5`: factor on embeddings."""
    tied: bool = False
    """`tied embeddings`: the output matrix is the input matrix."""
    positions: Positions | None = None
    """`positions learned 1024`: a vector for each position, added to the embedding (GPT-2)."""
    norm: Norm | None = None
    """`embed norm layernorm(1e-5)`: norm of the embeddings (BLOOM)."""


class ModelSpec(Node, Shown):
    """One `model NAME { ... }`: totals and defaults, then where each layer's keys and values come from."""

    name: ModelName
    num_layers: Count
    """`layers 26`: the total of layers; without it a missing tail could not be seen."""
    hidden_size: Count
    """`width 3072`: the hidden size."""
    vocab_size: Count
    """`vocab 32000`: the size of the vocabulary."""
    embedding: Embedding = Embedding()
    final_norm: Norm | None = None
    """`final norm layernorm(1e-5)`, `no final-norm`; the header's `norm` if nothing is said."""
    head_bias: bool = False
    """`head-bias`: a bias of the logits (GPT-J, Phi-2)."""
    logit_scale: Positive = 1.0
    """`logit scale 0.125`: factor on the logits, before the softcap (Cohere; Granite's 1 / logits_scaling)."""
    final_softcap: Positive | None = None
    """`final softcap 30`: c * tanh(logits / c)."""
    defaults: Settings = Settings()
    statements: tuple[Statement, ...] = ()
