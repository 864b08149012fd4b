"""`archspec show` as its users meet it, and specs in notebooks."""

import json
import xml.etree.ElementTree as ET

import pytest
from drawn_specs import ROOT, SPECS
from typer.testing import CliRunner

import archspec
from archspec.cli.main import app

YOCO = ROOT / "specs" / "yoco" / "yoco_3b.arch"
BLOCK = ROOT / "specs" / "block" / "block_main_b4_85.arch"
BROKEN = "model m {\n  layers 2, width 16, vocab 300, heads 2 x 8, ffn gelu(8), rope 100\n  layers 1-3 attend\n}\n"


def show(*args: object):
    return CliRunner().invoke(app, ["show", *map(str, args)])


def test_the_figure_is_what_show_shows():
    assert "●─cache@13: 8 x 128, all" in show(YOCO).stdout
    assert "last token  ╰─reads cache@13" in show(YOCO, "--prefill").stdout
    assert "exit" not in show(YOCO, "--decode").stdout


def test_intermediate_forms_stay():
    assert show(YOCO, "--emit", "spec").stdout.startswith("model yoco_3b {")
    assert show(YOCO, "--emit", "plan").stdout.startswith("plan yoco_3b\n")
    assert show(YOCO, "--format", "json").stdout == show(YOCO, "--emit", "spec", "--format", "json").stdout
    assert json.loads(show(YOCO, "--emit", "graph", "--format", "json").stdout)["nodes"]


@pytest.mark.parametrize("phase", [(), ("--prefill",), ("--decode",)])
@pytest.mark.parametrize("form", ["--svg", "--mermaid", "--dot", "--html"])
def test_forms_on_the_screen_and_in_files(form, phase, tmp_path):
    on_screen = show(BLOCK, form, *phase)
    assert on_screen.exit_code == 0
    starts = {"--svg": "<svg", "--mermaid": "flowchart BT", "--dot": "digraph", "--html": "<!DOCTYPE html>"}
    assert on_screen.stdout.startswith(starts[form])
    target = tmp_path / "figure"
    target.write_text("something else")
    assert show(BLOCK, form, *phase, "-o", target).stdout == ""
    assert target.read_text() == on_screen.stdout
    assert list(tmp_path.iterdir()) == [target]


def test_text_into_a_file(tmp_path):
    assert show(YOCO, "-o", tmp_path / "f").exit_code == 0
    assert (tmp_path / "f").read_text() == show(YOCO).stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((YOCO, "--svg", "--dot"), 2, "choose one of these forms"),
        ((YOCO, "--prefill", "--decode"), 2, "choose one of these phases"),
        ((YOCO, "--svg", "--emit", "plan"), 2, "prints no figure"),
        ((YOCO, "--svg", "--format", "json"), 2, "prints no figure"),
        ((YOCO, BLOCK, "--svg"), 2, "need --html"),
        ((), 2, "Missing argument"),
        (("no/such.arch",), 1, "no such file"),
    ],
)
def test_bad_usage(args, code, said):
    done = show(*args)
    assert done.exit_code == code
    assert said in " ".join(done.output.replace("│", " ").split())


def test_nothing_is_written_for_a_bad_spec_or_into_no_folder(tmp_path):
    broken, target = tmp_path / "broken.arch", tmp_path / "out.svg"
    broken.write_text(BROKEN)
    assert show(broken, "--svg", "-o", target).exit_code == 1
    assert show(YOCO, broken, "--html", "-o", target).exit_code == 1
    assert not target.exists()
    done = show(YOCO, "--svg", "-o", tmp_path / "no" / "folder.svg")
    assert "cannot be written" in str(done.exception)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_pages_of_all_specs_hold_their_numbers(path):
    page = show(path, "--html").stdout
    start = page.index('id="data">') + len('id="data">')
    data = json.loads(page[start : page.index("</script>", start)])
    assert [spec["name"] for spec in data["specs"]] == [archspec.parse(path).name]
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    for part in page.split("<svg ")[1:]:
        ET.fromstring("<svg " + part[: part.index("</svg>")] + "</svg>")


@pytest.mark.parametrize("path", [YOCO, BLOCK], ids=lambda path: path.stem)
def test_notebooks_show_specs_and_plans(path):
    spec = archspec.parse(path)
    for value in (spec, archspec.plan(spec)):
        bundle = value._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html", "image/svg+xml"}
        assert ET.fromstring(bundle["image/svg+xml"]).tag.endswith("svg")
        assert value._repr_html_() == bundle["text/html"]
        assert set(value._repr_mimebundle_(include={"text/html"})) == {"text/html"}
        assert "text/html" not in value._repr_mimebundle_(exclude={"text/html"})


def test_notebooks_show_what_is_wrong_with_a_spec():
    spec = archspec.parse(YOCO)
    bundle = spec.model_copy(update={"num_layers": 27})._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "layer 27" in bundle["text/html"]
