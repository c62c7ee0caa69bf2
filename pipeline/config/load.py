"""ANYWHERE. From YAML, targets and ``--set`` to one validated `PipelineConfig`; every offence is named at once."""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from pipeline import storage
from pipeline.config.data import (
    CleanConfig,
    DatasetConfig,
    FeatureConfig,
    LabelConfig,
    SourceConfig,
    SplitConfig,
)
from pipeline.config.release import Bound, EvaluationConfig, ServingConfig, TrackingConfig
from pipeline.config.section import Section
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError, InputMissingError, StorageError


class PipelineConfig(Section):
    """The whole configuration."""

    source: SourceConfig = SourceConfig()
    clean: CleanConfig = CleanConfig()
    features: dict[str, FeatureConfig] = Field(min_length=1)
    label: LabelConfig
    split: SplitConfig = SplitConfig()
    dataset: DatasetConfig
    model: ModelConfig = ModelConfig(name="tabular")
    training: TrainingConfig
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: dict[str, Bound] = {}
    serving: ServingConfig = ServingConfig()

    @field_validator("features")
    @classmethod
    def _plain_names(cls, features: dict[str, FeatureConfig]) -> dict[str, FeatureConfig]:
        odd = [name for name in features if not re.fullmatch(r"[A-Za-z]\w*", name)]
        if odd:
            raise ValueError(f"feature names {odd} are not usable; expected letters, digits and underscores; name the raw column with `column:`")
        return features


def load_config(path: str, overrides: Iterable[str] = (), target: str | None = None) -> PipelineConfig:
    """Read a YAML configuration.

    Args:
        path: file or URL; relative paths inside are relative to its folder.
        overrides: ``section.key=value`` strings, the value in YAML, applied last.
        target: name of an entry of the file's ``targets`` mapping, laid over the file.

    Raises:
        InputMissingError: the file is missing or unreadable.
        ConfigError: everything that is wrong with the content, at once.
    """
    try:
        text = storage.read_bytes(path)
    except StorageError as error:
        raise InputMissingError(f"config {path} is missing or unreadable; expected a YAML file; check the path") from error
    values = _parse_yaml(path, text)
    targets = values.pop("targets", {})
    if target is not None:
        if not isinstance(targets, dict) or target not in targets:
            known = ", ".join(targets) if isinstance(targets, dict) and targets else "none"
            raise ConfigError(f"--target is {target!r}; expected one of those in {path}: {known}")
        values = _merge(values, targets[target])
    for override in overrides:
        _apply_override(values, override)
    folder = path.rsplit("/", 1)[0] if "://" in path else os.path.dirname(os.path.abspath(path))
    return parse_config(values, folder)


def parse_config(values: Mapping[str, Any], folder: str | None = None) -> PipelineConfig:
    """Validate plain values; relative paths are relative to ``folder``, by default the working directory."""
    try:
        return PipelineConfig.model_validate(dict(values), context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(*(_offence(item) for item in error.errors())) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML resolves in silence."""


def _mapping_without_duplicates(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]  # type: ignore[no-untyped-call]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {', '.join(twice)} is given twice", node.start_mark)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def _parse_yaml(path: str, text: bytes) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f" line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where} is not readable YAML: {problem}; expected sections with keys") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is {type(values).__name__}; expected a mapping of sections")
    return values


def _merge(base: dict[str, Any], over: Any) -> dict[str, Any]:
    if not isinstance(over, dict):
        raise ConfigError(f"a target is {over!r}; expected a mapping of sections")
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override} is not understood; expected --set section.key=value")
    for part in parts[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    values[parts[-1]] = _parse_yaml(f"--set {key}", f"value: {text}".encode())["value"]


def _offence(item: Any) -> str:
    location = [str(part) for part in item["loc"] if part not in ("float", "int", "str") and not str(part).startswith("function-")]
    where = ".".join(location) or "the configuration"
    if item["type"] == "extra_forbidden":
        return f"{where} is unknown; {_known_keys(location)}"
    if item["type"] == "missing":
        return f"{where} is missing; expected a value; add it to the configuration"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{where}: {message}"
    expected = re.sub(r"^Input should be ", "", message)
    return f"{where} is {item['input']!r}; expected {expected}"


def _known_keys(location: list[str]) -> str:
    """The nearest known key, or all of them, of the section that an unknown key was found in."""
    known = _keys_at(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1)
    return f"did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"expected one of {', '.join(known)}"


def _keys_at(location: list[str]) -> list[str]:
    models: list[Any] = [PipelineConfig]
    for part in location:
        models = [inner for model in models for inner in _inner_models(model, part)] or models
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _inner_models(model: type[BaseModel], part: str) -> list[type[BaseModel]]:
    field = model.model_fields.get(part)
    if field is not None:
        return _models_in(field.annotation)
    tags = [getattr(model.model_fields.get("type"), "annotation", None)]
    return [model] if any(part in typing.get_args(tag) for tag in tags) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
