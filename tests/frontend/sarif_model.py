"""SARIF 2.1.0 (OASIS), the part that archspec writes, as strict models: an unknown or mistyped field is an error.

Written by hand after the standard's sections 3.13 to 3.57, with its bounds and required fields.
"""

from typing import Annotated, Any, Literal

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Position = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class Object(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Message(Object):
    text: Text


class ArtifactLocation(Object):
    uri: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$")]


class Region(Object):
    start_line: Position
    start_column: Position
    end_line: Position
    end_column: Position

    @model_validator(mode="after")
    def _forwards(self) -> "Region":
        assert (self.start_line, self.start_column) <= (self.end_line, self.end_column)
        return self


class PhysicalLocation(Object):
    artifact_location: ArtifactLocation
    region: Region | None = None


class Location(Object):
    id: Annotated[int, Field(ge=-1)] = -1
    physical_location: PhysicalLocation
    message: Message | None = None


class Replacement(Object):
    deleted_region: Region
    inserted_content: Message | None = None


class ArtifactChange(Object):
    artifact_location: ArtifactLocation
    replacements: Annotated[list[Replacement], Field(min_length=1)]


class Fix(Object):
    description: Message | None = None
    artifact_changes: Annotated[list[ArtifactChange], Field(min_length=1)]
    properties: dict[str, Any] = {}


class Configuration(Object):
    level: Literal["none", "note", "warning", "error"] = "warning"


class Rule(Object):
    id: Text
    name: Text | None = None
    short_description: Message
    help: Message
    default_configuration: Configuration
    properties: dict[str, Any] = {}


class Driver(Object):
    name: Text
    version: Text
    rules: list[Rule]


class Tool(Object):
    driver: Driver


class Result(Object):
    rule_id: Text
    rule_index: Annotated[int, Field(ge=-1)]
    level: Literal["none", "note", "warning", "error"]
    message: Message
    locations: list[Location]
    related_locations: list[Location] = []
    fixes: list[Fix] = []


class Run(Object):
    tool: Tool
    column_kind: Literal["utf16CodeUnits", "unicodeCodePoints"]
    results: list[Result]

    @model_validator(mode="after")
    def _rules_are_there(self) -> "Run":
        rules = self.tool.driver.rules
        assert len({rule.id for rule in rules}) == len(rules)
        assert all(rules[result.rule_index].id == result.rule_id for result in self.results)
        return self


class Log(Object):
    version: Literal["2.1.0"]
    schema_: Annotated[AnyUrl, Field(alias="$schema", strict=False)]
    runs: list[Run]
