"""Loss over texts: every token once, every byte once, whatever the windows and the tokenizer."""

import json
import math

import eval_models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archspec
from archspec.evaluation import ByteEncoder, Document, FileEncoder, encoder_of, read_documents, text_loss
from archspec.evaluation.loss import windows

tokenizers = pytest.importorskip("tokenizers")
SENTENCE = "Die Straße läuft weiter, und weiter: 日本語 🙂 ok ok ok.\n"


def document(length, vocab=256, seed=0):
    ids = torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    return Document("made", ids, torch.full((length,), 2, dtype=torch.int32), length)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 5), st.data())
def test_windows_predict_every_token_once(length, context, skipped, data):
    context += skipped
    stride = data.draw(st.integers(1, context - skipped))
    ids = torch.arange(length, dtype=torch.int32)
    seen = []
    for window in windows(Document("made", ids, ids, 0), context, stride, skipped):
        assert 2 <= len(window.ids) <= context + 1
        assert window.new_from >= skipped
        predicted = window.ids[window.new_from + 1 :].tolist()
        assert predicted
        assert torch.equal(window.num_bytes, window.ids)
        seen += predicted
    assert seen == list(range(skipped + 1, length))


@pytest.mark.parametrize("name", eval_models.SPECS)
@pytest.mark.parametrize(("context", "stride"), [(9, None), (9, 4), (64, None)])
def test_loss_is_that_of_tokens_one_by_one(name, context, stride):
    model, texts = eval_models.model(name), [document(40), document(3, seed=1), document(17, seed=2)]
    found = text_loss(model, texts, context=context, stride=stride, batch=3)
    skipped = 3 if name == "levels" else 0
    step = stride or context - skipped
    options = {"prompt_len": 4} if skipped else {}
    nats, count = 0.0, 0
    for text in texts:
        ids = text.ids.long()[None]
        for target in range(skipped + 1, ids.shape[1]):
            # The first window that reaches the target.
            start = max(0, -(-(target - context) // step)) * step
            row = model(ids[:, start:target], **options)[0, -1].log_softmax(-1)
            nats, count = nats - row[ids[0, target]].item(), count + 1
    assert (found.tokens, found.text_bytes) == (count, 2 * count)
    assert found.tokens + found.unpredicted == sum(len(text.ids) for text in texts)
    assert found.nats == pytest.approx(nats, rel=1e-9)
    assert found.loss == pytest.approx(nats / count)


def test_loss_by_position_sums_to_the_loss_where_windows_do_not_overlap():
    model = eval_models.model("dense")
    found = text_loss(model, [document(103), document(30, seed=3)], context=16, batch=2)
    assert float(found.position_nats.sum()) == pytest.approx(found.nats)
    assert int(found.position_counts.sum()) == found.tokens
    bins = found.bins()
    assert [(each.first, each.last) for each in bins] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    assert sum(each.loss * each.predictions for each in bins) == pytest.approx(found.nats)
    assert [each.first for each in found.positions()] == list(range(1, 17))
    # By position: what the rows of a first window say.
    lone = text_loss(model, [document(103)], context=102)
    ids = document(103).ids.long()[None]
    rows = -model(ids[:, :-1])[0].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    assert [each.loss for each in lone.positions()] == pytest.approx(rows.tolist())


def test_exact_decodes_where_layers_iterate():
    text = (
        eval_models.text_of("dense")
        .replace("layers 1-2 attend", "layers 2 attend")
        .replace(
            "\n}", "\n  layers 1 cross-attend to cache@2, heads 2 x 16\n  iterate layers 1-2: 1 forward, 1 backward\n}"
        )
    )
    model = archspec.compile(archspec.parse_spec_text(text), dtype="float64", compile=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    ids = document(12).ids.long()[None]
    for exact in (False, True):
        rows = model(ids[:, :-1], exact=exact)[0].log_softmax(-1).gather(1, ids[0, 1:, None])
        assert text_loss(model, [document(12)], exact=exact).nats == pytest.approx(-rows.sum().item())
    assert text_loss(model, [document(12)]).nats != pytest.approx(-rows.sum().item(), abs=1e-6)


def test_overlapping_windows_give_more_context():
    model = eval_models.model("dense")
    found = text_loss(model, [document(50)], context=16, stride=1)
    ids = document(50).ids.long()[None]
    last = -model(ids[:, 33:49])[0, -1].log_softmax(-1)[ids[0, 49]].item()
    first = text_loss(model, [document(49)], context=16, stride=1)
    assert found.nats - first.nats == pytest.approx(last)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"context": 3}, "predicts nothing"),
        ({"context": 16, "stride": 14}, "stride must be 1 to 13"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    with pytest.raises(ValueError, match=said):
        text_loss(eval_models.model("levels"), [document(50)], **settings)


def test_texts_too_short_and_ids_too_large():
    with pytest.raises(ValueError, match="too short"):
        text_loss(eval_models.model("dense"), [document(1), document(0)])
    with pytest.raises(ValueError, match="not its tokenizer"):
        text_loss(eval_models.model("dense", vocab=64), [document(50)])


def trained(folder, template=None):
    """A byte-level BPE of a few merges, which cut characters of several bytes."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=special)
    tokenizer.train_from_iterator([SENTENCE] * 3, trainer)
    if template:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return FileEncoder(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tokenizer"))


@given(text=st.text(max_size=30) | st.lists(st.sampled_from(SENTENCE.split(" "))).map(" ".join))
@settings(deadline=None)
def test_bytes_of_tokens_sum_to_the_text(encoder, text):
    data = text.encode("utf-8", "replace")
    ids, num_bytes = encoder.encode(data)
    assert len(ids) == len(num_bytes)
    assert int(num_bytes.sum()) == len(data)
    assert bool((num_bytes >= 0).all())
    if text.isascii():
        spelt = [encoder.tokenizer.decode([token]) for token in ids.tolist()]
        assert num_bytes.tolist() == [len(part) for part in spelt]


def test_special_tokens_before_a_text_are_kept_and_those_behind_are_not(tmp_path):
    encoder = trained(tmp_path, "<s> $A </s>")
    ids, num_bytes = encoder.encode(b"ok ok")
    assert encoder.prefix == (0,)
    assert ids[0] == 0
    assert 1 not in ids.tolist()
    assert (int(num_bytes[0]), int(num_bytes.sum())) == (0, 5)
    assert ids[1:].tolist() == encoder.plain("ok ok")


def test_bits_per_byte_are_the_same_for_every_tokenizer_of_a_model_that_knows_nothing(tmp_path):
    """Uniform over V tokens: log2 V bits each. With a token before the text, every byte is predicted."""
    model = eval_models.model("dense", vocab=280, seed=1)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    encoder = trained(tmp_path / "tokenizer", "<s> $A")
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE * 5, "utf-8")
    size = path.stat().st_size
    num_tokens = len(encoder.plain(SENTENCE * 5))
    by_tokens = text_loss(model, read_documents([path], encoder), context=7)
    assert (by_tokens.tokens, by_tokens.text_bytes) == (num_tokens, size)
    assert by_tokens.bits_per_byte == pytest.approx(math.log2(280) * num_tokens / size)
    assert by_tokens.perplexity == pytest.approx(280)
    by_bytes = text_loss(model, read_documents([path], ByteEncoder()), context=7)
    assert (by_bytes.tokens, by_bytes.text_bytes) == (size - 1, size - 1)
    assert by_bytes.bits_per_byte == pytest.approx(math.log2(280))


def test_documents_of_files_folders_and_lines(tmp_path):
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_bytes(b"abc\xff")
    (tmp_path / "texts" / "deep" / "b.py").write_text("x = 1")
    (tmp_path / "texts" / ".hidden").write_text("no")
    lines = tmp_path / "texts" / "c.jsonl"
    lines.write_text('{"text": "one"}\n\n{"text": "two, \\u00e4", "id": 2}\n')
    found = list(read_documents([tmp_path / "texts"], ByteEncoder()))
    assert [bytes(each.ids.tolist()) for each in found] == [b"abc\xff", b"one", "two, ä".encode(), b"x = 1"]
    assert sum(each.size for each in found[1:3]) == lines.stat().st_size - 1


@pytest.mark.parametrize("line", ["[1]", '"text"', "{}", '{"text": 3}', "{", '{"text": "\\ud800"}', "[" * 100_000])
def test_lines_that_are_no_documents(tmp_path, line):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(ValueError, match=r"data.jsonl, line 2: not of the form"):
        list(read_documents([path], ByteEncoder()))


def test_files_that_are_no_text(tmp_path, encoder):
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff")
    with pytest.raises(ValueError, match=r"a.txt: not UTF-8 text: byte 0xff in line 2"):
        list(read_documents([tmp_path], encoder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        list(read_documents([tmp_path / "empty"], encoder))
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        list(read_documents([tmp_path / "absent"], encoder))


def test_which_encoder_a_folder_has(tmp_path):
    assert encoder_of(tmp_path, 256).name == "bytes"
    with pytest.raises(ValueError, match="vocabulary of 255"):
        encoder_of(tmp_path, 255)
    with pytest.raises(ValueError, match="no tokenizer at"):
        encoder_of(tmp_path, 256, str(tmp_path / "absent"))
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ValueError, match="save_pretrained"):
        encoder_of(tmp_path, 256)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(ValueError, match="is no tokenizer"):
        encoder_of(tmp_path, 256)
    trained(tmp_path)
    assert isinstance(encoder_of(tmp_path, 280), FileEncoder)
    assert encoder_of(tmp_path, 280, "bytes").name == "bytes"
