"""RANK and ANYWHERE. How many numbers a model gives per row."""

from __future__ import annotations

from torch import Tensor

from pipeline.dataset import DatasetSchema


def output_width(schema: DatasetSchema) -> int:
    """Numbers per row: one per class of a multiclass label, else one per label column."""
    if schema.label_type == "multiclass":
        return len(schema.classes)
    return max(1, len(schema.labels))


def shaped(output: Tensor) -> Tensor:
    """(rows, 1) as (rows,); wider outputs as they are."""
    return output.squeeze(1) if output.shape[1] == 1 else output
