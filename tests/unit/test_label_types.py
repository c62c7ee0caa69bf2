"""Models of several classes and of numbers answer in the label's own terms, wherever they are asked."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from pipeline.config import parse_config
from pipeline.config.release import EvaluationConfig
from pipeline.config.training import ModelConfig
from pipeline.dataset import Column
from pipeline.errors import ConfigError
from pipeline.inference import baselines
from pipeline.inference.evaluate import Evaluation, evaluate
from pipeline.inference.predictor import Predictor, export_model
from pipeline.models import build_model
from pipeline.models.answers import Answers
from pipeline.testing import tiny_dataset
from tests.serving import predictions_of
from tests.small_model import FEATURES, raw_rows, small_schema

CLASSES = ("cat", "dog", "ö")
STATES = {
    "multiclass": {"type": "multiclass", "classes": list(CLASSES)},
    "regression": {"type": "regression", "offset": 1000.0, "scale": 10.0},
}


def model_of(label_type: str, folder: str) -> tuple[Predictor, torch.nn.Module]:
    """A predictor of raw rows with random weights, and its module."""
    schema = small_schema()
    columns = [Column("label", "float32", "label") if c.role == "label" else c for c in schema.columns]
    classes = CLASSES if label_type == "multiclass" else ()
    schema = dataclasses.replace(schema, columns=tuple(columns), label_type=label_type, classes=classes)
    dataset = tiny_dataset(f"{folder}/data", 8)
    statistics = {**FEATURES.to_json(), "label": STATES[label_type]}
    manifest = dataclasses.replace(dataset.manifest, schema=schema, statistics=statistics)
    torch.manual_seed(0)
    module = build_model(ModelConfig(name="linear"), schema).eval()
    export_model(
        dataclasses.replace(dataset, manifest=manifest), ModelConfig(name="linear"), module.state_dict(), folder
    )
    return Predictor.load(folder), module


@pytest.fixture(scope="module")
def multiclass(tmp_path_factory):
    return model_of("multiclass", str(tmp_path_factory.mktemp("multiclass")))


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    return model_of("regression", str(tmp_path_factory.mktemp("regression")))


def output(predictor, module, rows):
    from pipeline.inference.inputs import model_inputs

    encoded = predictor.features.transform(predictor.canonical(rows))
    inputs = model_inputs(encoded, predictor.schema)
    return module({name: torch.from_numpy(values) for name, values in inputs.items()}).detach()


def test_a_multiclass_prediction_is_the_name_of_the_likeliest_class_with_its_probability(multiclass):
    predictor, module = multiclass
    rows = raw_rows(600)
    expected = torch.softmax(output(predictor, module, rows), 1).numpy()
    answer = predictor.predict(rows)
    assert answer["prediction"].tolist() == [CLASSES[place] for place in expected.argmax(1)]
    assert answer["probability"].to_numpy() == pytest.approx(expected.max(1), abs=1e-6)
    assert answer["probability"].dtype == np.float32
    every = predictor.probabilities(rows)
    assert list(every.columns) == list(CLASSES)
    assert every.to_numpy() == pytest.approx(expected, abs=1e-6)


def test_a_predicted_number_is_in_the_unit_of_the_label_and_has_no_probability(regression):
    predictor, module = regression
    rows = raw_rows(600)
    answer = predictor.predict(rows)
    assert list(answer.columns) == ["prediction"]
    expected = output(predictor, module, rows).double().numpy() * 10 + 1000
    assert answer["prediction"].to_numpy() == pytest.approx(expected, abs=1e-3)
    with pytest.raises(ConfigError, match="predicts numbers"):
        predictor.probabilities(rows)


@pytest.mark.parametrize("label_type", ["multiclass", "regression"])
def test_no_rows_give_no_predictions(label_type, multiclass, regression):
    predictor, _ = multiclass if label_type == "multiclass" else regression
    assert len(predictor.predict(raw_rows(0))) == 0


@pytest.mark.parametrize("label_type", ["multiclass", "regression"])
def test_the_server_answers_in_json_what_the_predictor_says(label_type, multiclass, regression):
    predictor, _ = multiclass if label_type == "multiclass" else regression
    row = {"amount": 3.5, "colour": "red", "when": "2024-05-31T12:00:00Z", "paid": True}
    predictions = predictions_of(predictor, [row, {**row, "amount": None}])
    assert len(predictions) == 2
    assert all(set(prediction) == set(predictor.answers.columns) for prediction in predictions)
    kind = str if label_type == "multiclass" else float
    assert all(isinstance(prediction["prediction"], kind) for prediction in predictions)


@pytest.mark.parametrize("label_type", ["multiclass", "regression"])
def test_the_signature_in_mlflow_names_the_types_of_the_answers(label_type, multiclass, regression):
    pytest.importorskip("mlflow")
    from pipeline.tracking.registry import _signature

    predictor, _ = multiclass if label_type == "multiclass" else regression
    outputs = {column["name"]: column["type"] for column in _signature(predictor).outputs.to_dict()}
    assert outputs == dict(predictor.answers.columns)


@pytest.mark.parametrize("label_type", ["multiclass", "regression"])
def test_an_evaluation_compares_with_baselines_of_the_label_type(label_type, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 10)
    state = {**STATES[label_type], "classes": ["a", "b", "c"]}
    dataset = tiny_dataset(str(tmp_path / "data"), 400, label_type=label_type, statistics={"label": state})
    module = build_model(ModelConfig(name="linear"), dataset.schema)
    export_model(dataset, ModelConfig(name="linear"), module.state_dict(), str(tmp_path / "model"))
    evaluation = evaluate(dataset, Predictor.load(str(tmp_path / "model")), EvaluationConfig(slices=["id"]))
    constant, linear, trees = evaluation.baselines
    if label_type == "multiclass":
        assert (constant.name, linear.name) == ("majority class", "logistic regression")
        assert sum(map(sum, evaluation.measured.confusion)) == evaluation.rows == 100
        assert linear.metrics["log_loss"] < constant.metrics["log_loss"] < evaluation.metrics["log_loss"]
        assert trees.metrics["accuracy"] > constant.metrics["accuracy"]
    else:
        assert (constant.name, linear.name) == ("mean", "ridge regression")
        assert abs(constant.metrics["r2"]) < 0.2
        assert linear.metrics["r2"] > 0.8
        assert 1 < linear.metrics["rmse"] < 15, "in the label's own unit, whose deviation is about 40"
    assert evaluation.verdict.startswith(f"The {linear.name} wins")
    assert sum(entry.rows for entry in evaluation.slices) == 100
    again = Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False)))
    assert (again.verdict, again.metrics) == (evaluation.verdict, evaluation.metrics)


def test_a_class_that_train_lacks_has_probability_zero_in_the_baselines(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 10)
    dataset = tiny_dataset(str(tmp_path / "data"), 200, label_type="multiclass", classes=("a", "b", "c"))
    rows = baselines.read_train_rows(dataset, 200, Answers("multiclass", ("a", "b", "c")))
    rows = dataclasses.replace(rows, label=np.where(rows.label == 1, 2, rows.label))
    for baseline in baselines.fit_baselines(rows, dataset.schema):
        answer = baseline.answer(rows.inputs)
        assert answer.shape == (200, 3)
        assert not answer[:, 1].any()


@pytest.mark.parametrize(
    ("label_type", "metric", "known"),
    [
        ("regression", "roc_auc", "mae, rmse, r2"),
        ("multiclass", "roc_auc", "accuracy, precision, recall, f1, log_loss"),
        ("binary", "rmse", "accuracy, precision, recall, f1, roc_auc, pr_auc, log_loss"),
        ("binary", "roc_acu", "accuracy, precision, recall, f1, roc_auc, pr_auc, log_loss"),
    ],
)
def test_a_gate_on_a_metric_that_the_label_does_not_have_is_refused_when_the_configuration_is_read(
    label_type, metric, known
):
    values = {
        "features": {"x": {"type": "numeric"}},
        "label": {"column": "y", "type": label_type},
        "dataset": {"url": "data"},
        "gate": {metric: {"min": 0.5}},
    }
    with pytest.raises(ConfigError, match=f"gate names {metric}, but label.type is {label_type}; expected {known}"):
        parse_config(values)
