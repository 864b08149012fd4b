"""Tasks of recall ask what can be answered from what stands before, and answers are counted right."""

import eval_models
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import archspec
from archspec.evaluation import MultiQuery, Needle, Scores, recall, recall_accuracy, task_batches
from archspec.runtime.loss import IGNORED


@st.composite
def multi_queries(draw):
    vocab = draw(st.integers(4, 40))
    pairs = draw(st.integers(1, vocab // 2 - 1))
    queries = draw(st.none() | st.integers(1, pairs))
    needed = 2 * (pairs + (queries or pairs))
    noise, power = draw(st.booleans()), draw(st.sampled_from([0.01, 1.0]))
    return MultiQuery(vocab, needed + draw(st.integers(0, 30)), pairs, queries, power, noise)


@given(multi_queries(), st.integers(0, 5))
@settings(deadline=None)
def test_every_question_has_one_answer_which_stands_before(task, seed):
    drawn = next(task_batches(task, 3, seed))
    assert drawn.ids.shape == (3, task.length)
    assert set(drawn.ids.flatten().tolist()) <= set(range(task.vocab_size))
    half = task.vocab_size // 2
    for row, answers, depths in zip(drawn.ids.tolist(), drawn.answers.tolist(), drawn.depths.tolist(), strict=True):
        front = 2 * task.pairs
        known = dict(zip(row[:front:2], row[1:front:2], strict=True))
        assert len(known) == len(set(known.values())) == task.pairs
        assert all(1 <= key < half <= value for key, value in known.items())
        assert len(set(answers)) == len(answers) == task.num_queries
        for place, depth in zip(answers, depths, strict=True):
            assert row[place] == known[row[place - 1]]
            assert depth == pytest.approx(row.index(row[place - 1]) / (place - 1))
        # Nothing but questions asks.
        assert {place for place in range(front, len(row)) if row[place] in known} == {at - 1 for at in answers}
    assert torch.equal(next(task_batches(task, 3, seed)).ids, drawn.ids)
    targets = drawn.targets()
    assert int((targets != IGNORED).sum()) == 3 * task.num_queries
    kept = targets != IGNORED
    assert torch.equal(targets[kept], drawn.ids[:, 1:][kept])


def test_questions_are_near_unless_the_power_says_otherwise():
    near, even = (next(task_batches(MultiQuery(64, 512, 4, power=power), 64)) for power in (0.01, 1.0))
    assert near.answers.double().mean() < 0.6 * even.answers.double().mean()


@pytest.mark.parametrize("needles", [1, 3])
@pytest.mark.parametrize("length", [160, 400])
def test_a_needle_stands_where_it_was_put(needles, length):
    task = Needle(length, needles=needles, depths=(0.0, 0.5, 1.0))
    drawn = task.draw(6, torch.Generator().manual_seed(1), first=1)
    assert drawn.depths[:, 0].tolist() == [0.5, 1.0, 0.0] * 2
    for row, answer, size, depth in zip(drawn.ids, drawn.answers, drawn.lengths, drawn.depths, strict=True):
        text = bytes(row.tolist()).decode()
        assert len(text) == length == int(answer) + int(size)
        value, question = text[int(answer) :], text[: int(answer)]
        key = question[-len("KKKK is") :][:4]
        assert question.endswith(f" The code of {key} is")
        assert text.count(f" The code of {key} is") == 2
        assert text.count(" The code of ") == needles + 1
        fact = f" The code of {key} is{value}. "
        begin, end = question.index(fact), len(question) - len(f" The code of {key} is")
        if depth == 1:
            assert begin + len(fact) == end
        elif needles == 1:
            assert begin == round(float(depth) * (end - len(fact)))
        elif depth == 0:
            assert " The code of " not in question[:begin].replace(fact, "") or begin < end / 2


def test_a_needle_in_any_tokens():
    words: dict[str, int] = {}

    def encode(text):
        return [words.setdefault(word, len(words)) for word in text.split()]

    task = Needle(64, encode, prefix=(999,), needles=2, filler="hay hay straw")
    drawn = next(task_batches(task, 5))
    back = {number: word for word, number in words.items()} | {999: "<s>"}
    for row, answer in zip(drawn.ids.tolist(), drawn.answers.tolist(), strict=True):
        text = [back[token] for token in row]
        assert (text[0], len(text)) == ("<s>", 64)
        key, (value,) = text[answer[0] - 2], text[answer[0] :]
        assert f"The code of {key} is {value}." in " ".join(text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MultiQuery(16, 64, 8), "keys for 1 to 7 pairs"),
        (lambda: MultiQuery(16, 15, 4), "take 16 tokens, more than 15"),
        (lambda: MultiQuery(16, 64, 4, 5), "1 to 4 times"),
        (lambda: MultiQuery(16, 64, 4, power=0), "must be positive"),
        (lambda: Needle(20), "take 54 tokens or more, not 20"),
        (lambda: Needle(200, depths=(0.5, 1.5)), "from 0"),
        (lambda: Needle(200, depths=()), "from 0"),
        (lambda: Needle(200, filler=""), "filler is empty"),
        (lambda: Needle(200, needles=0), "a fact and a digit"),
        (lambda: recall(eval_models.model("levels"), MultiQuery(256, 16, 1)), "in the first block of 4 tokens"),
        (lambda: recall(eval_models.model("dense"), MultiQuery(256, 16), examples=0), "take"),
        (lambda: recall(eval_models.model("dense"), MultiQuery(256, 16, 2), examples=0), "must be at least 1"),
    ],
)
def test_tasks_that_do_not_fit(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_an_answer_is_right_if_all_of_its_tokens_are(monkeypatch):
    task = Needle(120, depths=(0.0, 1.0))

    def hits(model, ids):
        """Wrong: one digit of the answers in rows 0 and 3, and everything that is not asked."""
        found = torch.zeros(ids.shape[0], ids.shape[1] - 1, dtype=torch.bool)
        found[:, -6:] = True
        found[0, -1] = found[3, -6] = False
        return Scores(torch.ones_like(found, dtype=torch.float32), found)

    monkeypatch.setattr(recall_accuracy, "score", hits)
    found = recall(eval_models.model("dense"), task, examples=8, batch=8)
    assert [(row.depth, row.asked, row.right) for row in found.rows] == [(0.0, 4, 3), (1.0, 4, 3)]
    assert (found.right, found.asked, found.accuracy, found.nats) == (6, 8, 0.75, 1.0)


def test_depths_do_not_depend_on_batches():
    task = Needle(120, depths=(0.0, 0.5, 1.0))
    found = recall(eval_models.model("dense"), task, examples=7, batch=2)
    assert [row.asked for row in found.rows] == [3, 2, 2]


def test_training_on_a_task_helps_and_caches_recall_the_same():
    spec = """
    model tiny {
      layers 2, width 32, vocab 16, norm rms(1e-5), ffn swiglu(64), rope 10000
      layers 1-2 attend, heads 2 x 16
    }
    """
    model = archspec.compile(archspec.parse_spec_text(spec), compile=False)
    task = MultiQuery(16, 16, pairs=2, power=1)
    before = recall(model, task, examples=60, batch=60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for drawn, _ in zip(task_batches(task, 48, seed=1), range(120), strict=False):
        logits = model(drawn.ids[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), drawn.targets().flatten(), ignore_index=IGNORED).backward()
        optimizer.step()
        optimizer.zero_grad()
    after, cached = (recall(model, task, examples=60, batch=20, cached=cached) for cached in (False, True))
    # One of eight values by guessing, one of two by knowing what has been said.
    assert after.accuracy > max(0.35, before.accuracy + 0.1)
    assert cached.rows == after.rows
    assert cached.nats == pytest.approx(after.nats, abs=1e-4)
