"""Scoring keeps every row and its order of columns, and says of a row what the predictor and the part files say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline import flow
from pipeline.config import parse_config
from pipeline.errors import DataError, OutputError, SecurityError, StorageError
from pipeline.inference.encoded import read_row_group, row_groups
from pipeline.inference.predictor import Predictor, export_model
from pipeline.inference.score import score, score_table
from pipeline.models import build_model
from pipeline.stage_values import Evaluated, Run
from pipeline.task import TrainingResult
from tests.small_model import raw_rows, small_dataset, small_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset):
    return small_model(str(tmp_path_factory.mktemp("model [x] ü")), dataset)


SCHEMA = "id long, amount double, colour string, when timestamp, paid boolean"


def spark_rows(spark, rows: pd.DataFrame, schema: str = SCHEMA):
    plain = rows.astype(object).where(rows.notna(), None)
    values = [
        [v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for v in row] for row in plain.itertuples(index=False)
    ]
    return spark.createDataFrame(values, schema)


def test_scores_are_bit_equal_to_the_part_files_and_the_predictor_and_no_row_is_lost(spark, dataset, folder):
    rows = raw_rows(500, 2)  # what the test split was made of
    predictor = Predictor.load(folder)
    frame = spark_rows(spark, rows).repartition(7)
    scored = score(frame, folder).toPandas().sort_values("id")
    assert list(scored.columns) == [*SCHEMA.replace(",", "").split()[::2], "prediction", "probability", "model_version"]
    assert scored["id"].tolist() == list(range(500))
    assert scored["probability"].dtype == np.float32
    assert np.array_equal(scored["probability"], predictor.predict(rows)["probability"])
    groups = [read_row_group(dataset.url, dataset.schema, group)[0] for group in row_groups(dataset, "test")]
    stored = np.concatenate([predictor.predict_encoded(inputs) for inputs in groups])
    assert np.array_equal(scored["probability"], stored)
    assert set(scored["model_version"]) == {predictor.digest[:12]}


def test_the_sessions_time_zone_does_not_matter(spark, folder):
    rows = raw_rows(100, 3)
    frame = spark_rows(spark, rows)
    before = spark.conf.get("spark.sql.session.timeZone")
    expected = [row.probability for row in score(frame, folder).orderBy("id").collect()]
    try:
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        assert [row.probability for row in score(frame, folder).orderBy("id").collect()] == expected
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)


def test_other_columns_stay_as_they_are_and_types_may_be_narrower(spark, folder):
    frame = spark.createDataFrame(
        [(1, 3, "red", None, None, [1, 2]), (2, None, None, None, True, None)],
        "id int, amount int, colour string, when timestamp, paid boolean, extra array<int>",
    )
    first, second = score(frame, folder).orderBy("id").collect()
    assert (first.extra, second.extra) == ([1, 2], None)
    assert 0 <= first.probability <= 1


def test_a_relative_path_of_a_model_is_that_of_the_driver(spark, folder, monkeypatch):
    monkeypatch.chdir(Path(folder).parent)
    assert len(score(spark_rows(spark, raw_rows(3)), Path(folder).name).collect()) == 3


def test_an_empty_table_gives_an_empty_table(spark, folder):
    assert score(spark_rows(spark, raw_rows(3)).where("id < 0"), folder).count() == 0


def test_missing_and_colliding_columns_are_named_at_once_before_any_task_starts(spark, folder):
    frame = spark.range(3).withColumnRenamed("id", "prediction")
    with pytest.raises(DataError) as caught:
        score(frame, folder)
    lacking, there_already = caught.value.offences
    for name in ("amount (number)", "colour (string)", "when (timestamp)", "paid (boolean)", "table has prediction;"):
        assert name in lacking
    assert there_already.startswith("column prediction is there already")


def test_a_corrupt_model_scores_nothing(spark, folder, tmp_path):
    for file in Path(folder).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "weights.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="corrupt"):
        score(spark_rows(spark, raw_rows(3)), str(tmp_path))


CHOOSES_BY_VALUES = """
from pipeline.models.linear import Linear

class Chooses(Linear):
    def forward(self, inputs):
        output = super().forward(inputs)
        return output if bool(output.sum() > 0) else output * 2
"""


@pytest.fixture
def untraceable(spark, tmp_path, monkeypatch):
    """The name of a factory that workers can import, and whose model no program can stand for."""
    (tmp_path / "chooses_by_values.py").write_text(CHOOSES_BY_VALUES)
    monkeypatch.syspath_prepend(str(tmp_path))
    spark.sparkContext.addPyFile(str(tmp_path / "chooses_by_values.py"))
    return "chooses_by_values:Chooses"


def test_a_run_and_its_model_are_scored_with_the_factory_of_their_configuration(spark, dataset, untraceable, tmp_path):
    factory = untraceable
    sections = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}, "dataset": {"url": "data"}}
    config = parse_config({**sections, "model": {"factory": factory}}, str(tmp_path))
    result = TrainingResult(steps=1, epochs=1, best_epoch=0, best_metrics={}, best_checkpoint="c", rows=1)
    run = Run(config, dataset, result, mlflow_run_id=None)
    net = build_model(config.model, dataset.schema)
    export_model(dataset, config.model, net.state_dict(), run.model_url)
    evaluated = Evaluated(run, SimpleNamespace(metrics={}))
    frame = spark_rows(spark, raw_rows(20))
    assert flow.score(frame, run).count() == 20
    assert flow.score(frame, flow.register(evaluated)).count() == 20
    assert flow.score(frame, run.model_url, allow_factories=[factory]).count() == 20
    with pytest.raises(SecurityError, match="which is not allowed"):
        flow.score(frame, run.model_url)


@pytest.fixture
def config(tmp_path):
    sections = {
        "features": {"amount": {"type": "numeric"}},
        "label": {"column": "late"},
        "dataset": {"url": "data"},
        "training": {"run_url": "run"},
    }
    return parse_config(sections, str(tmp_path))


def test_a_csv_is_scored_into_a_folder_that_appears_when_it_is_complete(spark, folder, config, tmp_path):
    rows = raw_rows(300, 4)
    source, target = tmp_path / "in [1] ü.csv", tmp_path / "out [1] ü"
    rows.to_csv(source, index=False)
    result = score_table(lambda: spark, config, str(source), str(target), folder)
    assert result["rows"] == {"in": 300, "out": 300}
    scored = pd.read_parquet(target)
    scored = scored.iloc[scored["id"].astype(int).argsort()]
    assert np.array_equal(scored["probability"], Predictor.load(folder).predict(rows)["probability"])
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}
    with pytest.raises(OutputError, match="exists"):
        score_table(lambda: spark, config, str(source), str(target), folder)


def test_a_quoted_pattern_is_scored_as_the_files_that_it_fits(spark, folder, config, tmp_path):
    rows = raw_rows(90, 5)
    rows.loc[7, "colour"] = 'a "red", more or less'
    for number in range(3):
        rows[number * 30 : number * 30 + 30].to_csv(tmp_path / f"part-{number}.csv", index=False)
    result = score_table(lambda: spark, config, str(tmp_path / "part-*.csv"), str(tmp_path / "out"), folder)
    assert result["rows"] == {"in": 90, "out": 90}
    scored = pd.read_parquet(tmp_path / "out")
    scored = scored.iloc[scored["id"].astype(int).argsort()]
    assert scored["colour"].iloc[7] == rows["colour"][7]
    assert np.array_equal(scored["probability"], Predictor.load(folder).predict(rows)["probability"])


def test_files_whose_columns_stand_in_another_order_are_not_mixed_up(spark, folder, config, tmp_path):
    rows = raw_rows(20, 5)
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows[rows.columns[::-1]].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match="CSV header does not match"):
        score_table(lambda: spark, config, str(tmp_path / "*.csv"), str(tmp_path / "out"), folder)
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv"}


def test_a_value_of_the_wrong_kind_is_an_error_in_words_and_leaves_nothing(spark, folder, config, tmp_path):
    rows = raw_rows(20).astype({"amount": object})
    rows.loc[7, "amount"] = "many"
    rows.to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(DataError, match="'many'"):
        score_table(lambda: spark, config, str(tmp_path / "in.csv"), str(tmp_path / "out"), folder)
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv"}
