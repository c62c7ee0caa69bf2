"""ANYWHERE. What all configuration sections share: frozen, strict about keys, paths resolved against the file."""

from __future__ import annotations

import datetime
import os
import re
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from pipeline import storage
from pipeline.errors import ConfigError, DataError


class Section(BaseModel):
    """A frozen configuration section; unknown keys are errors, nothing is coerced, and numbers are finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _from_programs(cls, values: Any) -> Any:
        """Programs give tuples for lists, numpy's numbers and paths."""
        return {key: _plain(value) for key, value in values.items()} if isinstance(values, dict) else values


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _resolve(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder") or os.getcwd()
    try:
        return storage.resolve(value, folder) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error  # so that it is named beside all else that is wrong


def _resolve_each(value: Any, info: ValidationInfo) -> Any:
    values = _as_list(value)
    return [_resolve(one, info) for one in values] if isinstance(values, list) else values


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


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value


def _is_moment(text: str) -> str:
    moment_of(text)
    return text


def moment_of(text: str) -> np.datetime64:
    """A date or a date with time as a moment of UTC, which it is of where no zone is given.

    Raises:
        ValueError: it is none that features and Spark read alike.
    """
    from pipeline.features.kinds import canonical

    try:
        (moment,) = canonical([text], "timestamp")
    except DataError:
        raise ValueError(f"{text!r} is no moment; expected a date, or date and time: 2013-10-01 06:00") from None
    return moment  # type: ignore[no-any-return]


def _is_plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(
            "not usable as a name; expected letters, digits and underscores; name the raw column in `column`"
        )
    return name


def number_text(number: float) -> str:
    """A number with all the digits that tell it from others, and no more."""
    return repr(float(number)).removesuffix(".0")


def check_order(low: float | None, high: float | None, names: str = "min and max") -> None:
    """Refuse bounds that nothing can lie between.

    Raises:
        ValueError: the lower is above the upper.
    """
    if low is not None and high is not None and low > high:
        given = f"{number_text(low)} and {number_text(high)}"
        raise ValueError(f"{names} are {given}; expected them in this order")


Url = Annotated[str, BeforeValidator(_resolve)]
"""A path or URL; a relative path is taken relative to the folder of the configuration file."""

Urls = Annotated[list[str], Field(min_length=1), BeforeValidator(_resolve_each, json_schema_input_type=str | list[str])]
"""One `Url` or a list of them."""

ModelReference = Annotated[str, BeforeValidator(_resolve_model)]
"""A path or URL as `Url`, or ``models:/<name>@<alias>`` or ``models:/<name>/<version>`` of MLflow's registry."""

TrackingUri = Annotated[str, BeforeValidator(_resolve_sqlite)]
"""MLflow's tracking uri; a relative sqlite file is taken relative to the folder of the configuration file."""

Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
"""One name or a list of names."""

Moment = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_moment)]
"""A date, or date and time; UTC where no zone is given."""

FeatureName = Annotated[str, AfterValidator(_is_plain)]
"""Letters, digits and underscores."""
