"""Training by transformers: losses, gradients, Trainer, LoRA."""

import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import ONE_LEVEL, SYSTEMS, TWO_LEVELS, core, exported, loaded, random_ids
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from archspec.runtime import loss

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


class MostLogits(TorchDispatchMode):
    """Rows of the vocabulary's size, of the operation that makes most of them."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = (t.shape for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        self.largest = max(self.largest, *(size.numel() // 256 for size in sizes if size[-1:] == (256,)), 0)
        return out


EVERY = pytest.mark.parametrize("name", SYSTEMS)
LENGTHS = (12, 7, 9)


def padded(side: str):
    """Rows, ids and mask; `both` pads on both sides."""
    rows = [random_ids(1, length, seed=length)[0] for length in LENGTHS]
    width = 14
    before = {"left": lambda n: width - n, "right": lambda n: 0, "both": lambda n: (width - n) // 2}[side]
    ids, mask = torch.full((len(rows), width), 3), torch.zeros(len(rows), width, dtype=torch.int64)
    for idx, row in enumerate(rows):
        place = slice(before(len(row)), before(len(row)) + len(row))
        ids[idx, place], mask[idx, place] = row, 1
    return rows, ids, mask


@pytest.mark.parametrize("side", ["left", "right", "both"])
@EVERY
def test_padded_rows_are_as_alone(name, side):
    model, (rows, ids, mask) = loaded(name), padded(side)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
        for idx, row in enumerate(rows):
            assert torch.allclose(logits[idx][mask[idx] != 0], model.model(row[None])[0], atol=2e-5)


@EVERY
def test_loss_is_archspecs_own(name):
    ids = random_ids(3, 14)
    assert loaded(name)(ids, labels=ids).loss.item() == pytest.approx(core(name).loss(ids).item(), rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@EVERY
def test_loss_of_padded_rows_is_that_of_the_rows(name, side):
    """Padding neither predicts nor is predicted, whatever its labels say; so it is with the rows' own losses."""
    model, (rows, ids, mask) = loaded(name), padded(side)
    own = core(name)
    length = own.plan.block_length if name in TWO_LEVELS else 1
    counts = [len(row) - ((len(row) - 1) % length + 1) for row in rows]
    expected = sum(own.loss(row[None]).item() * count for row, count in zip(rows, counts, strict=True)) / sum(counts)
    for labels in (ids, ids.masked_fill(mask == 0, -100)):
        assert model(ids, attention_mask=mask, labels=labels).loss.item() == pytest.approx(expected, rel=1e-5)


@EVERY
def test_ignored_labels_and_kept_logits(name):
    model, ids = loaded(name), random_ids(2, 12)
    labels = ids.clone()
    labels[0, 5:9] = -100
    out = model(ids, labels=labels, logits_to_keep=3)
    rows = model.model(ids)
    assert torch.equal(out.logits, rows[:, -3:])
    assert torch.equal(model(ids, logits_to_keep=torch.tensor([2, 7])).logits, rows[:, [2, 7]])
    first = model.plan.padding(12) if name in TWO_LEVELS else 0
    first = (model.plan.block_length - first) if name in TWO_LEVELS else 1
    expected = cross_entropy(rows[:, first - 1 : -1].flatten(0, 1), labels[:, first:].flatten(), ignore_index=-100)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@EVERY
def test_parts_of_a_batch_add_up_to_its_loss(name):
    """With `num_items_in_batch`, as Trainer gives it where it accumulates gradients: of all labels of the batch."""
    model, ids = loaded(name), random_ids(4, 12)
    whole = model(ids, labels=ids).loss
    parts = [model(part, labels=part, num_items_in_batch=4 * 11).loss for part in ids.split(1)]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


@EVERY
def test_training_holds_the_logits_of_a_part_at_a_time(name, monkeypatch):
    """Trainer looks at nothing but the loss; who wants the logits says so, and gets those wanted."""
    monkeypatch.setattr(loss, "FEWEST_CHUNKS", 32)
    model, ids = loaded(name).train(), random_ids(4, 96)
    with MostLogits() as mode:
        out = model(ids, labels=ids)
        out.loss.backward()
    assert out.logits is None
    assert out.to_tuple() == (out.loss,)
    assert 0 < mode.largest < 4 * 96 / 2
    for options in ({"labels": ids, "logits_to_keep": 2}, {"logits_to_keep": torch.tensor([5, 94])}):
        with MostLogits() as mode:
            few = model(ids, **options).logits
        assert 0 < mode.largest < 4 * 96 / 2
    rows = model(ids).logits
    assert torch.equal(few, rows[:, [5, 94]])
    assert torch.equal(model(ids, labels=ids, skip_logits=False).logits, rows)
    assert model(ids, skip_logits=True).logits is None
    with torch.no_grad():
        out = model.eval()(ids, labels=ids)
    torch.testing.assert_close(out.logits, rows, atol=1e-5, rtol=0)  # windows in turn, and not all blocks at once


@EVERY
def test_labels_need_not_be_the_ids_and_may_be_none_of_them(name):
    model, ids = loaded(name), random_ids(2, 12)
    nothing = torch.full_like(ids, -100)
    assert model(ids, labels=nothing, num_items_in_batch=7).loss.item() == 0
    labels = nothing.clone()
    labels[1, 7] = 3
    expected = -model(ids).logits[1, 6].log_softmax(-1)[3]
    assert model(ids, labels=labels).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for count in (4, torch.tensor(4)):
        part = model(ids, labels=labels, num_items_in_batch=count).loss
        assert part.item() == pytest.approx(expected.item() / 4, rel=1e-5)


def test_a_cache_that_holds_tokens_has_no_loss():
    model, ids = loaded("dense"), random_ids(1, 8)
    cache = model.new_cache(1, 8)
    assert model(ids[:, :4], past_key_values=cache, labels=ids[:, :4]).loss.item() > 0
    with pytest.raises(ValueError, match="whole sequences"):
        model(ids[:, 4:], past_key_values=cache, labels=ids[:, 4:])


def gradients(model, ids):
    model.train()
    model.zero_grad()
    held = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        held[storage._cdata] = storage  # kept alive, so that no other memory gets its place
        return tensor

    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(ids, labels=ids).loss
    kept = sum(storage.nbytes() for pointer, storage in held.items() if pointer not in parameters)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, kept


@EVERY
def test_checkpointing_gives_the_same_gradients_from_less_memory(name):
    model, ids = loaded(name), random_ids(2, 48)
    expected, bytes_kept = gradients(model, ids)
    model.gradient_checkpointing_enable()
    found, bytes_left = gradients(model, ids)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[key], found[key], atol=1e-6) for key in expected)
    assert bytes_left < 0.75 * bytes_kept
    model.gradient_checkpointing_disable()
    assert gradients(model, ids)[1] == bytes_kept
    with pytest.raises(ValueError, match="use_reentrant"):
        model.gradient_checkpointing_enable({"use_reentrant": True})


def test_every_other_layer_may_keep_its_activations():
    model, ids = loaded("dense"), random_ids(2, 48)
    _, none_kept = gradients(model, ids)
    model.activation_checkpointing_enable(every_n_layers=2)
    _, some_kept = gradients(model, ids)
    model.activation_checkpointing_enable()
    _, all_kept = gradients(model, ids)
    assert all_kept < some_kept < none_kept
    assert model.is_gradient_checkpointing


@pytest.mark.parametrize("name", ["yoco_window", "lckv", "block_prefix"])
def test_dropout_of_adapters_is_the_same_when_a_layer_runs_again(name):
    model, ids = loaded(name), random_ids(2, 24)
    targets = ["q_proj", "o_proj", "down_proj"]
    config = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, lora_dropout=0.5)
    torch.manual_seed(0)
    adapted, found = get_peft_model(model, config), []
    for enabled in (False, True):
        if enabled:
            adapted.gradient_checkpointing_enable()
        torch.manual_seed(1)
        found.append(gradients(adapted, ids)[0])
    assert found[0].keys() == found[1].keys()
    assert any(grad.any() for grad in found[0].values())
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-6) for key in found[0])


@EVERY
def test_no_parameter_is_left_without_gradient(name):
    """Data parallel training waits for all of them."""
    found, _ = gradients(loaded(name), random_ids(2, 24))
    assert found.keys() == dict(loaded(name).named_parameters()).keys()


def trained(model, folder, **options):
    text = (b"for x in range(9):\n    print(x)\n" * 20)[: 16 * 24]
    rows = torch.tensor(list(text)).view(16, 24)
    data = [{"input_ids": row, "labels": row} for row in rows]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        report_to=[], use_cpu=True, save_steps=3, disable_tqdm=True, max_grad_norm=1.0, warmup_steps=0, **options,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data[:4])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return trainer, losses


@EVERY
def test_trainer_trains_saves_and_goes_on(name, tmp_path):
    trainer, losses = trained(loaded(name), tmp_path, gradient_accumulation_steps=2, gradient_checkpointing=True)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-3").eval()
    ids = random_ids(1, 9)
    assert torch.equal(again(ids).logits, trainer.model.eval()(ids).logits)
    trainer.args.max_steps = 5
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert trainer.state.global_step == 5


@pytest.mark.parametrize("name", ["yoco_retention", "lckv", "block_prefix"])
def test_trainer_computes_in_bfloat16(name, tmp_path):
    _, losses = trained(loaded(name), tmp_path, bf16=True)
    assert losses[-1] < losses[0]


@EVERY
def test_lora_trains_every_adapter_and_is_saved(name, tmp_path):
    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        loaded(name), LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    )
    layers = {
        name.split(".layers.")[1].split(".")[0]
        for name, p in model.named_parameters()
        if "lora_A" in name and ".layers." in name
    }
    assert len(layers) >= 2
    trained(model, tmp_path / "run")
    model(random_ids(2, 24), labels=random_ids(2, 24)).loss.backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle  # an adapter that nothing runs through would stay as it is
    model.save_pretrained(tmp_path / "adapter")
    base = loaded(name)
    ids = random_ids(1, 9)
    before = base(ids).logits
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    expected = model.eval()(ids).logits
    assert torch.equal(again(ids).logits, expected)
    assert not torch.allclose(before, expected, atol=1e-2)
    tokens = again.generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    merged = again.merge_and_unload()
    assert torch.allclose(merged(ids).logits, expected, atol=1e-4)
    assert torch.equal(merged.generate(ids, max_new_tokens=5, do_sample=False), tokens)


@EVERY
def test_vocabulary_belongs_to_the_spec(name):
    model = loaded(name)
    assert model.resize_token_embeddings(256) is model.get_input_embeddings()
    for change in (
        lambda: model.resize_token_embeddings(300),
        lambda: model.set_input_embeddings(torch.nn.Embedding(3, 3)),
    ):
        with pytest.raises(ValueError, match="is the spec's"):
            change()
    assert (model.get_output_embeddings() is None) == (name == "dense")


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_positions_and_other_inputs_are_refused(name):
    model, ids = loaded(name), random_ids(1, 4)
    for option in ({"position_ids": torch.tensor([[0, 1, 0, 1]])}, {"output_hidden_states": True}):
        with pytest.raises(ValueError, match=next(iter(option))):
            model(ids, **option)
    with pytest.raises(ValueError, match="missing"):
        model()
    with pytest.raises(ValueError, match="all zeros"):
        model(ids.expand(2, 4), attention_mask=torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]))


def test_device_maps_of_one_device():
    name = "lckv"
    for device_map in ("cpu", "auto", {"": "cpu"}):
        model = AutoModelForCausalLM.from_pretrained(exported(name), device_map=device_map)
        assert torch.equal(model(random_ids(1, 5)).logits, core(name)(random_ids(1, 5)))
    split = {"model.embed": "cpu", "model.layers": "disk", "model.norm": "cpu", "model.lm_head": "cpu"}
    with pytest.raises(ValueError, match="one device"):
        AutoModelForCausalLM.from_pretrained(exported(name), device_map=split, offload_folder="/tmp/unused")
