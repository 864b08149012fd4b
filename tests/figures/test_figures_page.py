"""The page in a browser: sliders give the numbers of `archspec memory`, caches light up, nothing runs over the edge."""

import json
import shutil
from pathlib import Path

import pytest
from drawn_specs import HARD, ROOT
from typer.testing import CliRunner

from archspec.cli.main import app
from archspec.figures.metrics import text_width

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

NAMES = ("yoco/yoco_3b_window.arch", "lckv/tinyllama_lckv_w2.arch", "yoco/yoco_3b.arch")
SHOWN = [ROOT / "specs" / name for name in NAMES]
LEVELS = ROOT / "specs" / "block" / "block_main_b4_85.arch"


def archspec_(*args: object) -> str:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    archspec_("show", *SHOWN, LEVELS, "--html", "-o", path)
    return path


@pytest.fixture
def page(browser, document):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: found.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(document.as_uri())
    yield page
    assert found == []
    page.close()


def press(page, slider: str, key: str, times: int) -> None:
    page.focus(f"#{slider}")
    for _ in range(times):
        page.keyboard.press(key)


def digits(text: str) -> int:
    return int("".join(filter(str.isdigit, text.split("bytes")[0])))


@pytest.mark.parametrize(
    ("batch", "context", "dtype"),
    [
        (1, 32768, "bfloat16"),
        (8, 512, "bfloat16"),
        (1024, 1 << 24, "float64"),
        (2, 1, "float32"),
        (1, 2, "float16"),
        (4, 1 << 20, "int8"),
    ],
)
def test_sliders_say_what_memory_says(page, batch, context, dtype):
    press(page, "batch", "ArrowRight", batch.bit_length() - 1)
    step = context.bit_length() - 1 - 15
    press(page, "context", "ArrowRight" if step > 0 else "ArrowLeft", abs(step))
    press(page, "dtype", "Home", 1)
    press(page, "dtype", "ArrowRight", ["float8", "int8", "bfloat16", "float16", "float32", "float64"].index(dtype))
    assert page.text_content("#batch-value") == str(batch)
    assert page.text_content("#dtype-value") == dtype
    for number, path in enumerate([*SHOWN, LEVELS]):
        args = ("memory", path, "--batch", batch, "--context", context, "--cache-dtype", dtype, "--json")
        (row,) = json.loads(archspec_(*args))["rows"]
        section = page.locator(f"#f{number}")
        assert digits(section.locator(".bytes").text_content()) == row["cache_bytes"]
        assert digits(section.locator(".unshared").text_content()) == row["cache_bytes_without_sharing"]
        stores = section.locator(".view.figure output.store").all_text_contents()
        assert sum(map(digits, stores)) == row["cache_bytes"]
    assert page.locator("#chart polyline.curve").count() == 7  # the fourth spec shares nothing


def test_human_sizes_are_those_of_memory(page):
    from archspec.units import format_bytes

    values = [0, 1, 1023, 1024, 1025, 999 << 10, 1000 << 10, 1023 << 10, (1 << 20) - 1, 3 << 29, 7 << 41, 1 << 60]
    assert page.evaluate("values => values.map((v) => human(BigInt(v)))", [str(v) for v in values]) == [
        format_bytes(value) for value in values
    ]


def lit(page) -> set[str]:
    """What is highlighted, without the lines."""
    labels = page.locator("#f1 .view.figure .drawing.wide .on[aria-label]").evaluate_all(
        "parts => parts.map((part) => part.getAttribute('aria-label').split(',')[0].split(':')[0])"
    )
    return set(labels)


def test_a_cache_lights_up_with_its_writer_and_readers(page):
    cache = page.locator("#f1 .view.figure .drawing.wide [aria-label^='cache@21:']")
    expected = {"cache@21", "K/V of layer 21", "Attention", "Cross-attention"}
    assert lit(page) == set()
    cache.hover()
    assert lit(page) == expected
    assert "read by layers 2-20" in page.text_content("#f1 .view.figure .said")
    page.mouse.move(0, 0)
    assert not page.locator("#f1 .lit").count()
    page.locator("#f1 .view.figure tr[data-uses$='s1']").first.hover()  # a row of the table lights up the figure
    assert lit(page) >= {"cache@21"}


def test_caches_are_reached_by_keyboard(page):
    page.focus("input[name=view]:checked")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.getAttribute('aria-label')")
        if label and label.startswith("cache@21:"):
            assert lit(page) == {"cache@21", "K/V of layer 21", "Attention", "Cross-attention"}
            page.keyboard.press("Escape")
            assert not page.locator("#f1 .lit").count()
            return
        reached.add(label)
    raise AssertionError(f"only {reached} are reached")


def test_views_are_switched_by_keyboard(page):
    page.focus("input[name=view]:checked")
    for view in ("prefill", "decode"):
        page.keyboard.press("ArrowRight")
        assert page.locator(f"#f0 .view.{view}").is_visible()
        assert page.locator("#f0 .view").locator("visible=true").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_over_the_edge(browser, document, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(document.as_uri())
    for view in ("figure", "prefill", "decode"):
        page.check(f"input[value={view}]", force=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        drawn = page.locator("svg.archspec").locator("visible=true")
        assert drawn.count() == 4
        for box in drawn.evaluate_all("all => all.map((svg) => [svg.getBoundingClientRect().right, svg.clientWidth])"):
            assert box[0] <= width
            assert box[1] > 250
        contrast = page.evaluate(CONTRAST)
        assert len(contrast) > 20
        assert min(contrast.values()) >= 4.5, sorted(contrast.items(), key=lambda item: item[1])[:5]
    page.close()


CONTRAST = """() => {
  const light = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = light(getComputedStyle(document.body).backgroundColor), found = {};
  for (const text of document.querySelectorAll("svg.archspec text")) {
    const own_box = text.getBoundingClientRect(), x = own_box.x + own_box.width / 2, y = own_box.y + own_box.height / 2;
    if (!own_box.width) continue;
    const box = [...text.closest("svg").querySelectorAll("rect")].filter((part) => {
      const r = part.getBoundingClientRect();
      return r.left <= x && x <= r.right && r.top <= y && y <= r.bottom;
    }).pop();
    const below = box ? light(getComputedStyle(box).fill) : ground;
    const own = ratio(light(getComputedStyle(text).fill), below);
    found[text.textContent] = Math.min(own, found[text.textContent] ?? 99);
  }
  return found;
}"""


def test_texts_are_no_wider_than_they_were_measured(browser, tmp_path):
    """With the fonts of this machine; the layout leaves room for the wider of two common ones."""
    page = browser.new_page()
    for name, text in HARD.items():
        spec = tmp_path / f"{name}.arch"
        spec.write_text(text)
        page.set_content(archspec_("show", spec, "--svg"))
        measured = page.locator("svg text").evaluate_all(
            "all => all.map((t) => [t.textContent, t.getAttribute('font-size'), t.getAttribute('font-weight'),"
            " t.getComputedTextLength()])"
        )
        for text, size, weight, width in measured:
            assert width <= text_width(text, float(size), weight == "bold") + 0.5, text
    page.close()
