"""Several labels at once, or none: from the loader to what the predictor answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import flow
from pipeline.config import parse_config
from pipeline.config.release import EvaluationConfig
from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Column, Dataset
from pipeline.errors import ConfigError
from pipeline.inference import baselines
from pipeline.inference.evaluate import evaluate
from pipeline.inference.predictor import Predictor, export_model
from pipeline.metrics import measure_of
from pipeline.models.dry_run import dry_run
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import read_weights
from pipeline.training.collective import SoloCollective
from pipeline.training.objectives import build_objective, class_weight_table, is_better
from pipeline.training.worker import train
from tests.autoencoder import ReconstructionError, sum_of_errors
from tests.no_spark import NeverAsked
from tests.small_model import FEATURES, raw_rows, small_schema

TWO = ("late", "lost")


class Told(SilentReporter):
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def metrics(self, values: Any, step: int) -> None:
        self.values.append(dict(values))


def trained(dataset: Dataset, folder: Path, code: UserCode | None = None, **training: Any) -> tuple[Any, Told]:
    config = TrainingConfig(
        run_url=str(folder), epochs=4, global_batch_size=64, optimizer={"learning_rate": 0.02}, **training
    )
    told = Told()
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), config, code or UserCode())
    return train(task, SoloCollective(), told, lambda: False), told


@pytest.mark.parametrize("labels", [("label",), TWO, ()])
def test_a_batch_has_one_column_for_each_of_several_labels(tmp_path: Path, labels: tuple[str, ...]) -> None:
    dataset = tiny_dataset(str(tmp_path), 100, label_type="binary" if labels else None, labels=labels)
    batch = next(iter(dataset.loader("train", global_batch_size=32)))
    assert batch.rows == 32
    assert batch.label.shape == ((32,) if len(labels) == 1 else (32, len(labels)))
    if labels == TWO:
        assert torch.equal(batch.label[:, 0], 1 - batch.label[:, 1])


@pytest.mark.parametrize("label_type", ["binary", "regression"])
def test_several_labels_are_learned_at_once_and_measured_apart(tmp_path: Path, label_type: Any) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), 1200, label_type=label_type, labels=TWO)
    result, told = trained(dataset, tmp_path / "run", best_by="auto")
    first, last = told.values[0], told.values[-1]
    name = "roc_auc" if label_type == "binary" else "r2"
    each = [last[f"validation_{name}_{label}"] for label in TWO]
    assert min(each) > 0.7
    assert last[f"validation_{name}"] == pytest.approx(np.mean(each))
    assert last["validation_loss"] < first["validation_loss"]
    assert result.best_metrics[name] == pytest.approx(max(v[f"validation_{name}"] for v in told.values))


def test_without_a_label_the_loss_of_the_users_code_is_learned(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), 800, label_type=None, labels=())
    code = UserCode(model=ReconstructionError, loss=sum_of_errors)
    dry_run(ModelConfig(), dataset.schema, code)
    result, told = trained(dataset, tmp_path / "run", code)
    assert told.values[-1]["validation_loss"] < 0.8 * told.values[0]["validation_loss"]
    export_model(dataset, ModelConfig(), read_weights(result.best_checkpoint), str(tmp_path / "model"), code)
    predictor = Predictor.load(str(tmp_path / "model"))
    assert dict(predictor.answers.columns) == {"prediction": "double"}
    batch = next(iter(dataset.loader("test", global_batch_size=16, shuffle=False)))
    answers = predictor.predict_encoded({name: tensor.numpy() for name, tensor in batch.inputs.items()})
    assert answers.shape == (16,)
    assert (answers > 0).all()


def test_a_run_that_cannot_be_evaluated_is_refused_before_spark_starts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    sections: dict[str, Any] = {"features": {"x": {"type": "numeric"}}, "dataset": {"url": str(tmp_path / "data")}}
    code = UserCode(model=ReconstructionError)
    for label, slices, wanted in (
        ((), [], "no label; expected one to evaluate by"),
        (("late",), ["colour"], "evaluation.slices names colour; expected columns of dataset.keep"),
    ):
        training = {"run_url": str(tmp_path / f"run of {label}")}
        config = parse_config({**sections, "training": training, "evaluation": {"slices": slices}})
        dataset = tiny_dataset(config.dataset.url, 40, label_type="binary" if label else None, labels=label)
        run = flow.Run(config, dataset, TrainingResult(1, 1, 1, {}, "c", 1), None)
        weights = ReconstructionError(dataset.schema).state_dict()
        export_model(dataset, ModelConfig(), weights, run.model_url, code)
        with pytest.raises(ConfigError, match=wanted):
            flow.evaluate(run)


def test_without_a_label_a_loss_from_code_is_asked_for_on_the_driver(tmp_path: Path) -> None:
    schema = tiny_dataset(str(tmp_path), 20, label_type=None, labels=()).schema
    with pytest.raises(ConfigError, match=r"no label; expected a loss from code"):
        dry_run(ModelConfig(name="linear"), schema)


def test_a_metric_of_one_label_chooses_the_best_epoch_in_the_right_direction(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), 600, labels=TWO)
    result, told = trained(dataset, tmp_path / "run", best_by="log_loss_lost")
    values = [value["validation_log_loss_lost"] for value in told.values]
    assert result.best_epoch == 1 + values.index(min(values))
    assert is_better("mae_height", 1.0, 2.0, labels=("height",))
    assert is_better("roc_auc_late", 0.9, 0.8, labels=("late",))


def test_several_labels_of_classes_and_class_weights_of_several_labels_are_refused(tmp_path: Path) -> None:
    classes = tiny_dataset(str(tmp_path / "classes"), 20, label_type="multiclass", labels=TWO).schema
    with pytest.raises(ConfigError, match="2 labels are multiclass; expected one"):
        build_objective(classes)
    binary = tiny_dataset(str(tmp_path / "binary"), 20, labels=TWO).schema
    with pytest.raises(ConfigError, match="class_weights is set for 2 labels"):
        class_weight_table(binary, "balanced", {})


def test_the_sums_of_several_labels_are_those_of_each() -> None:
    random = np.random.default_rng(0)
    label, answer = random.integers(0, 2, (500, 2)), random.random((500, 2))
    both = measure_of("binary", labels=TWO)
    metrics = both.metrics(both.sums(label[:200], answer[:200]) + both.sums(label[200:], answer[200:]))
    single = measure_of("binary")
    for number, name in enumerate(TWO):
        alone = single.metrics(single.sums(label[:, number], answer[:, number]))
        assert {metric: metrics[f"{metric}_{name}"] for metric in alone} == alone
    assert metrics["accuracy"] == (metrics["accuracy_late"] + metrics["accuracy_lost"]) / 2
    assert both.rows(both.sums(label, answer)) == 500


@pytest.mark.parametrize("label_type", ["binary", "regression"])
def test_the_predictor_answers_each_label_in_columns_of_its_own_and_unit(tmp_path: Path, label_type: Any) -> None:
    schema = small_schema()
    columns = [c for c in schema.columns if c.role != "label"] + [Column(name, "float32", "label") for name in TWO]
    schema = dataclasses.replace(schema, columns=tuple(columns), label_type=label_type)
    dataset = tiny_dataset(str(tmp_path / "data"), 8)
    state = {"type": label_type, "columns": list(TWO), "offset": [100.0, 0.0], "scale": [10.0, 1.0]}
    manifest = dataclasses.replace(dataset.manifest, schema=schema, statistics={**FEATURES.to_json(), "label": state})
    torch.manual_seed(0)
    module = dry_run(ModelConfig(name="linear"), schema)
    with torch.no_grad():
        module.bias.fill_(0.25)
        module.numeric.weight.zero_()
    export_model(
        dataclasses.replace(dataset, manifest=manifest), ModelConfig(name="linear"), module.state_dict(), str(tmp_path)
    )
    predictor = Predictor.load(str(tmp_path))
    answer = predictor.predict(raw_rows(5))
    if label_type == "binary":
        assert list(answer) == ["prediction_late", "probability_late", "prediction_lost", "probability_lost"]
        assert answer["probability_lost"].to_numpy() == pytest.approx(np.full(5, 1 / (1 + np.exp(-0.25))))
    else:
        assert list(answer) == ["prediction_late", "prediction_lost"]
        assert answer.to_numpy() == pytest.approx(np.tile([102.5, 0.25], (5, 1)))
    assert len(predictor.predict(raw_rows(0))) == 0
    with pytest.raises(ConfigError, match=r"2 labels; expected one|predicts numbers"):
        predictor.probabilities(raw_rows(1))


def test_an_evaluation_of_several_labels_compares_with_a_baseline_for_each(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 10)
    dataset = tiny_dataset(str(tmp_path / "data"), 800, labels=TWO)
    result, _ = trained(dataset, tmp_path / "run")
    export_model(dataset, ModelConfig(name="linear"), read_weights(result.best_checkpoint), str(tmp_path / "model"))
    evaluation = evaluate(dataset, Predictor.load(str(tmp_path / "model")), EvaluationConfig(slices=["id"]))
    assert evaluation.metrics["roc_auc"] > 0.85
    assert [each.name for each in evaluation.baselines] == [
        "majority class",
        "logistic regression",
        "gradient-boosted trees",
    ]
    assert all(each.metrics["roc_auc_lost"] > 0.8 for each in evaluation.baselines[1:])
    assert evaluation.labels == TWO
    assert "mean ROC AUC" in evaluation.verdict


def test_the_bound_on_roc_auc_is_that_of_the_label_whose_scores_tie_most(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 1)
    dataset = tiny_dataset(str(tmp_path / "data"), 200, labels=TWO)
    module = dry_run(ModelConfig(name="linear"), dataset.schema)
    with torch.no_grad():
        for name, weights in module.named_parameters():  # the second label gets one score for all rows
            (weights[1] if name == "numeric.weight" else weights[..., 1]).fill_(0.0)
    export_model(dataset, ModelConfig(name="linear"), module.state_dict(), str(tmp_path / "model"))
    evaluation = evaluate(dataset, Predictor.load(str(tmp_path / "model")), EvaluationConfig(baseline_rows=50))
    assert evaluation.roc_auc_bound == 0.5


def test_validation_measures_a_scaled_label_in_its_own_unit(tmp_path: Path) -> None:
    schema = tiny_dataset(str(tmp_path), 20, label_type="regression").schema
    random = torch.Generator().manual_seed(0)
    label, predictions = torch.randn(200, generator=random), torch.randn(200, generator=random)
    published, own = [
        objective.metrics(objective.sums(predictions, label, torch.ones(200)))
        for objective in (build_objective(schema), build_objective(schema, label_state={"offset": 1e3, "scale": 50.0}))
    ]
    for name, factor in (("mae", 50), ("rmse", 50), ("r2", 1)):
        assert own[name] == pytest.approx(factor * published[name])
    state = {"type": "regression", "offset": 1000.0, "scale": 50.0}
    scaled = tiny_dataset(str(tmp_path / "scaled"), 600, label_type="regression", statistics={"label": state})
    last = trained(scaled, tmp_path / "run")[1].values[-1]
    assert last["validation_rmse"] == pytest.approx(50 * last["validation_loss"] ** 0.5, rel=1e-3)
