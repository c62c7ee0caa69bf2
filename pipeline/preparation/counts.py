"""EXECUTOR. What a staging task counts of the rows of one file while they pass, and which of them it lets pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.preparation.clean import REASONS
from pipeline.preparation.columns import BUCKET, CHECKS, HASH, KNOWN, KNOWN_ROWS, is_typed
from pipeline.preparation.ties import Ties
from pipeline.preparation.weight import WEIGHT

_INTERNAL = (HASH, KNOWN, KNOWN_ROWS, BUCKET, *CHECKS, REASONS)


class Counts:
    """What a staging task counts of one bucket while its rows pass."""

    def __init__(
        self,
        labels: tuple[str, ...],
        counted: Mapping[str, str],
        sensitive: tuple[str, ...],
        most_classes: int | None,
        limited: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.most_classes = most_classes
        self.labels = labels
        self.counted = counted
        self.sensitive = sensitive
        self.limited = limited
        self.duplicates = self.rejected = self.known = self.weightless = 0
        self.checks = [0, 0]
        self.reasons: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()

    def keeping(self, batches: Iterable[pa.RecordBatch], ties: Ties) -> Iterator[pa.Table]:
        """Rows without duplicates, with labels and hash beside the query's columns."""
        for table, duplicates in ties.settled(map(self._checked, batches)):
            self.duplicates += duplicates
            for name, prefix in self.counted.items():
                for label in pc.value_counts(table.column(name)).to_pylist():
                    value = label["values"]
                    self.classes[f"{prefix}{value if isinstance(value, str) else f'{value:g}'}"] += label["counts"]
            if self.most_classes is not None and len(self.classes) > self.most_classes:
                raise DataError(
                    f"the label has more than {self.most_classes:,} classes in one file alone; expected at most "
                    "label.max_classes; is it a regression label, or an id?"
                )
            if WEIGHT in table.column_names:
                self.weightless += int((table.column(WEIGHT).to_numpy() == 0).sum())
            yield table.select([name for name in table.column_names if name == HASH or name not in _INTERNAL])

    def knowing(self, batches: Iterable[pa.RecordBatch], ties: Ties) -> Iterator[pa.Table]:
        """Nothing: the rows are published already; what is more of an id than there was are duplicates.

        Where rows came less often than they are published, the duplicates are below 0.
        """
        for table, repeated in ties.settled(map(self._checked, batches)):
            known = int(table.column(KNOWN_ROWS).to_numpy().sum())
            self.duplicates += len(table) + repeated - known
            self.known += known
        yield from ()

    def rejecting(self, batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.Table]:
        """Rejected rows with their reasons, the first ``limit`` of them."""
        for batch in batches:
            table = pa.Table.from_batches([self._checked(batch)])
            self._count_reasons(batch.column(REASONS))
            wanted = len(table) if limit is None else max(0, min(len(table), limit - self.rejected))
            self.rejected += len(table)
            hidden = {*_INTERNAL, *self.labels, WEIGHT} - {REASONS}
            shown = table.select([name for name in table.column_names if name not in hidden and not is_typed(name)])
            shown = shown.slice(0, wanted)
            yield _without_values(shown, self.sensitive)

    def _count_reasons(self, reasons: pa.Array) -> None:
        """Each reason, and each rule with a limit once for a row, whichever of its reasons the row has."""
        given, rows = pc.list_flatten(reasons), pc.list_parent_indices(reasons)
        for reason in pc.value_counts(given).to_pylist():
            self.reasons[reason["values"]] += reason["counts"]
        for rule, own in self.limited.items():
            self.rules[rule] += len(pc.unique(rows.filter(pc.is_in(given, value_set=pa.array(own)))))

    def _checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for which, name in enumerate(CHECKS):
            if name in batch.schema.names:
                hashes = batch.column(name).to_numpy().astype(np.uint64)
                self.checks[which] = (self.checks[which] + int(hashes.sum(dtype=np.uint64))) % 2**64
        return batch


def _without_values(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    for name in set(names) & set(table.column_names):
        empty = pa.nulls(len(table), table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, empty)
    return table
