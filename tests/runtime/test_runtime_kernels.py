"""The kernels for few rows: every way that they take through a weight gives the product."""

import itertools

import pytest
import torch

from archspec.runtime import kernels
from archspec.runtime.attention import Scoring, Sight, Visibility
from archspec.runtime.kernels import rows
from archspec.runtime.linear import linear
from archspec.runtime.pages import use_large_pages

if not kernels.load_rows():
    pytest.skip("no C++ compiler here", allow_module_level=True)

ROWS = (*range(1, 10), 15, 16, 17, 31, 32)  # passes of up to 8 rows; tiles of 16, whole and in part, and two
INPUTS = (8, 31, 32, 33, 96, 100)
OUTPUTS = (1, 2, 3, 15, 16, 17, 47)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_product(dtype, bound, bias):
    torch.manual_seed(0)
    for num, inputs, outputs in itertools.product(ROWS, INPUTS, OUTPUTS):
        x, weight = torch.randn(num, 1, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        b = torch.randn(outputs, dtype=dtype) if bias else None
        expected = torch.nn.functional.linear(x.double(), weight.double(), None if b is None else b.double())
        error = (kernels.linear(x, weight, b).double() - expected).abs() / (1 + expected.abs())
        assert error.max() < bound, (num, inputs, outputs)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(70, 1), (2, 3), (1, 40)])
def test_linear_of_many_rows_whether_torch_is_fast_at_bfloat16_or_not(monkeypatch, native, bias, shape):
    monkeypatch.setattr(rows, "TORCH_HAS_BFLOAT16", native)
    torch.manual_seed(0)
    x, weight = torch.randn(*shape, 33, dtype=torch.bfloat16), torch.randn(17, 33, dtype=torch.bfloat16)
    b = torch.randn(17, dtype=torch.bfloat16) if bias else None
    expected = torch.nn.functional.linear(x.double(), weight.double(), None if b is None else b.double())
    with torch.no_grad():
        found = linear(x, weight, b, row_kernels=True)
    assert found.dtype == torch.bfloat16
    assert ((found.double() - expected).abs() / (1 + expected.abs())).max() < 4e-3


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_linear_in_threads():
    torch.manual_seed(0)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):
        x, weight = torch.randn(5, 1, 96, dtype=dtype), torch.randn(1001, 96, dtype=dtype)
        expected = torch.nn.functional.linear(x.double(), weight.double())
        assert ((kernels.linear(x, weight, None).double() - expected).abs() / (1 + expected.abs())).max() < bound


SIGHTS = (Sight(), Sight(window=5), Sight(window=140, sees_self=False))
HEADS = ((1, 1), (6, 2), (5, 5))
"""Query heads, and key and value heads: with one of these, two threads share its keys."""


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("size", [4, 16, 24, 32, 40, 64, 72, 128])
def test_attention_of_a_row_is_the_weighted_mean(dtype, bound, size):
    torch.manual_seed(size)
    for length, (heads, kv), sight, sink in itertools.product((1, 130, 300), HEADS, SIGHTS, (False, True)):
        q = torch.randn(1, heads, 1, size, dtype=dtype)
        keys, values = torch.randn(2, 1, kv, length, size, dtype=dtype)
        logits = torch.randn(heads, dtype=dtype) if sink else None
        places = torch.arange(length)
        visibility = Visibility(torch.tensor([length - 1]), places, sight)
        found = kernels.attend_row(q, keys, values, visibility, Scoring(0.3, None, logits))
        back = length - 1 - places
        seen = (back >= (0 if sight.sees_self else 1)) & (back < (sight.window or length + 1))
        scores = 0.3 * q.double() @ keys.double().repeat_interleave(heads // kv, 1).mT
        scores = scores.masked_fill(~seen, -torch.inf)
        none = torch.zeros(1, heads, 1, 1).double() - torch.inf
        extra = none if logits is None else logits.double()[None, :, None, None]
        weights = torch.cat((scores, extra), dim=-1).softmax(-1)[..., :-1].nan_to_num(0)
        expected = weights @ values.double().repeat_interleave(heads // kv, 1)
        assert (found.double() - expected).abs().max() < bound, (length, heads, sight, sink)


def test_large_pages_keep_what_is_in_memory():
    tensors = [torch.randn(3 << 20), torch.randn(5), torch.randn(2 << 20).to(torch.bfloat16), torch.empty(0)]
    before = [(tensor.data_ptr(), tensor.clone()) for tensor in tensors]
    use_large_pages([*tensors, torch.empty(4, device="meta")])
    for tensor, (address, values) in zip(tensors, before, strict=True):
        assert tensor.data_ptr() == address
        assert torch.equal(tensor, values)
