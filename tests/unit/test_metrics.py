"""Metrics from additive sums say what scikit-learn says of all the rows at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics import BINARY_METRICS, Binary, roc_auc_bound

sklearn_metrics = pytest.importorskip("sklearn.metrics")

BINARY = Binary()


def scores(rows: int, seed: int, spread: float = 1.0, shift: float = -1.0, dtype: type = np.float32):
    random = np.random.default_rng(seed)
    label = (random.random(rows) < 0.25).astype(np.int64)
    logit = shift + spread * random.normal(size=rows) + 0.8 * label
    return label, (1 / (1 + np.exp(-logit))).astype(dtype), random


def expected(label, probability, weight=None):
    hard = probability >= 0.5
    options = {"sample_weight": weight}
    return {
        "accuracy": sklearn_metrics.accuracy_score(label, hard, **options),
        "precision": sklearn_metrics.precision_score(label, hard, zero_division=0, **options),
        "recall": sklearn_metrics.recall_score(label, hard, **options),
        "f1": sklearn_metrics.f1_score(label, hard, **options),
        "roc_auc": sklearn_metrics.roc_auc_score(label, probability, **options),
        "pr_auc": sklearn_metrics.average_precision_score(label, probability, **options),
        "log_loss": sklearn_metrics.log_loss(label, probability, **options),
    }


@pytest.mark.parametrize("spread", [0.05, 1.0, 8.0])
@pytest.mark.parametrize("shift", [-6.0, -1.0, 3.0])
def test_metrics_agree_with_scikit_learn(spread, shift):
    label, probability, _ = scores(50_000, 1, spread, shift)
    actual = BINARY.metrics(BINARY.sums(label, probability))
    assert tuple(actual) == BINARY_METRICS
    truth = expected(label, probability)
    assert actual.pop("pr_auc") == pytest.approx(truth.pop("pr_auc"), abs=1e-4)
    assert actual == pytest.approx(truth, abs=1e-6)


def test_weights_count_as_in_scikit_learn():
    label, probability, random = scores(20_000, 2)
    weight = random.uniform(0.1, 5, len(label))
    assert BINARY.metrics(BINARY.sums(label, probability, weight)) == pytest.approx(
        expected(label, probability, weight), abs=1e-5
    )


def test_sums_of_parts_are_the_sums_of_the_whole_to_the_bit_in_any_order():
    label, probability, random = scores(30_000, 3)
    whole = BINARY.sums(label, probability)
    parts = [BINARY.sums(label[rows], probability[rows]) for rows in np.array_split(random.permutation(30_000), 17)]
    random.shuffle(parts)
    assert whole.shape == BINARY.sums([], []).shape
    assert np.array_equal(sum(parts), whole)


def test_the_error_of_the_binned_roc_auc_stays_within_its_bound():
    label, probability, _ = scores(100_000, 4, spread=0.02, dtype=np.float64)
    sums = BINARY.sums(label, probability)
    error = abs(BINARY.metrics(sums)["roc_auc"] - sklearn_metrics.roc_auc_score(label, probability))
    assert error <= roc_auc_bound(sums) < 1e-3


def test_confusion_counts_every_row_once_and_ignores_weights():
    label, probability, _ = scores(1_000, 5)
    sums = BINARY.sums(label, probability, np.full(1_000, 0.5))
    table = sklearn_metrics.confusion_matrix(label, probability >= 0.5).tolist()
    assert BINARY.confusion(sums) == table
    assert BINARY.rows(sums) == 1_000


def test_exactly_one_half_is_predicted_positive_and_its_neighbour_below_is_not():
    for dtype in (np.float32, np.float64):
        half = np.asarray([0.5, np.nextafter(dtype(0.5), dtype(0))], dtype)
        assert BINARY.confusion(BINARY.sums([1, 1], half)) == [[0, 0], [1, 1]]
        assert BINARY.metrics(BINARY.sums([1, 1], half))["recall"] == 0.5


def test_certain_predictions_are_ranked_and_their_loss_is_finite():
    metrics = BINARY.metrics(BINARY.sums([0, 1, 0, 1], np.asarray([0.0, 1.0, 1e-38, 0.9], np.float32)))
    assert metrics["roc_auc"] == 1.0
    assert math.isfinite(metrics["log_loss"])


def test_a_class_without_rows_leaves_ranking_undefined_and_no_positive_prediction_gives_zero_precision():
    metrics = BINARY.metrics(BINARY.sums([0, 0], np.asarray([0.1, 0.2])))
    assert math.isnan(metrics["roc_auc"])
    assert metrics["precision"] == metrics["f1"] == 0.0
    assert metrics["accuracy"] == 1.0


def test_no_rows_give_no_numbers_and_no_error():
    sums = BINARY.sums([], np.asarray([], np.float32))
    assert BINARY.rows(sums) == 0
    assert math.isnan(BINARY.metrics(sums)["log_loss"])
    assert BINARY.curves(sums) == {"roc": [], "pr": [], "calibration": []}


def test_a_prediction_that_is_not_finite_is_never_hidden():
    sums = BINARY.sums([0, 1], np.asarray([np.nan, 0.9]))
    assert BINARY.rows(sums) == 2
    assert math.isnan(BINARY.metrics(sums)["roc_auc"])
    assert math.isnan(BINARY.metrics(sums)["log_loss"])


def test_curves_are_short_monotone_and_have_the_area_of_the_metric():
    label, probability, _ = scores(50_000, 6)
    sums = BINARY.sums(label, probability)
    curves = BINARY.curves(sums)
    roc, pr = np.asarray(curves["roc"]), np.asarray(curves["pr"])
    assert len(roc) <= 512
    assert len(pr) <= 512
    assert roc[0].tolist() == [0, 0]
    assert roc[-1].tolist() == [1, 1]
    assert (np.diff(roc, axis=0) >= 0).all()
    assert np.trapz(roc[:, 1], roc[:, 0]) == pytest.approx(BINARY.metrics(sums)["roc_auc"], abs=1e-3)
    assert pr[-1].tolist() == pytest.approx([1, label.mean()])


def test_calibration_groups_hold_all_rows_and_lie_on_the_diagonal_when_probabilities_are_true():
    random = np.random.default_rng(7)
    probability = random.random(200_000)
    label = (random.random(200_000) < probability).astype(np.int64)
    groups = np.asarray(BINARY.curves(BINARY.sums(label, probability))["calibration"])
    assert len(groups) == 10
    assert groups[:, 2].sum() == 200_000
    assert np.abs(groups[:, 0] - groups[:, 1]).max() < 0.02
