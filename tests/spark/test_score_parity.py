"""A row has the same features and the same prediction, to the bit, in part files, in pandas, in Spark and over HTTP."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import parse_config
from pipeline.inference.encoded import read_row_group, row_groups
from pipeline.inference.inputs import model_inputs
from pipeline.inference.predictor import Predictor, export_model
from pipeline.inference.score import score
from pipeline.models import build_model
from pipeline.preparation.prepare import prepare_dataset
from tests.serving import predictions_of
from tests.small_model import raw_rows
from tests.spark.test_score import SCHEMA, spark_rows

FEATURES = {
    "amount": {"type": "numeric", "clip": [0.01, 0.99], "log1p": True, "indicator": True},
    "colour": {"type": "categorical", "min_count": 5},
    "when": {"type": "timestamp", "parts": ["month", "weekday", "hour", "day_of_year"]},
    "cycle": {"type": "timestamp", "column": "when", "parts": ["minute_of_day"], "cyclic": True},
    "paid": {"type": "boolean"},
    "flight": {"type": "categorical"},
}


@pytest.fixture(scope="module")
def rows():
    """Raw rows; a colour that hardly occurs is folded into the unseen, and an integer is a category with nulls."""
    rows = raw_rows(1500, 7)
    rows.loc[:2, "colour"] = "ultramarine"
    rows.loc[3, "amount"] = np.inf
    rows["flight"] = pd.array([None if n % 11 == 0 else n % 40 for n in range(1500)], dtype="Int64")
    rows["late"] = (np.arange(1500) * 7919 % 13 > 6).astype(float)
    return rows


@pytest.fixture(scope="module")
def frame(spark, rows):
    return spark_rows(spark, rows, f"{SCHEMA}, flight long, late double").repartition(5)


@pytest.fixture(scope="module")
def dataset(spark, frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    config = parse_config(
        {
            "source": {"id": ["id"]},
            "features": FEATURES,
            "label": {"column": "late"},
            "dataset": {"url": str(folder / "data")},
            "training": {"run_url": str(folder / "run")},
        }
    )
    return prepare_dataset(spark, config, frame)


@pytest.fixture(scope="module")
def predictor(dataset, tmp_path_factory):
    torch.manual_seed(0)
    from pipeline.config.training import ModelConfig

    config = ModelConfig(name="tabular", options={"hidden": [32, 16]})
    folder = str(tmp_path_factory.mktemp("model"))
    export_model(dataset, config, build_model(config, dataset.schema).state_dict(), folder)
    return Predictor.load(folder)


@pytest.fixture(scope="module")
def stored(dataset):
    """The encoded inputs of all published rows, by id."""
    parts = [
        read_row_group(dataset.url, dataset.schema, group, ["id"])
        for split in dataset.manifest.splits
        for group in row_groups(dataset, split)
    ]
    order = np.argsort(np.concatenate([others["id"] for _, others in parts]))
    return {name: np.concatenate([inputs[name] for inputs, _ in parts])[order] for name in parts[0][0]}


def test_features_are_bit_equal_in_part_files_and_in_pandas(rows, stored, predictor):
    encoded = model_inputs(predictor.features.transform(predictor.canonical(rows)), predictor.schema)
    assert encoded.keys() == stored.keys()
    for name, values in encoded.items():
        assert values.dtype == stored[name].dtype
        assert values.tobytes() == stored[name].astype(stored[name].dtype, order="C").tobytes(), name


def test_predictions_are_bit_equal_in_part_files_in_pandas_in_spark_and_over_http(rows, frame, stored, predictor):
    expected = predictor.predict_encoded(stored)
    assert np.array_equal(predictor.predict(rows)["probability"], expected)
    scored = score(frame, predictor.source.folder).orderBy("id").select("probability").collect()
    assert np.array_equal(np.float32([row.probability for row in scored]), expected)
    finite = rows["amount"].map(lambda value: not np.isinf(value)).to_numpy()
    assert np.array_equal(over_http(rows[finite].head(600), predictor), expected[finite][:600])


def over_http(rows: pd.DataFrame, predictor: Predictor) -> np.ndarray:
    plain = rows[list(predictor.features.inputs)].astype(object).where(rows.notna(), None)
    sent = [
        {k: v.isoformat() if isinstance(v, pd.Timestamp) else v for k, v in row.items()}
        for row in plain.to_dict("records")
    ]
    return np.float32([prediction["probability"] for prediction in predictions_of(predictor, sent)])
