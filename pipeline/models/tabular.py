"""RANK and ANYWHERE. Embeddings of the categories beside the numbers, and a multi-layer perceptron on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.intervals import IntervalEmbedding
from pipeline.models.linear import dense_inputs
from pipeline.models.outputs import output_width, shaped

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes its running statistics for a single row, which has no variance of its own.

    The short last batch of an epoch can leave one row to a rank.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (rows, columns)."""
        if self.training and len(input) == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


NORMS: dict[str, type[nn.Module] | None] = {"none": None, "layer": nn.LayerNorm, "batch": BatchNorm}


class Tabular(nn.Module):
    """The usual network for tables.

    Args:
        hidden: widths of the hidden layers.
        dropout: part of each hidden layer's outputs that is dropped in training.
        embedding_dropout: the same for the inputs from embeddings.
        norm: ``none``, ``layer`` or ``batch``, before each activation.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        embedding_dim: width of every embedding; by default ``min(50, 1.6 * ids ** 0.56)`` for each column
            (the rule of thumb that fastai's tabular models made common).
        intervals: also embed the interval that each standardized number lies in; so many intervals.
        interval_dim: width of the embedding of an interval.
    """

    def __init__(
        self,
        schema: DatasetSchema,
        *,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.1,
        embedding_dropout: float = 0.0,
        norm: Literal["none", "layer", "batch"] = "none",
        activation: str = "relu",
        embedding_dim: int | None = None,
        intervals: int | None = None,
        interval_dim: int = 3,
    ) -> None:
        super().__init__()
        _check(hidden, dropout, embedding_dropout, norm, activation, embedding_dim, intervals, interval_dim)
        self.vectors = tuple(schema.vectors)
        self.embeddings = nn.ModuleList(
            nn.Embedding(ids, embedding_dim or _width(ids)) for ids in schema.cardinalities.values()
        )
        for table in self.embeddings:
            nn.init.normal_(table.weight, std=0.05)  # type: ignore[arg-type]
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.has_dense = bool(schema.numeric or self.vectors)
        inputs = len(schema.numeric) + sum(schema.column(name).width for name in self.vectors)
        inputs += sum(table.embedding_dim for table in self.embeddings)  # type: ignore[misc]
        self.intervals: IntervalEmbedding | None = None
        if intervals is not None and schema.numeric:
            self.intervals = IntervalEmbedding(len(schema.numeric), intervals, interval_dim)
            inputs += len(schema.numeric) * interval_dim
        self.layers = perceptron(inputs, hidden, output_width(schema), dropout, norm, activation)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs by name to one output per row, see the package."""
        dtype = self.layers[-1].weight.dtype
        parts = [dense_inputs(inputs, self.vectors, dtype)] if self.has_dense else []  # type: ignore[arg-type]
        embedded = [table(inputs["categorical"][:, number]) for number, table in enumerate(self.embeddings)]
        if self.intervals is not None:
            embedded.append(self.intervals(inputs["numeric"]))
        if embedded:
            parts.append(self.embedding_dropout(torch.cat(embedded, dim=1)))
        return shaped(self.layers(torch.cat(parts, dim=1)))


def perceptron(
    inputs: int, hidden: Sequence[int], outputs: int, dropout: float, norm: str, activation: str
) -> nn.Sequential:
    """Linear, norm, activation and dropout for each hidden width, then a linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if (kind := NORMS[norm]) is not None:
            layers.append(kind(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _width(ids: int) -> int:
    return int(min(50, max(1, round(1.6 * ids**0.56))))


def _check(
    hidden: Any,
    dropout: Any,
    embedding_dropout: Any,
    norm: Any,
    activation: Any,
    embedding_dim: Any,
    intervals: Any,
    interval_dim: Any,
) -> None:
    checks = {
        "hidden": (hidden, all(isinstance(n, int) and n > 0 for n in hidden), "positive integers"),
        "dropout": (dropout, 0 <= dropout < 1, "at least 0 and less than 1"),
        "embedding_dropout": (embedding_dropout, 0 <= embedding_dropout < 1, "at least 0 and less than 1"),
        "norm": (norm, norm in NORMS, f"one of {', '.join(NORMS)}"),
        "activation": (activation, activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"),
        "embedding_dim": (embedding_dim, embedding_dim is None or embedding_dim > 0, "a positive integer"),
        "intervals": (intervals, intervals is None or intervals > 1, "at least 2"),
        "interval_dim": (interval_dim, interval_dim > 0, "a positive integer"),
    }
    wrong = {name: (value, bound) for name, (value, good, bound) in checks.items() if not good}
    if wrong:
        raise ConfigError(*(f"model.options.{n} is {value}; expected {b}" for n, (value, b) in wrong.items()))
