"""ANYWHERE. A number as a feature: filled, clipped, logarithm, scaled; float64 inside, rounded once to float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.config.features import ElapsedFeature, NumericFeature
from pipeline.dataset import Column
from pipeline.errors import DataError
from pipeline.features.exact import LARGEST, Moments, MomentsResult
from pipeline.features.kinds import Array, Raw, canonical
from pipeline.features.logarithm import log1p
from pipeline.features.quantiles import quantiles
from pipeline.features.sketches import Fitting, Mode, Present, ask, side_by_side

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_UNITS = {"seconds": 1e6, "minutes": 6e7, "hours": 3.6e9, "days": 8.64e10}


@dataclass(frozen=True)
class Finite:
    """A raw column of numbers with NaN for what is missing or infinite: what most statistics are taken of."""

    column: str

    def __call__(self, raw: Raw) -> Array:
        return _finite(raw[self.column])


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.nan)


@dataclass(frozen=True)
class Numeric:
    """``(log1p(clip(filled)) - offset) / scale``.

    Attributes:
        fill: stands for a missing value; an infinite one counts as missing unless it is clipped.
        low, high: bounds to clip to.
        since: the column holds timestamps, and the number is the time elapsed since this timestamp column or moment.
        unit: microseconds in a unit of that time.
    """

    name: str
    column: str
    fill: float = 0.0
    low: float | None = None
    high: float | None = None
    log1p: bool = False
    offset: float = 0.0
    scale: float = 1.0
    since: str | None = None
    since_is_column: bool = False
    unit: float = 1.0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "float32", "numeric"),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw columns."""
        return (self.column, self.since) if self.since is not None and self.since_is_column else (self.column,)

    def values(self, raw: Raw) -> Array:
        """The number itself, float64 with NaN."""
        if self.since is None:
            return np.asarray(raw[self.column])
        start = raw[self.since] if self.since_is_column else canonical([self.since], "timestamp")
        elapsed = raw[self.column] - start
        return np.where(np.isnat(elapsed), np.nan, elapsed.astype("timedelta64[us]").astype(np.int64) / self.unit)

    @property
    def measured(self) -> Callable[[Raw], Array]:
        """The number with NaN where it is missing or infinite."""
        return Finite(self.column) if self.since is None else self._finite_values

    def _finite_values(self, raw: Raw) -> Array:
        return _finite(self.values(raw))

    def prepared(self, raw: Raw) -> Array:
        """All steps but scaling, in float64."""
        values = self.values(raw)
        filled = np.where(self._missing(values), self.fill, values)
        low, high = (-LARGEST, LARGEST) if self.low is None else (self.low, self.high)
        filled = np.clip(filled, low, high)
        # For negative numbers the curve is mirrored, so that no value is lost.
        return np.copysign(log1p(np.abs(filled)), filled) + 0.0 if self.log1p else filled

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From canonical raw columns to the encoded one."""
        scaled = (self.prepared(raw) - self.offset) / self.scale
        return {self.name: np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)}

    def _missing(self, values: Array) -> Array:
        return np.isnan(values) if self.low is not None else ~np.isfinite(values)


def fit_numeric(name: str, config: NumericFeature) -> Fitting:
    """Fill and clip bounds from the values that are there, then scaling from the values so prepared."""
    draft = Numeric(name, config.column or name, log1p=config.log1p)
    return (yield from _fit(draft, config))


def fit_elapsed(name: str, config: ElapsedFeature) -> Fitting:
    """As a number, after the time has been taken."""
    draft = Numeric(
        name,
        config.column or name,
        since=config.since_column or config.since,
        since_is_column=config.since_column is not None,
        unit=_UNITS[config.unit],
    )
    number = NumericFeature(type="numeric", missing=config.missing, clip=config.clip, scale=config.scale)
    return (yield from _fit(draft, number))


def _fit(draft: Numeric, config: NumericFeature) -> Fitting:
    """What is to be filled in, and beside it the moments that scaling needs where it only takes what is filled in."""
    shortcut = config.scale in ("standard", "min_max") and not config.clip and not draft.log1p
    draft, known = yield from side_by_side(
        [_fit_fill_and_clip(draft, config), _moments_and_missing(draft) if shortcut else _nothing()]
    )
    filled = _filled_moments(known, draft.fill) if known else None
    offset, scale = yield from _fit_scale(draft, config.scale, filled)
    return replace(draft, offset=offset, scale=scale)


def _nothing() -> Fitting:
    yield from ()


def _fit_fill_and_clip(draft: Numeric, config: NumericFeature) -> Fitting:
    fill = fit_fill(draft.inputs, draft.measured, config.missing, draft.column)
    (low, high), found = yield from side_by_side([_fit_bounds(draft, config.clip), fill])
    return replace(draft, low=low, high=high, fill=0.0 if found is None else found)


def _fit_bounds(draft: Numeric, clip: list[float] | str | None) -> Fitting:
    if clip is None:
        return None, None
    fractions = [0.25, 0.75] if isinstance(clip, str) else clip
    low, high = _some((yield from quantiles(draft.inputs, draft.measured, fractions)), draft.column)
    reach = 1.5 * (high - low) if clip == "iqr" else 0.0
    return low - reach, high + reach


def fit_fill(columns: tuple[str, ...], measured: Any, missing: str | float, column: str) -> Fitting:
    """What stands in for a missing number: of the train rows, or as given; None if nothing does.

    Args:
        columns: the raw columns that it is of.
        measured: from those to numbers with NaN.
        missing: the setting.
        column: to be named where it has no value.
    """
    if missing == "median":
        return _some((yield from quantiles(columns, measured, [0.5])), column)[0]
    if missing == "mean":
        return _some((yield from ask(columns, measured, Moments())), column).mean
    if missing == "mode":
        return _some((yield from ask(columns, measured, Mode())), column)
    return None if isinstance(missing, str) else float(missing)


def _moments_and_missing(draft: Numeric) -> Fitting:
    asked = [ask(draft.inputs, draft.measured, sketch) for sketch in (Moments(), Present())]
    moments, (rows, present) = yield from side_by_side(asked)
    return moments, rows - present


def _filled_moments(known: tuple[MomentsResult | None, int], fill: float) -> MomentsResult | None:
    """The moments of the filled column by arithmetic: exact sums need no second look at the rows."""
    moments, missing = known
    if moments is None or max(-moments.min, moments.max, abs(fill)) > LARGEST:
        return None
    return moments.with_constant(fill, missing)


def _fit_scale(draft: Numeric, scale: str, moments: MomentsResult | None) -> Fitting:
    """Offset and divisor; a constant column gets divisor 1."""
    if scale == "none":
        return 0.0, 1.0
    if scale == "robust":
        found = yield from quantiles(draft.inputs, draft.prepared, [0.5, 0.25, 0.75])
        middle, lower, upper = _some(found, draft.column)
        return middle, (upper - lower) or 1.0
    if moments is None:
        moments = _some((yield from ask(draft.inputs, draft.prepared, Moments())), draft.column)
    if scale == "min_max":
        return moments.min, (moments.max - moments.min) or 1.0
    return moments.mean, moments.std or 1.0


def _some(found, column: str):  # type: ignore[no-untyped-def]
    if found is None:
        raise _no_value(column)
    return found


def _no_value(column: str) -> DataError:
    return DataError(
        f"column {column} is missing in every train row; expected some values; "
        "drop the feature or give `missing` a constant"
    )
