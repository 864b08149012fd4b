"""Every backend against the definition, for every structure of keys that a pass makes, and who is chosen for it."""

import types
from dataclasses import replace

import attention_cases
import flash_stand_in
import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from attention_cases import STRUCTURES, Case, assert_as_defined, given, seen

from archspec.runtime import compiling, flash, flex
from archspec.runtime.attention import Visibility
from archspec.runtime.backends import BACKENDS, attend_auto, attend_flash, attend_flex, call_of, pick_backend
from archspec.runtime.choosing import Call, Kernels, for_rows, why

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CASES = attention_cases.cases()
FLASH_2 = Kernels("flash-attn 2", "flash-attn 2")


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def flash_device(request, monkeypatch):
    """Where FlashAttention's kernels run: those of this machine on CUDA, a stand-in on the CPU."""
    monkeypatch.setattr(flash, "installed", None)
    monkeypatch.setattr(flash, "_functions", {})
    if request.param == "cpu":
        flash.use({"flash-attn 2": flash_stand_in}, "cpu")
    elif flash.load(torch.device("cuda:0")) is None:
        pytest.skip("no flash-attn is installed")
    return request.param


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["sdpa", "matmul", "cpu"])
@torch.no_grad()
def test_products_are_as_defined(backend, device):
    for case in CASES:
        inputs = given(case, device=device)
        found = pick_backend(backend, inputs.q.device, compile=True)(*inputs.args())
        assert_as_defined(case, inputs, found, 2e-5)


@torch.no_grad()
def test_flash_is_as_defined(flash_device):
    by_flash = set()
    for case in CASES:
        inputs = given(case, torch.bfloat16, flash_device)
        choice = why(call_of(inputs.q, inputs.keys, *inputs.args()[3:]), "flash", flash.installed, False)
        if choice.backend == "flash":
            by_flash.add(case.name)
            assert_as_defined(case, inputs, attend_flash(*inputs.args()), 2e-2)
    without = {"start-sinks", "row-sinks", "near-sinks", "ring-narrower"}
    assert by_flash == {case.name for case in STRUCTURES} - without


@torch.no_grad()
def test_what_flash_cannot_do_is_done_all_the_same(flash_device):
    for case in (case for case in CASES if case.sinks or case.ring):
        inputs = given(case, torch.bfloat16, flash_device)
        assert_as_defined(case, inputs, attend_flash(*inputs.args()), 5e-2)
    for case in STRUCTURES:
        inputs = given(case, torch.float32, flash_device)
        assert_as_defined(case, inputs, attend_flash(*inputs.args()), 2e-5)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_gradients_of_flash(flash_device, late, window):
    case = Case("start", tuple(range(9)), tuple(range(9)), front=0, window=window, late=late)
    inputs = given(case, torch.bfloat16, flash_device)
    grads = []
    for attend, dtype in ((attend_flash, torch.bfloat16), (BACKENDS["matmul"], torch.float64)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (inputs.q, inputs.keys, inputs.values)]
        out = attend(*leaves, inputs.visibility, inputs.scoring)
        out[:, :, 1:].double().square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=5e-2, rtol=5e-2)


def test_flash_in_a_graph(flash_device):
    """One graph for lengths, cache lengths and gradients; nothing breaks it."""
    torch._dynamo.reset()
    compiled = torch.compile(attend_flash, fullgraph=True, dynamic=True, backend="aot_eager")
    chunk, row = Case("start", (0, 1, 2, 3, 4), (0, 1, 2, 3, 4), front=0, window=3), STRUCTURES[7]
    with torch.no_grad():
        for case in (chunk, row):
            inputs = given(case, torch.bfloat16, flash_device)
            assert_as_defined(case, inputs, compiled(*inputs.args()), 2e-2)
    inputs = given(chunk, torch.bfloat16, flash_device)
    inputs.q.requires_grad_()
    assert_as_defined(chunk, inputs, compiled(*inputs.args()), 2e-2)
    compiled(*inputs.args()).float().sum().backward()
    assert bool(inputs.q.grad.isfinite().all())


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_flex_is_as_defined(monkeypatch, device):
    """By torch's own reference for it: masks and scores are the same functions that kernels are made of."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    for case in CASES:
        inputs = given(case, device=device)
        assert_as_defined(case, inputs, flex.attend(*inputs.args()), 2e-5)


FLEX_GRAPHS = [
    replace(STRUCTURES[3], sink_logits=True, softcap=2.0),
    replace(STRUCTURES[3], turned_apart=True),
    replace(STRUCTURES[6], pads=(0, 3), late=True),
    STRUCTURES[8],
]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="on CPUs flex is not used in graphs for every length")
@pytest.mark.parametrize("case", FLEX_GRAPHS, ids=str)
@torch.no_grad()
def test_flex_in_a_graph(case):
    torch._dynamo.reset()
    call, inputs = compiling.Caller(True), given(case, device="cuda")
    with call.settings():
        found = call(attend_flex, "", *inputs.args())
    assert_as_defined(case, inputs, found, 2e-3)


@torch.no_grad()
def test_kernels_of_flex():
    torch._dynamo.reset()
    inputs = given(FLEX_GRAPHS[2])
    found = torch.compile(flex.attend, fullgraph=True, dynamic=False)(*inputs.args())
    assert_as_defined(FLEX_GRAPHS[2], inputs, found, 2e-5)


@pytest.mark.parametrize("key_in_front", [False, True])
def test_blocks_of_flex_cover_what_is_visible(monkeypatch, key_in_front):
    """No block that holds something is left out, and nothing in a whole block is hidden."""
    monkeypatch.setattr(flex, "BLOCK", 2)
    full_blocks = 0
    for case in CASES:
        visibility = given(case).visibility
        k_positions = (
            torch.cat((torch.tensor([-1]), visibility.k_positions)) if key_in_front else visibility.k_positions
        )
        mask = flex.block_mask(visibility, k_positions, key_in_front)
        for b, (s, at) in ((b, pair) for b in range(2) for pair in enumerate(case.q)):
            row = 0 if mask.kv_num_blocks.shape[0] == 1 else b
            partial, full = (
                set(indices[row, 0, s // 2, : int(count[row, 0, s // 2])].tolist())
                for indices, count in (
                    (mask.kv_indices, mask.kv_num_blocks), (mask.full_kv_indices, mask.full_kv_num_blocks)
                )
            )  # fmt: skip
            visible = {t + key_in_front for t in seen(case, b, at)} | ({0} if key_in_front else set())
            assert not partial & full
            assert {t // 2 for t in visible} <= partial | full
            assert {2 * block + i for block in full for i in (0, 1)} <= visible
            by_mask = {t for t in range(len(k_positions)) if bool(mask.mask_mod(b, 0, s, t))}
            assert by_mask == visible
            full_blocks += len(full)
    assert full_blocks > 0


def test_blocks_of_flex_leave_out_what_is_far():
    places = torch.arange(4096)
    mask = flex.block_mask(Visibility(places, places, attention_cases.Sight(256), front=0), places, False)
    assert int((mask.kv_num_blocks + mask.full_kv_num_blocks).max()) <= 4
    mask = flex.block_mask(Visibility(places, places, front=0), places, False)
    assert int(mask.kv_num_blocks.max()) == 1  # the diagonal; whole blocks need no mask


@pytest.mark.parametrize(
    ("changes", "wanted", "backend", "reason"),
    [
        ({}, "auto", "flash", "flash-attn 2, rows from the start"),
        ({"one_row": True}, "auto", "flash", "lengths as a tensor"),
        ({"padded": True}, "auto", "flash", "lengths as a tensor"),
        ({"dtype": torch.float32}, "auto", "sdpa", "float16 and bfloat16"),
        ({"dtype": torch.float32, "window": 9}, "auto", "flex", "a block mask"),
        ({"dtype": torch.float64, "window": 9}, "auto", "sdpa", "flex: its kernels take"),
        ({"sinks": 2, "window": 9}, "auto", "flex", "sinks are visible beside the window"),
        ({"head_dim": 512}, "auto", "sdpa", "multiple of 8 up to 256"),
        ({"order": "mixed", "one_row": True, "from_start": False}, "auto", "sdpa", "neither a length nor a window"),
        ({"padded": True, "grad": True}, "auto", "flex", "have no gradient"),
        ({"turned_apart": True, "sinks": 2, "window": 9}, "flash", "sdpa", "a vector of their own"),
        ({"device": "cpu"}, "flash", "sdpa", "for cuda"),
        ({"device": "cpu"}, "flex", "sdpa", "one length"),
        ({"order": "ring", "one_row": True, "from_start": False, "padded": True}, "flash", "sdpa", "padding"),
        ({"order": "ring", "one_row": True, "from_start": False, "sees_self": False}, "flash", "sdpa", "late reader"),
        ({"window": 1, "sees_self": False}, "flash", "sdpa", "sees nothing"),
        ({}, "matmul", "matmul", "causal order, no mask, by plain products"),
        ({"from_start": False, "keys": "tail"}, "sdpa", "sdpa", "each with a mask (the kernel for parts is for CPUs)"),
    ],
)
def test_why(changes, wanted, backend, reason):
    call = Call("cuda", torch.bfloat16, 64, one_row=False, order="line")._replace(**changes)
    choice = why(call, wanted, FLASH_2, True)
    assert choice.backend == backend
    assert reason in choice.reason


def test_why_without_flash():
    call = Call("cuda", torch.bfloat16, 64, one_row=False, order="line")
    assert why(call, "auto", None, True).backend == "sdpa"
    assert "no flash-attn is installed" in why(call, "auto", None, True).reason
    assert why(call._replace(window=64), "auto", None, True).backend == "flex"
    assert why(call._replace(window=64), "auto", None, False).backend == "sdpa"


def test_flash_4_has_no_kernels_for_caches(monkeypatch):
    monkeypatch.setattr(flash, "_functions", {})
    monkeypatch.setattr(flash, "installed", None)
    given_lse = types.SimpleNamespace(flash_attn_func=lambda *a, **k: (flash_stand_in.flash_attn_func(*a, **k), None))
    found = flash.use({"FlashAttention 4": given_lse, "flash-attn 2": flash_stand_in}, "cpu")
    assert found == Kernels("FlashAttention 4", "flash-attn 2", "cpu", 128)
    with torch.no_grad():
        for case in (STRUCTURES[1], STRUCTURES[7]):
            inputs = given(case, torch.bfloat16)
            assert_as_defined(case, inputs, attend_flash(*inputs.args()), 2e-2)
    alone = Kernels("FlashAttention 4", None)
    row = Call("cuda", torch.bfloat16, 64, one_row=True, order="line")
    assert not for_rows(row)
    assert why(row, "flash", alone, True) == ("sdpa", "flash: FlashAttention 4 has no kernel for caches")


def test_flash_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(flash, "installed", None)
    with pytest.raises(ValueError, match="'flash' needs a CUDA device and flash-attn, and there is none for 'cpu'"):
        pick_backend("flash", torch.device("cpu"), True)
    assert pick_backend("auto", torch.device("cuda"), True) is attend_auto if torch.cuda.is_available() else True
