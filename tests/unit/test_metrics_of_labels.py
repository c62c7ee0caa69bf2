"""Metrics of several classes and of numbers say what scikit-learn says, whatever the order of the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics import METRICS, lower_is_better, measure_of

sklearn_metrics = pytest.importorskip("sklearn.metrics")

MULTICLASS = measure_of("multiclass", 5)
REGRESSION = measure_of("regression", span=(-2.0, 2.0))


def classified(rows: int):
    random = np.random.default_rng(0)
    label = random.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])  # class 4 never occurs
    logit = random.normal(size=(rows, 5)) + 1.5 * np.eye(5)[label]
    probability = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    return label, probability, random.uniform(0.1, 3, rows), random


def valued(rows: int):
    random = np.random.default_rng(0)
    actual = random.normal(size=rows).astype(np.float32)
    return actual, actual + random.normal(0, 0.5, rows), random.uniform(0.1, 3, rows), random


@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_metrics_agree_with_scikit_learn(weighted):
    label, probability, weight, _ = classified(5_000)
    weight = weight if weighted else None
    options = {"sample_weight": weight}
    macro = {**options, "average": "macro", "zero_division": 0, "labels": [0, 1, 2, 3]}
    predicted = probability.argmax(1)
    actual = MULTICLASS.metrics(MULTICLASS.sums(label, probability, weight))
    assert tuple(actual) == METRICS["multiclass"]
    assert actual == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(label, predicted, **options),
            "precision": sklearn_metrics.precision_score(label, predicted, **macro),
            "recall": sklearn_metrics.recall_score(label, predicted, **macro),
            "f1": sklearn_metrics.f1_score(label, predicted, **macro),
            "log_loss": sklearn_metrics.log_loss(label, probability, labels=range(5), **options),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-9, 0.0), (1e12, 0.0), (1.0, 1e6)])
def test_regression_metrics_agree_with_scikit_learn_whatever_the_unit(weighted, factor, shift):
    actual, predicted, weight, _ = valued(5_000)
    actual, predicted = actual * factor + shift, predicted * factor + shift
    weight = weight if weighted else None
    metrics = REGRESSION.metrics(REGRESSION.sums(actual, predicted, weight))
    assert tuple(metrics) == METRICS["regression"]
    squared = sklearn_metrics.mean_squared_error(actual, predicted, sample_weight=weight)
    assert metrics["mae"] == pytest.approx(
        sklearn_metrics.mean_absolute_error(actual, predicted, sample_weight=weight), rel=1e-9
    )
    assert metrics["rmse"] == pytest.approx(math.sqrt(squared), rel=1e-9)
    assert metrics["r2"] == pytest.approx(sklearn_metrics.r2_score(actual, predicted, sample_weight=weight), abs=1e-6)


@pytest.mark.parametrize(("measure", "rows_of"), [(MULTICLASS, classified), (REGRESSION, valued)])
def test_sums_of_parts_are_the_sums_of_the_whole_to_the_bit_in_any_order(measure, rows_of):
    label, answer, _, random = rows_of(9_000)
    whole = measure.sums(label, answer)
    parts = [measure.sums(label[rows], answer[rows]) for rows in np.array_split(random.permutation(9_000), 13)]
    random.shuffle(parts)
    assert np.array_equal(sum(parts), whole)
    assert measure.rows(whole) == 9_000


def test_weighted_errors_of_any_size_add_up_to_the_bit_in_any_order():
    random = np.random.default_rng(1)
    actual = random.normal(size=4_000) * 10.0 ** random.integers(-30, 30, 4_000)
    weight = random.uniform(0.1, 3, 4_000)
    order = random.permutation(4_000)
    forward = REGRESSION.sums(actual, np.zeros(4_000), weight)
    assert np.array_equal(REGRESSION.sums(actual[order], np.zeros(4_000), weight[order]), forward)
    expected = math.fsum(weight * abs(actual)) / math.fsum(weight)
    assert REGRESSION.metrics(forward)["mae"] == pytest.approx(expected, rel=1e-15)


def test_the_confusion_matrix_has_labels_down_and_predictions_across():
    label, probability, weight, _ = classified(1_000)
    table = MULTICLASS.confusion(MULTICLASS.sums(label, probability, weight))
    assert table == sklearn_metrics.confusion_matrix(label, probability.argmax(1), labels=range(5)).tolist()


def test_so_many_classes_that_nobody_could_read_them_have_no_confusion_matrix():
    measure = measure_of("multiclass", 21)
    sums = measure.sums([20, 3], np.eye(21)[[20, 4]])
    assert measure.confusion(sums) == []
    assert measure.metrics(sums)["accuracy"] == 0.5


def test_the_picture_of_predicted_against_actual_values_holds_every_row():
    curves = REGRESSION.curves(REGRESSION.sums([-9.0, 0.01, 9.0, 9.0], [9.0, 0.01, 9.0, 9.0]))
    assert curves["span"] == [[-2.0, 2.0]]
    first, middle, last = curves["cells"]
    assert first == pytest.approx([-2 + 1 / 12, 2 - 1 / 12, 1])
    assert middle == pytest.approx([1 / 12, 1 / 12, 1])
    assert last == pytest.approx([2 - 1 / 12, 2 - 1 / 12, 2])
    assert measure_of("regression").curves(measure_of("regression").sums([1.0], [2.0])) == {}


def test_an_answer_that_is_not_finite_is_never_hidden():
    probability = np.asarray([[0.1, 0.2, 0.3, 0.2, 0.2], [0.2, np.nan, 0.2, 0.2, 0.2]])
    sums = MULTICLASS.sums([2, 1], probability)
    assert MULTICLASS.rows(sums) == 2
    assert math.isnan(MULTICLASS.metrics(sums)["log_loss"])
    for answer in (np.nan, np.inf, 1e200):
        sums = REGRESSION.sums([1.0, 2.0], [1.0, answer])
        assert REGRESSION.rows(sums) == 2
        assert all(math.isnan(value) for value in REGRESSION.metrics(sums).values())


@pytest.mark.parametrize(("measure", "answer"), [(MULTICLASS, np.empty((0, 5))), (REGRESSION, np.empty(0))])
def test_no_rows_give_no_numbers_and_no_error(measure, answer):
    sums = measure.sums(np.empty(0), answer)
    assert measure.rows(sums) == 0
    assert math.isnan(list(measure.metrics(sums).values())[-1])


def test_a_label_that_does_not_vary_leaves_r2_undefined():
    metrics = REGRESSION.metrics(REGRESSION.sums([3.0, 3.0], [2.0, 4.0]))
    assert metrics["mae"] == metrics["rmse"] == 1.0
    assert math.isnan(metrics["r2"])


def test_of_our_own_metrics_it_is_known_whether_less_is_better_and_of_no_other_one():
    known = {"loss": True, "log_loss_late": True, "rmse": True, "f1_lost": False, "r2": False}
    assert {name: lower_is_better(name, ("late", "lost")) for name in known} == known
    assert [lower_is_better(name, ("late",)) for name in ("my_error", "f1_lost", "loss_of_mine", "")] == [None] * 4
