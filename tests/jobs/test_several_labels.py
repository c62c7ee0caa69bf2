"""One configuration with several labels goes the whole way, and one without label as far as code can take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline import flow, stages
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.inference import baselines
from pipeline.inference.predictor import Predictor
from tests.autoencoder import ReconstructionError, sum_of_errors
from tests.serving import predictions_of

ROWS = 800
ROW = {"size": 70.0, "shop": "b"}


def parcels() -> pd.DataFrame:
    random, numbers = np.random.default_rng(5), np.arange(ROWS)
    size, shop = random.uniform(10, 100, ROWS), random.choice(["a", "b", "c"], ROWS)
    return pd.DataFrame(
        {
            "parcel": numbers,
            "size": size,
            "shop": shop,
            "late": size + random.normal(0, 5, ROWS) > 50,
            "lost": np.where(shop == "c", 0, (random.random(ROWS) < 0.8).astype(int)),
            "height": 170 + size / 10 + random.normal(0, 0.5, ROWS),
            "weight": 1000 * size / 100 + np.where(shop == "a", 500, 0),
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 5)
    parcels().to_parquet(tmp_path / "parcels.parquet")
    return tmp_path


def config_of(folder: Path, label: Any, **sections: Any) -> PipelineConfig:
    values = {
        "source": {"inputs": {"parcels": {"path": "parcels.parquet", "format": "parquet"}}, "id": "parcel"},
        "features": {"size": {"type": "numeric"}, "shop": {"type": "categorical"}},
        "label": label,
        "split": {"validation": 0.2, "test": 0.2},
        "dataset": {"url": "data", "keep": ["shop"]},
        "model": {"name": "linear"},
        "training": {
            "run_url": "run",
            "epochs": 30,
            "global_batch_size": 32,
            "micro_batch_size": 32,
            "optimizer": {"learning_rate": 0.05},
        },
        "cluster": {"launcher": "in_process"},
        "tracking": {"registered_model": "parcels"},
        "evaluation": {"slices": ["shop"]},
    }
    return parse_config({**values, **sections}, str(folder))


@pytest.mark.parametrize("kind", ["binary", pytest.param("regression", marks=pytest.mark.slow)])
def test_several_labels_go_from_the_table_to_answers_for_each(spark: SparkSession, folder: Path, kind: str) -> None:
    if kind == "binary":
        names, metric, label = ["late", "lost"], "roc_auc", {"column": ["late", "lost"]}
        gate = {"roc_auc": {"min": 0.8}, "roc_auc_late": {"min": 0.9}}
    else:
        names, metric = ["height", "weight"], "r2"
        label = {"column": names, "type": "regression", "scale": "standard"}
        gate = {"r2": {"min": 0.8}, "rmse_height": {"max": 1.5}}
    config = config_of(folder, label, gate=gate)
    result = stages.run(config, spark=spark)
    assert result["status"] == "done"
    assert result["model"]["version"] == "1"
    each = [result["metrics"][f"{metric}_{name}"] for name in names]
    assert min(each) > 0.8
    assert result["metrics"][metric] == pytest.approx(np.mean(each))

    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())
    assert evaluation["labels"] == names
    assert all(f"{metric}_{name}" in one["metrics"] for one in evaluation["baselines"] for name in names)
    page = (folder / "run" / "report.html").read_text()
    assert "<h2>Labels</h2>" in page
    assert all(f"<td>{name}</td>" in page for name in names)
    assert f"plain means over {len(names)} labels" in page

    asked = ("prediction", "probability") if kind == "binary" else ("prediction",)
    columns = [f"{what}_{name}" for name in names for what in asked]
    table = pd.DataFrame([ROW] * 3)
    predictor = Predictor.load(str(folder / "run" / "model"))
    predicted = predictor.predict(table)
    assert list(predicted.columns) == columns
    scored = flow.score(spark.createDataFrame(table), str(folder / "run" / "model")).toPandas()
    assert list(scored.columns) == [*ROW, *columns, "model_version"]
    assert (scored[columns].to_numpy() == predicted.to_numpy()).all()
    assert predictions_of(predictor, [ROW]) == [predicted.iloc[0].to_dict()]
    if kind == "regression":
        assert predicted.loc[0, "prediction_height"] == pytest.approx(177, abs=2), "in the label's own unit"
        assert predicted.loc[0, "prediction_weight"] == pytest.approx(700, abs=150)
    else:
        assert predicted.loc[0, ["prediction_late", "prediction_lost"]].tolist() == [1, 1]


def test_without_label_a_model_and_loss_from_code_are_trained_and_score(spark: SparkSession, folder: Path) -> None:
    config = config_of(folder, None)
    with pytest.raises(ConfigError, match="label is missing, and `run` has no loss"):
        stages.run(config, spark=spark)
    assert not (folder / "data").exists()
    prepared = stages.run_stage(config, "prepare", spark=spark)
    assert prepared["rows"]["published"] == ROWS
    dataset = Dataset.open(str(folder / "data"))
    options = {"cluster": {"launcher": "in_process"}, "run_url": str(folder / "run"), "epochs": 5, "spark": spark}
    with pytest.raises(ConfigError, match="the dataset has no label; expected a loss from code"):
        flow.train(dataset, **options)
    run = flow.train(dataset, model=ReconstructionError, loss=sum_of_errors, **options)
    with pytest.raises(ConfigError, match="no label; expected one to evaluate by"):
        flow.evaluate(run, spark=spark)
    scored = flow.score(spark.createDataFrame(parcels()), run).toPandas()
    assert (scored["prediction"] >= 0).all()
    assert len(scored) == ROWS
