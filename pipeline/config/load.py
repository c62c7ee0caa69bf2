"""ANYWHERE. From YAML, targets and ``--set`` to one validated `PipelineConfig`; every offence is named at once."""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Container, Iterable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from pipeline import storage
from pipeline.config.agreement import disagreements
from pipeline.config.data import (
    CleanConfig,
    DatasetConfig,
    FeatureConfig,
    LabelConfig,
    SourceConfig,
    SplitConfig,
)
from pipeline.config.release import Bound, EvaluationConfig, ServingConfig, TrackingConfig
from pipeline.config.secret_values import misplaced_variables, refuse_secrets
from pipeline.config.section import Section
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError, InputMissingError, StorageError
from pipeline.metrics import LabelType


class PipelineConfig(Section):
    """The whole configuration."""

    source: SourceConfig = SourceConfig()
    clean: CleanConfig = CleanConfig()
    features: dict[str, FeatureConfig] = Field(min_length=1)
    label: LabelConfig | None = None
    """Without it the dataset has no label: for autoencoders and the like, which learn by a loss from code."""
    split: SplitConfig = SplitConfig()
    dataset: DatasetConfig
    model: ModelConfig = ModelConfig(name="tabular")
    training: TrainingConfig
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: dict[str, Bound] = {}
    """By the name of a metric; with several labels its mean over them, or `<metric>_<label>`."""
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="before")
    @classmethod
    def _run_beside_dataset(cls, values: Any) -> Any:
        """Programs that only prepare, or take what comes, need not name a run folder."""
        if not isinstance(values, dict):
            return values
        url = (values.get("dataset") or {}).get("url")
        training = values.get("training", {})
        if isinstance(url, str) and isinstance(training, dict) and "run_url" not in training:
            return {**values, "training": {**training, "run_url": f"{url.rstrip('/')}-run"}}
        return values

    @field_validator("features")
    @classmethod
    def _plain_names(cls, features: dict[str, FeatureConfig]) -> dict[str, FeatureConfig]:
        odd = [name for name in features if not re.fullmatch(r"[A-Za-z]\w*", name)]
        if odd:
            raise ValueError(
                f"feature names {odd} are not usable; expected letters, digits and underscores; "
                "name the raw column with `column:`"
            )
        return features

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns: one, several or none."""
        return self.label.columns if self.label else ()

    @property
    def allowed_factories(self) -> tuple[str, ...]:
        """What a model may import: a configuration is trusted, and so is the factory that it names."""
        return (self.model.factory,) if self.model.factory else ()

    @property
    def weight(self) -> str | None:
        """The column with the weights of rows, if there is one."""
        return self.label.weight if self.label else None

    @property
    def label_type(self) -> LabelType | None:
        """The type of the labels, where there are any."""
        return self.label.type if self.label else None


def load_config(path: str, overrides: Iterable[str] = (), target: str | None = None) -> PipelineConfig:
    """Read a YAML configuration.

    Args:
        path: file or URL; relative paths inside are relative to its folder.
        overrides: ``section.key=value`` strings, the value in YAML, applied last.
        target: name of an entry of the file's ``targets`` mapping, laid over the file.

    Raises:
        InputMissingError: the file is missing or unreadable.
        ConfigError: everything that is wrong with the content, at once.
        SecurityError: secrets stand in it; all of them.
    """
    try:
        text = storage.read_bytes(path)
    except StorageError as error:
        raise InputMissingError(
            f"config {path} is missing or unreadable; expected a YAML file; check the path"
        ) from error
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
    """Validate plain values; relative paths are relative to ``folder``, by default the working directory.

    Raises:
        ConfigError: everything that is wrong, at once.
        SecurityError: secrets stand in it; all of them.
    """
    refuse_secrets(values)
    try:
        config = PipelineConfig.model_validate(dict(values), context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(*_offences(error)) from None
    if offences := [*misplaced_variables(values), *disagreements(config)]:
        raise ConfigError(*offences)
    return config


def with_sections(
    config: PipelineConfig | Mapping[str, Any], sections: Mapping[str, Any], anew: Container[str] = ()
) -> PipelineConfig:
    """The configuration with sections from a program laid over it key by key, as a target is over its file.

    Args:
        config: the configuration, or its plain values.
        sections: keys and values by section.
        anew: sections of which nothing stays but what ``sections`` says.

    Raises:
        ConfigError: everything that is wrong with what comes of it, at once.
    """
    if isinstance(config, PipelineConfig):
        config = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return parse_config(_merge({name: value for name, value in config.items() if name not in anew}, dict(sections)))


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML resolves in silence."""


def _mapping_without_duplicates(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {', '.join(twice)} is given twice", node.start_mark)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def _parse_yaml(path: str, text: bytes) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
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


def _offences(error: ValidationError) -> list[str]:
    """One sentence per place; where several types were possible, what each expected is joined."""
    by_place: dict[str, str] = {}
    for item in error.errors():
        offence = _offence(item)
        place = offence.partition("; expected ")[0]
        expected = offence.partition("; expected ")[2]
        by_place[place] = f"{by_place[place]} or {expected}" if place in by_place else offence
    return list(by_place.values())


def _offence(item: Any) -> str:
    location = _written_location(item["loc"])
    where = ".".join(location) or "the configuration"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where} is unknown; {_known_keys(location)}"
    if item["type"] == "missing":
        return f"{where} is missing; expected a value; add it to the configuration"
    if item["type"] == "value_error":
        return f"{where}: {message}"
    if item["type"] == "union_tag_invalid":
        return f"{where}.type is {item['ctx']['tag']!r}; expected one of {item['ctx']['expected_tags']}"
    if item["type"] == "union_tag_not_found":
        return f"{where}.type is missing; expected the kind of feature"
    expected = re.sub(r"^Input should be |, unable to parse .*$", "", message)
    return f"{where} is {item['input']!r}; expected {expected}"


# Parts of pydantic's locations that name a branch of a union, not a key that the user wrote.
_BRANCH = re.compile(r"\[key\]$|literal\[|function-|constrained-|list\[|tagged-union|nullable|(?:int|float|str|bool)$")


def _written_location(location: Iterable[Any]) -> list[str]:
    parts = [str(part) for part in location if not _BRANCH.match(str(part))]
    if len(parts) > 2 and parts[0] == "features":
        del parts[2]  # the feature's type, which pydantic adds to tell the branch
    return parts


def _known_keys(location: list[str]) -> str:
    """The nearest known key, or all of them, of the section that an unknown key was found in."""
    known = _keys_at(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1)
    return f"did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"expected one of {', '.join(known)}"


def _keys_at(location: list[str]) -> list[str]:
    """The keys of the section at a location; names that the user chose, such as a feature's, lead no deeper."""
    models: list[type[BaseModel]] = [PipelineConfig]
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return list(dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items()))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
