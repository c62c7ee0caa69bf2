"""ANYWHERE. Metrics of a classifier with several classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from pipeline.metrics.binary import LOSS_STEP, Sums, ratio

MULTICLASS_METRICS = ("accuracy", "precision", "recall", "f1", "log_loss")
MOST_SHOWN = 20
"""Beyond so many classes there is no confusion matrix: nobody could read it, and its size grows with the square."""

_ROWS, _NOT_FINITE, _LOG_LOSS, _PER_CLASS = range(4)


@dataclass(frozen=True)
class Multiclass:
    """The measure of a multiclass label; see `pipeline.metrics.Measure`."""

    classes: int

    def sums(self, label: ArrayLike, answer: ArrayLike, weight: ArrayLike | None = None) -> Sums:
        """What a batch adds to the sums.

        Args:
            label: class number per row.
            answer: probability of each class, rows x classes. A row with one that is not finite counts as predicted
                0, and makes the loss NaN.
            weight: per row; by default 1.

        Returns:
            Rows, rows that are not finite, log loss; weight of the rows that are right, of each label, and of each
            prediction, by class; then the flat confusion matrix in rows, of at most `MOST_SHOWN` classes.
        """
        label_ = np.asarray(label).astype(np.int64, copy=False)
        probability, finite, smallest = _probabilities(answer, self.classes)
        predicted = probability.argmax(1) if len(label_) else label_
        weight_ = np.ones(len(label_)) if weight is None else np.asarray(weight, np.float64)
        loss = -np.log(np.clip(probability[np.arange(len(label_)), label_], smallest, 1 - smallest)) * weight_
        right = predicted == label_
        return np.concatenate(
            [
                [len(label_), np.count_nonzero(~finite), (np.rint(loss / LOSS_STEP) * LOSS_STEP).sum()],
                np.bincount(label_[right], weight_[right], minlength=self.classes),
                np.bincount(label_, weight_, minlength=self.classes),
                np.bincount(predicted, weight_, minlength=self.classes),
                self._pairs(label_, predicted),
            ]
        )

    def _pairs(self, label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Sums:
        if self.classes > MOST_SHOWN:
            return np.zeros(0)
        counts = np.bincount(label * self.classes + predicted, minlength=self.classes**2)
        return counts.astype(np.float64)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Accuracy; precision, recall and F1 as plain means over the classes that occur (macro); log loss in nats.

        0/0 is 0, as in scikit-learn.
        """
        right, labelled, predicted = sums[_PER_CLASS : _PER_CLASS + 3 * self.classes].reshape(3, self.classes)
        total, occurs = labelled.sum(), labelled > 0
        tiny = np.finfo(np.float64).tiny
        by_class = {
            "precision": right / np.maximum(predicted, tiny),
            "recall": right / np.maximum(labelled, tiny),
            "f1": 2 * right / np.maximum(labelled + predicted, tiny),
        }
        return {
            "accuracy": ratio(right.sum(), total),
            **{name: ratio(values[occurs].sum(), np.count_nonzero(occurs)) for name, values in by_class.items()},
            "log_loss": float("nan") if sums[_NOT_FINITE] or not total else float(sums[_LOG_LOSS] / total),
        }

    def rows(self, sums: Sums) -> int:
        """Rows that went into the sums."""
        return int(sums[_ROWS])

    def confusion(self, sums: Sums) -> list[list[int]]:
        """Rows by label and prediction; empty beyond `MOST_SHOWN` classes."""
        pairs = sums[_PER_CLASS + 3 * self.classes :].astype(np.int64)
        return pairs.reshape(self.classes, self.classes).tolist() if len(pairs) else []

    def curves(self, sums: Sums) -> dict[str, list[list[float]]]:
        """None: the confusion matrix says more."""
        return {}


def _probabilities(answer: ArrayLike, classes: int) -> tuple[Sums, npt.NDArray[np.bool_], float]:
    """Probabilities as float64, rows that are not finite as zeros; which are; and the smallest to take logs of."""
    given = np.asarray(answer).reshape(-1, classes)
    smallest = float(np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps)
    probability = given.astype(np.float64)
    finite = np.isfinite(probability).all(1)
    return np.where(finite[:, None], probability, 0.0), finite, smallest
