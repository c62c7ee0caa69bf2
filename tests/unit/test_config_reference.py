"""The reference of the configuration is made from the configuration, and says something of every key."""

from __future__ import annotations

import argparse
import importlib.util
import json

import pytest
import yaml

from pipeline import commands
from pipeline.config.reference import json_schema, markdown
from tests.conftest import REPOSITORY


def test_the_document_is_current() -> None:
    written = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert written == markdown(), "run `python -m pipeline.config.reference > docs/configuration.md`"


def test_every_key_is_described_and_every_section_has_a_table() -> None:
    schema = json_schema()
    bare = [
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key, value in definition["properties"].items()
        if not {"description", "const", "$ref"} & set(value)
    ]
    assert bare == []
    for section in ("source.inputs.<name>", "clean.rules[]", "features.<name>: {type: vector}", "training.checkpoint"):
        assert f"# `{section}`\n" in markdown()


def test_defaults_and_bounds_are_said() -> None:
    rows = markdown().splitlines()
    assert any(row.startswith("| `url` | text | required |") for row in rows)
    assert any(row.startswith("| `epochs` | whole number, at least 1 | `10` |") for row in rows)
    assert any(row.startswith("| `fraction` | number, at least 1e-06, at most 1 | required |") for row in rows)
    assert any(row.startswith("| `clip` | list of 2 number, at least 0, at most 1 or `iqr` |") for row in rows)


def test_the_schema_is_what_editors_expect(capsys: pytest.CaptureFixture[str]) -> None:
    commands.config(argparse.Namespace(what="schema", config=None))
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["required"] == ["features", "dataset"]
    assert "run_url" not in schema["$defs"]["TrainingConfig"]["required"]
    assert schema["properties"]["targets"]["type"] == "object"
    kinds = {value["type"] for value in schema["$defs"]["DatasetConfig"]["properties"]["keep"]["anyOf"]}
    assert kinds == {"string", "array"}


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
@pytest.mark.parametrize("example", ["flights", "digits"])
def test_the_examples_are_valid_by_the_schema(example: str) -> None:
    import jsonschema

    values = yaml.safe_load((REPOSITORY / "examples" / example / "pipeline.yaml").read_text())
    jsonschema.Draft202012Validator(json_schema()).validate(values)
