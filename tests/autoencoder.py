"""What learns without a label: an autoencoder and its loss."""

from __future__ import annotations

import torch

from pipeline.dataset import DatasetSchema


class ReconstructionError(torch.nn.Module):
    """Says of each row how badly it is put together again."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        width = len(schema.numeric)
        self.narrow, self.wide = torch.nn.Linear(width, 1), torch.nn.Linear(1, width)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = inputs["numeric"]
        return ((self.wide(self.narrow(numbers)) - numbers) ** 2).mean(1)


def sum_of_errors(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return predictions @ weight
