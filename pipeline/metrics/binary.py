"""ANYWHERE. Metrics of a binary classifier.

    sums = Binary().sums(label, probability) + Binary().sums(...) + ...    one small vector, whatever the number of rows
    Binary().metrics(sums)                                                 accuracy, precision, ..., log_loss

With unit weights every entry is a whole number, or a multiple of 2**-24 for the log loss, so the sums are exact in
float64 and do not depend on the order of addition: ranks, tasks and a single process get the same bits.

Ranking metrics come from a histogram of the scores per class. Its bins are equal steps of ``z / (1 + |z|)`` with
``z = logit / 2``: fine around probability one half (width 0.00002), and never exhausted towards 0 and 1. Scores that
share a bin count as ties, which moves ROC AUC by at most `roc_auc_bound`, commonly by less than 1e-6; ``pr_auc``,
which hangs on the few highest scores, by less than 1e-4. All the rest is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 1 << 16
_TRUE_NEGATIVE, _FALSE_POSITIVE, _FALSE_NEGATIVE, _TRUE_POSITIVE, _LOG_LOSS, _NOT_FINITE, _HISTOGRAM = range(7)
_LENGTH = _HISTOGRAM + 2 * BINS
LOSS_STEP = 2.0**-24
"""Log losses are rounded to multiples of it, so that their sums are exact."""

MOST_POINTS = 512
"""Of a curve in a plot."""

BINARY_METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "log_loss")
"""Names of what `Binary.metrics` gives."""

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Binary:
    """The measure of a binary label; see `pipeline.metrics.Measure`."""

    def sums(self, label: ArrayLike, answer: ArrayLike, weight: ArrayLike | None = None) -> Sums:
        """What a batch adds to the sums.

        Args:
            label: 0 or 1 per row.
            answer: the probability of class 1, in [0, 1]. A row where it is not finite counts as predicted 0, and
                makes the ranking metrics and the loss NaN.
            weight: per row; by default 1.

        Returns:
            float64; the element-wise sum of such vectors is the vector of all rows.
        """
        label_ = np.asarray(label).astype(np.int64, copy=False)
        probability = np.asarray(answer)
        smallest = np.finfo(probability.dtype if probability.dtype.kind == "f" else np.float64).eps
        probability = probability.astype(np.float64)
        finite = np.isfinite(probability)
        probability = np.where(finite, probability, 0.0)
        weight_ = np.ones(len(label_)) if weight is None else np.asarray(weight, np.float64)

        sums = np.zeros(_LENGTH)
        sums[:_LOG_LOSS] = np.bincount(2 * label_ + (probability >= 0.5), minlength=4)
        sums[_LOG_LOSS] = _log_loss(label_, probability, weight_, float(smallest)).sum()
        sums[_NOT_FINITE] = np.count_nonzero(~finite)
        sums[_HISTOGRAM:] = np.bincount(label_ * BINS + _bins(probability), weight_, minlength=2 * BINS)
        return sums

    def metrics(self, sums: Sums) -> dict[str, float]:
        """The metrics by name, weighted where weights were given; 0/0 is 0, and NaN is what the rows do not define.

        ROC AUC needs both classes. ``pr_auc`` is the average precision (a step curve, as
        ``sklearn.metrics.average_precision_score``). ``log_loss`` is in nats per unit of weight.
        """
        negatives, positives = _histograms(sums)
        negative, positive = negatives.sum(), positives.sum()
        false_positive, true_positive = negatives[BINS // 2 :].sum(), positives[BINS // 2 :].sum()
        total = negative + positive
        precision = ratio(true_positive, true_positive + false_positive)
        recall = ratio(true_positive, positive)
        broken = bool(sums[_NOT_FINITE])
        return {
            "accuracy": ratio(negative - false_positive + true_positive, total),
            "precision": precision,
            "recall": recall,
            "f1": ratio(2 * precision * recall, precision + recall),
            "roc_auc": float("nan") if broken else _roc_auc(negatives, positives),
            "pr_auc": float("nan") if broken else _average_precision(negatives, positives),
            "log_loss": float("nan") if broken or not total else float(sums[_LOG_LOSS] / total),
        }

    def rows(self, sums: Sums) -> int:
        """Rows that went into the sums."""
        return int(sums[:_LOG_LOSS].sum())

    def confusion(self, sums: Sums) -> list[list[int]]:
        """Rows (never weighted) by label and prediction at one half."""
        true_negative, false_positive, false_negative, true_positive = (int(count) for count in sums[:_LOG_LOSS])
        return [[true_negative, false_positive], [false_negative, true_positive]]

    def curves(self, sums: Sums) -> dict[str, list[list[float]]]:
        """Points for plots, at most `MOST_POINTS` each.

        Returns:
            ``roc``: [false positive rate, true positive rate] from (0, 0) to (1, 1); ``pr``: [recall, precision] by
            rising recall; ``calibration``: [mean probability, rate of positives, rows' weight] of up to ten groups of
            equal weight.
        """
        negatives, positives = _histograms(sums)
        if not negatives.sum() or not positives.sum():
            return {"roc": [], "pr": [], "calibration": _calibration(negatives, positives)}
        false, true = np.cumsum(negatives[::-1]), np.cumsum(positives[::-1])
        false_rate, recall = false / false[-1], true / true[-1]
        way = false_rate + recall
        chosen = np.unique(np.searchsorted(way, np.linspace(0, 2, MOST_POINTS - 1)).clip(max=BINS - 1))
        chosen = chosen[way[chosen] > 0]
        precision = true[chosen] / (true[chosen] + false[chosen])
        return {
            "roc": [[0.0, 0.0], *np.column_stack([false_rate[chosen], recall[chosen]]).tolist()],
            "pr": np.column_stack([recall[chosen], precision]).tolist(),
            "calibration": _calibration(negatives, positives),
        }


def _log_loss(label: NDArray[Any], probability: Sums, weight: Sums, smallest: float) -> Sums:
    """Per row, rounded to a multiple of 2**-24 so that sums up to 2**29 are exact; clipped as in scikit-learn."""
    clipped = np.clip(probability, smallest, 1 - smallest)
    loss = -np.log(np.where(label == 1, clipped, 1 - clipped)) * weight
    return np.asarray(np.rint(loss / LOSS_STEP) * LOSS_STEP)


def _bins(probability: Sums) -> NDArray[np.int64]:
    """The bin of each score; bins from ``BINS // 2`` on hold exactly the probabilities of at least one half."""
    with np.errstate(divide="ignore"):
        z = np.clip(np.log(probability / (1 - probability)), -1e4, 1e4) / 2
    return np.asarray(np.floor(z / (1 + np.abs(z)) * (BINS // 2)).astype(np.int64) + BINS // 2)


def _bin_probabilities() -> Sums:
    """The probability in the middle of each bin."""
    position = (np.arange(BINS) + 0.5) / (BINS // 2) - 1
    logit = 2 * position / (1 - np.abs(position))
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))


def _histograms(sums: Sums) -> tuple[Sums, Sums]:
    """Weight of negatives and positives in each bin, by rising score."""
    return sums[_HISTOGRAM : _HISTOGRAM + BINS], sums[_HISTOGRAM + BINS :]


def ratio(numerator: float, denominator: float) -> float:
    """A quotient; 0/0 is 0."""
    return float(numerator / denominator) if denominator else 0.0


def _roc_auc(negatives: Sums, positives: Sums) -> float:
    """The chance that a positive scores above a negative, ties counted half."""
    pairs = negatives.sum() * positives.sum()
    if not pairs:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float(np.dot(positives, below + negatives / 2) / pairs)


def _average_precision(negatives: Sums, positives: Sums) -> float:
    total = positives.sum()
    if not total:
        return float("nan")
    caught, alarms = np.cumsum(positives[::-1]), np.cumsum((negatives + positives)[::-1])
    hit = positives[::-1] > 0
    return float(np.dot(positives[::-1][hit], caught[hit] / alarms[hit]) / total)


def roc_auc_bound(sums: Sums) -> float:
    """How far `Binary`'s ROC AUC can be from that of the unbinned scores: half the pairs that share a bin."""
    negatives, positives = _histograms(sums)
    pairs = negatives.sum() * positives.sum()
    return float(np.dot(negatives, positives) / 2 / pairs) if pairs else 0.0


def _calibration(negatives: Sums, positives: Sums, groups: int = 10) -> list[list[float]]:
    weight = negatives + positives
    if not weight.sum():
        return []
    group = np.minimum((np.cumsum(weight) - weight / 2) / weight.sum() * groups, groups - 1).astype(np.int64)
    total = np.bincount(group, weight, minlength=groups)
    expected = np.bincount(group, weight * _bin_probabilities(), minlength=groups)
    actual = np.bincount(group, positives, minlength=groups)
    kept = total > 0
    return np.column_stack([expected[kept] / total[kept], actual[kept] / total[kept], total[kept]]).tolist()  # type: ignore[no-any-return]
