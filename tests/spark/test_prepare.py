"""Preparation on Spark: accounting, honest splits, atomic publishing, one content id."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset, commit_numbers
from pipeline.errors import ConfigError, DataError, InputMissingError, InterruptedRunError, PipelineError
from pipeline.features import FittedFeatures, canonical
from pipeline.preparation import prepare as module
from pipeline.preparation.prepare import prepare_dataset, published
from pipeline.storage import json_files
from tests.spark.datasets import config_of, read_all, read_split
from tests.stacks import needs_petastorm

ROWS = 600


def rows_of_trips() -> list[dict[str, Any]]:
    chance = random.Random(5)
    return [
        {
            "trip": number,
            "day": f"2024-01-{1 + number % 28:02d}",
            "km": "" if number % 11 == 0 else round(abs(chance.gauss(10, 3)), 2),
            "city": chance.choice(["Rome", "Oslo", "Łódź", "", "a,b"]),
            "start": f"2024-01-{1 + number % 28:02d}T{number % 24:02d}:15:00Z",
            "late": chance.random() < 0.4,
        }
        for number in range(ROWS)
    ]


@pytest.fixture
def trips(tmp_path: Path) -> Path:
    folder = tmp_path / "in put [1]"
    folder.mkdir()
    pd.DataFrame(rows_of_trips()).to_csv(folder / "trips.csv", index=False)
    pd.DataFrame({"city": ["Rome", "Oslo"], "people": [2.8, 0.7]}).to_csv(folder / "cities.csv", index=False)
    return folder


Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(trips: Path, tmp_path: Path) -> Make:
    return functools.partial(
        config_of,
        tmp_path,
        source={
            "inputs": {
                "trips": {
                    "path": str(trips / "trips.csv"),
                    "schema": "trip INT, day DATE, km DOUBLE, city STRING, start TIMESTAMP, late BOOLEAN",
                },
                "cities": {"path": str(trips / "cities.csv")},
            },
            "query": "SELECT t.*, c.people FROM trips t LEFT JOIN cities c USING (city)",
            "primary": "trips",
            "id": "trip",
        },
        features={
            "km": {"type": "numeric"},
            "people": {"type": "numeric", "scale": "robust", "indicator": True},
            "city": {"type": "categorical"},
            "start": {"type": "timestamp", "parts": ["hour", "weekday"]},
        },
        label={"column": "late"},
        split={"by": "group", "key": "day", "validation": 0.2, "test": 0.2},
        dataset__keep=["city"],
        dataset__rows_per_row_group=50,
    )


def test_every_row_is_published_once_and_encoded_as_in_memory(spark: SparkSession, make: Make, trips: Path) -> None:
    dataset = prepare_dataset(spark, make())
    rows = dataset.manifest.accounting
    assert (rows.rows_in, rows.published, rows.duplicates, rows.rejected) == (ROWS, ROWS, 0, 0)
    table = read_all(dataset)
    assert sorted(table["trip"]) == list(range(ROWS))

    days = table.assign(day=[1 + trip % 28 for trip in table["trip"]]).groupby("day")["split"].nunique()
    assert days.max() == 1, "rows of a day stay together"

    raw = pd.DataFrame(rows_of_trips()).replace("", None).set_index("trip")
    raw["people"] = raw["city"].map({"Rome": 2.8, "Oslo": 0.7})
    raw = raw.loc[table["trip"]]
    features = FittedFeatures.from_json(dataset.manifest.statistics)
    encoded = features.transform({name: canonical(raw[name], kind) for name, kind in features.inputs.items()})
    for name, values in encoded.items():
        assert table[name].to_numpy().tobytes() == values.tobytes(), name
    assert (table["late"].to_numpy() == raw["late"].to_numpy().astype("float32")).all()

    train = raw[(table["split"] == "train").to_numpy()]
    km = features.features[0]
    assert km.fill == np.quantile(train["km"].dropna().astype(float), 0.5, method="inverted_cdf")
    assert km.scale == pytest.approx(train["km"].astype(float).fillna(km.fill).std(ddof=0), rel=1e-14)


def test_the_same_rows_give_the_same_content_id(spark: SparkSession, make: Make, trips: Path, tmp_path: Path) -> None:
    first = prepare_dataset(spark, make())
    lines = (trips / "trips.csv").read_text().splitlines()
    body = lines[1:]
    random.Random(1).shuffle(body)
    shuffled = trips / "shuffled"
    shuffled.mkdir()
    for number, part in enumerate((body[:7], body[7:400], body[400:])):
        (shuffled / f"z{9 - number}.csv").write_text("\n".join([lines[0], *part]) + "\n")
    values = make().source.model_dump(by_alias=True)
    values["inputs"]["trips"]["path"] = str(shuffled)
    again = prepare_dataset(spark, make(source=values, dataset__url=str(tmp_path / "other")))
    assert again.content_id == first.content_id
    assert [[part.sha256 for part in parts] for parts in again.manifest.splits.values()] == [
        [part.sha256 for part in parts] for parts in first.manifest.splits.values()
    ]


def test_what_is_published_already_needs_no_spark(spark: SparkSession, make: Make, trips: Path) -> None:
    assert published(make()) is None
    dataset = prepare_dataset(spark, make())
    assert published(make()).content_id == dataset.content_id
    assert published(make(split__salt="other")) is None
    (trips / "trips.csv").write_text((trips / "trips.csv").read_text() + "9999,2024-01-01,1.0,Rome,2024-01-01,true\n")
    assert published(make()) is None


def test_the_layout_on_disk_is_that_of_the_manifest(spark: SparkSession, make: Make) -> None:
    dataset = prepare_dataset(spark, make())
    version = Path(dataset.url, "versions", dataset.content_id)
    for parts in dataset.manifest.splits.values():
        for part in parts:
            file = pq.ParquetFile(Path(dataset.url, part.path))
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            assert tuple(groups) == part.row_groups
            assert set(groups[:-1]) <= {50}
            assert storage.digest_file(str(Path(dataset.url, part.path))) == storage.Digest(
                part.bytes, part.crc32, part.sha256
            )
    for path, digest in dataset.manifest.extra_files.items():
        assert storage.digest_file(storage.join(dataset.url, path)) == digest
    raw = pd.concat(pd.read_parquet(path) for path in sorted((version / "raw" / "test").iterdir()))
    assert raw["trip"].tolist() == read_split(dataset, "test")["trip"].tolist()
    assert {path.name for path in Path(dataset.url).iterdir()} == {"_commits", "_requests", "versions"}
    assert json.loads((version / "statistics.json").read_text())["label"]["column"] == "late"


def test_packed_columns_are_the_wide_ones_side_by_side(spark: SparkSession, make: Make) -> None:
    dataset = prepare_dataset(spark, make())
    table = read_split(dataset, "train")
    for packed in dataset.schema.packed:
        blob = np.frombuffer(b"".join(table[packed.name]), dtype=packed.dtype).reshape(len(table), -1)
        assert (blob == np.column_stack([table[name] for name in packed.members])).all()


@needs_petastorm
def test_stock_petastorm_opens_a_split_folder(spark: SparkSession, make: Make) -> None:
    from petastorm import make_batch_reader, make_reader

    dataset = prepare_dataset(spark, make())
    folder = Path(dataset.url, "versions", dataset.content_id, "train").as_uri()
    rows = dataset.manifest.rows("train")
    with make_reader(folder, num_epochs=1, reader_pool_type="dummy", shuffle_row_groups=False) as reader:
        assert sum(1 for row in reader if row.km is not None) == rows
    with make_batch_reader(folder, num_epochs=1, reader_pool_type="dummy", shuffle_row_groups=False) as reader:
        assert sum(len(batch.km) for batch in reader) == rows


def append_lines(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(line + "\n" for line in lines))


def test_rejected_rows_are_counted_by_reason_and_quarantined(spark: SparkSession, make: Make, trips: Path) -> None:
    append_lines(
        trips / "trips.csv",
        "1000,2024-01-01,5.0,Rome,2024-01-01T00:00:00Z,",
        ",2024-01-01,5.0,Rome,2024-01-01T00:00:00Z,true",
        "1001,2024-01-01,-7.5,Rome,2024-01-01T00:00:00Z,",
        "1002,2024-01-01,wide,Rome,2024-01-01T00:00:00Z,true",
        "1003,2024-01-01,1.0,Rome",
        "5,2024-01-06,1.0,Rome,2024-01-06T05:15:00Z,true",
    )
    dataset = prepare_dataset(spark, make(clean={"rules": [{"column": "km", "min": 0}]}))
    rows = dataset.manifest.accounting
    assert (rows.rows_in, rows.published, rows.duplicates, rows.rejected) == (ROWS + 6, ROWS, 1, 5)
    assert rows.balanced
    assert rows.reasons == {
        "id trip is null": 1,
        "km is below 0": 1,
        "label late is null": 2,
        "row cannot be parsed": 2,
    }
    (attempt,) = Path(dataset.url, "quarantine").iterdir()
    rejected = pd.concat(pd.read_parquet(path) for path in (attempt / "rejected").iterdir())
    assert {row["trip"]: list(row["_reasons"]) for _, row in rejected.iterrows() if row["trip"] >= 0} == {
        1000: ["label late is null"],
        1001: ["label late is null", "km is below 0"],
    }
    faults = pd.concat(pd.read_parquet(path) for path in (attempt / "faults" / "trips").iterdir())
    assert sorted(line.split(",")[0] for line in faults["line"]) == ["1002", "1003"]
    assert faults["file"].str.endswith("trips.csv").all()


def test_which_duplicate_stays_does_not_depend_on_the_order(
    spark: SparkSession, make: Make, trips: Path, tmp_path: Path
) -> None:
    twins = ["7,2024-01-08,1.0,Rome,2024-01-08T07:15:00Z,true", "7,2024-01-08,2.0,Oslo,2024-01-08T07:15:00Z,false"]
    original = (trips / "trips.csv").read_text()
    ids = []
    for number, order in enumerate((twins, twins[::-1])):
        (trips / "trips.csv").write_text(original)
        append_lines(trips / "trips.csv", *order)
        ids.append(prepare_dataset(spark, make(dataset__url=str(tmp_path / f"out{number}"))).content_id)
    assert ids[0] == ids[1]


def test_too_many_rejections_are_an_error_with_fraction_limit_and_reasons(spark: SparkSession, make: Make) -> None:
    config = make(clean={"rules": [{"column": "km", "max": 10}], "max_rejected_fraction": 0.1})
    with pytest.raises(DataError, match=r"\d+\.\d+% of the rows are rejected .*km is above 10: \d+.*0\.1"):
        prepare_dataset(spark, config)
    assert not commit_numbers(config.dataset.url)
    assert not Path(config.dataset.url, "_staging").exists()


@pytest.mark.parametrize(
    ("join", "what"),
    [("JOIN cities c USING (city)", "loses"), ("LEFT JOIN trips c ON c.km > 15 AND t.trip < 9", "multiplies")],
)
def test_a_query_that_loses_or_multiplies_rows_is_refused(
    spark: SparkSession, make: Make, join: str, what: str
) -> None:
    source = make().source.model_dump(by_alias=True)
    source["query"] = f"SELECT t.*, 1.5 AS people FROM trips t {join}"
    with pytest.raises(DataError, match=f"query {what} rows of trips"):
        prepare_dataset(spark, make(source=source))


def test_a_query_that_swaps_one_row_for_another_is_refused(spark: SparkSession, make: Make) -> None:
    source = make().source.model_dump(by_alias=True)
    source["query"] = """SELECT t.*, 1.5 AS people FROM trips t WHERE trip <> 3
                         UNION ALL SELECT t.*, 1.5 FROM trips t WHERE trip = 4"""
    with pytest.raises(DataError, match="loses some ids"):
        prepare_dataset(spark, make(source=source))


def test_all_missing_columns_are_named_with_those_that_there_are(spark: SparkSession, make: Make) -> None:
    features = {"kmm": {"type": "numeric"}, "wings": {"type": "categorical"}}
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, make(features=features, dataset__keep=["town"]))
    text = str(caught.value)
    assert len(caught.value.offences) == 3
    for name in ("kmm", "wings", "town", "did you mean km?", "people"):
        assert name in text


def test_a_class_absent_from_a_split_is_an_error_with_the_counts(spark: SparkSession, make: Make) -> None:
    source = make().source.model_dump(by_alias=True)
    source["query"] = source["query"].replace("t.*", "t.trip, t.day, t.km, t.city, t.start, true AS late")
    with pytest.raises(DataError, match=r"no row of class 0.*train \{'1': \d+\}"):
        prepare_dataset(spark, make(source=source))


def test_missing_inputs_are_all_named(make: Make, trips: Path) -> None:
    for name in ("trips", "cities"):
        (trips / f"{name}.csv").unlink()
    with pytest.raises(InputMissingError) as caught:
        published(make())
    assert len(caught.value.offences) == 2


def test_a_wrong_schema_text_and_a_wrong_query_are_typed_errors(spark: SparkSession, make: Make) -> None:
    source = make().source.model_dump(by_alias=True)
    source["inputs"]["trips"]["schema"] = "trip INTEGERR"
    with pytest.raises(ConfigError, match=r"source\.inputs\.trips\.schema"):
        prepare_dataset(spark, make(source=source))
    source = make().source.model_dump(by_alias=True)
    source["query"] = "SELECT nothing FROM trips"
    with pytest.raises(DataError, match=r"source\.query is not valid.*nothing"):
        prepare_dataset(spark, make(source=source))


def test_a_dataframe_from_code(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    frame = spark.createDataFrame(pd.DataFrame(rows_of_trips())[["trip", "day", "city", "late"]])
    config = make(source={"id": "trip"}, features={"city": {"type": "categorical"}})
    dataset = prepare_dataset(spark, config, frame)
    assert dataset.manifest.accounting.published == ROWS


def test_an_input_that_changes_meanwhile_is_not_published(
    spark: SparkSession, make: Make, trips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_and_touch(*arguments: Any) -> Any:
        append_lines(trips / "cities.csv", "Paris,2.1")
        return learn(*arguments)

    learn = module.learn
    monkeypatch.setattr(module, "learn", learn_and_touch)
    with pytest.raises(InterruptedRunError, match=r"cities\.csv changed"):
        prepare_dataset(spark, make())
    assert not commit_numbers(make().dataset.url)


class Killed(BaseException):
    """Stands for SIGKILL: nothing but `finally` clauses could run, and those fail too."""


class DyingStorage:
    """Lets the first writes of the driver pass and fails all later ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
        self.left = writes
        for name in ("move_folder", "write_bytes", "put_if_absent", "remove"):
            monkeypatch.setattr(storage, name, self.dying(getattr(storage, name)))
        monkeypatch.setattr(json_files, "write_bytes", storage.write_bytes)

    def dying(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return operation(*arguments, **keywords)

        return run


def test_killed_at_any_write_readers_see_the_old_version_or_the_new(
    spark: SparkSession, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prepare_dataset(spark, make())
    changed = make(split__salt="new")
    for writes in itertools.chain(range(1, 40, 3), [10**6]):
        with monkeypatch.context() as patch:
            DyingStorage(patch, writes)
            with contextlib.suppress(Killed, PipelineError):
                prepare_dataset(spark, changed)
        storage.remove(storage.join(old.url, "lease.json"))
        visible = Dataset.open(old.url)
        for part in itertools.chain(*visible.manifest.splits.values()):
            assert storage.digest_file(storage.join(old.url, part.path)).sha256 == part.sha256
        if visible.content_id != old.content_id:
            break
    else:
        pytest.fail("no attempt was published")
    assert writes > 9
    finished = prepare_dataset(spark, changed)
    assert set(storage.list_names(storage.join(old.url, "versions"))) == {old.content_id, finished.content_id}
    assert not Path(old.url, "_staging").exists()
