"""The authors' tiny Block Transformer, imported: every tensor of the fixture (tests/golden/block_b4_prefix2).

The `padded_*` tensors are a batch with padding blocks in the middle of a sequence, as packed training data has them.
A mask here marks left padding only, so that they are compared up to where their padding is on the left.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import archspec
from archspec.convert import import_checkpoint, write_imported

FOLDER = Path(__file__).parents[1] / "golden" / "block_b4_prefix2"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def io():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("block") / "imported"
    write_imported(import_checkpoint(FOLDER), folder)
    return archspec.load(folder, compile=False)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_logits_and_loss(model, io):
    ids = io["input_ids_flat"]
    with torch.no_grad():
        rows = model(ids)
        close(rows[:, 3:-1].unflatten(1, (7, 4)), io["logits"])
        assert not rows[:, :3].any()
        close(model.loss(ids), io["loss"])


def test_every_stage(model, io):
    ids = io["input_ids"]
    with torch.no_grad():
        vectors = model.blocks.vectors(ids)
        close(vectors, io["input_block_embeds"])
        contexts = model.blocks.run("forward", vectors)
        close(contexts, io["block_embeddings"])
        expanded = model.tokens.expand(contexts[:, :-1])
        close(expanded, io["expanded_block_embeddings"])
        inputs = torch.cat((expanded, model.tokens.embedded(ids[:, 1:, :-1])), dim=2)
        close(inputs, io["token_decoder_inputs_embeds"])


@pytest.mark.parametrize("case", ["aligned", "unaligned", "leftpad"])
def test_generation(model, io, case):
    """Greedy tokens, the logits of every step, and the same by teacher forcing."""
    prompt, output = io[f"gen_{case}_prompt"], io[f"gen_{case}_output"]
    mask, steps = io.get(f"gen_{case}_attention_mask"), io[f"gen_{case}_step_logits"]
    prompt_len, num_tokens = prompt.shape[1], output.shape[1]
    assert torch.equal(model.generate(prompt, num_tokens - prompt_len, mask), output)
    cache = model.new_cache(2, num_tokens)
    rows = [model.prefill(prompt, cache, mask)]
    rows += [model.decode(output[:, t], cache) for t in range(prompt_len, num_tokens - 1)]
    close(torch.stack(rows, dim=1), steps)
    whole = None if mask is None else torch.cat((mask, torch.ones_like(output[:, prompt_len:])), dim=1)
    with torch.no_grad():
        close(model(output, whole, prompt_len=prompt_len)[:, prompt_len - 1 : -1], steps)


def test_left_padding_of_the_training_batch(model, io):
    """Rows whose padding is on the left agree with the reference until its next padding."""
    ids, mask = io["padded_input_ids"].flatten(1), io["padded_attention_mask"].flatten(1)
    compared = 0
    for row, places in enumerate(mask):
        first = int(places.nonzero()[0])
        zeros = (places[first:] == 0).nonzero()
        end = (first + int(zeros[0]) if len(zeros) else len(places)) // 4 * 4
        begin = (first // 4 + 1) * 4
        if end <= begin:
            continue
        with torch.no_grad():
            rows = model(ids[row : row + 1, :end], mask[row : row + 1, :end])
        found = rows[0, begin - 1 : end - 1]
        close(found, io["padded_logits"][row].flatten(0, 1)[begin - 4 : end - 4])
        compared += end - begin
    assert compared > 0
