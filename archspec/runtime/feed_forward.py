"""Feed-forward parts of a layer: one for all tokens, and mixtures of experts.

Legend: B batch, S query tokens, T tokens of all sequences, D hidden, F ffn, E experts, K chosen experts of a token,
R = T * K rows, sorted by expert.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.parameters import GATED_FFNS
from archspec.runtime.grouped import grouped_product
from archspec.runtime.linear import Linear
from archspec.spec.model import Ffn, Moe

QUICK = 1.702
"""x * sigmoid(1.702 x) is close to GELU (arXiv 1606.08415, section 2)."""
CLAMP = 7.0
"""Bound of `swiglu-clamped` (`swiglu_limit` of gpt-oss)."""
TINY = 1e-20
"""Keeps a sum of sigmoids that all round to zero from dividing (DeepSeek-V3's code)."""


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(QUICK * x)


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


_gelu_tanh = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu-tanh": _gelu_tanh,
    "reglu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": _gelu_tanh,
    "gelu-quick": _quick_gelu,
    "silu": F.silu,
    "relu": F.relu,
    "relu2": _squared_relu,
}
"""Of the gate, in kinds that have one; `swiglu-clamped` is more than a product of two sides."""


def activate(kind: str, up: Tensor, gate: Tensor | None) -> Tensor:
    """What goes into the last matrix of an ffn, given what the others made of its input."""
    if gate is None:
        return ACTIVATIONS[kind](up)
    if kind == "swiglu-clamped":
        return _quick_gelu(gate.clamp(max=CLAMP)) * (up.clamp(-CLAMP, CLAMP) + 1)
    gate = ACTIVATIONS[kind](gate)  # of what the gate was before, no copy is kept
    return gate * up


class FeedForward(nn.Module):
    """down(act(gate x) * up x), or down(act(up x)) for kinds without a gate."""

    def __init__(self, ffn: Ffn, hidden_size: int, bias: bool) -> None:
        super().__init__()
        inner = _inner(ffn)
        self.gate_proj = Linear(hidden_size, inner, bias=bias) if ffn.kind in GATED_FFNS else None
        self.up_proj = Linear(hidden_size, inner, bias=bias)
        self.down_proj = Linear(inner, hidden_size, bias=bias)
        self.kind = ffn.kind

    def forward(self, x_BSD: Tensor) -> Tensor:
        # Nothing of the hidden size has a name here, so that it goes when it is no longer needed.
        out: Tensor = self.down_proj(
            activate(self.kind, self.up_proj(x_BSD), None if self.gate_proj is None else self.gate_proj(x_BSD))
        )
        return out


class GroupedLinear(nn.Module):
    """A linear map an expert: weight (E, outputs, inputs), bias (E, outputs)."""

    def __init__(self, num_experts: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(num_experts, outputs)) if bias else None

    def forward(self, x: Tensor, experts_R: Tensor, ends_E: Tensor) -> Tensor:
        """Rows (R, inputs), sorted by expert, through the map of each. Shapes: ends_E, where each expert's rows end."""
        y = grouped_product(x, self.weight, ends_E)
        return y if self.bias is None else y + self.bias[experts_R]


class Experts(nn.Module):
    """`FeedForward` E times, each for its own rows."""

    def __init__(self, num_experts: int, ffn: Ffn, hidden_size: int, bias: bool) -> None:
        super().__init__()
        inner = _inner(ffn)
        gated = ffn.kind in GATED_FFNS
        self.gate_proj = GroupedLinear(num_experts, hidden_size, inner, bias) if gated else None
        self.up_proj = GroupedLinear(num_experts, hidden_size, inner, bias)
        self.down_proj = GroupedLinear(num_experts, inner, hidden_size, bias)
        self.num_experts, self.kind = num_experts, ffn.kind

    def forward(self, x_RD: Tensor, experts_R: Tensor) -> Tensor:
        """Rows sorted by expert, each through its own."""
        numbers_E = torch.arange(self.num_experts, device=x_RD.device)
        ends_E = torch.searchsorted(experts_R, numbers_E, right=True).to(torch.int32)
        rows = experts_R, ends_E
        out: Tensor = self.down_proj(
            activate(
                self.kind, self.up_proj(x_RD, *rows), None if self.gate_proj is None else self.gate_proj(x_RD, *rows)
            ),
            *rows,
        )
        return out


class MixtureOfExperts(nn.Module):
    """The chosen experts' outputs by weight, and the shared ffn's. No token is dropped, whatever the load."""

    selection_bias: Tensor | None

    def __init__(self, moe: Moe, hidden_size: int, bias: bool) -> None:
        super().__init__()
        self.router = Linear(hidden_size, moe.num_experts, bias=moe.router_bias)
        self.experts = Experts(moe.num_experts, moe.expert, hidden_size, bias)
        self.shared = None if moe.shared is None else FeedForward(moe.shared.ffn, hidden_size, bias)
        has_gate = moe.shared is not None and moe.shared.gated
        self.shared_gate = Linear(hidden_size, 1, bias=False) if has_gate else None
        self.register_buffer("selection_bias", torch.zeros(moe.num_experts) if moe.selection_bias else None)
        self.moe = moe

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MixtureOfExperts":
        """As for any module, but the selection bias stays float32 or wider: it tells scores apart that are close."""
        wide = self.selection_bias
        super()._apply(fn, recurse)
        narrow = self.selection_bias
        if wide is not None and narrow is not None and narrow.element_size() < 4:
            self.selection_bias = wide.to(narrow.device)
        return self

    def forward(self, x_BSD: Tensor) -> Tensor:
        x_TD = x_BSD.flatten(0, 1)
        weights_TK, chosen_TK = self.route(x_TD)
        experts_R, order_R = chosen_TK.flatten().sort(stable=True)
        rows_RD = self.experts(x_TD[order_R // self.moe.top], experts_R)
        # Back in the order of tokens: a sum over an axis is the same every time, unlike one by atomic additions.
        rows_TKD = rows_RD[order_R.argsort()].unflatten(0, (-1, self.moe.top))
        y_TD = (rows_TKD * weights_TK.to(x_TD.dtype)[..., None]).sum(1)
        if self.shared is not None:
            shared_TD = self.shared(x_TD)
            y_TD = y_TD + (shared_TD if self.shared_gate is None else self.shared_gate(x_TD).sigmoid() * shared_TD)
        return y_TD.view_as(x_BSD)

    def route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of each token's experts, (T, K) both; in float32 or wider, whatever the model's dtype."""
        moe, wide = self.moe, torch.promote_types(x_TD.dtype, torch.float32)
        bias = None if self.router.bias is None else self.router.bias.to(wide)
        logits_TE = F.linear(x_TD.to(wide), self.router.weight.to(wide), bias)
        scores_TE = logits_TE.softmax(-1) if moe.router == "softmax" else logits_TE.sigmoid()
        # Scores rise with logits, but where they round to 0 or 1 only the logits tell which expert is better.
        ranked_TE = logits_TE
        if self.selection_bias is not None or moe.groups is not None:
            ranked_TE = scores_TE if self.selection_bias is None else scores_TE + self.selection_bias.to(wide)
        if moe.groups is not None:
            ranked_TE = in_best_groups(ranked_TE, moe.groups.chosen, moe.groups.total)
        chosen_TK = best(ranked_TE, moe.top)
        weights_TK = scores_TE.gather(-1, chosen_TK)
        if moe.renorm:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + TINY)
        return weights_TK * moe.scale, chosen_TK


def best(ranked_TE: Tensor, count: int) -> Tensor:
    """Numbers of the `count` highest of each row, best first; of equal ones the first, which `topk` leaves open."""
    return ranked_TE.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def in_best_groups(ranked_TE: Tensor, count: int, total: int) -> Tensor:
    """Minus infinity for experts outside of the `count` groups whose two best add up to most.

    Source: DeepSeek-V3, arXiv 2412.19437, section 2.1.2, and its inference code.
    """
    ranked_TGE = ranked_TE.unflatten(-1, (total, -1))
    two_best_TG = ranked_TGE.topk(2, dim=-1).values.sum(-1)
    open_TG = torch.zeros_like(two_best_TG, dtype=torch.bool).scatter(-1, best(two_best_TG, count), True)
    return ranked_TGE.masked_fill(~open_TG[..., None], -torch.inf).flatten(1)


def _inner(ffn: Ffn) -> int:
    if ffn.hidden_size is None:
        raise ValueError(f"the plan gives no hidden size for ffn {ffn.kind}")
    return ffn.hidden_size


def make_ffn(ffn: Ffn | Moe, hidden_size: int, bias: bool) -> FeedForward | MixtureOfExperts:
    """The module of a layer's ffn."""
    kind = MixtureOfExperts if isinstance(ffn, Moe) else FeedForward
    return kind(ffn, hidden_size, bias)  # type: ignore[arg-type]
