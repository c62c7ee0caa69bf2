"""RANK and ANYWHERE. A linear model: logistic regression, softmax regression or least squares, by the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.dataset import DatasetSchema
from pipeline.models.outputs import output_width, shaped


class Linear(nn.Module):
    """One weight per numeric or vector value and per category; the sum is the output."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        width = output_width(schema)
        self.vectors = tuple(schema.vectors)
        values = len(schema.numeric) + sum(schema.column(name).width for name in self.vectors)
        self.numeric = nn.Linear(values, width, bias=False) if values else None
        self.bias = nn.Parameter(torch.zeros(width))
        self.categories = nn.ModuleList(nn.Embedding(n, width) for n in schema.cardinalities.values())
        for table in self.categories:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs by name to one output per row, see the package."""
        output = self.bias
        for number, table in enumerate(self.categories):
            output = output + table(inputs["categorical"][:, number])
        if self.numeric is not None:
            output = output + self.numeric(dense_inputs(inputs, self.vectors, self.numeric.weight.dtype))
        return shaped(output)


def dense_inputs(inputs: dict[str, Tensor], vectors: tuple[str, ...], dtype: torch.dtype) -> Tensor:
    """The numeric matrix and the flattened vectors side by side; bytes (images) scaled to [0, 1]."""
    parts = [inputs["numeric"].to(dtype)] if "numeric" in inputs else []
    for name in vectors:
        vector = inputs[name].flatten(1)
        parts.append(vector.to(dtype) / 255 if vector.dtype == torch.uint8 else vector.to(dtype))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
