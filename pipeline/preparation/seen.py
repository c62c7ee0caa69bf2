"""DRIVER. What the columns of a table look like, by a bounded number of its rows: the first look of a proposal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.preparation.quoting import column
from pipeline.preparation.snapshot import hashed

MOMENTS = (T.DateType, T.TimestampType, T.TimestampNTZType)
_PLAIN = (T.NumericType, T.StringType, T.BooleanType, *MOMENTS)
_NAMED_ID = re.compile(r"(?:^|[\W_])(?:id|uuid|guid)s?$|^(?:id|uuid|guid)[\W_]", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z0-9](?:Id|ID|Uuid|UUID)$")
_ROWS, _VALUES = 100_000, 20_000_000
"""The most that come to the driver; of wide tables fewer rows."""
_MILLION = 1_000_000
FEW_VALUES = 100
"""Of a label that is a class; more are a quantity, or texts that nobody predicts."""


@dataclass(frozen=True)
class Seen:
    """What was counted of one column among the rows that were looked at.

    Attributes:
        name: the column's.
        type: its type in Spark.
        rows: how many rows were looked at.
        present: how many of them have a value.
        distinct: how many different ones there are.
        values: these, if they are few; times as microseconds since 1970.
        is_bounded: whether none of them is infinite.
    """

    name: str
    type: T.DataType
    rows: int
    present: int
    distinct: int
    values: tuple[Any, ...] | None = None
    is_bounded: bool = True

    @property
    def is_named_id(self) -> bool:
        """Whether it is called an id."""
        return bool(_NAMED_ID.search(self.name) or _CAMEL_ID.search(self.name))

    @property
    def all_differ(self) -> bool:
        """Whether its values are all there and nearly all different."""
        return self.present == self.rows and self.distinct > 0.95 * self.rows

    @property
    def is_moment(self) -> bool:
        """Whether it is a date or a time."""
        return isinstance(self.type, MOMENTS)


@dataclass(frozen=True)
class Look:
    """A look at a table: how many rows it has, and its columns that features can be made of."""

    rows: int
    columns: tuple[Seen, ...]
    is_whole: bool
    """Whether all rows were looked at."""

    @classmethod
    def at(cls, frame: DataFrame) -> Look:
        """Look at all rows of a small table, and at rows of a large one that a hash of their values chooses."""
        fields = [field for field in frame.schema if isinstance(field.dataType, _PLAIN)]
        most = max(1, min(_ROWS, _VALUES // max(1, len(fields))))
        plain = frame.select(*map(_counted, fields))
        found: Any = plain.limit(most + 1).toPandas()
        rows = len(found)
        if rows > most:
            rows = frame.count()
            part = max(1, int(0.9 * most / rows * _MILLION))  # so that the limit cuts nothing but by a rare chance
            found = plain.where(F.pmod(F.xxhash64(*hashed(plain)), F.lit(_MILLION)) < part).limit(most).toPandas()
        columns = tuple(_seen(field, found.iloc[:, place]) for place, field in enumerate(fields))
        return cls(rows, columns, is_whole=len(found) == rows)


def _counted(field: T.StructField) -> Column:
    """A column that pandas tells the values of apart; its own moments end in the year 2262."""
    plain = column(field.name)
    is_moment = isinstance(field.dataType, (T.TimestampType, T.TimestampNTZType))
    return F.unix_micros(plain.cast("timestamp")).alias(field.name) if is_moment else plain


def _seen(field: T.StructField, values: pd.Series) -> Seen:
    is_bounded = not (isinstance(field.dataType, T.FractionalType) and np.isinf(values.astype(float)).any())
    found = values.dropna().unique()
    few = tuple(sorted(found.tolist(), key=str)) if len(found) <= FEW_VALUES else None
    return Seen(field.name, field.dataType, len(values), int(values.count()), len(found), few, is_bounded)
