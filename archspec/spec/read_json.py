"""JSON text -> spec; and for findings in the text form of such a spec, the places in the JSON text.

Contract: `read_json` never raises for any text, and says of every wrong value where it stands.
"""

from collections.abc import Iterator
from functools import cache

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from archspec.diagnostics import Diagnostic
from archspec.source import Source, Span
from archspec.spec.elaborate import elaborate
from archspec.spec.elaborate_levels import LevelsElaborated, elaborate_levels, has_levels
from archspec.spec.errors import InvalidJson
from archspec.spec.format import format_spec
from archspec.spec.json_places import Key, Place, Places, path_text, syntax_place
from archspec.spec.levels import spec_from_json
from archspec.spec.model import ModelSpec
from archspec.spec.spans import SpecSpans
from archspec.syntax.parser import parse_text

MAX_FINDINGS = 100
_FIELDS = {
    "layers": ("num_layers",),
    "width": ("hidden_size",),
    "vocab": ("vocab_size",),
    "final_softcap": ("final_softcap",),
    "final_norm": ("final_norm",),
    "head_bias": ("head_bias",),
    "logit_scale": ("logit_scale",),
    "tied": ("embedding", "tied"),
    "positions": ("embedding", "positions"),
    "embed_norm": ("embedding", "norm"),
    "embed_scale": ("embedding", "scale"),
    "embed_lookup": ("lookup",),
}
"""Fields of the header's settings that are no defaults."""


def read_json(source: Source) -> tuple[ModelSpec | None, list[Diagnostic]]:
    """The spec in a JSON text, or everything that is wrong with it."""
    try:
        return spec_from_json(source.text), []
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        span, message = syntax_place(source, problems[0]["msg"])
        return None, [InvalidJson(span=span, place="", problem=_lower(message))]
    return None, list(_findings(Places(source), problems))


def _findings(places: Places, problems: list[ErrorDetails]) -> Iterator[InvalidJson]:
    """One finding a place: a value that may be of two types has two problems."""
    found: dict[tuple[int, int, str], tuple[Span, str, list[str]]] = {}
    for problem in problems:
        tag = ("kind",) if problem["type"] == "union_tag_invalid" else ()
        place = places.find((*problem["loc"], *tag))
        span, path, text = _said(place, problem)
        found.setdefault((span.start, span.end, path), (span, path, []))[2].append(text)
    for span, path, texts in list(found.values())[:MAX_FINDINGS]:
        yield InvalidJson(
            span=span, place=path, problem=" or ".join(dict.fromkeys(texts)).replace(" or must be ", " or ")
        )


def _said(place: Place, problem: ErrorDetails) -> tuple[Span, str, str]:
    """Where to point at, the path, and what is wrong there."""
    path = path_text(place.path)
    match problem["type"]:
        case "missing":
            absent = path_text((*place.path, problem["loc"][-1]))
            return Span(place.span.source, place.span.start, place.span.start + 1), absent, "is missing"
        case "extra_forbidden":
            return place.key_span, path, "is no field of a spec"
        case "model_type" if not path:
            return place.span, "", "a spec is an object: `{...}`"
        case "union_tag_not_found":
            return Span(place.span.source, place.span.start, place.span.start + 1), f"{path}.kind", "is missing"
        case "union_tag_invalid":
            expected = problem.get("ctx", {}).get("expected_tags", "")
            return place.span, path, f"must be one of {expected}"
        case _:
            return place.span, path, _lower(problem["msg"]).replace("input should be", "must be")


def _lower(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]


def as_text(source: Source, spec: ModelSpec) -> Source:
    """The text form of a spec that was read from JSON; it can say where a place of it is in the JSON text."""

    @cache
    def places() -> tuple[Places, list[tuple[Span, tuple[Key, ...]]]]:
        return Places(source), sorted(_paths(text), key=lambda pair: pair[0].end - pair[0].start)

    def origin(span: Span) -> str:
        index, paths = places()
        path = next((path for around, path in paths if around.start <= span.start and span.end <= around.end), ())
        place = index.find(path)
        name = f"`{path_text(place.path)}`, " if place.path else ""
        return (
            f"these lines are the text form of {source.name}; the place is {name}line {place.span.line}, "
            f"column {place.span.column} of the file"
        )

    text = Source(f"{source.name} (as text)", format_spec(spec), origin)  # `origin` is called later, if at all
    return text


def _paths(text: Source) -> Iterator[tuple[Span, tuple[Key, ...]]]:
    """Every part of a text form, and where it stands in the JSON form."""
    parsed, _ = parse_text(text)
    if parsed is None:
        return
    elaborated = elaborate_levels(parsed)[0] if has_levels(parsed) else elaborate(parsed)[0]
    yield elaborated.spans.name, ("name",)
    yield from _paths_of(elaborated.spans, parsed.span, ())
    if isinstance(elaborated, LevelsElaborated):
        for level in elaborated.levels:
            kind, whole = level.level.kind, level.level.span
            yield whole, (kind,)
            if level.door is not None:
                yield level.door.span, (kind, "emit" if kind == "blocks" else "take")
            yield from _paths_of(level.spans, whole, (kind,))


def _paths_of(spans: SpecSpans, whole: Span, stack: tuple[Key, ...]) -> Iterator[tuple[Span, tuple[Key, ...]]]:
    """Parts of one stack; settings that it has from the model around it are parts of that."""
    fields = _FIELDS | ({"embed_scale": ("embed_scale",)} if stack == ("blocks",) else {})
    for key, span in spans.settings.items():
        if whole.start <= span.start:
            yield span, (*stack, *fields.get(key, ("defaults", key)))
    for number, statement in enumerate(spans.statements):
        path = (*stack, "statements", number)
        yield statement.whole, path
        yield from ((span, (*path, "ranges", idx)) for idx, span in enumerate(statement.items))
        for name, place in (("mixer", statement.mixer), ("source", statement.source)):
            if place is not None:
                yield place, (*path, name)
        yield from ((span, (*path, "settings", key)) for key, span in statement.settings.items())
