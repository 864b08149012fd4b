"""Retention: chunks, recurrence and the definition agree, and a long memory lasts in bfloat16."""

import hand_plans
import pytest
import torch
from hand_plans import tokens

import archspec
from archspec.plan import RetentionPlan
from archspec.runtime import retention, retention_kernels
from archspec.runtime.recurrence import CHUNK_LEN, retain_chunks, retain_one
from archspec.runtime.retention import GATE_NORMALIZER, Retention, fixed_log_decay
from archspec.runtime.retention_kernels import TORCH, Kernels, fla_kernels, pick_kernels
from archspec.spec.model import Rope


def inputs(length, seed=0, heads=2, dim=4, batch=2):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, length, dim, generator=generator)
    log_decay = -torch.rand(batch, heads, length, generator=generator)
    state = torch.randn(batch, heads, dim, dim, generator=generator)
    return q, k, v, log_decay, state


def retain_by_definition(q, k, v, log_decay, state):
    out = torch.zeros_like(v)
    for t in range(q.shape[2]):
        state = log_decay[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = torch.einsum("bnh,bnhe->bne", q[:, :, t], state)
    return out, state


@pytest.mark.parametrize("length", [2, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN + 5])
def test_chunks_agree_with_the_definition(length):
    q, k, v, log_decay, state = inputs(length)
    out, final = retain_chunks(q, k, v, log_decay, state)
    expected, expected_final = retain_by_definition(q, k, v, log_decay, state)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(final, expected_final, atol=1e-4, rtol=1e-4)


def test_one_token_agrees_with_the_definition():
    arguments = inputs(1)
    for found, expected in zip(retain_one(*arguments), retain_by_definition(*arguments), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_fast_decay_neither_overflows_nor_loses_gradients():
    q, k, v, log_decay, state = inputs(200)
    log_decay = (log_decay * 100).requires_grad_()
    out, final = retain_chunks(q, k, v, log_decay, state)
    (out.sum() + final.sum()).backward()
    assert out.isfinite().all()
    assert log_decay.grad.isfinite().all()


@pytest.mark.parametrize("chunked", [True, False])
@torch.no_grad()
def test_long_memory_in_bfloat16(chunked):
    """0.9989 a step keeps 0.33 after 1000 steps; a bfloat16 decay is 1.0 and would keep all of it."""
    hidden_size, steps = 8, 1000
    plan = RetentionPlan(2, 4, 0, Rope(kind="none"), 1e-5)
    module = Retention(plan, hidden_size).to(torch.bfloat16)
    gate = 4.02  # logsigmoid(gate) / 16 is about log(0.9989)
    module.k_proj.weight.zero_()
    module.gt_proj.weight.copy_(torch.full((2, hidden_size), gate / hidden_size))
    x = torch.ones(1, steps, hidden_size, dtype=torch.bfloat16)
    state = torch.ones(1, 2, 4, 4)
    for part in [x] if chunked else x.split(1, dim=1):
        _, state = module(part, {}, state)
    decay = torch.nn.functional.logsigmoid(module.gt_proj(x[:, :1]).float()).div(GATE_NORMALIZER).exp()
    assert state.dtype == torch.float32
    assert 0.9985 < float(decay[0, 0, 0]) < 0.9992
    torch.testing.assert_close(state, (decay[0, 0, 0].double() ** steps).float().expand_as(state), atol=2e-3, rtol=0)
    assert 0.2 < float(state[0, 0, 0, 0]) < 0.45


def test_bfloat16_decoding_stays_near_its_prefill():
    model = hand_plans.sharp_model(hand_plans.retention(), dtype="bfloat16")
    ids = tokens(1, 100)
    whole, stepwise = model.new_cache(1, 100), model.new_cache(1, 100)
    expected = model.prefill(ids, whole)
    for t in range(100):
        found = model.decode(ids[:, t], stepwise)
    torch.testing.assert_close(stepwise.storage.states[0], whole.storage.states[0], atol=0.1, rtol=0.05)
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)


def test_fixed_decays_are_those_of_retnet():
    decays = fixed_log_decay(4, torch.float64, torch.device("cpu")).exp()
    torch.testing.assert_close(decays, torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128, 1 - 1 / 256]).double())


@pytest.mark.parametrize("decay", ["fixed", "none"])
@torch.no_grad()
def test_constant_decays_by_definition(decay):
    plan = RetentionPlan(2, 4, 0, Rope(kind="none"), 1e-5, decay)
    module = Retention(plan, 8)
    assert "gt_proj.weight" not in module.state_dict()
    x = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(0))
    _, state = module(x, {}, None)
    k, v = (p(x).view(7, 2, 4) for p in (module.k_proj, module.v_proj))
    for head in range(2):
        factor = 1.0 if decay == "none" else 1 - 2.0 ** -(5 + head)
        expected = sum(factor ** (6 - t) * torch.outer(k[t, head] * 0.5, v[t, head]) for t in range(7))
        torch.testing.assert_close(state[0, head], expected, atol=1e-5, rtol=0)


class StandIn:
    """`fla.ops.simple_gla` as its documentation has it: (B, T, H, D), and nothing but keywords behind v."""

    @staticmethod
    def _run(q, k, v, *, g, scale, initial_state, output_final_state):
        assert all(tensor.is_contiguous() for tensor in (q, k, v, g))
        assert q.shape[:3] == g.shape
        assert initial_state.dtype == torch.float32
        assert output_final_state
        q, k, v, g = (tensor.transpose(1, 2) for tensor in (q * scale, k, v, g))
        out, state = retain_by_definition(q, k, v, g, initial_state)
        return out.transpose(1, 2), state

    chunk_simple_gla = fused_recurrent_simple_gla = _run


@pytest.fixture
def fla(monkeypatch):
    """A machine that has `fla`."""
    monkeypatch.setattr(retention_kernels, "find_spec", lambda name: name == "fla" or None)
    monkeypatch.setattr(retention_kernels, "import_module", {"fla.ops.simple_gla": StandIn}.__getitem__)
    retention_kernels._kernel.cache_clear()
    yield
    retention_kernels._kernel.cache_clear()


@pytest.mark.usefixtures("fla")
@pytest.mark.parametrize("length", [1, 70])
def test_contract_of_the_kernels(length):
    arguments = inputs(length)
    reference = retain_one if length == 1 else retain_chunks
    for kernel in fla_kernels():
        for found, expected in zip(kernel(*arguments), reference(*arguments), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("fla")
def test_kernels_are_for_cuda():
    class OnCuda:
        is_cuda = True

    assert pick_kernels(OnCuda()) is fla_kernels()
    assert pick_kernels(torch.zeros(1)) is TORCH


def test_without_the_package():
    assert fla_kernels() is None


@pytest.mark.usefixtures("fla")
@pytest.mark.parametrize("length", [1, 70])
def test_kernels_in_a_graph(monkeypatch, length):
    """The layer compiled whole, forward and backward, with the kernels in it."""
    torch._dynamo.reset()
    plan = RetentionPlan(2, 4, 0, Rope(kind="none"), 1e-5)
    module, calls = Retention(plan, 8), []
    x = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    state = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    expected, expected_state = module(x, {}, state)
    wanted = torch.autograd.grad(expected.square().sum() + expected_state.square().sum(), x)[0]
    monkeypatch.setattr(retention, "pick_kernels", lambda q: fla_kernels())
    monkeypatch.setattr(retention_kernels, "_call", counted(retention_kernels._call, calls))
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    found, found_state = compiled(x, {}, state)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found_state, expected_state, atol=1e-5, rtol=1e-4)
    (found.square().sum() + found_state.square().sum()).backward()
    torch.testing.assert_close(x.grad, wanted, atol=1e-4, rtol=1e-3)
    assert calls == [length == 1] * 2


def counted(function, calls):
    def call(*args):
        calls.append(args[-1])
        return function(*args)

    return call


def test_products_with_the_state_stay_wide_under_autocast(monkeypatch):
    """Rounded to bfloat16, a state forgets; and such graphs did not compile with lengths that vary."""
    seen = []

    def watched(q):
        kernels = pick_kernels(q)
        return Kernels(
            lambda *inputs: (seen.append(torch.is_autocast_enabled("cpu")), kernels.chunk(*inputs))[1], kernels.step
        )

    monkeypatch.setattr("archspec.runtime.retention.pick_kernels", watched)
    spec = "model m { layers 1, width 32, vocab 40, heads 2 x 16, ffn gelu(32), rope 10000\nlayers 1 retention }"
    model = archspec.compile(archspec.parse_spec_text(spec), compile=False)
    ids = torch.randint(0, 40, (1, 150), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(ids)
    loss.backward()
    assert seen == [False]
    assert abs(loss.item() - model.loss(ids).item()) < 0.02
