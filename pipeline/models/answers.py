"""RANK and ANYWHERE. What a model says of a row, by label type: from the numbers of its forward to what users read.

* binary: prediction 0 or 1, and the probability of class 1
* multiclass: the name of the likeliest class, and its probability; those of every class on demand
* regression: a number in the label's own unit, any scaling undone
* no label: the number that the model gives

Of several labels each has columns of its own, ``prediction_<label>``. Validation on the ranks reads a model's output
here too, so that it measures the very answers that evaluation measures and users get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.dataset import DatasetSchema
from pipeline.metrics import LabelType

Array = npt.NDArray[Any]
AnswerType = Literal["integer", "float", "double", "string"]

_COLUMNS: dict[LabelType | None, dict[str, AnswerType]] = {
    "binary": {"prediction": "integer", "probability": "float"},
    "multiclass": {"prediction": "string", "probability": "float"},
    "regression": {"prediction": "double"},
    None: {"prediction": "double"},
}


@dataclass(frozen=True)
class Answers:
    """How a label's answers are made and read.

    Attributes:
        type: of the label, or of all labels; None where there is none.
        classes: names by class number, of a multiclass label.
        offset: with ``scale``, the unit of a regression label: value = published value * scale + offset; of several
            labels one number for each.
        labels: names of the labels if there are several.
    """

    type: LabelType | None
    classes: tuple[str, ...] = ()
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: DatasetSchema, label_state: Mapping[str, Any]) -> Answers:
        """Those of a dataset's labels, whose state is its ``statistics["label"]``."""
        several = schema.labels if len(schema.labels) > 1 else ()
        unit = (_plain(label_state.get("offset", 0.0)), _plain(label_state.get("scale", 1.0)))
        return cls(schema.label_type, schema.classes, *unit, several)

    @property
    def columns(self) -> dict[str, AnswerType]:
        """Names and types of what users read of every row."""
        columns = _COLUMNS[self.type]
        if not self.labels:
            return columns
        return {f"{name}_{label}": type_ for label in self.labels for name, type_ in columns.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer to one row."""
        width = len(self.classes) or len(self.labels)
        return (width,) if width else ()

    def from_output(self, output: Tensor) -> Array:
        """The answer to each row (see `pipeline.metrics.Measure`) from the output of the model's forward.

        Returns:
            float32 probabilities, (rows,) or (rows, classes); for regression float64 values; of several labels one
            column for each.
        """
        output = output.reshape(len(output), *self.shape)
        if self.type == "binary":
            return np.asarray(torch.sigmoid(output.float()).numpy())
        if self.type == "multiclass":
            return np.asarray(torch.softmax(output.float(), 1).numpy())
        return self.in_unit(output.numpy())

    def in_unit(self, published: Array) -> Array:
        """The labels of part files as users know them: regression labels in their own unit, others as they are."""
        if self.type in ("binary", "multiclass"):
            return published
        return np.asarray(published.astype(np.float64) * np.asarray(self.scale) + np.asarray(self.offset))

    def empty(self) -> Array:
        """The answers to no rows."""
        return self.from_output(torch.empty((0, *self.shape)))

    def table(self, answer: Array) -> dict[str, Array]:
        """What users read of every row, by the names of `columns`."""
        if not self.labels:
            return self._single(answer)
        each = {label: self._single(answer[:, number]) for number, label in enumerate(self.labels)}
        return {f"{name}_{label}": values for label, table in each.items() for name, values in table.items()}

    def _single(self, answer: Array) -> dict[str, Array]:
        if self.type == "binary":
            return {"prediction": (answer >= 0.5).astype(np.int32), "probability": answer}
        if self.type == "multiclass":
            chosen = answer.argmax(1)
            return {"prediction": np.array(self.classes, object)[chosen], "probability": answer.max(1, initial=0.0)}
        return {"prediction": answer}


def _plain(value: Any) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)
