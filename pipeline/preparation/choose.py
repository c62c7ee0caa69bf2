"""DRIVER. What a proposal makes of each column, by what was seen of it: label, ids, features, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyspark.sql import types as T

from pipeline.errors import DataError
from pipeline.preparation.seen import FEW_VALUES, Look, Seen

_LABELS = ("label", "target", "y", "class", "outcome", "churn", "default")
_FEW_ROWS = 100
"""Of fewer rows the values of a quantity may all differ too."""


def labels(look: Look, wanted: str | None) -> Iterator[Seen]:
    """The columns that may be the label, the likeliest first: by their names, then by their values.

    Args:
        look: at the table.
        wanted: the one that is to be, in any case of letters.

    Raises:
        DataError: there is no such column, or none that has several values.
    """
    varied = {one.name.lower(): one for one in look.columns if one.distinct > 1}
    if wanted is not None and wanted.lower() in varied:
        yield varied[wanted.lower()]
        return
    named = [varied[name] for name in _LABELS if name in varied]
    usable = [one for one in varied.values() if one not in named and _may_be_label(one)]
    if wanted is not None or not (named or usable):
        names = ", ".join(one.name for one in varied.values())
        raise DataError(
            f"label {wanted or ''} is not among the columns with several values; expected one of {names}; name it "
            "with --label"
        )
    two = [one for one in usable if one.distinct == 2]
    yield from (*named, *reversed(two), *(one for one in reversed(usable) if one not in two))


def _may_be_label(one: Seen) -> bool:
    is_long = isinstance(one.type, T.StringType) and one.distinct > FEW_VALUES
    return not (one.is_moment or one.is_named_id or is_long or _is_counter(one))


def label_type(label: Seen, values: Sequence[Any] | None) -> str:
    """Of the configuration's ``label.type``.

    Args:
        label: the column.
        values: all that it has, if they are few.
    """
    is_number = isinstance(label.type, (T.BooleanType, T.NumericType))
    if is_number and values is not None and set(values) == {0, 1}:
        return "binary"
    is_quantity = isinstance(label.type, T.FractionalType) or values is None
    return "regression" if is_number and is_quantity else "multiclass"


def ids(look: Look, label: Seen) -> list[Seen]:
    """Columns whose values may identify a row, those that are named so first."""
    near = [
        one for one in look.columns if one.all_differ and one != label and not isinstance(one.type, T.FractionalType)
    ]
    return sorted(near, key=lambda one: not one.is_named_id)


def moment(look: Look, label: Seen) -> Seen | None:
    """The time of a row, which nearly all rows have."""
    moments = [one for one in look.columns if one.is_moment and one != label and one.present >= 0.95 * one.rows]
    return max(moments, key=lambda one: one.present, default=None)


def features(schema: T.StructType, look: Look, taken: set[str]) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """The features that fit the columns, and why others are left out."""
    seen = {one.name: one for one in look.columns}
    chosen: dict[str, Mapping[str, Any]] = {}
    left_out = {}
    for field in schema:
        if field.name in taken:
            continue
        if (one := seen.get(field.name)) is None:
            left_out[field.name] = f"of type {field.dataType.simpleString()[:40]}"
        elif reason := _reason_against(one):
            left_out[field.name] = reason
        else:
            chosen[field.name] = _feature(one)
    return chosen, left_out


def _reason_against(one: Seen) -> str | None:
    if one.distinct < 2:
        return "one value only"
    if one.is_named_id or _is_counter(one):
        return "looks like an id"
    if isinstance(one.type, T.StringType) and one.distinct > max(50, one.rows // 2):
        return "nearly all values differ"
    return None


def _is_counter(one: Seen) -> bool:
    return isinstance(one.type, T.IntegralType) and one.rows >= _FEW_ROWS and one.all_differ


def _feature(one: Seen) -> Mapping[str, Any]:
    if isinstance(one.type, T.BooleanType):
        return {"type": "boolean"}
    if isinstance(one.type, T.NumericType):
        indicator = {"indicator": True} if one.present < one.rows else {}
        return {"type": "numeric", **indicator, **({} if one.is_bounded else {"clip": [0.001, 0.999]})}
    if one.is_moment:
        return {
            "type": "timestamp",
            "parts": ["month", "weekday", *([] if isinstance(one.type, T.DateType) else ["hour"])],
        }
    return {"type": "categorical", "min_count": 2 if one.distinct > 20 else 1}
