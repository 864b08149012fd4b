"""The page of the table in Markdown, from raw results alone. No torch."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from archspec.bench.report import Report
from archspec.quality.results import Result, read_results
from archspec.quality.variants import FORMS, REFERENCE, VARIANTS, Form, Variant
from archspec.units import format_bytes

SPEED_FILE = "speed.json"
PLOT_LINK = "![Loss against bytes of caches, and by position in the context](../figures/quality.svg)"
_LEGEND = """\
What was trained, and what can be concluded from it: [quality.md](../quality.md). Numbers are medians over seeds; where
there are several, the least and the largest stand behind them. Loss is that of held-out text, in nats a byte. Recall is
the share of right answers, the mean over {pairs} pairs; guessing among the values of a sequence
gives {chance:.2f}. Caches are those of one sequence of {context} bytes in bfloat16, by the plan."""

Rows = list[tuple[Variant, list[Result]]]
"""Results of each variant, in the order of the table."""


def read_forms(raw: Path) -> dict[str, list[Result]]:
    """Results by form, of those forms that have any. Errors: ValueError if there are none at all."""
    found = {name: results for name in FORMS if (results := read_results(raw, name))}
    if not found:
        raise ValueError(f"there are no results in {raw}")
    return found


def page(raw: Path) -> tuple[str, str]:
    """Name and text of the page that the raw results make. Errors: as of `read_forms`."""
    forms = read_forms(raw)
    everything = [result for results in forms.values() for result in results]
    first = everything[0]
    chance = sum(1 / row.pairs for row in first.recall) / len(first.recall)
    speed = read_speed(raw)
    parts = [
        "# Quality of small models that share caches",
        _facts(everything),
        _LEGEND.format(context=first.context, chance=chance, pairs=_listed(first)),
        PLOT_LINK,
        *(part for name, results in forms.items() for part in _section(FORMS[name], results)),
        *([] if speed is None else _speeds(speed)),
    ]
    return page_name(everything), "\n\n".join(parts) + "\n"


def _listed(result: Result) -> str:
    *most, last = (str(row.pairs) for row in result.recall)
    return f"{', '.join(most)} and {last}"


def page_name(results: Sequence[Result]) -> str:
    """`quality_intel-xeon-2-cores_202611.md`: where and when the first job was done."""
    first = min(results, key=lambda result: result.date)
    return f"quality_{first.hardware_slug}_{first.date[:4]}{first.date[5:7]}.md"


def read_speed(raw: Path) -> Report | None:
    """How fast the models are side by side, if that was measured."""
    path = raw / SPEED_FILE
    return Report.model_validate_json(path.read_text("utf-8")) if path.is_file() else None


def by_variant(results: Sequence[Result]) -> Rows:
    """In the order of the table; variants without a result are left out."""
    rows = [(variant, [result for result in results if result.variant == variant.name]) for variant in VARIANTS]
    return [(variant, found) for variant, found in rows if found]


def _facts(results: Sequence[Result]) -> str:
    last = max(results, key=lambda result: result.date)
    versions = ", ".join(f"{name} {number}" for name, number in last.versions.items())
    hardware = "; ".join(sorted({result.hardware for result in results}))
    corpora = ", ".join(sorted({f"`{result.corpus[:12]}`" for result in results}))
    sizes = ", ".join(sorted({f"{result.text_bytes:,}" for result in results}))
    return (
        f"    python benchmarks/quality.py\n\nUp to {last.date[:10]}, {hardware}; {versions}. "
        f"Text of {sizes} bytes; SHA-256 of what is read begins with {corpora}."
    )


def _section(form: Form, results: list[Result]) -> list[str]:
    wanted = [(variant, seed) for seed in range(form.seeds) for variant in form.specs]
    there = {(result.variant, result.seed) for result in results}
    missing = [f"`{variant}` with seed {seed}" for variant, seed in wanted if (variant, seed) not in there]
    told = (
        f"{form.steps} steps of {form.batch} x {results[0].context} bytes, {results[0].tokens:,} in all. "
        f"Jobs that are in: {len(wanted) - len(missing)} of {len(wanted)}."
    )
    if missing:
        told += f" Not yet: {', '.join(missing)}."
    rows = by_variant(results)
    return [
        f"## The {form.name} form",
        told,
        _main_table(rows),
        _claims(rows),
        "Mean loss of predictions from so many bytes of context:",
        _by_position(rows),
        "Share of right answers by pairs to recall:",
        _by_pairs(rows),
    ]


def _main_table(rows: Rows) -> str:
    dense = {result.seed: result for variant, found in rows if variant.name == REFERENCE for result in found}
    dense_cache = next(iter(dense.values())).cache_bytes if dense else None
    columns = ("model", "parameters", "seeds", "loss", "to dense", "bits a byte", "recall", "caches", "to dense")
    lines = []
    for variant, found in rows:
        gaps = [result.loss - dense[result.seed].loss for result in found if result.seed in dense]
        cache = found[0].cache_bytes
        lines.append(
            (
                variant.title,
                f"{found[0].parameters:,}",
                str(len(found)),
                _spread([result.loss for result in found], 3),
                "-" if variant.name == REFERENCE or not gaps else f"{median(gaps):+.3f}",
                f"{median(result.bits_per_byte for result in found):.3f}",
                _spread([result.recall_accuracy for result in found], 2),
                format_bytes(cache),
                "-" if dense_cache is None or variant.name == REFERENCE else f"1/{dense_cache / cache:.1f}",
            )
        )
    return _table(columns, lines)


def _claims(rows: Rows) -> str:
    """What papers say, beside what came out."""
    dense = {result.seed: result for variant, found in rows if variant.name == REFERENCE for result in found}
    lines = []
    for variant, found in rows:
        pairs = [(result, dense[result.seed]) for result in found if result.seed in dense]
        if variant.name != REFERENCE and pairs:
            gaps = [own.loss - base.loss for own, base in pairs]
            caches = pairs[0][1].cache_bytes / pairs[0][0].cache_bytes
            here = f"loss {_spread(gaps, 3, sign='+')} against dense, 1/{caches:.1f} of its caches"
            lines.append((variant.title, f"{variant.claim} (arXiv {variant.papers})", here))
    return _table(("model", "the paper", "here"), lines, align="---|")


def _by_position(rows: Rows) -> str:
    """Medians over seeds. Not all models predict at all positions."""
    places = sorted({place for _, found in rows for result in found for place in result.losses})
    heads = [str(last) if first == last else f"{first}-{last}" for first, last in places]
    lines = []
    for variant, found in rows:
        at = [[result.losses[place] for result in found if place in result.losses] for place in places]
        lines.append((variant.title, *(f"{median(losses):.2f}" if losses else "-" for losses in at)))
    return _table(("model", *heads), lines)


def _by_pairs(rows: Rows) -> str:
    """Medians over seeds."""
    pairs = [row.pairs for row in rows[0][1][0].recall]
    lines = []
    for variant, found in rows:
        at = [[row.accuracy for result in found for row in result.recall if row.pairs == number] for number in pairs]
        lines.append((variant.title, *(f"{median(accuracies):.2f}" for accuracies in at)))
    return _table(("model", *map(str, pairs)), lines)


def _speeds(speed: Report) -> list[str]:
    """Ratios, never seconds."""
    section = speed.sections[0]
    titles = {variant.name: variant.title for variant in VARIANTS}
    whats = list(dict.fromkeys(line.what for line in section.lines))
    ratios = {(line.model, line.what): line.speed for line in section.lines}
    lines = []
    for model in section.models:
        found = [ratios.get((model.name, what)) for what in whats]
        lines.append((titles[model.name], *("-" if each is None else f"{each.median:.2f}" for each in found)))
    left = [f"Not measured: {left.model}, {left.workload}: {left.why}." for left in section.left]
    return [
        "## Speed",
        f"    {speed.command}\n\nTokens a second as multiples of the dense model's, measured side by side on "
        f"{speed.date[:10]}, {speed.machine.hardware}, one thread: the median over rounds in which all models run in "
        "turn. Caches this small fit the processor's own: what sharing is for does not show at this size.",
        _table(("model", *whats), lines),
        *left,
    ]


def _spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    middle, least, most = (f"{value:{sign}.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], align: str = "---:|") -> str:
    head = ["| " + " | ".join(columns) + " |", "|---|" + align * (len(columns) - 1)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)])
