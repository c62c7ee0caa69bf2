"""ANYWHERE. YAML as a configuration wants it: safe, each key once, and 1e-3 a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML resolves in silence."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {', '.join(twice)} is given twice", node.start_mark)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would take for something else."""


# YAML 1.1, which PyYAML reads, takes a number in this form without a point for text; YAML 1.2 does not.
_POWER = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _POWER, list("-+0123456789"))


def parse_yaml(where: str, text: bytes) -> dict[str, Any]:
    """The mapping that a text holds.

    Args:
        where: what the text is of, for the error.
        text: UTF-8.

    Raises:
        ConfigError: it is no YAML, or no mapping.
    """
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}{line} is not readable YAML: {problem}; expected sections with keys") from None
    if not isinstance(values, dict):
        what = "empty" if values is None else "a list" if isinstance(values, list) else repr(values)
        raise ConfigError(f"{where} is {what}; expected sections with keys")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """The text that `parse_yaml` reads the same values from."""
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True))
