"""ANYWHERE. From YAML, targets and ``--set`` to one validated `PipelineConfig`; every offence is named at once."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import Field, model_validator

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
from pipeline.config.offences import Validation
from pipeline.config.release import Bound, EvaluationConfig, ServingConfig, TrackingConfig
from pipeline.config.secret_values import misplaced_variables, refuse_secrets
from pipeline.config.section import FeatureName, Section
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.config.yaml_text import parse_yaml
from pipeline.errors import ConfigError, InputMissingError, StorageError
from pipeline.metrics import LabelType

S = TypeVar("S", bound=Section)

# What there must be; takes the place of what is wrong, so that all else can be looked at.
_STAND_INS = {"features": {"stand_in": {"type": "boolean"}}, "dataset": {"url": "/stand-in"}}


class PipelineConfig(Section):
    """The whole configuration."""

    source: SourceConfig = SourceConfig()
    clean: CleanConfig = CleanConfig()
    features: dict[FeatureName, FeatureConfig] = Field(min_length=1)
    """By name; the raw column is of the same name, or `column`."""
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
        dataset, training = values.get("dataset"), values.get("training", {})
        if isinstance(training, dict) and "run_url" not in training:
            url = dataset.get("url") if isinstance(dataset, dict) else None
            run_url = f"{url.rstrip('/')}-run" if isinstance(url, str) and storage.is_whole(url) else "run"
            return {**values, "training": {**training, "run_url": run_url}}  # a wrong dataset.url is wrong enough
        return values

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
        what = "a folder" if storage.is_local(path) and os.path.isdir(path) else "missing or unreadable"
        raise InputMissingError(f"config {path} is {what}; expected a YAML file; check the path") from error
    values = parse_yaml(path, text)
    targets = values.pop("targets", None) or {}
    if not isinstance(targets, dict):
        raise ConfigError(f"targets is {targets!r}; expected sections by the name of a target")
    if target is not None:
        if target not in targets:
            known = ", ".join(map(str, targets)) or "none"
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
    validation = Validation(PipelineConfig, values, {"folder": folder}, stand_ins=_STAND_INS)
    validation.ask(disagreements)
    if offences := [*validation.offences, *misplaced_variables(values)]:
        raise ConfigError(*offences)
    assert validation.model is not None
    return validation.model


def parse_section(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate one section by itself.

    Args:
        kind: the section's class.
        values: its keys.
        where: its name in the configuration.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    validation = Validation(kind, values, where=(where,))
    if validation.offences:
        raise ConfigError(*validation.offences)
    assert validation.model is not None
    return validation.model


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
    values[parts[-1]] = parse_yaml(f"--set {key}", f"value: {text}".encode())["value"]
