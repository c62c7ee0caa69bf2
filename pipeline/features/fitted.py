"""ANYWHERE. All features of a dataset, fitted: from canonical raw columns to encoded ones, and their state as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config.data import FeatureConfig
from pipeline.dataset import Column
from pipeline.errors import StorageError
from pipeline.features.categorical import Boolean, Categorical, fit_boolean, fit_categorical
from pipeline.features.kinds import Array, Kind, merge_kinds
from pipeline.features.numeric import Numeric, fit_numeric
from pipeline.features.sketches import Fitting, Want
from pipeline.features.timestamp import Timestamp, fit_timestamp


class Feature(Protocol):
    """One fitted feature operation: a dataclass of plain values."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns."""
        ...

    def encode(self, raw: Mapping[str, Array]) -> dict[str, Array]:
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
}


def raw_inputs(features: Mapping[str, FeatureConfig]) -> dict[str, Kind]:
    """The raw columns that features need, with their kinds."""
    wanted: dict[str, set[Kind]] = {}
    for name, config in features.items():
        wanted.setdefault(config.column or name, set()).add(_OPERATIONS[config.type].kind)
    return merge_kinds(wanted)


@dataclass(frozen=True)
class FittedFeatures:
    """Every feature operation with its state; the same object encodes in preparation, scoring and serving."""

    features: tuple[Feature, ...]
    inputs: dict[str, Kind]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns, in order."""
        return tuple(column for feature in self.features for column in feature.columns)

    def transform(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """Encode canonical raw columns (see `canonical`): encoded column name -> float32, int32 or uint8 array."""
        encoded: dict[str, Array] = {}
        for feature in self.features:
            encoded.update(feature.encode(raw))
        return encoded

    def to_json(self) -> dict[str, Any]:
        """The state as plain values."""
        types = {operation.fitted: name for name, operation in _OPERATIONS.items()}
        states = [{"type": types[type(feature)], **_plain(feature)} for feature in self.features]
        return {"features": states, "inputs": dict(self.inputs)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FittedFeatures:
        """The inverse of `to_json`; further keys are ignored.

        Raises:
            StorageError: the value does not describe features of this version.
        """
        try:
            features = tuple(_feature(dict(state)) for state in value["features"])
            return cls(features, dict(value["inputs"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"the fitted statistics are not understood: {error!r}; expected those of this version of the package"
            ) from error


def fit_features(features: Mapping[str, FeatureConfig]) -> Generator[list[Want], list[Any], FittedFeatures]:
    """Fit all features side by side: each round yields all wanted statistics and takes their results."""
    fits = [_OPERATIONS[config.type].fit(name, config) for name, config in features.items()]
    fitted = yield from side_by_side(fits)
    return FittedFeatures(tuple(fitted), raw_inputs(features))


def side_by_side(fits: Sequence[Fitting]) -> Generator[list[Want], list[Any], list[Any]]:
    """Advance independent fits in lockstep, so that one pass over the rows serves them all."""
    results: list[Any] = [None] * len(fits)
    answers: dict[int, Any] = dict.fromkeys(range(len(fits)))
    while answers:
        wants: dict[int, Want] = {}
        for position, answer in answers.items():
            try:
                wants[position] = fits[position].send(answer)
            except StopIteration as end:
                results[position] = end.value
        if not wants:
            break
        found = yield list(wants.values())
        answers = dict(zip(wants, found, strict=True))
    return results


def _plain(feature: Feature) -> dict[str, Any]:
    return {
        field.name: _as_list(getattr(feature, field.name))
        for field in dataclasses.fields(feature)  # type: ignore[arg-type]
    }


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, tuple) else value


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _feature(state: dict[str, Any]) -> Feature:
    operation = _OPERATIONS[state.pop("type")]
    return operation.fitted(**{key: _as_tuple(value) for key, value in state.items()})
