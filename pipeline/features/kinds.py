"""ANYWHERE. Raw values in one canonical form, whatever they came as: Arrow, pandas, JSON lists, numpy.

Preparation and serving both pass through here, so that a feature operation sees the same array for the same value.
Null and NaN are one; negative zero is zero; timestamps are UTC in microseconds.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError, DataError

Kind = Literal["number", "string", "boolean", "timestamp", "vector", "strings"]
Array = npt.NDArray[Any]
Raw = Mapping[str, Any]
"""Canonical raw columns by name: arrays as `canonical` gives them, or `pipeline.features.texts.Texts` and
`pipeline.features.lists.Lists`."""

MICROSECONDS = "datetime64[us]"
_EPOCH = datetime.datetime(1970, 1, 1)
_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
_DATE = r"(?!0000)([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})"
_TIME = r"(?:[ T]([0-9]{1,2}):([0-9]{1,2})(?::([0-9]{1,2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{1,2}:[0-9]{2})?)?)?)?"
_DECIMAL = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_BLANK = r"[ \t\r\n]*"
TEXTS_OF: Mapping[str, str] = {
    "number": rf"{_BLANK}(?:[+-]?(?:{_DECIMAL}|(?i:inf|infinity))|(?i:nan)){_BLANK}",
    "boolean": rf"{_BLANK}(?i:{'|'.join((*_TRUE, *_FALSE))}){_BLANK}",
    "timestamp": rf"{_BLANK}{_DATE}{_TIME}{_BLANK}",
}
"""The texts that are read as a value of a kind, as patterns of Python's and of Java's: serving accepts what preparation
does. Casts accept more, each in its own way: `08:15` as a time of today, `12d` or `1_000` as numbers."""
_READ = {kind: re.compile(pattern, re.ASCII) for kind, pattern in TEXTS_OF.items()}


def canonical(values: Any, kind: Kind) -> Array:
    """Bring raw values into the form that feature operations take.

    Args:
        values: a pandas Series, a numpy array or a list.
        kind: ``number`` and ``boolean`` give float64 with NaN for missing (true is 1), ``string`` an object
            array of ``str | None``, ``timestamp`` datetime64[us] in UTC with NaT for missing, ``vector`` an object
            array of flat numpy arrays or None, ``strings`` an object array of lists of ``str | None``, or None.

    Raises:
        DataError: a value is not of that kind; a value is never turned into a missing one in silence.
    """
    array = _as_array(values)
    try:
        return _CANONICAL[kind](array)
    except (ValueError, TypeError, OverflowError, decimal.InvalidOperation) as error:
        raise DataError(f"a value is not a {kind}: {error}; expected {kind}s or nulls; mend the value") from None


def merge_kinds(wanted: Mapping[str, set[Kind]]) -> dict[str, Kind]:
    """One kind per raw column; a column that is used both as a number and as a category stays a number."""
    return {column: _only(column, kinds) for column, kinds in wanted.items()}


def is_missing(values: Array) -> npt.NDArray[np.bool_]:
    """Where a canonical array has no value."""
    return np.asarray(pd.isna(values), dtype=bool)


def _only(column: str, kinds: set[Kind]) -> Kind:
    if kinds == {"number", "string"}:
        return "number"
    if len(kinds) > 1:
        used = " and ".join(sorted(kinds))
        raise ConfigError(f"column {column} is used as {used}; expected one kind; copy the column in the query")
    return next(iter(kinds))


def _as_array(values: Any) -> Array:
    if isinstance(values, pd.Series):
        if isinstance(values.dtype, pd.DatetimeTZDtype):
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_extension_array_dtype(values.dtype):
            return np.asarray(values.astype(object), dtype=object)
        return np.asarray(values.to_numpy())
    if isinstance(values, np.ndarray):
        return values
    return _objects(list(values))


def _numbers(array: Array) -> Array:
    if array.dtype.kind in "iufb":
        return _plain_zeros_and_missing(array.astype(np.float64))
    if array.dtype.kind == "M":
        raise TypeError("a timestamp")
    numbers = [math.nan if _is_null(value) else _number(value) for value in array]
    return _plain_zeros_and_missing(np.array(numbers, dtype=np.float64))


def _number(value: Any) -> float:
    if isinstance(value, str):
        _groups(value, "number")
    return float(value)


def _groups(text: str, kind: Kind) -> tuple[str | None, ...]:
    found = _READ[kind].fullmatch(text)
    if found is None:
        raise ValueError(repr(text))
    return found.groups()


def _booleans(array: Array) -> Array:
    if array.dtype.kind in "iufb":
        return _zero_or_one(array.astype(np.float64))
    values = [math.nan if _is_null(value) else _boolean(value) for value in array]
    return _zero_or_one(np.array(values, dtype=np.float64))


def _boolean(value: Any) -> float:
    if isinstance(value, str):
        _groups(value, "boolean")
        return float(value.strip().lower() in _TRUE)
    return float(value)


def _plain_zeros_and_missing(numbers: Array) -> Array:
    """A copy in which -0.0 is 0.0, and NaN has one bit pattern whatever its sign and payload were."""
    plain: Array = numbers + numbers.dtype.type(0)
    plain[np.isnan(plain)] = np.nan
    return plain


def _zero_or_one(array: Array) -> Array:
    odd = ~((array == 0) | (array == 1) | np.isnan(array))
    if odd.any():
        raise ValueError(f"{array[odd][0]:g}")
    return array + 0.0


def _strings(array: Array) -> Array:
    result = np.empty(len(array), dtype=object)
    if array.dtype.kind == "M":
        array = array.astype(MICROSECONDS).astype(object)
    result[:] = [None if _is_null(value) else _string(value) for value in array.tolist()]
    return result


def _string(value: Any) -> str:
    """A category's text: whole numbers lose the ``.0`` that pandas gives a column of integers with a null."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, decimal.Decimal):
        return _plain_decimal(format(value, "f"))
    if isinstance(value, datetime.datetime):
        return str(_moment(value))
    return str(value)


def _plain_decimal(text: str) -> str:
    """All digits of a decimal but zeros at the end; arithmetic would round them to the 28 of its context."""
    plain = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if plain == "-0" else plain


def _timestamps(array: Array) -> Array:
    if array.dtype.kind == "M":
        return array.astype(MICROSECONDS)
    if array.dtype.kind != "O":
        raise TypeError(f"{array.dtype} values")
    moments = [np.datetime64("NaT", "us") if _is_null(value) else _moment(value) for value in array]
    return np.array(moments, dtype=MICROSECONDS)


def _moment(value: Any) -> np.datetime64:
    if isinstance(value, str):
        return _moment_of(value)
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, np.datetime64):
        return np.datetime64(value, "us")
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return np.datetime64((value - _EPOCH) // datetime.timedelta(microseconds=1), "us")
    if isinstance(value, datetime.date):
        return np.datetime64(value, "us")
    raise TypeError(repr(value))


def _moment_of(text: str) -> np.datetime64:
    """Without a zone it is of UTC; digits beyond microseconds are left out."""
    *fields, fraction, zone = _groups(text, "timestamp")
    numbers = [int(field or least) for field, least in zip(fields, "111000", strict=True)]
    moment = np.datetime64(datetime.datetime(*numbers), "us")  # type: ignore[arg-type]
    if zone is not None and zone != "Z":
        hours, minutes = zone[1:].split(":")
        offset = np.timedelta64(int(hours) * 60 + int(minutes), "m")
        moment = moment + offset if zone[0] == "-" else moment - offset
    return np.datetime64(moment + np.timedelta64(int((fraction or "0")[:6].ljust(6, "0")), "us"), "us")


def _vectors(array: Array) -> Array:
    return _objects([None if _is_null(value) else _vector(value) for value in array])


def _vector(value: Any) -> Array:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return np.frombuffer(value, dtype=np.uint8)
    if isinstance(value, str):
        raise TypeError(repr(value))
    numbers = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else object).reshape(-1)
    if numbers.dtype.kind == "f":
        return _plain_zeros_and_missing(numbers)
    return numbers if numbers.dtype.kind in "iu" else _numbers(numbers)


def _string_lists(array: Array) -> Array:
    return _objects([None if _is_null(value) else _string_list(value) for value in array])


def _string_list(value: Any) -> list[str | None]:
    if isinstance(value, str):
        raise TypeError(repr(value))
    return [None if _is_null(item) else _string(item) for item in value]


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


_CANONICAL: dict[Kind, Callable[[Array], Array]] = {
    "number": _numbers,
    "string": _strings,
    "boolean": _booleans,
    "timestamp": _timestamps,
    "vector": _vectors,
    "strings": _string_lists,
}
