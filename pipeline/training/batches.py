"""RANK. From windows of rows in memory to batches of named tensors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.dataset import Dataset
from pipeline.training.reads import Array, Field, Timings
from pipeline.training.windows import Window

Taken = tuple[dict[str, torch.Tensor], dict[str, Array]]
"""Freshly gathered rows: the fields as tensors, further columns as arrays."""


@dataclass(frozen=True)
class Batch:
    """This rank's rows of one global step.

    Attributes:
        inputs: ``numeric`` (rows, columns) float32, ``categorical`` (rows, columns) int64, each vector by its name.
        label: (rows,) float32, or int64 for classes; several labels (rows, labels), none (rows, 0).
        weight: (rows,) float32; None where every row counts 1.
        ids: the id columns, if they were asked for.
    """

    inputs: dict[str, torch.Tensor]
    label: torch.Tensor
    weight: torch.Tensor | None = None
    ids: dict[str, Array] | None = None

    @property
    def rows(self) -> int:
        return len(self.label)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All of them."""
        yield from self.inputs.values()
        yield self.label
        if self.weight is not None:
            yield self.weight


class Gather:
    """Takes the next rows of a stream of windows, whatever window they lie in.

    Attributes:
        rows_taken: so far.
    """

    def __init__(
        self,
        windows: Iterator[Window],
        fields: Sequence[Field],
        extras: Sequence[str],
        timings: Timings,
        pinned: bool = False,
    ) -> None:
        self._windows, self._fields, self._extra_names, self._timings = windows, fields, extras, timings
        self._pinned = pinned
        self.rows_taken = 0
        self._columns: dict[str, Array] = {}
        self._extras: dict[str, Array] = {}
        self._extra_rows: Array = np.empty(0, np.int64)
        self._rows: Array = np.empty(0, np.int64)
        self._at = 0

    @property
    def rows_left(self) -> int:
        """Rows of the current window that nobody took."""
        return len(self._rows) - self._at

    def take(self, rows: int) -> Taken:
        """The next rows: each field as a new tensor, each further column as a numpy array."""
        taken = {
            field.name: torch.empty((rows, *field.shape), dtype=getattr(torch, field.dtype), pin_memory=self._pinned)
            for field in self._fields
        }
        views = {name: tensor.numpy() for name, tensor in taken.items()}
        extras: list[dict[str, Array]] = []
        filled = 0
        while filled < rows:
            if not self.rows_left:
                self._next_window()
            started = time.perf_counter()
            count = min(rows - filled, self.rows_left)
            index = self._rows[self._at : self._at + count]
            for name, view in views.items():
                # numpy copies rows two to four times as fast as torch; "clip" lets it write straight into `out`.
                self._columns[name].take(index, 0, view[filled : filled + count], "clip")
            extra_rows = self._extra_rows[self._at : self._at + count]
            extras.append({name: values[extra_rows] for name, values in self._extras.items()})
            self._at += count
            filled += count
            self._timings.add("shuffling", started)
        self.rows_taken += rows
        return taken, {name: _concatenated([part[name] for part in extras]) for name in self._extra_names}

    def _next_window(self) -> None:
        window = next(self._windows)
        self._columns, self._extras = window.columns, window.extras
        self._rows, self._extra_rows, self._at = window.rows, window.extra_rows, 0


def _concatenated(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True)
class _Piece:
    """Columns of a packed matrix that belong to one input."""

    field: str
    columns: slice | list[int]

    def of(self, taken: dict[str, torch.Tensor]) -> torch.Tensor:
        return taken[self.field][:, self.columns]


class ModelColumns:
    """Which columns are read, and how the matrices of a batch become the inputs of a model."""

    def __init__(self, dataset: Dataset) -> None:
        schema = dataset.schema
        widths = {column.name: column.width for column in schema.columns}
        self.fields = [
            Field(packed.name, packed.dtype, (sum(widths[name] for name in packed.members),))
            for packed in schema.packed
        ]
        self._labels, self._weight = schema.labels, next(iter(schema.with_role("weight")), None)
        self.fields += [Field(column.name, column.dtype) for column in schema.with_role("label", "weight")]
        self._pieces: dict[str, list[_Piece]] = {}
        for packed in schema.packed:
            at = 0
            for column in map(schema.column, packed.members):
                name = column.name if column.role == "vector" else column.role
                here = list(range(at, at + column.width))
                at += column.width
                self._pieces.setdefault(name, []).append(_Piece(packed.name, here))
        self._pieces = {name: _joined(pieces) for name, pieces in self._pieces.items()}
        self._shapes = schema.vectors

    def batch(self, taken: dict[str, torch.Tensor], ids: dict[str, Array] | None) -> Batch:
        """A batch of freshly taken rows."""
        inputs = {name: _matrix(pieces, taken) for name, pieces in self._pieces.items()}
        for name, shape in self._shapes.items():
            inputs[name] = inputs[name].reshape(-1, *shape)
        if "categorical" in inputs:
            inputs["categorical"] = inputs["categorical"].long()
        weight = taken[self._weight.name] if self._weight else None
        return Batch(inputs, self._label(taken, inputs), weight, ids)

    def _label(self, taken: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(self._labels) == 1:
            return taken[self._labels[0]]
        if self._labels:
            return torch.stack([taken[name] for name in self._labels], dim=1)
        some = next(iter(inputs.values()))
        return some.new_empty((len(some), 0), dtype=torch.float32)


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Neighbours of one matrix as one piece, a slice where possible: a view instead of a copy."""
    by_field: dict[str, list[int]] = {}
    for piece in pieces:
        assert isinstance(piece.columns, list)
        by_field.setdefault(piece.field, []).extend(piece.columns)
    joined = []
    for field, columns in by_field.items():
        dense = columns == list(range(columns[0], columns[-1] + 1))
        joined.append(_Piece(field, slice(columns[0], columns[-1] + 1) if dense else columns))
    return joined


def _matrix(pieces: Sequence[_Piece], taken: dict[str, torch.Tensor]) -> torch.Tensor:
    if len(pieces) == 1:
        return pieces[0].of(taken)
    return torch.cat([piece.of(taken) for piece in pieces], dim=1)


def padded(batch: Batch, rows: int) -> Batch:
    """The batch filled up with rows of zeros of weight 0."""
    missing = rows - batch.rows

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor

    weight = torch.ones(batch.rows, device=batch.label.device) if batch.weight is None else batch.weight
    inputs = {name: fill(tensor) for name, tensor in batch.inputs.items()}
    return replace(batch, inputs=inputs, label=fill(batch.label), weight=fill(weight))
