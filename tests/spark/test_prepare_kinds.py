"""Every kind of feature, label, split and rule, once through Spark, against the same operations in memory."""

from __future__ import annotations

import decimal
import functools
import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.features import FittedFeatures, canonical
from pipeline.features.fitted import _OPERATIONS
from pipeline.features.target import Target
from pipeline.inspect import describe
from pipeline.preparation.clean import REASONS, add_reasons, check_columns
from pipeline.preparation.prepare import prepare_dataset
from tests.feature_states import expected_state
from tests.spark.datasets import config_of, read_all, read_split

ODD_NUMBERS = [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -1e-310, 0.1, 1e15, None]
ODD_TEXTS = ["", " ", "\t\u00a0x", "Łódź", "ß", "SS", "\U0001f600", "İ", "a\x00b", "ﬁ", "null", "1.0", "1", None]
ODD_TIMES = ["0001-01-01T00:00:00", "1582-10-15T12:00:00", "1969-12-31T23:59:59.999999", "2024-02-29T00:00:00", None]
ODD_TIMES += ["9999-12-31T23:59:59.999999", "2012-06-30T23:59:59"]
ODD_INTEGERS = [0, -1, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, 2**63 - 1, -(2**63), 7, None]
ODD_DECIMALS = ["0", "-0.5", "0.1", "1.10", "9007199254740993", "-9007199254740993.0000000001", "1e-10", "12345678.9"]
ODD_DECIMALS += ["9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999998", None]

ROWS = 400

FEATURES: dict[str, Any] = {
    "n_standard": {"type": "numeric", "column": "n", "clip": [0.1, 0.9]},
    "n_min_max": {"type": "numeric", "column": "n", "clip": "iqr", "scale": "min_max", "missing": "mean"},
    "n_robust": {"type": "numeric", "column": "n", "clip": [0, 1], "scale": "robust", "missing": "mode"},
    "n_log": {"type": "numeric", "column": "n", "clip": [0, 1], "log1p": True, "missing": -1.5, "indicator": True},
    "n_bucket": {"type": "bucket", "column": "n", "quantiles": 5},
    "n_given": {"type": "bucket", "column": "n", "boundaries": [-1, 0, 0.5]},
    "n_text": {"type": "categorical", "column": "n"},
    "c_plain": {"type": "categorical", "column": "c", "min_count": 2},
    "c_clean": {"type": "categorical", "column": "c", "normalize": {"unicode": "NFKC", "case": "lower"}},
    "c_buckets": {"type": "categorical", "column": "c", "max_size": 2, "unseen_buckets": 7, "missing": "mode"},
    "c_secret": {"type": "categorical", "column": "c", "sensitive": True, "missing": "mode"},
    "c_given": {"type": "target", "column": "c", "min_count": 3, "missing": {"constant": "given"}},
    "c_hashed": {"type": "hashed", "column": "c", "buckets": 11},
    "c_target": {"type": "target", "column": "c", "smoothing": 1},
    "t_parts": {"type": "timestamp", "column": "t", "parts": ["year", "month", "day", "weekday", "day_of_year"]},
    "t_waves": {"type": "timestamp", "column": "t", "parts": ["hour", "minute_of_day"], "cyclic": True},
    "t_since": {"type": "elapsed", "column": "t", "since": "2000-01-01T00:00:00"},
    "b_flag": {"type": "boolean", "column": "b"},
    "v_vector": {"type": "vector", "column": "v", "shape": [3]},
    "v_image": {"type": "vector", "column": "i", "shape": [2, 2], "dtype": "uint8"},
    "m_many": {"type": "categories", "column": "m", "length": 3},
    "k_exact": {"type": "categorical", "column": "k"},
    "k_hashed": {"type": "hashed", "column": "k", "buckets": 1000},
    "j_number": {"type": "numeric", "column": "j", "scale": "none"},
    "d_exact": {"type": "categorical", "column": "d"},
    "p_number": {"type": "numeric", "column": "p", "scale": "min_max", "missing": 0},
    "n_filled": {"type": "bucket", "column": "n", "quantiles": 3, "missing": "mean", "indicator": True},
    "c_filled": {"type": "hashed", "column": "c", "buckets": 11, "missing": "mode", "indicator": True},
    "t_filled": {"type": "timestamp", "column": "t", "parts": ["year"], "missing": "2021-03-01", "indicator": True},
    "b_filled": {"type": "boolean", "column": "b", "missing": "mode", "indicator": True},
    "m_flagged": {"type": "categories", "column": "m", "length": 1, "indicator": True},
    "v_flagged": {"type": "vector", "column": "v", "shape": [3], "indicator": True},
}


def column(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=100, max_size=100)


def odd_or(odd: list[Any], others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(odd) | others


TABLES = st.fixed_dictionaries(
    {
        "n": column(odd_or(ODD_NUMBERS, st.floats())),
        "c": column(odd_or(ODD_TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=3))),
        "t": column(odd_or(ODD_TIMES, st.datetimes().map(lambda moment: moment.isoformat()))),
        "b": column(st.sampled_from([True, False, None])),
        "v": column(st.none() | st.lists(odd_or(ODD_NUMBERS[:-1], st.floats(width=32)), min_size=3, max_size=3)),
        "i": column(st.none() | st.binary(min_size=4, max_size=4)),
        "m": column(st.none() | st.lists(st.sampled_from(["x", "y", "", "Łódź", None]), max_size=5)),
        "k": column(st.sampled_from(ODD_INTEGERS)),
        "d": column(st.sampled_from([text and decimal.Decimal(text) for text in ODD_DECIMALS])),
    }
)


def label_of(row: int) -> float:
    return float((7 * row) % 5 < 2)


def write_table(values: dict[str, list[Any]], path: Path) -> None:
    types = {"n": pa.float64(), "c": pa.string(), "b": pa.bool_(), "v": pa.list_(pa.float64()), "i": pa.binary()}
    types |= {"m": pa.list_(pa.string()), "t": pa.timestamp("us", "UTC")}
    types |= {name: pa.int64() if name in "kj" else pa.decimal128(38, 10) for name in "kjdp" if name in values}
    moments = canonical(values["t"], "timestamp")
    arrays = {name: pa.array(moments if name == "t" else values[name]).cast(types[name]) for name in types}
    rows = len(values["n"])
    labels = [label_of(row) for row in range(rows)]
    names = [f"class {row % 3}" for row in range(rows)]
    table = pa.table({"id": list(range(rows)), "label": labels, "name": names, "y": np.arange(rows) / 7, **arrays})
    pq.write_table(table, path)


Make = Callable[..., PipelineConfig]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def make(folder: Path) -> Make:
    return functools.partial(
        config_of,
        folder,
        source={"inputs": {"table": {"path": str(folder / "table.parquet"), "format": "parquet"}}, "id": "id"},
        features=FEATURES,
        label={"column": "label"},
        dataset__drift={"action": "off"},
    )


def drawn(examples: int) -> list[dict[str, list[Any]]]:
    """Whole tables as Hypothesis makes them, the simplest first; derandomized, so the same every time."""
    found: list[dict[str, list[Any]]] = []

    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
    @given(TABLES)
    def collect(table: dict[str, list[Any]]) -> None:
        found.append(table)

    collect()
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", [0, 1])
def test_what_spark_wrote_is_what_memory_computes_bit_for_bit(
    spark: SparkSession, make: Make, folder: Path, part: int
) -> None:
    tables = drawn(12)[part::2]
    values = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    values |= {"j": values["k"], "p": values["d"]}  # of a column that is a category too, such numbers are refused
    assert len(values["n"]) >= 500
    assert {*ODD_INTEGERS} == {*values["k"]}
    write_table(values, folder / "table.parquet")
    dataset = prepare_dataset(spark, make())
    features = FittedFeatures.from_json(json.loads(json.dumps(dataset.manifest.statistics)))
    raw = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in values.items()})
    check_states(dataset, raw)
    for split in SPLITS:
        table = read_split(dataset, split)
        rows = raw.loc[table["id"]]
        encoded = features.transform({name: canonical(rows[name], kind) for name, kind in features.inputs.items()})
        for packed in dataset.schema.packed:
            members = [name for name in packed.members if not (split == "train" and name in ("c_target", "c_given"))]
            blob = np.frombuffer(b"".join(table[packed.name]), dtype=packed.dtype).reshape(len(table), -1)
            widths = np.cumsum([0] + [dataset.schema.column(name).width for name in packed.members])
            for place, name in enumerate(packed.members):
                if name in members:
                    written = np.ascontiguousarray(blob[:, widths[place] : widths[place + 1]])
                    assert written.tobytes() == encoded[name].tobytes(), (split, name)


def check_states(dataset: Dataset, raw: pd.DataFrame) -> None:
    """What each operation has learned is what the train rows say, by another way, and nothing of the other splits."""
    ids = read_split(dataset, "train")["id"]
    train = {name: raw.loc[ids, name].tolist() for name in raw}
    labels = [label_of(row) for row in ids]
    sections = dataset.manifest.semantic["features"]
    states = [state for state in dataset.manifest.statistics["features"] if state["type"] != "missing"]
    assert [state["name"] for state in states] == list(sections)
    assert {section["type"] for section in sections.values()} == set(_OPERATIONS)
    for state in states:
        for key, value in expected_state(state["name"], sections[state["name"]], train, labels).items():
            found = state[key]
            rounded = key in ("offset", "scale", "means", "mean")
            assert found == (pytest.approx(value, rel=1e-12) if rounded else value), (state["name"], key)


def plain_values() -> dict[str, list[Any]]:
    random = np.random.default_rng(3)
    return {
        "n": random.normal(size=ROWS).tolist(),
        "c": random.choice(["a", "b", "c"], ROWS).tolist(),
        "t": [f"2024-{1 + row % 12:02d}-15T00:00:00" for row in range(ROWS)],
        "b": [True, None] * (ROWS // 2),
        "v": [[1.0, 2.0, 3.0]] * ROWS,
        "i": [b"\0\1\2\3"] * ROWS,
        "m": [["x"]] * ROWS,
    }


@pytest.fixture
def plain(folder: Path) -> dict[str, list[Any]]:
    values = plain_values()
    write_table(values, folder / "table.parquet")
    return values


SMALL = {"n": {"type": "numeric"}, "c": {"type": "categorical"}}


def test_target_encoding_is_out_of_fold_in_train_and_whole_elsewhere(
    spark: SparkSession, make: Make, plain: dict[str, list[Any]]
) -> None:
    dataset = prepare_dataset(spark, make(features={"c": {"type": "target", "smoothing": 0}}))
    train = read_split(dataset, "train")
    category = pd.Series(plain["c"])[train["id"]].to_numpy()
    means = pd.Series(train["label"].to_numpy().astype("float64")).groupby(category).mean()
    (feature,) = FittedFeatures.from_json(dataset.manifest.statistics).features
    assert isinstance(feature, Target)
    assert dict(zip(feature.vocabulary, feature.means, strict=True)) == pytest.approx(means.to_dict(), rel=1e-12)
    test = read_split(dataset, "test")
    expected = means[pd.Series(plain["c"])[test["id"]]].to_numpy().astype("float32")
    assert (test["c"].to_numpy() == expected).all()
    assert train.groupby(category)["c"].nunique().min() > 1


def test_a_multiclass_label_keeps_its_names(spark: SparkSession, make: Make, plain: Any) -> None:
    dataset = prepare_dataset(spark, make(features=SMALL, label={"column": "name", "type": "multiclass"}))
    assert dataset.schema.classes == ("class 0", "class 1", "class 2")
    table = read_all(dataset)
    assert table["name"].dtype == np.int64
    assert (table["name"] == table["id"] % 3).all()
    state = dataset.manifest.statistics["label"]
    counts = read_split(dataset, "train")["name"].value_counts().sort_index()
    assert state["class_weights"] == [counts.sum() / (3 * count) for count in counts]


def test_a_regression_label_is_scaled_and_its_state_undoes_it(spark: SparkSession, make: Make, plain: Any) -> None:
    label = {"column": "y", "type": "regression", "scale": "standard", "max": 55}
    dataset = prepare_dataset(spark, make(features=SMALL, label=label, clean__max_rejected_fraction=1))
    assert dataset.manifest.accounting.reasons == {"label y is above 55": 14}
    table, state = read_all(dataset), dataset.manifest.statistics["label"]
    assert np.allclose(table["y"] * state["scale"] + state["offset"], table["id"] / 7, atol=1e-5)
    train = table[table["split"] == "train"]
    assert state["offset"] == pytest.approx((train["id"] / 7).mean(), rel=1e-12)


def test_fractional_and_unknown_classes_are_rejected_by_name(spark: SparkSession, make: Make, plain: Any) -> None:
    label = {"column": "y", "type": "multiclass", "classes": ["0", "1", "2"]}
    with pytest.raises(DataError, match=r"label y is not a known class: \d+, label y is not a whole number: \d+"):
        prepare_dataset(spark, make(features=SMALL, label=label))


def test_time_splits_hold_no_future_in_train(spark: SparkSession, make: Make, plain: dict[str, list[Any]]) -> None:
    split = {"by": "time", "key": "t", "validation_from": "2024-08-01", "test_from": "2024-10-01"}
    table = read_all(prepare_dataset(spark, make(features=SMALL, split=split)))
    months = (table["id"] % 12 + 1).groupby(table["split"])
    assert (months.min().to_dict(), months.max().to_dict()) == (
        {"train": 1, "validation": 8, "test": 10},
        {"train": 7, "validation": 9, "test": 12},
    )


def test_stratified_splits_keep_a_row_where_it_is_when_rows_are_added(
    spark: SparkSession, make: Make, folder: Path, plain: dict[str, list[Any]]
) -> None:
    config = make(features=SMALL, split={"by": "stratified", "validation": 0.2, "test": 0.2})
    before = read_all(prepare_dataset(spark, config)).set_index("id")["split"]
    write_table({name: column + column for name, column in plain.items()}, folder / "table.parquet")
    after = read_all(prepare_dataset(spark, config)).set_index("id")["split"]
    assert len(after) == 2 * len(before)
    assert (after[before.index] == before).all()


def test_rules_reject_with_their_reasons_and_repairs_are_part_of_the_state(
    spark: SparkSession, make: Make, plain: dict[str, list[Any]]
) -> None:
    rules = [
        {"column": "n", "min": -1, "max": 1, "action": "clip"},
        {"column": "c", "pattern": "[ab]"},
        {"column": "id", "condition": "id % 10 <> 3 OR n > 100"},
        {"column": "t", "unique": True, "max_fraction": 1},
    ]
    clean = {"rules": rules[:3], "max_rejected_fraction": 1}
    dataset = prepare_dataset(spark, make(features=SMALL, clean=clean))
    not_ab = {row for row in range(ROWS) if plain["c"][row] == "c"}
    threes = {row for row in range(ROWS) if row % 10 == 3}
    accounting = dataset.manifest.accounting
    assert accounting.reasons == {
        "c does not match [ab]": len(not_ab),
        "id fails id % 10 <> 3 OR n > 100": len(threes),
    }
    assert accounting.rejected == len(not_ab | threes)
    beyond = {row for row in range(ROWS) if abs(plain["n"][row]) > 1}
    ((rule, changed),) = accounting.repaired.items()
    assert (rule, changed) == ("n is below -1 or is above 1: clip", len(beyond - not_ab - threes))
    assert f"{rule}: {changed:,} values" in describe(dataset.url)
    features = FittedFeatures.from_json(dataset.manifest.statistics)
    low, high = features.transform({"n": np.array([-50.0, 50]), "c": canonical(["a", "a"], "string")})["n"]
    same = features.transform({"n": np.array([-1.0, 1]), "c": canonical(["a", "a"], "string")})["n"]
    assert [low, high] == same.tolist()
    with pytest.raises(DataError, match=r"t is not unique"):
        prepare_dataset(spark, make(features=SMALL, clean={"rules": rules[3:], "max_rejected_fraction": 0.5}))
    limited = {"rules": [{**rules[1], "max_fraction": 0.1}], "max_rejected_fraction": 1}
    with pytest.raises(DataError, match=r"rules\.0 \(c does not match \[ab\]\) rejects 3\d\.\d+%.*max_fraction 0\.1"):
        prepare_dataset(spark, make(features=SMALL, clean=limited))


def test_the_first_by_a_column_stays_of_duplicates(spark: SparkSession, make: Make, plain: Any) -> None:
    config = make(
        source__query="SELECT id % 100 AS id, n, c, label FROM table",
        source__row_changes="allowed",
        features=SMALL,
        clean={"keep": "last by n"},
    )
    dataset = prepare_dataset(spark, config)
    accounting = dataset.manifest.accounting
    assert (accounting.rows_in, accounting.published, accounting.duplicates) == (ROWS, 100, ROWS - 100)
    highest = pd.Series(plain["n"]).groupby(np.arange(ROWS) % 100).max()
    table = read_all(dataset)
    (number, _) = FittedFeatures.from_json(dataset.manifest.statistics).features
    encoded = number.encode({"n": highest[table["id"]].to_numpy()})["n"]
    assert (table["n"].to_numpy() == encoded).all()
    whole = prepare_dataset(spark, make(features=SMALL, clean={"deduplicate": "row"}))
    assert whole.manifest.accounting.duplicates == 0


def test_sensitive_values_show_nowhere(spark: SparkSession, make: Make, folder: Path, plain: Any) -> None:
    secret = [f"person-{row % 40}" for row in range(ROWS)]
    write_table({**plain, "c": secret}, folder / "table.parquet")
    config = make(
        source__sensitive=["c"],
        features=SMALL,
        dataset__url=str(folder / "sensitive"),
        clean={"rules": [{"column": "n", "max": 1}], "max_rejected_fraction": 1},
    )
    dataset = prepare_dataset(spark, config)
    version = Path(dataset.url, "versions", dataset.content_id)
    for name in ("statistics.json", "profile.json", "manifest.json"):
        assert "person" not in (version / name).read_text()
    (rejected,) = Path(dataset.url, "quarantine").glob("*/rejected/*.parquet")
    quarantined = pd.read_parquet(rejected)
    assert len(quarantined) == dataset.manifest.accounting.rejected
    assert quarantined["c"].isna().all()
    assert (read_all(dataset)["c"] >= 3).mean() > 0.9


def test_drift_against_the_previous_version_fails_by_threshold(
    spark: SparkSession, make: Make, folder: Path, plain: dict[str, list[Any]]
) -> None:
    config = make(features=SMALL, dataset__url=str(folder / "drift"), dataset__drift={"action": "fail"})
    prepare_dataset(spark, config)
    moved = {**plain, "n": [value + 2 for value in plain["n"]], "c": ["d", "a"] * (ROWS // 2)}
    write_table(moved, folder / "table.parquet")
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, config)
    text = str(caught.value)
    assert "column n: population stability index" in text
    assert re.search(r"column c: 0\.[45]\d+ of the values are unseen categories", text)


def test_features_that_cannot_be_are_refused_before_anything_is_read(spark: SparkSession, make: Make) -> None:
    features = {"c": {"type": "target"}, "name": {"type": "categorical"}}
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(spark, make(features=features, label={"column": "name", "type": "multiclass"}))
    assert len(caught.value.offences) == 2


def test_every_kind_of_feature_can_reject_rows_without_a_value(spark: SparkSession, make: Make) -> None:
    names = ("n_standard", "n_given", "c_plain", "c_hashed", "c_target", "t_parts", "t_since", "b_flag", "v_vector")
    features = {name: {**FEATURES[name], "missing": "reject"} for name in (*names, "m_many")}
    features["t_between"] = {"type": "elapsed", "column": "t", "since_column": "u", "missing": "reject"}
    assert {one["type"] for one in features.values()} == {one["type"] for one in FEATURES.values()}
    schema = "id INT, n DOUBLE, c STRING, t TIMESTAMP, u TIMESTAMP, b BOOLEAN, v ARRAY<DOUBLE>, m ARRAY<STRING>"
    there = (1, 1.0, "a", datetime(2024, 1, 1), datetime(2024, 1, 1), True, [1.0, 2.0, 3.0], [None], 1.0)
    odd = (3, math.nan, "", *there[3:6], [math.nan] * 3, [], 1.0)
    rows = spark.createDataFrame([there, (2, *[None] * 7, 1.0), odd], f"{schema}, label DOUBLE")
    found = {row["id"]: row[REASONS] for row in add_reasons(rows, make(features=features)).collect()}
    assert found == {1: None, 2: [f"{name} is missing" for name in "nctbvmu"], 3: ["n is missing"]}


def test_ids_and_kept_columns_that_part_files_do_not_hold_are_named_before_anything_is_read(
    spark: SparkSession, make: Make
) -> None:
    config = make(features=SMALL, source__id=["id", "digest"], dataset__keep=["c", "tags"])
    frame = spark.createDataFrame([], "id INT, digest BINARY, n DOUBLE, c STRING, tags ARRAY<STRING>, label DOUBLE")
    with pytest.raises(DataError) as caught:
        check_columns(frame, config)
    assert [offence.split(";")[0] for offence in caught.value.offences] == [
        "column digest has type binary",
        "column tags has type array<string>",
    ]


def test_a_rule_changes_single_values_of_a_feature_only(spark: SparkSession, make: Make, plain: Any) -> None:
    rules = [{"column": name, "min_length": 1, "action": "null"} for name in ("v", "m", "y")]
    features = {**SMALL, "v_vector": FEATURES["v_vector"], "m_many": FEATURES["m_many"]}
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, make(features=features, clean={"rules": rules}))
    assert [offence.split(",")[0] for offence in caught.value.offences] == [
        f"clean.rules.{number} changes column {name}" for number, name in enumerate(("v", "m", "y"))
    ]


def test_globs_compressed_files_partition_folders_and_samples(
    spark: SparkSession, make: Make, folder: Path, plain: dict[str, list[Any]]
) -> None:
    frame = pd.DataFrame(
        {"id": range(ROWS), "n": plain["n"], "c": plain["c"], "label": [row % 2 for row in range(ROWS)]}
    )
    base = folder / "many"
    for half, part in enumerate((frame[: ROWS // 2], frame[ROWS // 2 :])):
        (base / f"half={half}").mkdir(parents=True)
        part.to_csv(base / f"half={half}" / "rows.csv.gz", index=False)
    inputs = {"rows": {"path": str(base)}}
    config = make(source={"inputs": inputs, "id": "id", "where": "half = 1"}, features=SMALL)
    assert prepare_dataset(spark, config).manifest.accounting.rows_in == ROWS // 2
    inputs = {"rows": {"path": str(base / "half=*" / "*.gz"), "format": "csv"}}
    sample = {"fraction": 0.5}
    config = make(source={"inputs": inputs, "id": "id", "sample": sample}, features=SMALL)
    ids = set(read_all(prepare_dataset(spark, config))["id"])
    assert ROWS * 0.4 < len(ids) < ROWS * 0.6
    short = (base / "half=1" / "rows.csv.gz").read_bytes()
    (base / "half=1" / "rows.csv.gz").write_bytes(short[: len(short) // 2])
    with pytest.raises(DataError, match=r"^source\.inputs\.rows: a compressed file ends early; expected it whole"):
        prepare_dataset(spark, make(source={"inputs": inputs, "id": "id"}, features=SMALL))


def test_tables_of_the_catalog(spark: SparkSession, make: Make, plain: dict[str, list[Any]]) -> None:
    frame = pd.DataFrame(
        {"id": range(ROWS), "n": plain["n"], "c": plain["c"], "label": [row % 2 for row in range(ROWS)]}
    )
    spark.createDataFrame(frame).createOrReplaceTempView("stored_rows")
    try:
        config = make(source={"inputs": {"rows": {"table": "stored_rows"}}, "id": "id"}, features=SMALL)
        assert prepare_dataset(spark, config).manifest.accounting.published == ROWS
    finally:
        spark.catalog.dropTempView("stored_rows")
