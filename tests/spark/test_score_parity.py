"""A row has the same features and the same prediction, to the bit, in part files, in pandas, in Spark and over HTTP."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import parse_config
from pipeline.features.fitted import _OPERATIONS
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
    "since": {"type": "elapsed", "column": "when", "since": "2000-01-01T00:00:00", "indicator": True},
    "paid": {"type": "boolean", "missing": "mode", "indicator": True},
    "flight": {"type": "categorical"},
    "price": {"type": "bucket", "column": "amount", "quantiles": 5},
    "shade": {"type": "hashed", "column": "colour", "buckets": 7},
    "lateness": {"type": "target", "column": "colour"},
    "place": {"type": "vector", "shape": [3]},
    "picture": {"type": "vector", "shape": [2, 2], "dtype": "uint8"},
    "tags": {"type": "categories", "length": 2, "indicator": True},
}
SPLITS = ("validation", "test")
"""What is compared: in train rows a target encoding is out of fold, which no row that is scored is."""


def test_every_feature_operation_takes_part():
    assert {feature["type"] for feature in FEATURES.values()} == set(_OPERATIONS)


@pytest.fixture(scope="module")
def rows():
    """Raw rows; a colour that hardly occurs is folded into the unseen, and an integer is a category with nulls."""
    rows = raw_rows(1500, 7)
    rows.loc[:2, "colour"] = "ultramarine"
    rows.loc[3, "amount"] = np.inf
    rows["flight"] = pd.array([None if n % 11 == 0 else n % 40 for n in range(1500)], dtype="Int64")
    rows["place"] = [None if n % 17 == 0 else [n / 7, -n / 3, 0.1] for n in range(1500)]
    rows["picture"] = [[n % 256, 0, 255, n % 5] for n in range(1500)]
    rows["tags"] = [None if n % 13 == 0 else ["x", "y", "z"][: n % 4] for n in range(1500)]
    rows["late"] = (np.arange(1500) * 7919 % 13 > 6).astype(float)
    return rows


@pytest.fixture(scope="module")
def frame(spark, rows):
    lists = "place array<double>, picture array<int>, tags array<string>"
    return spark_rows(spark, rows, f"{SCHEMA}, flight long, {lists}, late double").repartition(5)


@pytest.fixture(scope="module")
def dataset(spark, frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    config = parse_config(
        {
            "source": {"id": ["id"]},
            "features": FEATURES,
            "label": {"column": "late"},
            "split": {"validation": 0.3, "test": 0.3},
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
    """The encoded inputs of the rows that are compared, and their ids, by id."""
    parts = [
        read_row_group(dataset.url, dataset.schema, group, ["id"])
        for split in SPLITS
        for group in row_groups(dataset, split)
    ]
    ids = np.concatenate([others["id"] for _, others in parts])
    order = np.argsort(ids)
    inputs = {name: np.concatenate([inputs[name] for inputs, _ in parts])[order] for name in parts[0][0]}
    return inputs, ids[order]


def test_features_are_bit_equal_in_part_files_and_in_pandas(rows, stored, predictor):
    inputs, ids = stored
    encoded = model_inputs(predictor.features.transform(predictor.canonical(rows.loc[ids])), predictor.schema)
    assert encoded.keys() == inputs.keys()
    for name, values in encoded.items():
        assert values.dtype == inputs[name].dtype
        assert values.tobytes() == inputs[name].astype(inputs[name].dtype, order="C").tobytes(), name


def test_predictions_are_bit_equal_in_part_files_in_pandas_in_spark_and_over_http(rows, frame, stored, predictor):
    inputs, ids = stored
    rows, expected = rows.loc[ids], predictor.predict_encoded(inputs)
    assert np.array_equal(predictor.predict(rows)["probability"], expected)
    scored = {
        row.id: row.probability for row in score(frame, predictor.source.folder).select("id", "probability").collect()
    }
    assert np.array_equal(np.float32([scored[id_] for id_ in ids]), expected)
    finite = rows["amount"].map(lambda value: not np.isinf(value)).to_numpy()
    assert np.array_equal(over_http(rows[finite].head(600), predictor), expected[finite][:600])


def over_http(rows: pd.DataFrame, predictor: Predictor) -> np.ndarray:
    plain = rows[list(predictor.features.inputs)].astype(object).where(rows.notna(), None)
    sent = [
        {k: v.isoformat() if isinstance(v, pd.Timestamp) else v for k, v in row.items()}
        for row in plain.to_dict("records")
    ]
    return np.float32([prediction["probability"] for prediction in predictions_of(predictor, sent)])
