"""EXECUTOR. Rows whose ids have the same hash: their order and their duplicates, while sorted rows stream by.

Spark sorts rows by the hash alone, a radix sort of whole numbers. Equal hashes are mostly duplicates and never many
of all rows, so that only these few are compared value by value, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.features.texts import objects

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ties:
    """How rows of one hash are ordered and which of them repeat another.

    Attributes:
        hashed: the column that the rows come sorted by.
        ids: the columns that identify a row; first in the order.
        columns: all columns that tell rows apart; last in the order.
        prefer, ascending: a column that decides before the others which row of an id comes first; nulls come last.
        same: rows that agree in these columns are duplicates, the first of them stays; none, and all stay.
    """

    hashed: str
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    same: tuple[str, ...] = ()
    prefer: str | None = None
    ascending: bool = True

    def settled(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.Table, int]]:
        """The same rows in order and without duplicates, and how many were left out; rows of a hash stay together."""
        waiting: list[pa.Table] = []
        settled = 0
        for batch in filter(len, batches):
            table = pa.Table.from_batches([batch])
            hashes = table.column(self.hashed)
            if waiting and hashes[-1] == waiting[-1].column(self.hashed)[-1]:
                waiting.append(table)
                # One hash over many batches: settled each time it has doubled, else this would take n * n comparisons.
                if sum(map(len, waiting)) < 2 * settled:
                    continue
                last, dropped = self._settle(pa.concat_tables(waiting))
                waiting, settled = [last], len(last)
                if dropped:
                    yield last.slice(0, 0), dropped
                continue
            table = pa.concat_tables([*waiting, table])
            first = int(np.searchsorted(table.column(self.hashed).to_numpy(), hashes[-1].as_py()))
            last, dropped = self._settle(table.slice(first))
            waiting, settled = [last], len(last)
            if first or dropped:
                ready, more = self._settle(table.slice(0, first))
                yield ready, dropped + more
        if waiting:
            yield self._settle(pa.concat_tables(waiting))

    def _settle(self, table: pa.Table) -> tuple[pa.Table, int]:
        hashes = table.column(self.hashed).to_numpy()
        repeats = np.diff(hashes, prepend=hashes[:1] - 1) == 0
        if not repeats.any():
            return table, 0
        tied = repeats | np.append(repeats[1:], False)
        places = np.flatnonzero(tied)
        order, dropped = self._compare(table.take(places).combine_chunks())
        rows = np.arange(len(table))
        rows[places] = places[order]
        stays = np.ones(len(table), dtype=bool)
        stays[places] = ~dropped
        return table.take(rows[stays]), int(dropped.sum())

    def _compare(self, table: pa.Table) -> tuple[npt.NDArray[np.int64], Mask]:
        """The order of tied rows, and which of them, so ordered, are duplicates of an earlier one."""
        keys = pd.DataFrame({name: _key(table.column(name)) for name in dict.fromkeys([*self.ids, *self.columns])})
        keys[self.hashed] = table.column(self.hashed).to_numpy()
        by = [self.hashed, *self.ids, *self.columns]
        directions = [True] * len(by)
        if self.prefer is not None:
            # Whole numbers beside nulls would become float64, in which large ones are equal.
            keys["preferred"] = table.column(self.prefer).to_pandas(integer_object_nulls=True)
            by.insert(1 + len(self.ids), "preferred")
            directions.insert(1 + len(self.ids), self.ascending)
        keys = keys.sort_values(by, ascending=directions, na_position="last", kind="stable")
        same = [self.hashed, *self.same]
        dropped = keys.duplicated(same).to_numpy() if self.same else np.zeros(len(keys), dtype=bool)
        return keys.index.to_numpy(), dropped


def _key(column: pa.ChunkedArray) -> npt.NDArray[np.object_] | pd.Series:
    """Values that can be ordered and are equal only where the column's are, the sign of a zero included."""
    type_ = column.type
    if pa.types.is_floating(type_):
        values = column.to_numpy().astype(np.float64)
        bits = pd.Series(values.view(np.int64)).mask(np.isnan(values))
        return bits.astype("Int64")
    if pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_decimal(type_):
        return objects([None if value is None else repr(value) for value in column.to_pylist()])
    if pa.types.is_temporal(type_):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_pandas(integer_object_nulls=True)
    return column.to_pandas(integer_object_nulls=True)
