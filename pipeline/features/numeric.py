"""ANYWHERE. A number as a feature: filled, clipped, logarithm, scaled; float64 inside, rounded once to float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.data import NumericFeature
from pipeline.dataset import Column
from pipeline.errors import DataError
from pipeline.features.kinds import Array
from pipeline.features.sketches import Fitting, Moments, Want, quantiles

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LARGEST = 1e150
"""Larger magnitudes count as this one, so that squares stay finite."""


@dataclass(frozen=True)
class Numeric:
    """``(log1p(clip(filled)) - offset) / scale``.

    Attributes:
        fill: stands for a missing value; an infinite one counts as missing unless it is clipped.
        low, high: bounds to clip to.
        indicator: also give ``<name>_missing``.
    """

    name: str
    column: str
    fill: float = 0.0
    low: float | None = None
    high: float | None = None
    log1p: bool = False
    offset: float = 0.0
    scale: float = 1.0
    indicator: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns."""
        names = (self.name, f"{self.name}_missing") if self.indicator else (self.name,)
        return tuple(Column(name, "float32", "numeric") for name in names)

    def present(self, values: Array) -> Array:
        """The values that are neither missing nor infinite."""
        return np.asarray(values[np.isfinite(values)])

    def prepared(self, values: Array) -> Array:
        """All steps but scaling, in float64."""
        missing = self._missing(values)
        filled = np.where(missing, self.fill, values)
        filled = np.clip(
            filled, -_LARGEST if self.low is None else self.low, _LARGEST if self.high is None else self.high
        )
        # For negative numbers the curve is mirrored, so that no value is lost.
        return np.copysign(np.log1p(np.abs(filled)), filled) + 0.0 if self.log1p else filled

    def encode(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """From the canonical raw column to the encoded columns."""
        values = raw[self.column]
        scaled = (self.prepared(values) - self.offset) / self.scale
        encoded = {self.name: np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)}
        if self.indicator:
            encoded[f"{self.name}_missing"] = self._missing(values).astype(np.float32)
        return encoded

    def _missing(self, values: Array) -> Array:
        return np.isnan(values) if self.low is not None else ~np.isfinite(values)


def fit_numeric(name: str, config: NumericFeature) -> Fitting:
    """Fill and clip bounds from the values that are there, then scaling from the values so prepared."""
    draft = Numeric(name, config.column or name, log1p=config.log1p, indicator=config.indicator)
    fractions = list(config.clip or []) + ([0.5] if config.missing == "median" else [])
    if fractions:
        found = yield from quantiles(draft.column, draft.present, fractions)
        if found is None:
            raise _no_value(draft.column)
        low, high = found[:2] if config.clip else (None, None)
        draft = replace(draft, low=low, high=high, fill=found[-1] if config.missing == "median" else 0.0)
    if config.missing == "mean":
        moments = yield Want(draft.column, draft.present, Moments())
        if moments is None:
            raise _no_value(draft.column)
        draft = replace(draft, fill=moments.mean)
    if isinstance(config.missing, (int, float)):
        draft = replace(draft, fill=float(config.missing))
    offset, scale = yield from _fit_scale(draft, config.scale)
    return replace(draft, offset=offset, scale=scale)


def _fit_scale(draft: Numeric, scale: str) -> Fitting:
    """Offset and divisor; a constant column gets divisor 1."""
    if scale == "none":
        return 0.0, 1.0
    if scale == "robust":
        found = yield from quantiles(draft.column, draft.prepared, [0.5, 0.25, 0.75])
        middle, lower, upper = found or (0.0, 0.0, 0.0)
        return middle, (upper - lower) or 1.0
    moments = yield Want(draft.column, draft.prepared, Moments())
    if moments is None:
        raise _no_value(draft.column)
    if scale == "min_max":
        return moments.min, (moments.max - moments.min) or 1.0
    return moments.mean, moments.std or 1.0


def _no_value(column: str) -> DataError:
    return DataError(
        f"column {column} is missing in every train row; expected some values; "
        "drop the feature or give `missing` a constant"
    )
