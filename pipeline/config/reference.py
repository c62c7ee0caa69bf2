"""ANYWHERE. What a configuration may hold, for editors and for people: a JSON schema, and the tables of a document.

``python -m pipeline.config.reference > docs/configuration.md`` writes the document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pipeline.config.load import PipelineConfig

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {}",
    "minProperties": "at least {}",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false", "null": "empty"}

_INTRODUCTION = """\
# Configuration

Made by `python -m pipeline.config.reference` from `pipeline/config/`; a test sees that it is current.
Editors take the same as a JSON schema: `pipeline config schema > schema.json`, and in the first line of a configuration
`# yaml-language-server: $schema=schema.json`.

* Relative paths are relative to the folder of the file. An unknown key is an error; everything wrong is said at once.
* `--set section.key=value` comes last; the value is YAML.
* `targets:` holds named parts of a configuration: `--target cluster` lays `targets.cluster` over the file, key by key.
* `${env:NAME}` in `source.inputs.<name>.options`, `tracking.uri` and `cluster.spark` is read where it is used, and
  kept or shown nowhere. Secrets that are written out are refused.
* Write dates and times with quotes or without; without a zone they are UTC.
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    schema = PipelineConfig.model_json_schema()
    training = schema["$defs"]["TrainingConfig"]
    training["required"] = [key for key in training["required"] if key != "run_url"]  # by default beside the dataset
    training["properties"]["run_url"]["default"] = "<dataset.url>-run"
    schema["required"] = [key for key in schema["required"] if key != "training"]
    schema["properties"]["targets"] = {
        "description": "Named overrides: `--target NAME` lays its sections over the file.",
        "type": "object",
        "additionalProperties": {"type": "object", "properties": {key: {} for key in schema["properties"]}},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def markdown() -> str:
    """The document: a table for each section."""
    schema = json_schema()
    del schema["properties"]["targets"]
    lines = [_INTRODUCTION]
    for name, value in schema["properties"].items():
        lines += _section(schema["$defs"], name, value, 2)
    return "\n".join(lines)


def _section(definitions: dict[str, Any], path: str, value: dict[str, Any], level: int) -> Iterator[str]:
    """The sections that a key leads to, each with those within it."""
    for where, definition in _inner(definitions, path, value):
        text = definition.get("description", "")
        if level == 2:  # what is said of other keys stands in the table above
            text = f"{text} {value.get('description', '')}".strip()
        yield f"{'#' * min(level, 4)} `{where}`\n\n{_one_line(text)}\n"
        required = definition.get("required", [])
        rows = [
            f"| `{key}` | {_type(one)} | {_default(one, key in required)} | {_described(definitions, one)} |"
            for key, one in definition["properties"].items()
            if not (key == "type" and "const" in one)
        ]
        yield "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows]) + "\n"
        for key, one in definition["properties"].items():
            yield from _section(definitions, f"{where}.{key}", one, level + 1)


def _inner(definitions: dict[str, Any], path: str, value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and definition of each section that a value may be, or hold."""
    if "$ref" in value:
        definition = definitions[value["$ref"].rpartition("/")[2]]
        kind = definition["properties"].get("type", {}).get("const")
        yield (f"{path}: {{type: {kind}}}" if kind else path), definition
    for one in [*value.get("anyOf", []), *value.get("oneOf", [])]:
        yield from _inner(definitions, path, one)
    if isinstance(value.get("additionalProperties"), dict):
        yield from _inner(definitions, f"{path}.<name>", value["additionalProperties"])
    if isinstance(value.get("items"), dict):
        yield from _inner(definitions, f"{path}[]", value["items"])


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return "section"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if several := [*value.get("anyOf", []), *value.get("oneOf", [])]:
        return " or ".join(dict.fromkeys(_type(one) for one in several if one.get("type") != "null"))
    bounds = [] if _fixed(value) else [text.format(value[name]) for name, text in _BOUNDS.items() if name in value]
    return ", ".join([_plain_type(value), *bounds])


def _fixed(value: dict[str, Any]) -> str:
    """The number of items of a list that has so many."""
    return f"{value['minItems']} " if value.get("minItems", 0) == value.get("maxItems") else ""


def _plain_type(value: dict[str, Any]) -> str:
    if value.get("type") == "array":
        return f"list of {_fixed(value)}{_type(value.get('items', {}))}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"{_type(inner)} by name" if isinstance(inner, dict) and inner else "section"
    return _TYPES.get(value.get("type", ""), "any")


def _default(value: dict[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    default = value.get("default")
    if isinstance(default, dict) and (default or "$ref" in value):
        return ""  # said in the section's own table
    return "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"


def _described(definitions: dict[str, Any], value: dict[str, Any]) -> str:
    """What is said of a key, or of the section that it is."""
    within = [] if value.get("description") else list(_inner(definitions, "", value))
    said = value if not within else within[0][1]
    return _one_line(said.get("description", "").split("\n\n")[0])


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
