"""RANK and ANYWHERE. A linear model and a perceptron side by side, trained as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from pipeline.dataset import DatasetSchema
from pipeline.models.linear import Linear
from pipeline.models.tabular import Tabular


class WideDeep(nn.Module):
    """The sum of `Linear`, which remembers single values, and `Tabular`, which generalizes (Cheng et al. 2016).

    The options are those of the deep part, see `Tabular`; the wide part has none.
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
        self.wide = Linear(schema)
        self.deep = Tabular(
            schema,
            hidden=hidden,
            dropout=dropout,
            embedding_dropout=embedding_dropout,
            norm=norm,
            activation=activation,
            embedding_dim=embedding_dim,
            intervals=intervals,
            interval_dim=interval_dim,
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs by name to one output per row, see the package."""
        output: Tensor = self.wide(inputs) + self.deep(inputs)
        return output
