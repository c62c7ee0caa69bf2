"""EXECUTOR. The values that fits measure in one row group of staged rows; those of equal wants are made once.

Of a column of numbers that repeat, as prices, ages and counts do, every distinct one is looked at once: it is made
canonical, repaired and prepared once, and measured with the number of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.features import Kind
from pipeline.features.counted import counted
from pipeline.features.kinds import Array, Raw
from pipeline.features.repair import Repair, repaired
from pipeline.features.sketches import Want
from pipeline.features.target import FOLD
from pipeline.preparation.columns import HASH, raw_arrays, with_typed

_SAMPLE = 1 << 13
"""Rows that tell whether numbers repeat; staged rows are in no order."""


class RowGroup:
    """A row group.

    Args:
        table: its rows.
        kinds: of the raw columns; further ones are taken as they were staged.
        repairs: rules that change values before they are measured.
    """

    def __init__(self, table: pa.Table, kinds: Mapping[str, Kind], repairs: Sequence[Repair]) -> None:
        self._table, self._kinds, self._repairs = table, kinds, repairs
        self._made: dict[Any, Any] = {}
        self._rows: dict[str, Any] = {}
        self._distinct: dict[str, tuple[Raw, Array] | None] = {}

    def values(self, want: Want) -> Any:
        """What is measured for a want."""
        if want.prepared not in self._made:
            self._made[want.prepared] = self._make(want)
        return self._made[want.prepared]

    def _make(self, want: Want) -> Any:
        if len(want.columns) == 1 and (distinct := self._distinct_of(*want.columns)) is not None:
            raw, counts = distinct
            made = want.prepared(raw)
            if _are_numbers(made) and len(made) == len(counts):  # none was left out
                return counted(made, counts)
        made = want.prepared({name: self._rows_of(name) for name in want.columns})
        return counted(made) if _are_numbers(made) else made

    def _rows_of(self, name: str) -> Any:
        if name not in self._rows:
            is_raw = name in self._kinds
            plain = self._canonical(self._table, name)[name] if is_raw else self._table.column(_staged(name)).to_numpy()
            self._rows[name] = plain
        return self._rows[name]

    def _distinct_of(self, name: str) -> tuple[Raw, Array] | None:
        if name not in self._distinct:
            self._distinct[name] = self._distinct_numbers(name)
        return self._distinct[name]

    def _distinct_numbers(self, name: str) -> tuple[Raw, Array] | None:
        """A raw column with each of its numbers once, and how many rows have it; None where they hardly repeat.

        To count numbers of which most differ takes longer than to measure every one.
        """
        if name not in self._kinds:
            return None
        source = with_typed([name], self._table.column_names)[-1]
        column = self._table.column(source)
        if not _is_plain(column.type) or len(column) <= 2 * _SAMPLE:
            return None
        if len(pc.unique(column.slice(0, _SAMPLE))) > _SAMPLE * 7 // 8:
            return None
        distinct, counts = pc.value_counts(column).flatten()
        return self._canonical(pa.table({source: distinct}), name), counts.to_numpy()

    def _canonical(self, table: pa.Table, name: str) -> Raw:
        return repaired(raw_arrays(table, {name: self._kinds[name]}), self._repairs)[0]


def staged_columns(names: Sequence[str], kinds: Mapping[str, Kind]) -> list[str]:
    """What to read of a staged file for a `RowGroup` whose wants are of these columns."""
    return [name if name in kinds else _staged(name) for name in names]


def _staged(name: str) -> str:
    return HASH if name == FOLD else name


def _is_plain(type_: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(type_) and not pa.types.is_decimal(type_))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype == np.float64
