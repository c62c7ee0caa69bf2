"""ANYWHERE. Metrics of several labels of one type: those of each label, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.binary import Sums

if TYPE_CHECKING:
    from pipeline.metrics import Measure


@dataclass(frozen=True)
class Several:
    """The measure of several labels; see `pipeline.metrics.Measure`. Labels and answers are (rows, labels).

    Attributes:
        measure: of a single label.
        names: of the labels, by column.
    """

    measure: Measure
    names: Sequence[str]

    def sums(self, label: ArrayLike, answer: ArrayLike, weight: ArrayLike | None = None) -> Sums:
        """The sums of each label, one after another."""
        labels, answers = np.asarray(label), np.asarray(answer)
        return np.concatenate([self.measure.sums(labels[:, n], answers[:, n], weight) for n in range(len(self.names))])

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Under its plain name a metric's mean over the labels, under ``<metric>_<label>`` that of each label."""
        each = [self.measure.metrics(part) for part in self._parts(sums)]
        means = {name: float(np.mean([metrics[name] for metrics in each])) for name in each[0]}
        of_labels = {
            f"{name}_{label}": metrics[name] for label, metrics in zip(self.names, each, strict=True) for name in means
        }
        return {**means, **of_labels}

    def rows(self, sums: Sums) -> int:
        """Rows that went into the sums."""
        return self.measure.rows(self._parts(sums)[0])

    def confusion(self, sums: Sums) -> list[list[int]]:
        """None: there would be one for each label."""
        return []

    def curves(self, sums: Sums) -> dict[str, list[list[float]]]:
        """None: there would be one for each label."""
        return {}

    def _parts(self, sums: Sums) -> list[Sums]:
        return np.split(sums, len(self.names))
