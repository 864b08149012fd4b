"""Which names may be used at a place of a text that need not be whole: the question behind completion of names."""

from collections.abc import Mapping
from dataclasses import dataclass

from archspec.compose.findings import Findings
from archspec.compose.library import Library, collect
from archspec.files import Reader, read_source
from archspec.source import Source, Span
from archspec.syntax import tree
from archspec.syntax.parser import parse_file


@dataclass(frozen=True)
class Names:
    """Definitions by name: those of the file, of the files that it uses, and of the model around the place."""

    lets: Mapping[str, tree.Let]
    templates: Mapping[str, tree.Define]


def names_at(source: Source, offset: int, read: Reader = read_source) -> Names:
    """The names that mean something at an offset. What is being defined there is not among them."""
    file, _ = parse_file(source)
    library = collect(source, file, Findings(), read)
    lets = dict(library.lets)
    for model in (model for model in file.models if _covers(model.span, source, offset)):
        for part in reversed(_chain(model, library)):
            lets |= _by_name(part.lets)
        for level in (part for part in model.statements if isinstance(part, tree.Level)):
            lets |= _by_name(level.lets) if _covers(level.span, source, offset) else {}
    return Names(
        {word: let for word, let in lets.items() if not _covers(let.span, source, offset)},
        {word: define for word, define in library.defines.items() if not _covers(define.span, source, offset)},
    )


def _chain(model: tree.Model, library: Library) -> list[tree.Model]:
    """The model, the one that it extends, and so on; each once, in a circle as well."""
    chain = [model]
    while chain[-1].base is not None:
        base = library.models.get(str(chain[-1].base.value))
        if base is None or any(base is part for part in chain):
            break
        chain.append(base)
    return chain


def _by_name(lets: tuple[tree.Let, ...]) -> dict[str, tree.Let]:
    return {str(let.name.value): let for let in lets}


def _covers(span: Span, source: Source, offset: int) -> bool:
    """Whether an offset is in a definition: up to its brace, or on its line; one that is not closed goes on."""
    if span.source is not source or offset < span.start:
        return False
    if "{" not in span.text:
        return not source.text[span.end : offset].strip(" \t")
    return offset < span.end or (not span.text.endswith("}") and source.text[span.end : offset].isspace())
