"""ANYWHERE. What a model says of a row, by label type: from the numbers of its forward to what users read.

* binary: prediction 0 or 1, and the probability of class 1
* multiclass: the name of the likeliest class, and its probability; those of every class on demand
* regression: a number in the label's own unit, any scaling undone
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
from pipeline.errors import ConfigError
from pipeline.metrics import LabelType

Array = npt.NDArray[Any]
AnswerType = Literal["integer", "float", "double", "string"]

_COLUMNS: dict[LabelType, dict[str, AnswerType]] = {
    "binary": {"prediction": "integer", "probability": "float"},
    "multiclass": {"prediction": "string", "probability": "float"},
    "regression": {"prediction": "double"},
}


@dataclass(frozen=True)
class Answers:
    """How a label's answers are made and read.

    Attributes:
        classes: names by class number, of a multiclass label.
        offset: with ``scale``, the unit of a regression label: value = published value * scale + offset.
    """

    type: LabelType
    classes: tuple[str, ...] = ()
    offset: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, schema: DatasetSchema, statistics: Mapping[str, Any]) -> Answers:
        """Those of a dataset's label.

        Raises:
            ConfigError: there is not exactly one label.
        """
        labels = len(schema.with_role("label"))
        if schema.label_type is None or labels != 1:
            raise ConfigError(f"the dataset has {labels} labels; expected one; such a model can be trained, not used")
        state = statistics.get("label", {})
        return cls(schema.label_type, schema.classes, float(state.get("offset", 0.0)), float(state.get("scale", 1.0)))

    @property
    def columns(self) -> dict[str, AnswerType]:
        """Names and types of what users read of every row."""
        return _COLUMNS[self.type]

    def from_output(self, output: Tensor) -> Array:
        """The answer to each row (see `pipeline.metrics.Measure`) from the output of the model's forward.

        Returns:
            float32 probabilities, (rows,) or (rows, classes); for regression float64 values.
        """
        rows = len(output)
        if self.type == "binary":
            return np.asarray(torch.sigmoid(output.reshape(rows).float()).numpy())
        if self.type == "multiclass":
            return np.asarray(torch.softmax(output.reshape(rows, len(self.classes)).float(), 1).numpy())
        return self.in_unit(output.reshape(rows).numpy())

    def in_unit(self, published: Array) -> Array:
        """The labels of part files as users know them: regression labels in their own unit, others as they are."""
        if self.type != "regression":
            return published
        return np.asarray(published.astype(np.float64) * self.scale + self.offset)

    def empty(self) -> Array:
        """The answers to no rows."""
        return self.from_output(torch.empty((0, max(1, len(self.classes))) if self.classes else (0,)))

    def table(self, answer: Array) -> dict[str, Array]:
        """What users read of every row, by the names of `columns`."""
        if self.type == "binary":
            return {"prediction": (answer >= 0.5).astype(np.int32), "probability": answer}
        if self.type == "multiclass":
            chosen = answer.argmax(1)
            return {"prediction": np.array(self.classes, object)[chosen], "probability": answer.max(1, initial=0.0)}
        return {"prediction": answer}
