"""ANYWHERE. Whether a value was missing, as a feature beside the one that something stands in for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.features import ElapsedFeature, NumericFeature, RawColumn, missing_name
from pipeline.dataset import Column
from pipeline.features.kinds import Array, Raw
from pipeline.features.lists import present


@dataclass(frozen=True)
class Missing:
    """1 where the feature of that name has no value, else 0.

    Attributes:
        column: its raw column.
        since: a second one that it needs.
        infinite: whether infinite numbers are none.
    """

    name: str
    column: str
    since: str | None = None
    infinite: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(missing_name(self.name), "float32", "numeric"),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw columns."""
        return (self.column,) if self.since is None else (self.column, self.since)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From canonical raw columns."""
        there = np.logical_and.reduce([present(raw[column]) for column in self.inputs])
        if self.infinite:
            there &= np.isfinite(raw[self.column])
        return {missing_name(self.name): (~there).astype(np.float32)}


def indicator_of(name: str, config: RawColumn) -> Missing:
    """Nothing is learned of it."""
    since = config.since_column if isinstance(config, ElapsedFeature) else None
    return Missing(name, config.column or name, since, isinstance(config, NumericFeature) and config.clip is None)
