"""Decode steps by the launches of their kernels: the same numbers, in memory of their own, or not by launches at all."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

from archspec.runtime import kernels
from archspec.runtime.kernels import launching
from archspec.runtime.kernels.rows import MOST_ROWS
from archspec.runtime.launches import Buffers, Launches, Watch, make_watchable

if not kernels.load_rows():
    pytest.skip("no C++ compiler here", allow_module_level=True)


@pytest.fixture(scope="module")
def models():
    return sharp_model(hand_plans.dense(), compile=True), sharp_model(hand_plans.dense())


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def calls_of(model, cache):
    """The numbers of calls of all tapes of a cache."""
    return [len(tape.calls) for tape in model.kept_steps._caches[cache].values()]


@torch.no_grad()
def test_outputs_are_kept_and_caches_do_not_meet(models):
    """A batch of another size between two steps, a bucket that ends, and every output looked at in the end."""
    model, plain = models
    given = {batch: tokens(batch, 140) for batch in (1, 3)}
    caches = {batch: model.new_cache(batch, 140) for batch in given}
    found = {batch: [] for batch in given}
    for t in range(140):
        for batch, ids in given.items():
            found[batch].append(model.decode(ids[:, t], caches[batch]))
    for batch, ids in given.items():
        close(torch.stack(found[batch], dim=1), plain(ids))
        # The row of tokens, twice; every graph; a copy of what comes out.
        assert max(calls_of(model, caches[batch])) == 4
    assert model.kept_steps.latest.num_launches > 10 * len(model.layers)
    assert model.kept_steps.latest.unwatched == ()


@torch.no_grad()
def test_more_rows_than_the_kernels_take(models):
    model, plain = models
    batch = MOST_ROWS[torch.float32] + 1
    ids, cache = tokens(batch, 6), model.new_cache(batch, 6)
    found = torch.stack([model.decode(ids[:, t], cache) for t in range(6)], dim=1)
    close(found, plain(ids))
    assert max(calls_of(model, cache)) > 4
    assert "it calls aten.mm.out" in model.kept_steps.latest.unwatched


@torch.no_grad()
def test_memory_of_a_weight_that_is_replaced_is_seen(models):
    model, _ = models
    ids, cache = tokens(1, 8), model.new_cache(1, 8)
    before = [model.decode(ids[:, 0], cache) for _ in range(4)]
    old = model.norm.weight.data
    model.norm.weight.data = 3 * old
    cache.reset()
    after = [model.decode(ids[:, 0], cache) for _ in range(4)]
    model.norm.weight.data = old
    for found, expected in zip(after, before, strict=True):
        close(found, 3 * expected)


def again(watch, args):
    """What a watched graph launched, with other arguments."""
    player, registers = watch.launches.player()
    player.play([args[register] for register in registers])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_row_kernels_are_launched_again_with_what_is_given(dtype):
    weight, bias = torch.randn(24, 16, dtype=dtype), torch.randn(24, dtype=dtype)
    keys, values = torch.randn(2, 1, 2, 9, 8, dtype=dtype).unbind(0)
    where = torch.arange(9), torch.tensor([6])
    mean = (-1, 0, True, None, 0.3, 0.0, None)

    def graph(args):
        (x,) = args
        rows = torch.ops.archspec_rows.linear(x, weight, bias)
        q = rows.view(1, 3, 1, 8)[:, :2]
        attended = torch.ops.archspec_rows.attend(q, keys, values, *where, *mean)
        return [rows, attended]

    first, second = torch.randn(2, 3, 16, dtype=dtype).unsqueeze(2).unbind(0)
    first, second = first[:1], second[:1]
    watch = Watch(Buffers(), {5: first})
    found = watch.run(graph, [first])
    for x in (first, second):
        again(watch, {5: x})
        for ours, theirs in zip(found, graph([x]), strict=True):
            assert torch.equal(ours, theirs)
    assert watch.failure is None


@torch.no_grad()
@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (lambda args: [args[0] + 1], "it calls aten.add.Tensor"),
        (lambda args: [args[0].zero_()], "it calls aten.zero_.default"),
        (lambda args: [args[0].view(2, 4)], "it returns a view of what it is given"),
    ],
)
def test_what_is_no_launch_is_told(graph, why):
    x = torch.ones(8)
    watch = Watch(Buffers(), {0: x})
    assert torch.equal(watch.run(graph, [x])[0].flatten(), graph([x])[0].flatten())
    assert watch.failure == why


def test_buffers_are_shared_once_settled():
    buffers = Buffers()
    first, second = (buffers.take((2, 3), (3, 1), torch.float32) for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    buffers.settle([second[1]])
    third, fourth = (buffers.take((6,), None, torch.float32) for _ in range(2))
    assert third.data_ptr() == first.data_ptr()
    assert fourth.data_ptr() not in (first.data_ptr(), second.data_ptr())
    assert buffers.take((3, 0), None, torch.float32).numel() == 0


def test_a_kernel_that_refuses_is_an_error():
    with pytest.raises(launching.LaunchError):
        launching.launch(launching.array([0, launching.MOST_WORDS + 1]))
    launching.launch(launching.array([]))


def test_launches_follow_one_another():
    x, y = torch.ones(1, 1, 4), torch.empty(1, 1, 4)
    both = Launches()
    for source, target in ((x, y), (y, torch.empty(1, 1, 4))):
        watch = Watch(Buffers(), {7: source})
        watch.note(
            launching.address_of_row_kernel("linear", x.dtype),
            launching.linear_words(source, 2 * torch.eye(4), None, target),
            by_address=True,
        )
        both.extend(watch.launches)
    assert [register for _, register, _ in both.given] == [7, 7]
    player, registers = both.player()
    assert registers == (7,)
    player.play([x])
    assert torch.equal(y, 2 * x)
    assert torch.equal(target, 2 * x)


def test_programs_in_cpp_are_not_watched(monkeypatch):
    assert make_watchable()
    monkeypatch.setattr(torch._inductor.config, "cpp_wrapper", True)
    assert not make_watchable()
