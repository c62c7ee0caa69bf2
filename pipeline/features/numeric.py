"""ANYWHERE. A number as a feature: filled, clipped, logarithm, scaled; float64 inside, rounded once to float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.features import BucketFeature, ElapsedFeature, NumericFeature, missing_name
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
        indicator: also give ``<name>_missing``.
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
    indicator: bool = False
    since: str | None = None
    since_is_column: bool = False
    unit: float = 1.0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns."""
        names = (self.name, missing_name(self.name)) if self.indicator else (self.name,)
        return tuple(Column(name, "float32", "numeric") for name in names)

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
        """From canonical raw columns to the encoded ones."""
        scaled = (self.prepared(raw) - self.offset) / self.scale
        encoded = {self.name: np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)}
        if self.indicator:
            encoded[missing_name(self.name)] = self._missing(self.values(raw)).astype(np.float32)
        return encoded

    def _missing(self, values: Array) -> Array:
        return np.isnan(values) if self.low is not None else ~np.isfinite(values)


def fit_numeric(name: str, config: NumericFeature) -> Fitting:
    """Fill and clip bounds from the values that are there, then scaling from the values so prepared."""
    draft = Numeric(name, config.column or name, log1p=config.log1p, indicator=config.indicator)
    return (yield from _fit(draft, config))


def fit_elapsed(name: str, config: ElapsedFeature) -> Fitting:
    """As a number, after the time has been taken."""
    draft = Numeric(
        name,
        config.column or name,
        indicator=config.indicator,
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
    bounds = [0.25, 0.75] if config.clip == "iqr" else list(config.clip or [])
    fractions = bounds + ([0.5] if config.missing == "median" else [])
    if fractions:
        found = _some((yield from quantiles(draft.inputs, draft.measured, fractions)), draft.column)
        if config.clip == "iqr":
            reach = 1.5 * (found[1] - found[0])
            draft = replace(draft, low=found[0] - reach, high=found[1] + reach)
        elif config.clip:
            draft = replace(draft, low=found[0], high=found[1])
        if config.missing == "median":
            draft = replace(draft, fill=found[-1])
    if config.missing == "mean":
        moments = yield from ask(draft.inputs, draft.measured, Moments())
        draft = replace(draft, fill=_some(moments, draft.column).mean)
    elif config.missing == "mode":
        mode = yield from ask(draft.inputs, draft.measured, Mode())
        draft = replace(draft, fill=_some(mode, draft.column))
    elif isinstance(config.missing, (int, float)):
        draft = replace(draft, fill=float(config.missing))
    return draft


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


@dataclass(frozen=True)
class Bucket:
    """The interval that a number lies in, as a category: 1 missing, 3 below the first boundary, 4 from it on..."""

    name: str
    column: str
    boundaries: tuple[float, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "int32", "categorical", cardinality=4 + len(self.boundaries)),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    def measured(self, raw: Raw) -> Array:
        """The number itself, float64 with NaN."""
        return np.asarray(raw[self.column])

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        values = raw[self.column]
        ids = 3 + np.searchsorted(np.array(self.boundaries), values, side="right")
        return {self.name: np.where(np.isnan(values), 1, ids).astype(np.int32)}


def fit_bucket(name: str, config: BucketFeature) -> Fitting:
    """Boundaries as given, or the quantiles of the train rows that cut them into equal parts."""
    draft = Bucket(name, config.column or name)
    if config.boundaries is not None:
        return replace(draft, boundaries=tuple(config.boundaries))
    count = config.quantiles or 2
    found = yield from quantiles(draft.inputs, draft.measured, [part / count for part in range(1, count)])
    return replace(draft, boundaries=tuple(sorted(set(found or ()))))
