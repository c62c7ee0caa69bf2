"""RANK and ANYWHERE. Numbers as embeddings of the interval they lie in, for networks on tables.

A perceptron on scaled numbers is smooth, while what depends on a number often has steps, which trees find at once.
An embedding per interval lets the network have them too (Gorishniy et al., On Embeddings for Numerical Features in
Tabular Deep Learning, 2022). Intervals are equally likely for a standardized number, so they need no data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IntervalEmbedding(nn.Module):
    """Standardized numbers, (rows, columns), to the embeddings of their intervals, (rows, columns * width).

    Args:
        columns: how many numbers a row has; each has embeddings of its own.
        intervals: how many intervals the normal distribution is cut into.
        width: of one embedding.
    """

    def __init__(self, columns: int, intervals: int, width: int) -> None:
        super().__init__()
        self.intervals = intervals
        self.table = nn.Embedding(columns * intervals, width)
        nn.init.normal_(self.table.weight, std=0.05)

    def forward(self, numbers: Tensor) -> Tensor:
        """The interval's number is the normal distribution function, cut into equal parts."""
        interval = (torch.special.ndtr(numbers) * self.intervals).long().clamp_(0, self.intervals - 1)
        first = torch.arange(numbers.shape[1], device=numbers.device) * self.intervals
        return self.table(interval + first).flatten(1)  # type: ignore[no-any-return]
