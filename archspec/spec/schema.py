"""The JSON Schema of a spec's JSON form, made from the pydantic models and their docstrings."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from archspec.spec import levels, model

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:archspec:spec"


def json_schema() -> dict[str, Any]:
    """The schema of both forms, one stack or two levels; plain values, in a fixed order."""
    adapter: TypeAdapter[Any] = TypeAdapter(levels.LevelsSpec | model.ModelSpec)
    made = adapter.json_schema(mode="validation")
    definitions = made["$defs"]
    for name in ("num_layers", "hidden_size", "embedding", "statements"):
        del definitions["LevelsSpec"]["properties"][name]  # derived from the levels, and no part of the JSON form
    for name, field, text in _field_docstrings():
        definition = definitions.get(name, {})
        if field in definition.get("properties", {}):
            definition["properties"][field]["description"] = text
    _sharpen(definitions)
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_ID,
        "title": "archspec",
        "description": "The JSON form of a spec: a decoder language model whose layers share KV caches.",
        "anyOf": made["anyOf"],
        "$defs": definitions,
    }


def _sharpen(definitions: dict[str, Any]) -> None:
    """Ask for the tags by which pydantic tells statements apart, and shorten defaults that are `null` throughout."""
    for definition in definitions.values():
        for field in definition["properties"].values():
            if isinstance(field.get("default"), dict):
                field["default"] = {key: value for key, value in field["default"].items() if value is not None}
            unions = [field, field.get("items", {}), *field.get("anyOf", ())]
            for tag in (union["discriminator"] for union in unions if "discriminator" in union):
                for target in tag["mapping"].values():
                    tagged = definitions[target.rpartition("/")[2]]
                    tagged["required"] = sorted({*tagged["required"], tag["propertyName"]})


def _field_docstrings() -> Iterator[tuple[str, str, str]]:
    """Class, field and the string below it; pydantic could read these itself, but at every start."""
    for module in (model, levels):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                for field, text in zip(node.body, node.body[1:], strict=False):
                    match field, text:
                        case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                            yield node.name, name, inspect.cleandoc(words)
