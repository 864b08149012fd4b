"""Mixtures of experts against loops over tokens and experts, written from the papers and the models' own code."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import archspec
from archspec.runtime import feed_forward
from archspec.runtime.feed_forward import FeedForward, MixtureOfExperts, best
from archspec.runtime.grouped import (
    by_all,
    by_copies,
    by_kernel,
    by_loop,
    grouped_linear,
    grouped_product,
    serves,
    way_of,
)
from archspec.spec.model import Ffn, Groups, Moe, SharedFfn

WIDTH = 12


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def erf_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def tanh_gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def relu(x):
    return x * (x > 0)


GATED = {
    "swiglu": lambda gate: gate * sigmoid(gate),
    "geglu": erf_gelu,
    "geglu-tanh": tanh_gelu,
    "reglu": relu,
}
PLAIN = {
    "gelu": erf_gelu,
    "gelu-tanh": tanh_gelu,
    "gelu-quick": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "relu": relu,
    "relu2": lambda x: relu(x) ** 2,
}


def ffn_by_hand(kind, weights, x):
    """One token through one ffn. `weights`: part -> (matrix, bias or None)."""

    def linear(part, value):
        matrix, bias = weights[part]
        out = torch.stack([sum(matrix[row, i] * value[i] for i in range(len(value))) for row in range(len(matrix))])
        return out if bias is None else out + bias

    up = linear("up_proj", x)
    if kind in PLAIN:
        return linear("down_proj", PLAIN[kind](up))
    gate = linear("gate_proj", x)
    if kind == "swiglu-clamped":  # gpt-oss, modeling_gpt_oss.py
        gate = torch.stack([min(g, torch.tensor(7.0).to(g)) for g in gate])
        up = torch.stack([max(min(u, torch.tensor(7.0).to(u)), torch.tensor(-7.0).to(u)) for u in up])
        return linear("down_proj", (up + 1) * gate * sigmoid(gate * 1.702))
    return linear("down_proj", GATED[kind](gate) * up)


def parts(module, expert=None):
    """The matrices of a FeedForward, or of one of the Experts."""
    found = {}
    for name in ("gate_proj", "up_proj", "down_proj"):
        linear = getattr(module, name)
        if linear is not None:
            weight, bias = linear.weight, linear.bias
            if expert is not None:
                weight, bias = weight[expert], None if bias is None else bias[expert]
            found[name] = (weight, bias)
    return found


def moe_by_hand(moe, module, x):
    """One token through a mixture."""
    logits = [sum(row * x) for row in module.router.weight]
    if moe.router_bias:
        logits = [logit + bias for logit, bias in zip(logits, module.router.bias, strict=True)]
    if moe.router == "sigmoid":
        scores = [sigmoid(logit) for logit in logits]
    else:
        top = max(logits)
        total = sum(torch.exp(logit - top) for logit in logits)
        scores = [torch.exp(logit - top) / total for logit in logits]
    ranked = [float(score) for score in scores]
    if moe.selection_bias:
        ranked = [score + float(bias) for score, bias in zip(ranked, module.selection_bias, strict=True)]
    allowed = set(range(moe.num_experts))
    if moe.groups is not None:  # DeepSeek-V3, arXiv 2412.19437, section 2.1.2
        size = moe.num_experts // moe.groups.total
        members = [range(group * size, (group + 1) * size) for group in range(moe.groups.total)]
        worth = [sum(sorted((ranked[e] for e in group), reverse=True)[:2]) for group in members]
        groups = sorted(range(len(members)), key=lambda group: (-worth[group], group))[: moe.groups.chosen]
        allowed = {expert for group in groups for expert in members[group]}
    chosen = sorted(allowed, key=lambda expert: (-ranked[expert], expert))[: moe.top]
    total = sum(scores[expert] for expert in chosen) if moe.renorm else 1
    out = sum(
        moe.scale * scores[expert] / total * ffn_by_hand(moe.expert.kind, parts(module.experts, expert), x)
        for expert in chosen
    )
    if moe.shared is not None:
        shared = ffn_by_hand(moe.shared.ffn.kind, parts(module.shared), x)
        out = out + (sigmoid(sum(module.shared_gate.weight[0] * x)) * shared if moe.shared.gated else shared)
    return out


def made(module, seed=0):
    """Random weights in float64, large enough that every clamp and every bias shows."""
    generator = torch.Generator().manual_seed(seed)
    module = module.to(torch.float64)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return module


def inputs(*shape, seed=1):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SWIGLU = Ffn(kind="swiglu", hidden_size=5)
MIXTURES = {
    "mixtral": Moe(top=2, num_experts=8, expert=SWIGLU),
    "qwen2": Moe(top=4, num_experts=6, expert=SWIGLU, shared=SharedFfn(ffn=SWIGLU, gated=True), renorm=False),
    "gpt-oss": Moe(top=3, num_experts=7, expert=Ffn(kind="swiglu-clamped", hidden_size=5), router_bias=True),
    "deepseek-v3": Moe(
        top=3,
        num_experts=12,
        expert=SWIGLU,
        shared=SharedFfn(ffn=Ffn(kind="swiglu", hidden_size=9)),
        router="sigmoid",
        selection_bias=True,
        groups=Groups(chosen=2, total=4),
        scale=2.5,
    ),
    "ernie": Moe(top=2, num_experts=5, expert=SWIGLU, selection_bias=True),
    "one of one": Moe(top=1, num_experts=1, expert=Ffn(kind="relu2", hidden_size=3)),
    "switch": Moe(top=1, num_experts=4, expert=Ffn(kind="relu", hidden_size=3), renorm=False),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [*GATED, *PLAIN, "swiglu-clamped"])
@torch.no_grad()
def test_kinds_of_ffn(kind, bias):
    ffn = made(FeedForward(Ffn(kind=kind, hidden_size=7), WIDTH, bias))
    x_TD = 3 * inputs(4)
    expected = torch.stack([ffn_by_hand(kind, parts(ffn), x) for x in x_TD])
    torch.testing.assert_close(ffn(x_TD[None])[0], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_mixtures(name, bias):
    moe = MIXTURES[name]
    module = made(MixtureOfExperts(moe, WIDTH, bias))
    x_BSD = inputs(2, 9)
    expected = torch.stack([torch.stack([moe_by_hand(moe, module, x) for x in row]) for row in x_BSD])
    torch.testing.assert_close(module(x_BSD), expected, atol=1e-9, rtol=1e-9)
    alone = torch.cat([module(x_BSD[:, t : t + 1]) for t in range(9)], dim=1)
    torch.testing.assert_close(alone, expected, atol=1e-9, rtol=1e-9)


def test_softmax_over_the_chosen_is_the_renormalised_softmax():
    """What gpt-oss computes (topk, then softmax) and what Mixtral computes (softmax, topk, renorm) are one thing."""
    module = made(MixtureOfExperts(MIXTURES["mixtral"], WIDTH, False))
    x_TD = inputs(6)
    weights, chosen = module.route(x_TD)
    logits = (x_TD @ module.router.weight.T).gather(-1, chosen)
    torch.testing.assert_close(weights, logits.softmax(-1))


def test_of_equal_experts_the_first_ones_are_chosen():
    assert best(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), 2).tolist() == [[1, 3]]
    module = made(MixtureOfExperts(MIXTURES["mixtral"], WIDTH, False))
    with torch.no_grad():
        module.router.weight.zero_()
    weights, chosen = module.route(inputs(3))
    assert chosen.tolist() == [[0, 1]] * 3
    torch.testing.assert_close(weights, torch.full_like(weights, 0.5))


def test_scores_that_round_to_one_do_not_hide_the_better_expert():
    module = MixtureOfExperts(Moe(top=1, num_experts=3, expert=SWIGLU, router="sigmoid"), WIDTH, False)
    with torch.no_grad():
        module.router.weight.zero_()
        module.router.weight[:, 0] = torch.tensor([40.0, 60.0, 50.0])
    assert module.route(torch.ones(1, WIDTH))[1].tolist() == [[1]]


def test_sigmoids_that_round_to_zero_give_no_nan():
    module = MixtureOfExperts(Moe(top=2, num_experts=3, expert=SWIGLU, router="sigmoid"), WIDTH, False)
    with torch.no_grad():
        module.router.weight.fill_(-1e3)
    assert module.route(torch.ones(1, WIDTH))[0].isfinite().all()


@pytest.mark.parametrize("name", ["qwen2", "gpt-oss", "deepseek-v3"])
def test_gradient(name):
    """Of every parameter and of the input, against finite differences; the choice is held by a wide margin."""
    module = made(MixtureOfExperts(MIXTURES[name], WIDTH, True))
    x_BSD = inputs(1, 3).requires_grad_()
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x_BSD, *values), fast_mode=True)


def test_grouped_product_is_one_operation_for_every_load():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    for sizes in ([3, 0, 2, 1], [0, 0, 0, 6], [6, 0, 0, 0]):
        x = torch.randn(6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
        torch.library.opcheck(torch.ops.archspec.grouped_linear, (x, weight, ends))
        pieces = [rows @ weight[idx].T for idx, rows in enumerate(x.split(sizes))]
        torch.testing.assert_close(grouped_product(x, weight, ends), torch.cat(pieces))


class NoLooks(TorchDispatchMode):
    """As in a capture: the host may not ask for a number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("way", [by_copies, by_all])
@pytest.mark.parametrize("sizes", [[3, 0, 2, 1], [0, 0, 0, 6], [6, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], ids=str)
def test_products_that_a_graph_can_hold_are_the_loop(way, sizes):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
    x = torch.randn(sum(sizes), 6, generator=generator, dtype=torch.float64)
    ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
    with NoLooks():
        found = way(x, weight, ends)
    torch.testing.assert_close(found, by_loop(x, weight, ends))


def test_the_way_of_a_product():
    assert way_of(2, 8, on_cuda=False, capturing=False) is by_loop
    assert way_of(2, 8, on_cuda=True, capturing=False) is by_copies
    assert way_of(2, 8, on_cuda=True, capturing=True) is by_copies
    assert way_of(16, 8, on_cuda=True, capturing=False) is by_all
    assert way_of(4096, 8, on_cuda=True, capturing=False) is by_loop
    assert way_of(4096, 8, on_cuda=True, capturing=True) is by_all
    assert [serves((major, 0)) for major in (8, 9, 10, 12)] == [False, True, True, False]


@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_mixtures_as_on_cuda(name, monkeypatch):
    """Whole mixtures by the ways of a decode step, on this machine, and nothing in them looks at a number."""
    module = made(MixtureOfExperts(MIXTURES[name], WIDTH, True))
    x_BSD = inputs(3, 1)
    expected = module(x_BSD)
    ways = []

    def product(x_RD, weight_EFD, ends_E):
        ways.append(way_of(x_RD.shape[0], weight_EFD.shape[0], on_cuda=True, capturing=True))
        return ways[-1](x_RD, weight_EFD, ends_E)

    monkeypatch.setattr(feed_forward, "grouped_product", product)
    with NoLooks():
        found = module(x_BSD)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert ways


SPEC = """model routed {
  layers 3, width 32, vocab 61, heads 4 x 8, kv heads 2, rope 10000
  ffn moe(top 2 of 8 swiglu(16), shared swiglu(24) gated, router sigmoid, selection bias, scale 2)
  layers 1 attend, ffn swiglu(48)
  layers 2-3 attend
}"""


def test_sizes():
    plan = archspec.plan(archspec.parse_spec_text(SPEC))
    expert, shared = 3 * 32 * 16, 3 * 32 * 24
    attention = 2 * 32 * 32 + 2 * 32 * 16 + 32
    routed = 32 + 8 * 32 + 8 * expert + shared + 32
    total = 2 * 61 * 32 + 32 + 3 * attention + (32 + 3 * 32 * 48) + 2 * routed
    assert plan.num_parameters() == total
    assert plan.num_active_parameters() == total - 2 * 6 * expert
    assert dict(plan.buffer_shapes()) == {f"layers.{idx}.ffn.selection_bias": (8,) for idx in (1, 2)}


def test_buffers_are_saved(tmp_path):
    model = archspec.compile(archspec.parse_spec_text(SPEC), compile=False)
    with torch.no_grad():
        model.layers[1].ffn.selection_bias.copy_(torch.arange(8))
    model.save(tmp_path)
    loaded = archspec.load(tmp_path, compile=False)
    assert loaded.layers[1].ffn.selection_bias.tolist() == list(range(8))
    assert loaded.layers[2].ffn.selection_bias.tolist() == [0] * 8


def test_the_selection_bias_is_never_rounded_to_bfloat16(tmp_path):
    model = archspec.compile(archspec.parse_spec_text(SPEC), dtype="bfloat16", compile=False)
    bias = model.layers[1].ffn.selection_bias
    assert (bias.dtype, bias.tolist()) == (torch.float32, [0.0] * 8)
    with torch.no_grad():
        bias.fill_(1.001)
    model.save(tmp_path)
    loaded = archspec.load(tmp_path, compile=False)
    assert loaded.dtype == torch.bfloat16
    torch.testing.assert_close(loaded.layers[1].ffn.selection_bias, torch.full((8,), 1.001))
    assert loaded.to(torch.float16).layers[1].ffn.selection_bias[0] == torch.tensor(1.001)
    assert loaded(random_ids(1, 3)).isfinite().all()


def both(seed=3):
    models = [archspec.compile(archspec.parse_spec_text(SPEC), seed=seed, compile=compile) for compile in (True, False)]
    for model in models:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    return models


def random_ids(*shape):
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(5))


def test_decoding_compiles_nothing_for_another_batch(graphs):
    """Nor for other experts that its tokens choose: four units, since layers 2 and 3 are of one kind."""
    compiled, eager = both()
    for batch in (2, 5, 3):
        caches = [model.new_cache(batch, 16) for model in (compiled, eager)]
        for ids_B in random_ids(6, batch):
            pairs = zip((compiled, eager), caches, strict=True)
            found, expected = (model.decode(ids_B, cache) for model, cache in pairs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert graphs() == 4


def test_training_compiles_nothing_for_another_length(graphs):
    """Two ends, two kinds of layers, and the loss of a chunk."""
    compiled, eager = both()
    for length in (9, 30):
        for model in (compiled, eager):
            model.zero_grad()
            model.loss(random_ids(2, length)).backward()
        for left, right in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(left.grad, right.grad, atol=1e-4, rtol=1e-3)
        assert graphs() == 5


@pytest.mark.slow
def test_generated_code_agrees_with_eager():
    torch._dynamo.reset()
    compiled, eager = both()
    caches = [model.new_cache(2, 30) for model in (compiled, eager)]
    ids = random_ids(2, 24)
    pairs = list(zip((compiled, eager), caches, strict=True))
    found, expected = (model.prefill(ids[:, :20], cache) for model, cache in pairs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    for t in range(20, 24):
        found, expected = (model.decode(ids[:, t], cache) for model, cache in pairs)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def assert_kernel_agrees_with_loop(device):
    """Values and gradients in bfloat16, of groups with no row, one row and many."""
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (torch.randn(*shape, generator=generator) for shape in ((50, 64), (8, 32, 64), (50, 32)))
    ends = torch.tensor([3, 3, 10, 20, 20, 49, 50, 50], dtype=torch.int32, device=device)
    found = []
    for product in (by_kernel, grouped_linear):
        leaves = [tensor.to(device, torch.bfloat16).requires_grad_() for tensor in (x, weight)]
        rows = product(*leaves, ends)
        (rows * grad.to(device, torch.bfloat16)).sum().backward()
        found.append((rows, *(leaf.grad for leaf in leaves)))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, atol=0.1, rtol=0.02)


def test_one_kernel_for_all_experts_agrees_with_a_loop():
    assert_kernel_agrees_with_loop("cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_kernel_for_all_experts_agrees_with_a_loop_on_cuda():
    assert_kernel_agrees_with_loop("cuda")
