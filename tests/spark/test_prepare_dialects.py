"""Tables as others write them: their quotes, time zones, texts for numbers and names of columns; nothing is guessed."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, DataError, InputMissingError
from pipeline.features import FittedFeatures, Kind, canonical
from pipeline.features.target import LABEL
from pipeline.preparation.casts import text_as
from pipeline.preparation.clean import add_reasons, check_columns
from pipeline.preparation.columns import BUCKET, HASH, KNOWN, typed_name
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.read import parsed, query_rows, read_inputs, source_frames, take_census, wanted
from pipeline.preparation.sensitive import check_sensitive_names
from pipeline.preparation.session import preparation_settings
from pipeline.preparation.split import split_of
from pipeline.preparation.text_files import FAULT
from pipeline.preparation.weight import WEIGHT
from tests.spark.datasets import config_of, read_all

ROWS = 60

config = functools.partial(
    config_of,
    source={"id": "id"},
    features={"x": {"type": "numeric"}},
    label={"column": "label"},
    split={"validation": 0.25, "test": 0.25, "salt": "s"},
)


def table(**columns: Any) -> pd.DataFrame:
    numbers = np.arange(ROWS)
    return pd.DataFrame({"id": numbers, "x": numbers / 7, "label": numbers // 2 % 2, **columns})


def with_values(good: Any, **bad: Any) -> list[Any]:
    """The good value in all rows but those that are given as ``r<row>``."""
    return [bad.get(f"r{row}", good) for row in range(ROWS)]


def quarantined(dataset: Dataset) -> pd.DataFrame:
    (attempt,) = Path(dataset.url, "quarantine").iterdir()
    return pd.concat(pd.read_parquet(path) for path in (attempt / "rejected").iterdir()).set_index("id")


@pytest.fixture
def session_settings(spark: SparkSession) -> Iterator[Any]:
    """Set for the test, and put back."""
    changed: list[str] = []

    def put(key: str, value: str) -> None:
        changed.append(key)
        spark.conf.set(key, value)

    yield put
    for key in changed:
        spark.conf.unset(key)
    spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_one_bad_value_rejects_its_row_with_the_query_s_own_values(spark: SparkSession, tmp_path: Path) -> None:
    rows = table(
        **{
            "Sepal.Length": with_values("1.5", r3="twelve", r4="12d", r5=" 5 ", r6="1e2"),
            "odd`name": with_values("yes", r7="maybe", r8="N"),
            "a day": with_values("2024-1-5 8:15", r9="08:15", r10="2024-02-30", r11="2024-01-05T07:15:00-01:00"),
            "flag": with_values(1.0, r12=2.0, r13=0.0),
            "bytes": with_values([1, 2], r14=[1, 300], r15=[1, 255], r19=[1]),
            "name": with_values("Bob", r16="Nan"),
            "code": with_values("A-1", r17="A-1\n"),
            "letter": with_values("A", r18="NaN"),
        }
    )
    features: dict[str, Any] = {
        "length": {"type": "numeric", "column": "Sepal.Length", "scale": "none"},
        "odd": {"type": "boolean", "column": "odd`name"},
        "day": {"type": "elapsed", "column": "a day", "since": "2024-01-05", "unit": "minutes", "scale": "none"},
        "flag": {"type": "boolean"},
        "bytes": {"type": "vector", "shape": [2], "dtype": "uint8"},
    }
    rules = [
        {"column": "name", "not_null": True},
        {"column": "code", "pattern": r"A-\d"},
        {"column": "letter", "allowed": ["A"]},
    ]
    clean = {"rules": rules, "max_rejected_fraction": 1}
    made = config(tmp_path, features=features, clean=clean, dataset__keep=["Sepal.Length"])
    dataset = prepare_dataset(spark, made, spark.createDataFrame(rows))

    found = quarantined(dataset)
    assert {number: list(reasons) for number, reasons in found["_reasons"].items()} == {
        3: ["Sepal.Length is not a number"],
        4: ["Sepal.Length is not a number"],
        7: ["odd`name is not a boolean"],
        9: ["a day is not a timestamp"],
        10: ["a day is not a timestamp"],
        12: ["flag is not a boolean"],
        14: ["bytes has numbers that are no bytes"],
        17: [r"code does not match A-\d"],
        18: ["letter is not an allowed value"],
        19: ["bytes has not 2 numbers"],
    }
    assert (found.loc[3, "Sepal.Length"], found.loc[7, "odd`name"], found.loc[9, "a day"]) == (
        "twelve",
        "maybe",
        "08:15",
    )
    assert sorted(found.columns) == sorted({*rows.columns, "_reasons"} - {"id"})

    published = read_all(dataset).set_index("id")
    assert published.loc[[5, 6], "length"].tolist() == [5, 100]
    assert published.loc[[5, 6], "Sepal.Length"].tolist() == [" 5 ", "1e2"]
    assert published.loc[[0, 8], "odd"].tolist() == [4, 3]  # the ids of true and false
    assert published.loc[[0, 11], "day"].tolist() == [495, 495]
    state = FittedFeatures.from_json(dataset.manifest.statistics)
    raw = {
        name: canonical(rows.set_index("id").loc[published.index, name], kind) for name, kind in state.inputs.items()
    }
    for name, values in state.transform(raw).items():
        assert np.array_equal(values, np.stack(published[name]).reshape(values.shape)), name


TEXTS = ["12", " 1.5\t", "+.5e-3", "5.", "-Inf", "Infinity", "NaN", "+nan", "12d", "0x1p3", "1_000", "1e", "", " ", "٣"]
TEXTS += ["true", "T", "y", " No ", "0", "yeſ", "on", "2024", "2024-1", "2024-1-5", "0000-01-01", "9999-12-31"]
TEXTS += ["2024-01-05 08:15", "2024-01-05T8:15:30.1234567", "2024-01-05 08:15Z", "1582-10-10T00:00:00+01:30"]
TEXTS += ["20240105", "08:15", "T08:15", "now", "today", "2024-02-30", "2024-01-05 24:00", "2024-01-05T08", "12345"]
TEXTS += [
    "2024-01-05 08:15 Europe/Berlin",
    "2024-01-05\n",
    "2024-01-05 08:15:30,5",
    "2024-W01-1",
    "2024-01-05 08:15:60",
]


ONLY_SERVED = {"2024-01-05 08:15Z"}
"""Spark's casts want seconds before a zone."""
SURELY_READ: dict[Kind, set[str]] = {
    "number": {"12", " 1.5\t", "+.5e-3", "5.", "-Inf", "NaN", "2024"},
    "boolean": {"true", "T", "y", " No ", "0"},
    "timestamp": {"2024", "2024-1", "2024-1-5", "9999-12-31", "2024-01-05 08:15", "2024-01-05T8:15:30.1234567"},
}


@pytest.mark.parametrize("kind", ["number", "boolean", "timestamp"])
def test_what_a_text_says_to_training_it_says_to_serving(spark: SparkSession, kind: Kind) -> None:
    with preparation_settings(spark):
        frame = spark.createDataFrame([(text,) for text in TEXTS], "t string")
        value = text_as("t", kind)
        read = frame.select("t", F.unix_micros(value) if kind == "timestamp" else value.cast("double")).collect()
    for text, value in read:
        if value is not None:
            (served,) = canonical([text], kind)
            served = served.astype(np.int64) if kind == "timestamp" else served
            assert served == value or (np.isnan(served) and np.isnan(value)), text
        elif text not in ONLY_SERVED:
            with pytest.raises(DataError):
                canonical([text], kind)
    assert {text for text, value in read if value is not None} >= SURELY_READ[kind]


def test_doubled_quotes_of_a_csv_file_are_quotes_and_a_date_of_another_format_is_a_fault(
    spark: SparkSession, tmp_path: Path
) -> None:
    said = ['say "hi", ok', 'end "x"', 'back\\slash, "q"', "plain"]
    rows = table(c=[said[row % 4] for row in range(ROWS)], day=with_values("2024-01-05", r9="2024-1-5"))
    rows.to_csv(tmp_path / "t.csv", index=False)
    schema = "id INT, x DOUBLE, label INT, c STRING, day DATE"
    options = {"dateFormat": "yyyy-MM-dd"}
    inputs = {"t": {"path": str(tmp_path / "t.csv"), "schema": schema, "options": options}}
    dataset = prepare_dataset(spark, config(tmp_path, source={"inputs": inputs, "id": "id"}, dataset__keep=["c"]))
    assert dataset.manifest.accounting.reasons == {"row cannot be parsed": 1}
    published = read_all(dataset).set_index("id")
    assert published["c"].to_dict() == {row: said[row % 4] for row in range(ROWS) if row != 9}


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_broken_file_is_an_error_also_where_the_cluster_leaves_such_files_out(
    spark: SparkSession, tmp_path: Path, session_settings: Any, format_: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    if format_ == "csv":
        whole = gzip.compress(table(c=[f"{row * 7919 % 1009}" for row in range(ROWS)]).to_csv(index=False).encode())
        (folder / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    else:
        table().to_parquet(folder / "a.parquet")
        (folder / "b.parquet").write_bytes(b"PAR1garbagegarbagePAR1")
    session_settings("spark.sql.files.ignoreCorruptFiles", "true")
    schema = "id INT, x DOUBLE, label INT, c STRING" if format_ == "csv" else "id LONG, x DOUBLE, label LONG"
    inputs = {"t": {"path": str(folder), "format": format_, "schema": schema}}
    error, said = DataError, "^reading the inputs: .*ends early"
    if format_ == "parquet":
        error, said = InputMissingError, r"^source\.inputs\.t: .*b\.parquet cannot be read.*a whole file with a footer"
    with pytest.raises(error, match=said):
        prepare_dataset(spark, config(tmp_path, source={"inputs": inputs, "id": "id"}))


def test_a_frame_of_a_session_in_another_zone_is_published_as_its_owner_sees_it(
    spark: SparkSession, tmp_path: Path, session_settings: Any
) -> None:
    table(t=["2024-01-01 08:00:00"] * ROWS).to_csv(tmp_path / "t.csv", index=False)
    session_settings("spark.sql.session.timeZone", "America/New_York")
    frame = spark.read.csv(str(tmp_path / "t.csv"), header=True, schema="id INT, x DOUBLE, label INT, t TIMESTAMP")
    dataset = prepare_dataset(spark, config(tmp_path, dataset__keep=["t"]), frame)
    assert read_all(dataset)["t"].unique().tolist() == [pd.Timestamp("2024-01-01 13:00:00")]
    assert spark.conf.get("spark.sql.session.timeZone") == "America/New_York"


def test_a_cast_in_the_query_that_fails_is_an_error_where_the_session_says_so(
    spark: SparkSession, tmp_path: Path, session_settings: Any
) -> None:
    session_settings("spark.sql.ansi.enabled", "true")
    query = "SELECT id, CAST(x AS DOUBLE) AS x, label FROM frame"
    rows = spark.createDataFrame(table(x=with_values("1", r5="twelve")))
    with pytest.raises(DataError, match=r"twelve.*try_cast"):
        prepare_dataset(spark, config(tmp_path, source={"id": "id", "query": query}), rows)


def _joined(tmp_path: Path, broken: int) -> PipelineConfig:
    table().to_csv(tmp_path / "t.csv", index=False)
    lines = ["id,c", *(f"{row},{row}{'.5x' if row < broken else ''}" for row in range(ROWS))]
    (tmp_path / "w.csv").write_text("\n".join(lines))
    inputs = {
        "t": {"path": str(tmp_path / "t.csv"), "schema": "id INT, x DOUBLE, label INT"},
        "w": {"path": str(tmp_path / "w.csv"), "schema": "id INT, c INT"},
    }
    query = "SELECT t.*, w.c FROM t LEFT JOIN w USING (id)"
    return config(tmp_path, source={"inputs": inputs, "primary": "t", "id": "id", "query": query})


def test_a_joined_input_may_have_as_many_faults_as_the_primary_one(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match=r"6\.67% of the rows of input w cannot be parsed \(4 of 60\)"):
        prepare_dataset(spark, _joined(tmp_path, broken=4))
    prepare_dataset(spark, _joined(tmp_path, broken=3))
    assert "5.00% of the rows of input w cannot be parsed (3 of 60)" in caplog.text


def _days(tmp_path: Path, format_: str, **source: Any) -> PipelineConfig:
    """Sixty rows for each of two days, in folders; of day 1 as texts, ten lines more that cannot be parsed."""
    for day in (1, 2):
        folder = tmp_path / format_ / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        if format_ == "parquet":
            table().to_parquet(folder / "t.parquet")
        else:
            broken = "".join(f"{100 + row},oops,0\n" for row in range(10)) if day == 1 else ""
            (folder / "t.csv").write_text(table().to_csv(index=False) + broken)
    input_ = {"path": str(tmp_path / format_), "format": format_}
    schema = {"schema": "id INT, x DOUBLE, label INT, day INT"} if format_ == "csv" else {}
    return config(tmp_path, source={"inputs": {"t": {**input_, **schema}}, "id": ["day", "id"], **source})


@pytest.mark.parametrize(
    ("where", "rows", "faults"), [("day = 2", 60, 0), ("day = 2 AND x > 3", 38, 0), ("x > 3", 76, 10)]
)
def test_faults_count_where_the_condition_may_be_true_of_them(
    spark: SparkSession, tmp_path: Path, where: str, rows: int, faults: int
) -> None:
    made = _days(tmp_path, "csv", where=where)
    with preparation_settings(spark) as own:
        frame = wanted(own, read_inputs(spark, made, list_inputs(made))["t"], made)
        census = take_census({"t": frame}, made, "t", {"t": ()})["t"]
        assert (census.rows, census.faults, parsed(frame, where).count()) == (rows, faults, rows)


def test_a_sample_takes_faults_by_the_same_fraction(spark: SparkSession, tmp_path: Path) -> None:
    lines = ["id,x,label", *(f"{row},1,0" for row in range(4000)), *(f"{row},oops,0" for row in range(4000, 5000))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    input_ = {"path": str(tmp_path / "t.csv"), "schema": "id INT, x DOUBLE, label INT"}
    made = config(tmp_path, source={"inputs": {"t": input_}, "id": "id", "sample": {"fraction": 0.1}})
    with preparation_settings(spark) as own:
        frame = wanted(own, read_inputs(spark, made, list_inputs(made))["t"], made)
        census = take_census({"t": frame}, made, "t", {"t": ()})["t"]
    assert 300 < census.rows < 500
    assert 60 < census.faults < 140


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_a_condition_on_partitions_reads_only_their_files(spark: SparkSession, tmp_path: Path, format_: str) -> None:
    made = _days(tmp_path, format_, where="day = 2")
    with preparation_settings(spark) as own:
        frame = wanted(own, read_inputs(spark, made, list_inputs(made))["t"], made)
        for read in (frame, parsed(frame, "day = 2")):
            assert _scanned_files(read) == 1
    both = _days(tmp_path, "parquet", where="day = 2 AND x > 3")
    with preparation_settings(spark) as own:
        frame = wanted(own, read_inputs(spark, both, list_inputs(both))["t"], both)
        plan = frame._jdf.queryExecution().executedPlan().toString()
        assert _scanned_files(frame) == 1
        assert "GreaterThan(x,3.0)" in plan.split("PushedFilters")[1]


def _scanned_files(frame: DataFrame) -> int:
    """How many files a scan of the frame opened, by Spark's own count."""
    execution = frame._jdf.queryExecution()
    execution.toRdd().count()
    return int(execution.executedPlan().collectLeaves().apply(0).metrics().apply("numFiles").value())


def test_a_split_without_a_row_is_an_error_with_the_counts(spark: SparkSession, tmp_path: Path) -> None:
    rows = table(part=["train", "validation"] * (ROWS // 2))
    made = config(
        tmp_path,
        split={"by": "column", "key": "part"},
        label={"column": "x", "type": "regression"},
        features={"n": {"type": "numeric", "column": "id"}},
    )
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, made, spark.createDataFrame(rows))
    assert caught.value.code == 65
    assert str(caught.value).startswith("test has no row (rows by class: train 30; validation 30; test 0)")
    assert not list(tmp_path.glob("out/versions/*"))


def test_a_group_stays_on_its_side_when_a_feature_reads_its_key(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame(table(store=with_values("007", **{f"r{row}": f"{row:03d}" for row in range(50)})))
    split = {"by": "group", "key": "store", "validation": 0.3, "test": 0.3}
    number = {"x": {"type": "numeric"}, "store": {"type": "numeric"}}
    sides = []
    for made in (config(tmp_path, split=split), config(tmp_path, split=split, features=number)):
        reasoned = add_reasons(frame, made)
        sides.append([row[0] for row in reasoned.select(split_of(reasoned, made, ["id"])).collect()])
    assert sides[0] == sides[1]
    assert len(set(sides[0])) == 3
    unknown = spark.createDataFrame([(1, 1.0, 0, None)], "id INT, x DOUBLE, label INT, store STRING")
    assert add_reasons(unknown, config(tmp_path, split=split)).first()["_reasons"] == ["split key store is null"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"column": "c", "min": 1, "action": "null"}, "rules.0 has min for c, which features read as texts"),
        (
            {"column": "x", "max_length": 1, "action": "null"},
            "rules.0 has max_length for x, which features read as num",
        ),
        ({"column": "t", "min": 1, "action": "null"}, "rules.0 changes column t"),
        ({"column": "x", "min": 1, "action": "default", "default": "abc"}, "rules.0 has 'abc' for x"),
        ({"column": "t", "min": 1}, "rules.0 has min for column t of type timestamp"),
    ],
)
def test_a_rule_that_would_have_no_effect_is_refused(
    spark: SparkSession, tmp_path: Path, rule: dict[str, Any], message: str
) -> None:
    features: dict[str, Any] = {
        "x": {"type": "numeric"},
        "c": {"type": "categorical"},
        "t": {"type": "timestamp", "parts": ["hour"]},
    }
    frame = spark.createDataFrame([], "id INT, x DOUBLE, label INT, c STRING, t TIMESTAMP")
    with pytest.raises(DataError) as caught:
        check_columns(frame, config(tmp_path, features=features, clean={"rules": [rule]}))
    assert message in str(caught.value)


def test_names_that_preparation_uses_itself_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    names = [HASH, LABEL, BUCKET, WEIGHT, FAULT, "_reasons", KNOWN, typed_name("x")]
    free = ["_hash", "_label", "_bucket", "_weight", "_known", "_fold", "_typed_x"]
    fields = ", ".join(f"{name} INT" for name in [*free, *names])
    frame = spark.createDataFrame([], f"id INT, x DOUBLE, label INT, {fields}")
    with pytest.raises(DataError) as caught:
        check_columns(frame, config(tmp_path))
    assert [offence.split(" ")[1] for offence in caught.value.offences] == names


def test_intervals_are_named_before_anything_is_staged(spark: SparkSession, tmp_path: Path) -> None:
    odd = (
        "INTERVAL 1 DAY AS d, INTERVAL 1 MONTH AS m, make_interval(1, 1) AS c, map('k', array(INTERVAL 1 DAY)) AS inner"
    )
    plain = "1 AS id, 0.5D AS x, 0 AS label, struct(1 AS interval) AS fine"
    source = {"inputs": {}, "id": "id", "query": f"SELECT *, {odd} FROM frame"}
    first = "the DataFrame" if spark.version < "4" else "the query"  # which may use the types that PySpark knows
    for giver, made, query in (
        (first, config(tmp_path), f"SELECT {plain}, {odd}"),
        ("the query", config(tmp_path, source=source), f"SELECT {plain}"),
    ):
        with pytest.raises(DataError) as caught:
            prepare_dataset(spark, made, spark.sql(query))
        assert [offence.split(";")[0] for offence in caught.value.offences] == [
            f"column d of {giver} has type interval day",
            f"column m of {giver} has type interval month",
            f"column c of {giver} has type interval",
            f"column inner of {giver} has type interval day",
        ]


def test_columns_of_a_frame_that_share_a_name_are_named(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame(table()).selectExpr("*", "x AS x", "id AS `a.b`", "id AS `a.b`")
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, config(tmp_path), frame)
    assert [offence.split(";")[0] for offence in caught.value.offences] == [
        f"column {name} is given 2 times by the DataFrame" for name in ("x", "a.b")
    ]


def test_sensitive_names_are_those_of_a_column_or_refused(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = spark.createDataFrame([], "id INT, x DOUBLE, label INT, ssn STRING")
    queried = frame.withColumnRenamed("ssn", "person")
    check_sensitive_names(config(tmp_path, source__sensitive=["person"]), queried, [frame])
    assert not caplog.messages
    with pytest.raises(ConfigError) as caught:
        check_sensitive_names(config(tmp_path, source__sensitive=["Person", "snn", "colour", "x"]), queried, [frame])
    assert [offence.split(" ")[3] + offence.rpartition(";")[2] for offence in caught.value.offences] == [
        "Person, did you mean person?",
        "snn, did you mean ssn?",
        "colour, use the name that the query gives it",
    ]
    check_sensitive_names(config(tmp_path, source__sensitive=["ssn"]), queried, [frame])
    assert "where the query gives its values under another name" in caplog.text


def test_settings_of_a_table_that_nothing_reads_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    spark.createDataFrame(table()).createOrReplaceTempView("dialects")
    try:
        for given in ({"options": {"versionAsOf": "5"}}, {"schema": "id STRING"}):
            made = config(tmp_path, source={"inputs": {"t": {"table": "dialects", **given}}, "id": "id"})
            with pytest.raises(ConfigError, match=r"source\.inputs\.t"):
                read_inputs(spark, made, {})
    finally:
        spark.catalog.dropTempView("dialects")


def test_a_parquet_file_without_a_column_is_refused_unless_that_is_meant(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    table(c=1.5).to_parquet(folder / "a.parquet")
    table().to_parquet(folder / "b.parquet")
    input_ = {"path": str(folder), "format": "parquet"}
    made = config(tmp_path, source={"inputs": {"t": input_}, "id": "id"})
    with preparation_settings(spark):
        with pytest.raises(DataError, match=r"1 of 2 files, such as \S+b\.parquet, have no column c"):
            read_inputs(spark, made, list_inputs(made))
        meant = {**input_, "options": {"mergeSchema": "true"}}
        made = config(tmp_path, source={"inputs": {"t": meant}, "id": "id"})
        assert read_inputs(spark, made, list_inputs(made))["t"].where("c IS NULL").count() == ROWS


def test_partitions_may_begin_with_an_underscore_and_a_file_of_one_may_stand_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    for folder in ("_day=1", "_day=2", "_hidden"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        table().to_csv(tmp_path / "in" / folder / "t.csv", index=False)
    with preparation_settings(spark):
        for path, rows, days in (("in", 2 * ROWS, {1, 2}), ("in/_day=1/t.csv", ROWS, set())):
            made = config(tmp_path, source={"inputs": {"t": {"path": str(tmp_path / path)}}, "id": "id"})
            frame = read_inputs(spark, made, list_inputs(made))["t"]
            assert frame.count() == rows
            assert {row["_day"] for row in frame.collect() if "_day" in frame.columns} == days


def test_the_name_of_a_folder_may_hold_wildcards_and_its_partitions_stay(spark: SparkSession, tmp_path: Path) -> None:
    for folder in ("export [final]", "what*?"):
        for day in ("01", "02"):
            (tmp_path / folder / f"day={day}").mkdir(parents=True)
            table().to_csv(tmp_path / folder / f"day={day}" / "t.csv", index=False)
        made = config(tmp_path, source={"inputs": {"t": {"path": str(tmp_path / folder)}}, "id": "id"})
        with preparation_settings(spark):
            frame = read_inputs(spark, made, list_inputs(made))["t"]
            assert {row["day"] for row in frame.collect()} == {1, 2}


def test_the_same_rows_come_of_every_format_whatever_lies_hidden_beside_them(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = table(c=["Łódź", None] * (ROWS // 2))
    arrow = pa.Table.from_pandas(rows)
    write = {
        "csv": lambda path: rows.to_csv(path, index=False),
        "json": lambda path: rows.to_json(path, orient="records", lines=True),
        "parquet": lambda path: pq.write_table(arrow, path),
        "orc": lambda path: orc.write_table(arrow, path),
    }
    inputs = {}
    for format_, written in write.items():
        (tmp_path / format_ / "_temporary").mkdir(parents=True)
        for hidden in ("_SUCCESS", ".part.crc", "_temporary/part"):
            (tmp_path / format_ / hidden).write_text("no rows")
        written(tmp_path / format_ / "part")
        inputs[format_] = {"path": str(tmp_path / format_), "format": format_}
    with (tmp_path / "json" / "part").open("a") as stream:
        stream.write('{"id": 1, "x"\n')
    union = " UNION ALL ".join(f"SELECT '{name}' AS format, id, x, label, c FROM {name}" for name in inputs)
    (tmp_path / "query.sql").write_text(union)
    source = {"inputs": inputs, "primary": "json", "id": ["format", "id"], "query_file": str(tmp_path / "query.sql")}
    made = config(tmp_path, source=source, dataset__keep=["c"])
    with preparation_settings(spark) as own:
        frames, primary = source_frames(own, made, list_inputs(made), None)
        census = take_census(frames, made, primary, inputs)
        assert (census["json"].rows, census["json"].faults, census["csv"].faults) == (ROWS, 1, 0)
        views = {name: parsed(frame) for name, frame in frames.items()}
        with own.views(views):
            found = query_rows(own, made, views, primary).toPandas()
    for format_ in inputs:
        one = found[found["format"] == format_].sort_values("id").reset_index(drop=True)
        pd.testing.assert_frame_equal(one[rows.columns.tolist()], rows, check_dtype=False)


def test_a_fault_within_a_map_is_a_fault(spark: SparkSession, tmp_path: Path) -> None:
    lines = [f'{{"id": {row}, "x": 1.0, "label": 0, "s": {{"m": {{"a": {row}}}}}}}' for row in range(9)]
    (tmp_path / "t.json").write_text("\n".join([*lines, '{"id": 9, "x": 1.0, "label": 0, "s": {"m": {"a": "b"}}}']))
    schema = "id INT, x DOUBLE, label INT, s STRUCT<m: MAP<STRING, INT>>"
    input_ = {"path": str(tmp_path / "t.json"), "format": "json", "schema": schema}
    made = config(tmp_path, source={"inputs": {"t": input_}, "id": "id"})
    with preparation_settings(spark):
        frame = read_inputs(spark, made, list_inputs(made))["t"]
        census = take_census({"t": frame}, made, "t", {"t": ()})["t"]
        assert (census.rows, census.faults, parsed(frame).select("id").count()) == (9, 1, 9)
        assert take_census({"t": parsed(frame)}, made, "t")["t"].contents


def test_a_text_that_is_no_utf_8_is_named_by_its_column(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame(table()).selectExpr("*", "cast(if(id = 3, X'ff41', X'41') as string) AS c")
    with pytest.raises(DataError, match="column c has a text that is not UTF-8"):
        prepare_dataset(spark, config(tmp_path), frame)
