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


class Rope(Node):
    """`rope 10000`, `rope interleaved(10000)`, `rope 10000 on 25%`: rotary positions (arXiv 2104.09864).

    `half` rotates dimension i with i + head_dim / 2 (Llama), `interleaved` rotates pairs 2i, 2i + 1 (GPT-J),
    `interleaved-linspace` is the latter with frequencies theta ** -linspace(0, 1, head_dim / 2), end point
    included (YOCO's code). `none` is `no rope`. `percent` of the dimensions, the first ones, are rotated.
    """

    kind: Literal["none", "half", "interleaved", "interleaved-linspace"]
    theta: Positive = 10000.0
    percent: Annotated[int, Field(ge=1, le=100)] = 100


class Norm(Node):
    """`norm rms(1e-5)` (arXiv 1910.07467), `norm layernorm(1e-5)` (weight and bias). `none` is `no norm`."""

    kind: Literal["none", "rms", "layernorm"]
    eps: Positive | None = None
    plus_one: bool = False
    """`rms(1e-6, 1+w)`: the factor is 1 + weight, and in float32 (Gemma)."""


class Ffn(Node):
    """`ffn swiglu(8192)`: down(silu(gate x) * up x), `geglu` the same with GELU; `gelu`: down(gelu(up x)).

    GELU is exact; with `-tanh` it is the tanh approximation (Gemma). `none` is `no ffn`.
    """

    kind: Literal["none", "swiglu", "geglu", "geglu-tanh", "gelu", "gelu-tanh"]
    hidden_size: Count | None = None


BiasTarget = Literal["qkv", "out", "ffn"]
Placement = Literal["pre", "post", "sandwich"]
Decay = Literal["gated", "fixed", "none"]
DECAYS: dict[str, Decay] = {"retention": "gated", "fixed-retention": "fixed", "linear-attention": "none"}
"""Mixers that keep a recurrent state, and how it forgets."""
Residual = Literal["sequential", "parallel"]
"""`residual parallel`: mixer and ffn both see the layer's input (GPT-J, GPT-NeoX)."""


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
    ffn: Ffn | None = None
    bias: tuple[BiasTarget, ...] | None = None
    """`bias qkv out ffn`: which projections have a bias; `bias` alone is all of them, `no bias` none."""
    residual: Residual | None = None
    """`residual parallel`: x + mixer(norm x) + ffn(norm' x) in place of `sequential`, one after the other."""
    placement: Placement | None = None
    """`pre norms`: x + mixer(norm x); `post norms`: x + norm(mixer x) (OLMo 2); `sandwich norms`: both (Gemma 2)."""
    attention_scale: Positive | None = None
    """`attention scale 0.25`, `attention scale rsqrt(16)`; head_dim ** -0.5 if nothing is said."""
    attention_softcap: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """`attention softcap 50`: c * tanh(scores / c) (Gemma 2); 0 is `no softcap`."""
    diagonal: bool | None = None
    """`no diagonal`: a token does not see itself (LCKV's `force_nodiag`)."""


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


class Embedding(Node):
    """`embed scale sqrt(width)`, `embed scale 0.5`, `tied embeddings` (the output matrix is the input matrix)."""

    scale: Positive | Literal["sqrt(width)"] = 1.0
    """`embed scale sqrt(width)`, `embed scale 0.5`: factor on embeddings."""
    tied: bool = False
    """`tied embeddings`: the output matrix is the input matrix."""


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
    final_softcap: Positive | None = None
    """`final softcap 30`: c * tanh(logits / c)."""
    defaults: Settings = Settings()
    statements: tuple[Statement, ...] = ()
