"""The page of a run, in Markdown: ratios, how long people wait for a first token, and all that it takes to run it
again."""

from archspec.bench.report import Line, Report, Section
from archspec.units import format_bytes

COLUMNS = ("workload", "model", "batch", "speed", "quartiles", "of read bandwidth", "caches", "peak")
_LEGEND = """\
Speed is tokens a second as multiples of the reference's: the median over rounds in which all models run in turn.
Quartiles are those of the same ratios. "Of read bandwidth" is the share of the machine's measured read bandwidth at
which a step of decoding reads the weights and caches that it needs. "Peak" is weights, caches and the most that was
allocated beside them. Of a first token the seconds until it is there stand beside its speed. How all of this is
measured: [bench.md](../bench.md)."""


def page_name(report: Report) -> str:
    """`cpu_amd-epyc-2-cores_202611.md`."""
    return f"{report.theme}_{report.machine.slug}_{report.date[:4]}{report.date[5:7]}.md"


def page(report: Report) -> str:
    """The whole page."""
    parts = [
        f"# Benchmarks: {report.theme}, {report.machine.hardware}",
        _facts(report),
        _LEGEND,
        *(part for section in report.sections for part in _section(section)),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    reads = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in report.read_bandwidth.items())
    threads = f"{machine.threads} thread{'s' * (machine.threads > 1)}"
    return "\n".join(
        [
            f"    {report.command}",
            "",
            f"{report.date[:10]}, {machine.system}, {machine.processor} ({machine.cores} cores, torch uses {threads})"
            + (f", {machine.accelerator}" if machine.accelerator else "")
            + f"; {versions}.",
            f"Read bandwidth in the same run: {reads}. At most {report.rounds} rounds;"
            f" the run took {report.seconds / 60:.1f} minutes.",
        ]
    )


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}", f"1.00 is `{section.reference}`."]
    if section.lines:
        rows = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
        rows += ["| " + " | ".join(cells(line)) + " |" for line in section.lines]
        parts.append("\n".join(rows))
    if section.left:
        parts.append("\n".join(f"Not measured: {left.model}, {left.workload}: {left.why}." for left in section.left))
    return parts


def cells(line: Line) -> tuple[str, ...]:
    """A line under `COLUMNS`."""
    speed = line.speed
    return (
        line.what,
        line.model,
        str(line.batch),
        "-" if speed is None else f"{speed.median:.2f}{_wait(line)}",
        "-" if speed is None or len(line.rates) == 1 else f"{speed.low:.2f} - {speed.high:.2f}",
        "-" if line.bandwidth_share is None else f"{100 * line.bandwidth_share:.0f} %",
        format_bytes(line.cache_bytes) if line.cache_bytes else "-",
        "-" if line.peak_bytes is None else format_bytes(line.peak_bytes),
    )


def _wait(line: Line) -> str:
    """Of a first token, whose rate is sequences by its seconds."""
    return f" ({line.batch / line.tokens_per_second.median:.1f} s)" if line.workload.kind == "compile" else ""
