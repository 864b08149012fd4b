"""What each word of the language means, taken from the docstrings of the models that it becomes.

Contract: no second description of anything. A word leads to a class of `archspec.spec`, or to one of its fields, and
the docstring there is what an editor shows.
"""

import ast
import re
import sys
from collections.abc import Mapping
from functools import cache
from inspect import cleandoc, getsource
from itertools import pairwise
from types import ModuleType

from archspec.spec import clauses, levels, model
from archspec.spec.elaborate import MIXERS
from archspec.syntax.parser import keywords

CHOICES: Mapping[str, tuple[str, ...]] = {
    "_LAYERS": MIXERS,
    "_STEP": MIXERS,
    "LAST": MIXERS,
    "REST": MIXERS,
    "_ROPE": clauses.ROPE_KINDS,
    "_NORM": clauses.NORM_KINDS,
    "_QK_NORM": clauses.NORM_KINDS,
    "_FFN": clauses.FFN_KINDS,
    "_BIAS": clauses.BIAS_TARGETS,
    "_RESIDUAL": clauses.RESIDUALS,
    "_LOOKUP": clauses.MERGES,
    "_NO": clauses.NEGATABLE,
}
"""Terminal of a keyword -> the words that the language knows where the grammar takes any NAME behind it."""

_SETTINGS = {
    "layers": (model.ModelSpec, "num_layers"),
    "width": (model.ModelSpec, "hidden_size"),
    "vocab": (model.ModelSpec, "vocab_size"),
    "final_softcap": (model.ModelSpec, "final_softcap"),
    "embed_scale": (model.Embedding, "scale"),
    "tied": (model.Embedding, "tied"),
    "embed_lookup": (levels.Lookup, None),
    "heads": (model.Heads, None),
    "kv_heads": (model.Heads, None),
    "window": (model.Window, None),
    "sinks": (model.Window, None),
    "rope": (model.Rope, None),
    "norm": (model.Norm, None),
    "ffn": (model.Ffn, None),
}
"""Key of a setting -> where its meaning stands, if that is not the docstring of its field in `Settings`."""

_OTHER_WORDS = {
    "model": (model.ModelSpec, None),
    "layers": (model.LayersStatement, None),
    "rest": (model.LayersStatement, None),
    "step": (model.LayerRange, None),
    "last": (model.LayerRange, None),
    "cache": (model.CacheStatement, None),
    "to": (model.CacheRef, None),
    "below": (model.CacheRef, None),
    "iterate": (model.IterateStatement, None),
    "forward": (model.IterateStatement, None),
    "backward": (model.IterateStatement, None),
    "prefill": (model.PrefillExitStatement, None),
    "exit": (model.PrefillExitStatement, None),
    "after": (model.PrefillExitStatement, None),
    "blocks": (levels.BlockLevel, None),
    "of": (levels.BlockLevel, None),
    "tokens": (levels.TokenLevel, None),
    "in": (levels.TokenLevel, None),
    "block": (levels.TokenLevel, None),
    "emit": (levels.BlockLevel, "emit"),
    "prefix": (levels.Take, None),
    "summation": (levels.Take, None),
    "from": (levels.Take, None),
    "lookup": (levels.Lookup, None),
    "embed": (model.Embedding, "scale"),
    "scale": (model.Settings, "attention_scale"),
    "attention": (model.Settings, "attention_scale"),
    "softcap": (model.Settings, "attention_softcap"),
    "rsqrt": (model.Settings, "attention_scale"),
    "sqrt": (model.Embedding, "scale"),
    "final": (model.ModelSpec, "final_softcap"),
    "embeddings": (model.Embedding, "tied"),
    "kv": (model.Heads, None),
    "x": (model.Heads, None),
    "on": (model.Rope, None),
    "pre": (model.Settings, "placement"),
    "post": (model.Settings, "placement"),
    "sandwich": (model.Settings, "placement"),
    "norms": (model.Settings, "placement"),
    "no": (model.Settings, None),
}
"""Keywords that do not start a setting of one word."""

_NOT_FIELDS = {"diagonal": (model.Settings, "diagonal"), "softcap": (model.Settings, "attention_softcap")}


def meaning_of_setting(key: str) -> str:
    """What a setting means; empty if nothing is known of it."""
    place, field = _SETTINGS.get(key, (model.Settings, key))
    return _text(place, field)


def meaning(word: str) -> str:
    """What a word means: a keyword, a mixer or a kind; empty if nothing is known of it."""
    if word in MIXERS:
        return _item(_module_docs(model).get("Mixer", ""), word)
    if word in _OTHER_WORDS:
        return _text(*_OTHER_WORDS[word])
    key = word.replace("-", "_")
    if key in _SETTINGS or key in model.Settings.model_fields:
        return meaning_of_setting(key)
    if word in _NOT_FIELDS:
        return _text(*_NOT_FIELDS[word])
    terminals = {terminal: name for name, terminal in keywords().items()}
    owners = [terminals[terminal] for terminal, known in CHOICES.items() if word in known and terminal in terminals]
    return meaning(owners[0]) if owners else ""


def first_line(word: str, text: str) -> str:
    """The line of a meaning that begins with a word, else its first, for a list that shows one line an entry."""
    return (_item(text, word) or text.split("\n", 1)[0]).rstrip(".:")


def _item(text: str, word: str) -> str:
    """The line of a list that begins with a word."""
    lines = (line.removeprefix("- ") for line in text.splitlines())
    return next((line for line in lines if re.match(rf"`{word}[` ]", line)), "")


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
