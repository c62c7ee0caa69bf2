"""DRIVER. The report's slices: the model on the rows that have one value of a kept column."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.inference.evaluate import SHOWN_AS, Evaluation, SliceValue
from pipeline.metrics import LabelType
from pipeline.report.markup import metric, row, section, table, text

_SHOWN: dict[LabelType, tuple[str, ...]] = {
    "binary": ("accuracy", "roc_auc"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("mae", "rmse"),
}


def slices(evaluation: Evaluation | None) -> str:
    """A table for each column, its most frequent values first."""
    if evaluation is None:
        return ""
    columns = dict.fromkeys(entry.column for entry in evaluation.slices)
    of_column = {column: [entry for entry in evaluation.slices if entry.column == column] for column in columns}
    names = _SHOWN[evaluation.label_type]
    return section("Slices", *(_table(column, entries, names) for column, entries in of_column.items()))


def _table(column: str, entries: Sequence[SliceValue], names: Sequence[str]) -> str:
    positives = ["positives"] if entries[0].positives is not None else []
    rows = [
        row(
            [
                text(entry.value),
                f"{entry.rows:,}",
                *([f"{entry.positives / max(1, entry.rows):.1%}"] if entry.positives is not None else []),
                *(metric(entry.metrics.get(name)) for name in names),
            ]
        )
        for entry in sorted(entries, key=lambda entry: (-entry.rows, entry.value))
    ]
    return table([column, "rows", *positives, *(SHOWN_AS.get(name, name) for name in names)], rows)
