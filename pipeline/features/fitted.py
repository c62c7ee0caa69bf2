"""ANYWHERE. All features of a dataset, fitted: from canonical raw columns to encoded ones, and their state as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config.features import FeatureConfig
from pipeline.dataset import Column
from pipeline.errors import StorageError
from pipeline.features.bucket import Bucket, fit_bucket
from pipeline.features.categorical import (
    Boolean,
    Categorical,
    Categories,
    fit_boolean,
    fit_categorical,
    fit_categories,
    fit_hashed,
)
from pipeline.features.kinds import Array, Kind, Raw, merge_kinds
from pipeline.features.missing import Missing, indicator_of
from pipeline.features.names import Text
from pipeline.features.numeric import Numeric, fit_elapsed, fit_numeric
from pipeline.features.repair import Repair, repaired
from pipeline.features.sketches import Fitting, side_by_side
from pipeline.features.target import Target, fit_target
from pipeline.features.timestamp import Timestamp, fit_timestamp
from pipeline.features.vector import Vector, fit_vector


class Feature(Protocol):
    """One fitted feature operation: a dataclass of plain values."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw columns."""
        ...

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From canonical raw columns to encoded ones."""
        ...


@dataclass(frozen=True)
class _Operation:
    """How a feature of one type is fitted, what it is once fitted, and what kind of raw column it takes."""

    fitted: Callable[..., Feature]
    fit: Callable[[str, Any], Fitting]
    kind: Kind


_OPERATIONS: dict[str, _Operation] = {
    "numeric": _Operation(Numeric, fit_numeric, "number"),
    "categorical": _Operation(Categorical, fit_categorical, "string"),
    "timestamp": _Operation(Timestamp, fit_timestamp, "timestamp"),
    "boolean": _Operation(Boolean, fit_boolean, "boolean"),
    "bucket": _Operation(Bucket, fit_bucket, "number"),
    "elapsed": _Operation(Numeric, fit_elapsed, "timestamp"),
    "hashed": _Operation(Categorical, fit_hashed, "string"),
    "categories": _Operation(Categories, fit_categories, "strings"),
    "target": _Operation(Target, fit_target, "string"),
    "vector": _Operation(Vector, fit_vector, "vector"),
}


_FITTED: dict[str, Callable[..., Feature]] = {name: one.fitted for name, one in _OPERATIONS.items()}
_FITTED |= {"missing": Missing}


def raw_inputs(features: Mapping[str, FeatureConfig]) -> dict[str, Kind]:
    """The raw columns that features need, with their kinds."""
    return merge_kinds(_wanted_kinds(features))


def numbers_and_categories(features: Mapping[str, FeatureConfig]) -> list[str]:
    """The raw columns that features read both as numbers and as categories; they are numbers, float64."""
    return [column for column, kinds in _wanted_kinds(features).items() if kinds == {"number", "string"}]


def _wanted_kinds(features: Mapping[str, FeatureConfig]) -> dict[str, set[Kind]]:
    wanted: dict[str, set[Kind]] = {}
    for name, config in features.items():
        columns = [config.column or name, getattr(config, "since_column", None)]
        for column in filter(None, columns):
            wanted.setdefault(column, set()).add(_OPERATIONS[config.type].kind)
    return wanted


@dataclass(frozen=True)
class FittedFeatures:
    """Every feature operation with its state; the same object encodes in preparation, scoring and serving."""

    features: tuple[Feature, ...]
    inputs: dict[str, Kind]
    repairs: tuple[Repair, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns, in order."""
        return tuple(column for feature in self.features for column in feature.columns)

    def transform(self, raw: Raw) -> dict[str, Array]:
        """Encode canonical raw columns (see `canonical`): encoded column name -> float32, int32 or uint8 array."""
        return self.encode(repaired(raw, self.repairs)[0])

    def encode(self, raw: Raw) -> dict[str, Array]:
        """Encode raw columns that `repairs` have changed already."""
        encoded: dict[str, Array] = {}
        for feature in self.features:
            encoded.update(feature.encode(raw))
        return encoded

    def to_json(self) -> dict[str, Any]:
        """The state as plain values."""
        types = {fitted: name for name, fitted in reversed(_FITTED.items())}
        states = [{"type": types[type(feature)], **_plain(feature)} for feature in self.features]
        repairs = [_plain(repair) for repair in self.repairs]
        return {"features": states, "inputs": dict(self.inputs), "repairs": repairs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FittedFeatures:
        """The inverse of `to_json`; further keys are ignored.

        Raises:
            StorageError: the value does not describe features of this version.
        """
        try:
            features = tuple(_feature(dict(state)) for state in value["features"])
            repairs = (Repair(**_tuples(repair)) for repair in value.get("repairs", ()))
            return cls(features, dict(value["inputs"]), tuple(repairs))
        except (KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"the fitted statistics are not understood: {error!r}; expected those of this version of the package"
            ) from error


def fit_features(
    features: Mapping[str, FeatureConfig], repairs: tuple[Repair, ...] = (), others: Sequence[Fitting] = ()
) -> Fitting:
    """Fit all features side by side: each round yields all wanted statistics and takes their results.

    Ends with `FittedFeatures` and the list of the results of ``others``, which share the passes over the rows.
    """
    fits = [_OPERATIONS[config.type].fit(name, config) for name, config in features.items()]
    results = yield from side_by_side([*fits, *others])
    fitted: list[Feature] = []
    for feature, (name, config) in zip(results[: len(fits)], features.items(), strict=True):
        fitted += [feature, indicator_of(name, config)] if config.indicator else [feature]
    return FittedFeatures(tuple(fitted), raw_inputs(features), repairs), results[len(fits) :]


def _plain(value: Any) -> dict[str, Any]:
    """The state without what only the preparation itself needs."""
    return {
        field.name: _as_list(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not field.metadata.get("transient")
    }


def _as_list(value: Any) -> Any:
    if isinstance(value, Text):
        return _plain(value)
    return [_as_list(item) for item in value] if isinstance(value, tuple) else value


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _feature(state: dict[str, Any]) -> Feature:
    fitted = _FITTED[state.pop("type")]
    fields = _tuples(state)
    if "text" in fields:
        fields["text"] = Text(**_tuples(fields["text"]))
    return fitted(**fields)


def _tuples(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _as_tuple(value) for key, value in state.items()}
