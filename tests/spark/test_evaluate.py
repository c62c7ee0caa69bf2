"""An evaluation counts every test row once, compares like with like, and does not depend on who does the work."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.config.release import EvaluationConfig
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.inference import baselines, measure
from pipeline.inference.encoded import read_row_group, row_groups
from pipeline.inference.evaluate import Evaluation, evaluate
from pipeline.inference.predictor import Predictor
from tests.small_model import small_dataset, small_model

CONFIG = EvaluationConfig(slices=["colour"])


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """As many trees as the product grows take long, and prove nothing more."""
    with pytest.MonkeyPatch.context() as patch:
        assert baselines.TREE_ITERATIONS == 300
        patch.setattr(baselines, "TREE_ITERATIONS", 20)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, dataset):
    return Predictor.load(small_model(str(tmp_path_factory.mktemp("model")), dataset))


@pytest.fixture(scope="module")
def evaluation(dataset, predictor):
    return evaluate(dataset, predictor, CONFIG)


def test_every_confusion_matrix_adds_up_to_the_rows_of_the_split(dataset, evaluation):
    assert evaluation.rows == dataset.manifest.rows("test") == 500
    for measured in (evaluation.measured, *evaluation.baselines):
        assert sum(map(sum, measured.confusion)) == 500


def test_metrics_are_those_of_scikit_learn_on_the_stored_rows(dataset, predictor, evaluation):
    metrics = pytest.importorskip("sklearn.metrics")
    groups = [read_row_group(dataset.url, dataset.schema, group) for group in row_groups(dataset, "test")]
    probability = np.concatenate([predictor.predict_encoded(inputs) for inputs, _ in groups])
    label = np.concatenate([others["label"] for _, others in groups])
    assert evaluation.metrics["roc_auc"] == pytest.approx(metrics.roc_auc_score(label, probability), abs=1e-4)
    assert evaluation.metrics["accuracy"] == metrics.accuracy_score(label, probability >= 0.5)
    assert evaluation.metrics["log_loss"] == pytest.approx(metrics.log_loss(label, probability), abs=1e-6)
    assert evaluation.metrics["roc_auc"] > 0.8


def test_baselines_learn_something_and_say_from_what(evaluation):
    majority, linear, trees = evaluation.baselines
    assert (majority.name, linear.name, trees.name) == (
        "majority class",
        "logistic regression",
        "gradient-boosted trees",
    )
    assert majority.metrics["roc_auc"] == 0.5
    assert min(linear.metrics["roc_auc"], trees.metrics["roc_auc"]) > 0.75
    assert "20 iterations, on all 2,000 train rows" in trees.note


def test_baselines_use_at_most_the_first_rows_of_the_configuration(dataset, predictor):
    evaluation = evaluate(dataset, predictor, EvaluationConfig(baseline_rows=150))
    assert all("the first 150 of 2,000 train rows" in baseline.note for baseline in evaluation.baselines)


def test_spark_tasks_give_the_same_bits_as_one_process(spark, dataset, predictor, evaluation, monkeypatch):
    monkeypatch.setattr(measure, "IN_PROCESS_ROWS", 0)
    distributed = evaluate(dataset, predictor, CONFIG, spark=lambda: spark)
    assert distributed.measured == evaluation.measured
    assert distributed.slices == evaluation.slices
    for ours, theirs in zip(distributed.baselines, evaluation.baselines, strict=True):
        assert ours == theirs


def test_slices_split_the_rows_by_the_values_of_a_kept_column(evaluation):
    rows = {entry.value: entry.rows for entry in evaluation.slices}
    assert set(rows) == {"red", "blue", "green", "mauve", "(null)"}
    assert sum(rows.values()) == 500
    assert sum(entry.positives for entry in evaluation.slices) == (sum(evaluation.measured.confusion[1]))


def test_rare_values_share_one_slice(dataset, predictor, monkeypatch):
    monkeypatch.setattr("pipeline.inference.evaluate._SLICE_VALUES", 2)
    entries = evaluate(dataset, predictor, CONFIG).slices
    assert len(entries) == 3
    assert sum(entry.rows for entry in entries) == 500
    assert "(other)" in {entry.value for entry in entries}


def test_an_evaluation_survives_json(evaluation):
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    assert again.metrics == evaluation.metrics
    assert again.verdict == evaluation.verdict
    assert json.dumps(again.to_json()) == text


def test_the_verdict_says_who_wins(evaluation):
    import dataclasses

    def with_auc(own: float, rival: float) -> str:
        trees = dataclasses.replace(evaluation.baselines[2], metrics={"roc_auc": rival})
        model = dataclasses.replace(evaluation.measured, metrics={"roc_auc": own})
        return dataclasses.replace(evaluation, measured=model, baselines=(trees,)).verdict

    assert with_auc(0.7, 0.75) == "The gradient-boosted trees win: ROC AUC 0.7500, the model 0.7000."
    assert with_auc(0.76, 0.75) == "The model wins: ROC AUC 0.7600, the gradient-boosted trees 0.7500."


def test_a_slice_that_is_not_kept_lists_what_is(dataset, predictor):
    with pytest.raises(ConfigError, match=r"names weight; expected columns of dataset.keep: id, colour"):
        evaluate(dataset, predictor, EvaluationConfig(slices=["weight"]))


def test_a_model_of_another_encoding_is_refused(tmp_path, predictor):
    from pipeline.testing import tiny_dataset

    with pytest.raises(DataError, match="encoded differently"):
        evaluate(tiny_dataset(str(tmp_path), 100), predictor, EvaluationConfig())


def test_a_corrupt_part_file_is_seen_before_anything_is_measured(tmp_path, predictor):
    dataset = small_dataset(str(tmp_path), 400)
    path = tmp_path / dataset.manifest.splits["test"][1].path
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="corrupt"):
        evaluate(dataset, predictor, EvaluationConfig())
