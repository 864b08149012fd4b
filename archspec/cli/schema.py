"""`archspec schema`."""


def schema() -> None:
    """Print the JSON Schema of the JSON form of specs, which docs/archspec.schema.json is a copy of.

    Example: archspec schema > docs/archspec.schema.json
    """
    import json

    from archspec.spec.schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
