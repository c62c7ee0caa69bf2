"""ANYWHERE. Parts of a timestamp (UTC) as categories, or as sine and cosine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.config.features import TimestampFeature, part_names
from pipeline.dataset import Column
from pipeline.features.categorical import FIRST, NULL, UNSEEN
from pipeline.features.exact import Moments
from pipeline.features.kinds import MICROSECONDS, Array, Raw, canonical
from pipeline.features.sketches import Fitting, ask

_SIZES = {"month": 12, "day": 31, "weekday": 7, "hour": 24, "minute": 60, "day_of_year": 366, "minute_of_day": 1440}


_WAVES: tuple[Callable[[Array], Array], ...] = (np.sin, np.cos)


def part_of(values: Array, part: str) -> Array:
    """One part, counted from 0 (a year is itself; Monday is 0), as float64 with NaN where there is no time."""
    missing = np.isnat(values)
    moments = np.where(missing, np.datetime64(0, "us"), values).astype(MICROSECONDS)
    return np.where(missing, np.nan, _PARTS[part](moments).astype(np.float64))


def _whole(moments: Array, unit: str) -> Array:
    return moments.astype(f"datetime64[{unit}]")


def _minute_of_day(moments: Array) -> Array:
    return moments.astype(np.int64) // 60_000_000 % 1440


_PARTS: dict[str, Callable[[Array], Array]] = {
    "year": lambda moments: _whole(moments, "Y").astype(np.int64) + 1970,
    "month": lambda moments: _whole(moments, "M").astype(np.int64) % 12,
    "day": lambda moments: (_whole(moments, "D") - _whole(moments, "M")).astype(np.int64),
    "weekday": lambda moments: (moments.astype(np.int64) // 86_400_000_000 + 3) % 7,
    "hour": lambda moments: _minute_of_day(moments) // 60,
    "minute": lambda moments: _minute_of_day(moments) % 60,
    "day_of_year": lambda moments: (_whole(moments, "D") - _whole(moments, "Y")).astype(np.int64),
    "minute_of_day": _minute_of_day,
}


@dataclass(frozen=True)
class Years:
    """The year of a timestamp, for the fit."""

    column: str

    def __call__(self, raw: Raw) -> Array:
        return part_of(raw[self.column], "year")


@dataclass(frozen=True)
class Timestamp:
    """Each part as ``<name>_<part>``, or as ``<name>_<part>_sin`` and ``_cos``; a missing time has both 0.

    Attributes:
        years: first and last year of the train rows; other years are unseen.
        fill: the moment that a null stands for.
    """

    name: str
    column: str
    parts: tuple[str, ...]
    cyclic: bool = False
    years: tuple[int, int] | None = None
    fill: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded columns."""
        return tuple(column for part in self.parts for column in self._columns_of(part))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    def _columns_of(self, part: str) -> tuple[Column, ...]:
        names = part_names(self.name, part, self.cyclic)
        if len(names) > 1:
            return tuple(Column(name, "float32", "numeric") for name in names)
        return (Column(names[0], "int32", "categorical", cardinality=FIRST + self._size(part)),)

    def _size(self, part: str) -> int:
        if part != "year":
            return _SIZES[part]
        return self.years[1] - self.years[0] + 1 if self.years else 0

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to the encoded columns."""
        encoded: dict[str, Array] = {}
        moments = raw[self.column]
        if self.fill is not None:
            moments = np.where(np.isnat(moments), canonical([self.fill], "timestamp"), moments)
        for part in self.parts:
            values, names = part_of(moments, part), part_names(self.name, part, self.cyclic)
            if len(names) > 1:
                angle = values * (2 * np.pi / _SIZES[part])
                for name, wave in zip(names, _WAVES, strict=True):
                    encoded[name] = np.nan_to_num(wave(angle), nan=0.0).astype(np.float32)
            else:
                encoded[names[0]] = self._ids(values, part)
        return encoded

    def _ids(self, values: Array, part: str) -> Array:
        first = self.years[0] if part == "year" and self.years else 0
        missing = np.isnan(values)
        position = np.where(missing, 0, values) - first
        known = (position >= 0) & (position < self._size(part))
        return np.where(missing, NULL, np.where(known, FIRST + position, UNSEEN)).astype(np.int32)


def fit_timestamp(name: str, config: TimestampFeature) -> Fitting:
    """Only years need the train rows; all other parts have a fixed range."""
    column, years = config.column or name, None
    fill = None if config.missing in ("null", "reject") else config.missing
    if "year" in config.parts:
        moments = yield from ask((column,), Years(column), Moments())
        given = [] if fill is None else part_of(canonical([fill], "timestamp"), "year").tolist()
        found = [*given, *([moments.min, moments.max] if moments else [])]
        years = (int(min(found)), int(max(found))) if found else None
    return Timestamp(name, column, tuple(config.parts), config.cyclic, years, fill)
