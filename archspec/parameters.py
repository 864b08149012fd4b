"""Names and shapes of the parameters of a layer's parts, in the order of the model's `state_dict`."""

from collections.abc import Iterator

from archspec.spec.model import Ffn, Moe, Norm

Shape = tuple[int, ...]
GATED_FFNS = frozenset({"swiglu", "geglu", "geglu-tanh", "reglu", "swiglu-clamped"})


def moe_shapes(prefix: str, moe: Moe, width: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    """Each matrix of the experts is one tensor, (experts, outputs, inputs)."""
    yield from linear_shapes(f"{prefix}router", width, moe.num_experts, moe.router_bias)
    for name, shape in ffn_shapes(f"{prefix}experts.", moe.expert, width, bias):
        yield name, (moe.num_experts, *shape)
    if moe.shared is not None:
        yield from ffn_shapes(f"{prefix}shared.", moe.shared.ffn, width, bias)
        if moe.shared.gated:
            yield from linear_shapes(f"{prefix}shared_gate", width, 1, False)


def ffn_shapes(prefix: str, ffn: Ffn, width: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    inner = ffn.hidden_size or 0
    if ffn.kind in GATED_FFNS:
        yield from linear_shapes(f"{prefix}gate_proj", width, inner, bias)
    yield from linear_shapes(f"{prefix}up_proj", width, inner, bias)
    yield from linear_shapes(f"{prefix}down_proj", inner, width, bias)


def linear_shapes(name: str, inputs: int, outputs: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def norm_shapes(name: str, norm: Norm, *sizes: int) -> Iterator[tuple[str, Shape]]:
    if norm.kind != "none" and norm.weight:
        yield f"{name}.weight", sizes
        if norm.kind == "layernorm" and norm.bias:
            yield f"{name}.bias", sizes


def head_norm_shapes(name: str, norm: Norm, num_heads: int, head_dim: int) -> Iterator[tuple[str, Shape]]:
    yield from norm_shapes(name, norm, *head_norm_sizes(norm, num_heads, head_dim))


def head_norm_sizes(norm: Norm, num_heads: int, head_dim: int) -> Shape:
    """Shape of the weights of a norm of heads."""
    return {"alike": (head_dim,), "across": (num_heads * head_dim,), "each": (num_heads, head_dim)}[norm.spread]
