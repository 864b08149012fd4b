"""A model that starts from another: what matches is the same, what is shared is the writer's or the mean, all of it told."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from typer.testing import CliRunner

import archspec
from archspec.cli.common import CliError
from archspec.cli.main import app
from archspec.convert import CannotMatch, convert, match
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import specs

HEADER = "layers 4, width 32, vocab 64, ffn swiglu(48), norm rms(1e-5), rope 10000, heads 4 x 8, kv heads 2"
DENSE = "layers 1-4 attend"
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Making a failing spec smaller takes minutes."""


def spec(*statements, header=HEADER, name="made"):
    return archspec.parse_spec_text("\n".join([f"model {name} {{", header, *statements, "}"]))


def model_of(parsed, seed=0):
    """Random in every parameter, so that no two are equal by being ones or zeros."""
    model = archspec.compile(parsed, dtype="float64", seed=seed, compile=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor + 0.1 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
    return model


def logits(model, length=12):
    ids = torch.randint(model.plan.vocab_size, (2, length), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model(ids)


def assert_same_function(source, target_spec, how, **options):
    made = convert(source, archspec.plan(target_spec), **options)
    assert {recipe.how for recipe in made.matching.recipes} == how
    torch.testing.assert_close(logits(made.model), logits(source), atol=1e-10, rtol=0)
    return made


@pytest.mark.parametrize("kv", ["writer", "mean"])
@given(parsed=specs() | level_specs())
@settings(deadline=None, max_examples=25, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_a_model_of_the_same_spec_is_the_same(kv, parsed):
    source = archspec.compile(parsed, seed=3, compile=False)
    made = convert(source, archspec.plan(parsed), kv=kv, seed=4)
    assert not made.matching.dropped
    assert {line.how for line in made.lines()} == {"copied"}
    for (name, ours), theirs in zip(made.model.state_dict().items(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_projection_of_a_layers_output_starts_as_the_next_layers_own():
    """The only reader sees what it saw before: the same function."""
    source = model_of(spec(DENSE))
    target = spec("layers 1-3 attend", "cache@3: kv heads 2 x 8, norm rms(1e-5)", "layers 4 cross-attend to cache@3")
    made = assert_same_function(source, target, {"copied"})
    assert "cache@3 from layer 4" in map(str, made.matching.origins)
    assert_same_function(source, target, {"copied"}, kv="mean")


def test_changes_that_keep_the_function():
    source = model_of(spec(DENSE))
    assert_same_function(source, spec(DENSE, header=HEADER.replace("kv heads 2", "kv heads 4")), {"copied", "repeated"})
    wider = assert_same_function(source, spec(DENSE, header=HEADER.replace("(48)", "(80)")), {"copied", "widened"})
    assert float(wider.model.state_dict()["layers.0.ffn.up_proj.weight"][48:].abs().mean()) > 0
    tied = model_of(spec(DENSE, header=f"{HEADER}, tied embeddings"))
    untied = assert_same_function(tied, spec(DENSE), {"copied"})
    assert untied.matching.dropped == ()
    twins = model_of(spec("layers 1-4 attend, values-from-keys"))
    assert_same_function(twins, spec(DENSE), {"copied"})


def test_cla_takes_the_writer_or_the_mean():
    source = model_of(spec(DENSE))
    cla = archspec.plan(
        spec("layers 1,3 attend", "layers 2 cross-attend to cache@1", "layers 4 cross-attend to cache@3")
    )
    theirs = source.state_dict()
    by_writer, by_mean = (convert(source, cla, kv=kv) for kv in ("writer", "mean"))
    for layer in (0, 2):
        for part in ("k_proj", "v_proj"):
            own, next_one = (theirs[f"layers.{idx}.mixer.kv.{part}.weight"] for idx in (layer, layer + 1))
            name = f"layers.{layer}.mixer.kv.{part}.weight"
            assert torch.equal(by_writer.model.state_dict()[name], own)
            torch.testing.assert_close(by_mean.model.state_dict()[name], (own + next_one) / 2)
    for made in (by_writer, by_mean):
        for name, tensor in made.model.state_dict().items():
            if ".kv." not in name:
                assert torch.equal(tensor, theirs[name]), name
    size = theirs["layers.0.mixer.kv.k_proj.weight"].numel()
    assert [(line.how, line.parameters) for line in by_writer.lines()][1:] == [("dropped", 4 * size)]
    assert [(line.how, line.parameters) for line in by_mean.lines()][1:] == [("averaged", 4 * size)]
    assert str(by_mean.matching.origins[0]) == "cache@1 from the mean of layers 1-2"


def test_lckv_takes_the_mean_of_all_that_read_the_condensed_layer():
    source = model_of(spec(DENSE))
    lckv = spec(
        "layers 1, 4 attend",
        "layers 2 cross-attend to cache@3",
        "layers 3 attend",
        "iterate layers 2-3: 2 forward, 2 backward",
    )
    made = convert(source, archspec.plan(lckv), kv="mean").model.state_dict()
    name = "layers.{}.mixer.kv.v_proj.weight".format
    theirs = source.state_dict()
    torch.testing.assert_close(made[name(2)], (theirs[name(1)] + theirs[name(2)]) / 2)
    assert torch.equal(made[name(0)], theirs[name(0)])
    assert torch.equal(made[name(3)], theirs[name(3)])


def test_fewer_heads_are_means_of_neighbours():
    header = HEADER.replace("kv heads 2", "kv heads 4")
    source = model_of(spec(DENSE, header=f"{header}, bias, qk-norm rms(1e-6) each head"))
    target = spec(DENSE, header=f"{HEADER}, bias, qk-norm rms(1e-6) each head")
    made = convert(source, archspec.plan(target))
    ours, theirs = made.model.state_dict(), source.state_dict()
    for part in ("k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias", "k_norm.weight"):
        by_head = theirs[f"layers.1.mixer.kv.{part}"].reshape(4, 8, -1)
        expected = torch.stack([(by_head[0] + by_head[1]) / 2, (by_head[2] + by_head[3]) / 2])
        torch.testing.assert_close(ours[f"layers.1.mixer.kv.{part}"].reshape(2, 8, -1), expected)
    assert str(made.matching.origins[0]) == "cache@1 from layer 1, 4 heads -> 2"


def test_means_of_fewer_heads_of_several_layers():
    source = model_of(spec(DENSE, header=HEADER.replace("kv heads 2", "kv heads 4")))
    target = spec("layers 1 attend, kv heads 1", "layers 2-4 cross-attend to cache@1")
    ours = convert(source, archspec.plan(target), kv="mean").model.state_dict()["layers.0.mixer.kv.k_proj.weight"]
    stacked = torch.stack(
        [source.state_dict()[f"layers.{idx}.mixer.kv.k_proj.weight"].reshape(4, 8, 32) for idx in range(4)]
    )
    torch.testing.assert_close(ours, stacked.mean((0, 1)))


def test_what_is_new_is_drawn_as_compile_draws_it():
    source = model_of(spec(DENSE))
    target = spec("layers 1-2 retention, heads 4 x 8", "layers 3-4 attend")
    made = convert(source, archspec.plan(target), seed=5)
    fresh = archspec.compile(target, dtype="float64", seed=5, compile=False).state_dict()
    reasons = {recipe.target: recipe.reason for recipe in made.matching.recipes if recipe.how == "new"}
    assert reasons["layers.0.mixer.q_proj.weight"] == "retention, not attention"
    for name in reasons:
        assert torch.equal(made.model.state_dict()[name], fresh[name])
    assert set(reasons) == {name for name in fresh if name.startswith(("layers.0.mixer.", "layers.1.mixer."))}


def test_layers_are_mapped():
    source = model_of(spec(DENSE))
    target = archspec.plan(spec("layers 1-6 attend", header=HEADER.replace("layers 4", "layers 6")))
    with pytest.raises(CannotMatch, match=r"has 4 layers, made has 6: .*`--layers 1,1,2,3,3,4`"):
        convert(source, target)
    with pytest.raises(CannotMatch, match="2 layers are named, and made has 6"):
        convert(source, target, layers=(0, 1))
    with pytest.raises(CannotMatch, match="no layer 5 in made, which has layers 1-4"):
        convert(source, target, layers=(0, 1, 2, 3, 3, 4))
    made = convert(source, target, layers=(0, 0, 1, 2, 3, 3))
    assert not made.matching.dropped
    ours, theirs = made.model.state_dict(), source.state_dict()
    assert torch.equal(ours["layers.5.ffn.up_proj.weight"], theirs["layers.3.ffn.up_proj.weight"])
    assert torch.equal(ours["layers.1.mixer.kv.k_proj.weight"], theirs["layers.0.mixer.kv.k_proj.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("width 32", "width 48"), r"embed.weight: \[64, 32\] in the source, \[64, 48\] here"),
        (("vocab 64", "vocab 65"), r"lm_head.weight: \[64, 32\] in the source, \[65, 32\] here"),
        (
            ("heads 4 x 8, kv heads 2", "heads 2 x 16, kv heads 1"),
            "q_proj.weight: 4 x 8 heads in the source, 2 x 16 here",
        ),
        (("swiglu(48)", "swiglu(40)"), r"ffn.gate_proj.weight: \[48, 32\] in the source, \[40, 32\] here"),
        (("heads 4 x 8, kv heads 2", "heads 6 x 8, kv heads 3"), "kv heads 2 x 8 in the source, 3 x 8 here"),
    ],
)
def test_other_sizes_are_refused_by_place(change, said):
    source = model_of(spec(DENSE))
    target = archspec.plan(spec(DENSE, header=HEADER.replace(*change)))
    with pytest.raises(CannotMatch, match="have another size in the source") as raised:
        convert(source, target)
    listed = "\n".join(map(str, match(source.plan, target).mismatches))
    assert re.search(said, listed), listed
    assert str(raised.value).count("\n") <= 9
    made = convert(source, target, refit=True)
    refitted = [recipe for recipe in made.matching.recipes if recipe.reason == "of another size"]
    assert len(refitted) == len(made.matching.mismatches) > 0


def test_levels_start_from_levels_alone():
    block = archspec.parse(Path(__file__).parents[2] / "specs/nano/nano_block.arch")
    with pytest.raises(CannotMatch, match="a single stack"):
        convert(model_of(spec(DENSE)), archspec.plan(block))
    with pytest.raises(CannotMatch, match="a single stack"):
        convert(archspec.compile(block, compile=False), archspec.plan(spec(DENSE)))


def test_settings_without_weights_are_told():
    source = model_of(spec(DENSE))
    header = HEADER.replace("rope 10000", "rope interleaved(10000), embed scale sqrt(width)")
    made = convert(source, archspec.plan(spec("layers 1-2 attend", "layers 3-4 attend, rope 10000", header=header)))
    assert made.matching.notes == (
        "the scale of embeddings is 1 in the source, 5.65685 here",
        "the rotation of queries and keys is `rope 10000` in the source, `rope interleaved(10000)` in layers 1-2 here",
    )


def test_bfloat16_means_are_taken_in_float32():
    source = archspec.compile(spec(DENSE), dtype="bfloat16", compile=False)
    target = spec("layers 1 attend", "layers 2-4 cross-attend to cache@1")
    made = convert(source, archspec.plan(target), kv="mean").model.state_dict()["layers.0.mixer.kv.k_proj.weight"]
    parts = [source.state_dict()[f"layers.{idx}.mixer.kv.k_proj.weight"].float() for idx in range(4)]
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, torch.stack(parts).mean(0).bfloat16())


TEXT = b"the cat sat on the mat and the dog sat on the log. " * 40


@pytest.fixture(scope="module")
def trained():
    header = HEADER.replace("vocab 64", "vocab 256")
    model = archspec.compile(spec(DENSE, header=header), seed=1, compile=False)
    ids = torch.tensor(list(TEXT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(130):
        starts = torch.randint(len(ids) - 48, (8,), generator=generator)
        model.loss(torch.stack([ids[start : start + 48] for start in starts])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, header


@pytest.mark.parametrize("kv", ["writer", "mean"])
@pytest.mark.parametrize(
    "shared",
    [
        ("layers 1, 3 attend", "layers 2 cross-attend to cache@1", "layers 4 cross-attend to cache@3"),
        ("layers 1-2 attend", "cache@2: kv heads 2 x 8, norm rms(1e-5)", "layers 3-4 cross-attend to cache@2"),
    ],
)
def test_a_start_from_a_trained_model_is_better_than_none(trained, kv, shared):
    dense, header = trained
    target = spec(*shared, header=header)
    ids = torch.tensor([list(TEXT[:300])])
    with torch.no_grad():
        before = float(dense.loss(ids))
        started = float(convert(dense, archspec.plan(target), kv=kv).model.loss(ids))
        fresh = float(archspec.compile(target, compile=False).loss(ids))
    assert before < 2
    assert before - 1e-6 <= started < fresh - 0.5


@pytest.fixture
def folder(tmp_path):
    source = spec(DENSE)
    archspec.compile(source, compile=False).save(tmp_path / "dense")
    (tmp_path / "dense" / "tokenizer.json").write_text("{}")
    target = "# Shared.\n" + archspec.format_spec(spec("layers 1 attend", "layers 2-4 cross-attend to cache@1"))
    (tmp_path / "shared.arch").write_text(target)
    return tmp_path


def run(*args):
    return CliRunner().invoke(app, ["convert", *map(str, args)])


def test_the_command_writes_a_folder(folder):
    done = run(folder / "dense", "--to", folder / "shared.arch", "-o", folder / "out", "--kv", "mean")
    assert done.exit_code == 0, done.output
    assert "cache@1 from the mean of layers 1-4" in done.stdout
    assert "averaged" in done.stdout
    assert (folder / "out" / "model.arch").read_text() == (folder / "shared.arch").read_text()
    assert (folder / "out" / "tokenizer.json").read_text() == "{}"
    expected = convert(
        archspec.load(folder / "dense", compile=False), archspec.plan(archspec.parse(folder / "shared.arch")), kv="mean"
    )
    for ours, theirs in zip(
        archspec.load(folder / "out", compile=False).state_dict().values(),
        expected.model.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    done = run(folder / "dense", "--to", folder / "shared.arch", "-o", folder / "out", "--json")
    found = json.loads(done.stdout)
    assert set(found["counts"]) == {"copied", "dropped"}
    assert found["caches"] == [{"cache": "cache@1", "layers": [1], "heads": [2, 2]}]
    assert "layers.3.mixer.kv.v_proj.weight" in found["dropped"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("dense", "--to", "wide.arch", "-o", "out"), "cannot convert dense to wide.arch"),
        (("dense", "--to", "shared.arch", "-o", "dense"), "choose another folder"),
        (("absent", "--to", "shared.arch", "-o", "out"), "absent holds no model.arch"),
        (("broken", "--to", "shared.arch", "-o", "out"), "not a safetensors file"),
        (("dense", "--to", "shared.arch", "-o", "out", "--layers", "1-2"), "2 layers are named"),
    ],
)
def test_what_cannot_be_converted(folder, args, said, monkeypatch):
    monkeypatch.chdir(folder)
    Path("wide.arch").write_text(Path("shared.arch").read_text().replace("width 32", "width 64"))
    shutil.copytree("dense", "broken")
    Path("broken/model.safetensors").write_bytes(b"no")
    before = Path("dense/model.safetensors").read_bytes()
    done = run(*args)
    assert isinstance(done.exception, CliError), done.output
    assert said in str(done.exception)
    assert not Path("out").exists()
    assert Path("dense/model.safetensors").read_bytes() == before


def test_layers_that_are_none(folder):
    for text in ("a", "0", "1-", "-2", ""):
        done = run(folder / "dense", "--to", folder / "shared.arch", "-o", folder / "out", f"--layers={text}")
        assert done.exit_code == 2, text


def test_the_page_shows_what_the_commands_print(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    (tmp_path / "specs").symlink_to(root / "specs")
    monkeypatch.chdir(tmp_path)
    commands, shown = re.findall(r"```(?:sh|text)\n(.*?)```", (root / "docs" / "converting.md").read_text(), re.DOTALL)
    printed = [CliRunner().invoke(app, shlex.split(line)[1:]).stdout for line in commands.splitlines()]
    assert "".join(printed) == shown
