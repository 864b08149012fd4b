"""What each word of the language means, taken from the docstrings of the models that it becomes.

Contract: no second description of anything. A word leads to a class of `archspec.spec`, or to one of its fields, and
the docstring there is what an editor shows.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import cleandoc, getsource
from itertools import pairwise
from types import ModuleType

from archspec.spec import clauses, levels, model
from archspec.spec.elaborate import MIXERS
from archspec.syntax import tree
from archspec.syntax.parser import keywords

CHOICES: Mapping[str, tuple[str, ...]] = {
    "_LAYERS": MIXERS,
    "_STEP": MIXERS,
    "LAST": MIXERS,
    "REST": MIXERS,
    "_ROPE": clauses.ROPE_KINDS,
    "_NORM": clauses.NORM_KINDS,
    "_QK_NORM": clauses.NORM_KINDS,
    "_V_NORM": clauses.NORM_KINDS,
    "_SCALED": clauses.SCALINGS,
    "_POSITIONS": clauses.POSITIONS,
    "_SHARED": clauses.FFN_KINDS,
    "_ROUTER": clauses.ROUTERS,
    "_OF": clauses.FFN_KINDS,
    "_FFN": clauses.FFN_KINDS,
    "_BIAS": clauses.BIAS_TARGETS,
    "_RESIDUAL": clauses.RESIDUALS,
    "_LOOKUP": clauses.MERGES,
    "_NO": clauses.NEGATABLE,
    "_DEFINE": (),
    "_LIKE": (),
}
"""Terminal of a keyword -> the words that the language knows where the grammar takes any NAME behind it."""

VALUES = clauses.VALUES
"""Words inside parentheses."""

_SETTINGS = {
    "layers": (model.ModelSpec, "num_layers"),
    "kv_heads": (model.Heads, None),
    "embed_scale": (model.Embedding, "scale"),
}
"""Settings whose meaning is told elsewhere than at their field, and that others use in their examples first."""

_WORDS: Mapping[str, tuple[type, str | None]] = {
    "let": (tree.Let, None),
    "define": (tree.Define, None),
    "like": (tree.Define, None),
    "use": (tree.Use, None),
    "extends": (tree.Model, "base"),
    "cache": (model.CacheStatement, None),
    "to": (model.CacheRef, None),
    "summation": (levels.Take, None),
    "kv": (model.Heads, None),
    "rms": (model.Norm, None),
    "scale": (model.Settings, "attention_scale"),
    "softcap": (model.Settings, "attention_softcap"),
    "no": (model.Settings, None),
}
"""The same for words."""


def meaning_of_setting(key: str) -> str:
    """What a setting means; empty if nothing is known of it."""
    place, field = _SETTINGS.get(key, (model.Settings, key))
    return _text(place, field) or _mention(key.replace("_", " ")) or _mention(key.replace("_", "-"))


def meaning(word: str) -> str:
    """What a word means: a keyword, a mixer or a kind; empty if nothing is known of it.

    The docstring that has the word earliest in an example tells it; for a kind that none has, its keyword's.
    """
    if word in MIXERS:
        return _item(_module_docs(model).get("Mixer", ""), word)
    if word in _WORDS:
        return _text(*_WORDS[word])
    return _mention(word) or next((meaning(owner) for owner in _owners(word)), "")


def _owners(word: str) -> Iterator[str]:
    """The keywords that a kind may follow."""
    for keyword, terminal in keywords().items():
        if word in CHOICES.get(terminal, ()):
            yield keyword


def first_line(word: str, text: str) -> str:
    """The line of a meaning that begins with a word, else its first, for a list that shows one line an entry."""
    return (_item(text, word) or text.split("\n", 1)[0]).rstrip(".:")


def _item(text: str, word: str) -> str:
    """The line of a list that begins with a word."""
    lines = (line.removeprefix("- ") for line in text.splitlines())
    return next((line for line in lines if re.match(rf"`{word}[` ]", line)), "")


def _mention(word: str) -> str:
    """The docstring that has a word earliest in an example: `` `tied embeddings`: ... ``."""
    example = re.compile(rf"`(?:[^`]*[^\w`-])?({re.escape(word)})(?![\w-])[^`]*`")
    texts = [text for module in (model, levels) for text in _module_docs(module).values()]
    found = ((match.start(1), text) for text in texts if (match := example.search(text)))
    return min(found, key=lambda each: each[0], default=(0, ""))[1]


def _text(place: type, field: str | None) -> str:
    docs = _module_docs(sys.modules[place.__module__])
    return docs.get(place.__name__ if field is None else f"{place.__name__}.{field}", "")


@cache
def _module_docs(module: ModuleType) -> Mapping[str, str]:
    """Docstrings of a module's classes, of their fields and of the module's names: `Settings.window`, `Mixer`.

    Python keeps none for fields, so the source is read.
    """
    try:
        parsed = ast.parse(getsource(module))
    except (OSError, SyntaxError):
        return {}
    docs = dict(_behind_names(parsed.body))
    for node in parsed.body:
        if isinstance(node, ast.ClassDef):
            docs[node.name] = ast.get_docstring(node) or ""
            docs |= {f"{node.name}.{name}": text for name, text in _behind_names(node.body)}
    return docs


def _behind_names(body: list[ast.stmt]) -> list[tuple[str, str]]:
    """Names that are assigned or declared, with the string that follows."""
    found = []
    for node, following in pairwise(body):
        match node, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found.append((name, cleandoc(text)))
    return found
