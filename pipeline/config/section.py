"""ANYWHERE. What all configuration sections share: frozen, strict about keys, paths resolved against the file."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from pipeline import storage
from pipeline.errors import ConfigError


class Section(BaseModel):
    """A frozen configuration section; unknown keys are errors and nothing is coerced from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, populate_by_name=True)


def _resolve(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder") or os.getcwd()
    try:
        return storage.resolve(value, folder) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error  # so that it is named beside all else that is wrong


def _resolve_sqlite(value: Any, info: ValidationInfo) -> Any:
    prefix = "sqlite:///"
    if not isinstance(value, str) or not value.startswith(prefix):
        return value
    return prefix + _resolve(value.removeprefix(prefix), info)


def _resolve_model(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not value.startswith("models:/"):
        return _resolve(value, info)
    if not re.fullmatch(r"models:/[^/@]+[/@][^/@]+", value):
        raise ValueError(f"{value} names no registered model; expected models:/<name>@<alias> or /<version>")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Url = Annotated[str, BeforeValidator(_resolve)]
"""A path or URL; a relative path is taken relative to the folder of the configuration file."""

ModelReference = Annotated[str, BeforeValidator(_resolve_model)]
"""A path or URL as `Url`, or ``models:/<name>@<alias>`` or ``models:/<name>/<version>`` of MLflow's registry."""

TrackingUri = Annotated[str, BeforeValidator(_resolve_sqlite)]
"""MLflow's tracking uri; a relative sqlite file is taken relative to the folder of the configuration file."""

Names = Annotated[list[str], BeforeValidator(_as_list)]
"""One name or a list of names."""
