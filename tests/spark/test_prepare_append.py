"""New rows for a published version: old files stay, new rows become further files, every row is there once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline import long_lists, storage
from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS, Dataset, commit_numbers, content_id
from pipeline.errors import ConfigError
from pipeline.preparation.gc import collect_garbage
from pipeline.preparation.prepare import prepare_dataset, published
from tests.spark.datasets import config_of, read_all, read_split

ROWS, MORE = 400, 150


def rows_of_sales(first: int, count: int) -> pd.DataFrame:
    numbers = np.arange(first, first + count)
    return pd.DataFrame(
        {
            "sale": numbers,
            "moment": pd.Timestamp("2024-01-01") + pd.to_timedelta(numbers, unit="h"),
            "price": (numbers * 37 % 101) / 7,
            "shop": [f"shop {number % 5}" for number in numbers],
            "sold": numbers % 3 == 0,
        }
    )


Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "in").mkdir()
    rows_of_sales(0, ROWS).to_parquet(tmp_path / "in" / "first.parquet", coerce_timestamps="us")

    def build(statistics_from: str | None = None, **changes: Any) -> PipelineConfig:
        sections: dict[str, Any] = {
            "source": {
                "inputs": {"sales": {"path": str(tmp_path / "in"), "format": "parquet"}},
                "id": ["sale", "moment"],
            },
            "features": {"price": {"type": "numeric"}, "shop": {"type": "categorical"}},
            "label": {"column": "sold"},
            "dataset__statistics_from": statistics_from,
            "dataset__drift": {"action": "off"},
        }
        return config_of(tmp_path, **{**sections, **changes})

    return build


def add_rows(tmp_path: Path) -> None:
    new = rows_of_sales(ROWS, MORE)
    new.loc[0, "shop"] = "a new shop"
    again = rows_of_sales(10, 3).assign(price=99.0)
    pd.concat([new, again, new.tail(2)]).to_parquet(tmp_path / "in" / "second.parquet", coerce_timestamps="us")


def files_below(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(file): (file.stat().st_mtime_ns, storage.digest_file(str(file)).sha256)
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_new_rows_become_further_files_and_nothing_is_rewritten(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    old = prepare_dataset(spark, make())
    before = files_below(Path(old.url, "versions"))
    split_of_old = read_all(old).set_index("sale")["split"]
    add_rows(tmp_path)
    new = prepare_dataset(spark, make(old.content_id))

    after = files_below(Path(old.url, "versions"))
    assert {path: after[path] for path in before} == before
    table = read_all(new).set_index("sale").sort_index()
    assert table.index.tolist() == list(range(ROWS + MORE))
    assert (table["split"][split_of_old.index] == split_of_old).all()
    for split in SPLITS:
        parts, more = old.manifest.splits[split], new.manifest.splits[split]
        assert more[: len(parts)] == parts
        assert all(new.content_id in part.path for part in more[len(parts) :])

    assert new.manifest.statistics == old.manifest.statistics
    (category,) = table.loc[[ROWS], "shop"]
    assert category == 2, "what the old version did not know is unseen"
    for dataset, rows, unseen in ((old, split_of_old, 0), (new, table["split"][ROWS:], 1)):
        profile = json.loads(Path(dataset.url, "versions", dataset.content_id, "profile.json").read_text())
        train = rows.index[rows == "train"]
        assert profile["coverage"] == {"shop": {"values": len(train), "outside": unseen * (ROWS in train)}}
    rows = new.manifest.accounting
    assert (rows.rows_in, rows.published, rows.duplicates) == (ROWS + MORE + 5, ROWS + MORE, 5)
    assert published(make(old.content_id)).content_id == new.content_id


def test_an_input_of_new_rows_alone_counts_beside_the_old_ones(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    old = prepare_dataset(spark, make())
    add_rows(tmp_path)
    (tmp_path / "in" / "first.parquet").unlink()
    new = prepare_dataset(spark, make(old.content_id))
    rows = new.manifest.accounting
    assert (rows.rows_in, rows.published, rows.duplicates) == (ROWS + MORE + 5, ROWS + MORE, 5)
    assert rows.balanced
    assert sorted(read_all(new)["sale"]) == list(range(ROWS + MORE))


@pytest.mark.parametrize("whole", [True, False], ids=["every row again", "new rows alone"])
def test_what_rules_changed_in_old_files_counts_with_what_they_changed_in_new_ones(
    spark: SparkSession, make: Make, tmp_path: Path, whole: bool
) -> None:
    rules = [{"column": "price", "max": 10, "action": "clip"}, {"column": "price", "min": 0, "action": "null"}]
    old = prepare_dataset(spark, make(clean={"rules": rules}))
    add_rows(tmp_path)
    if not whole:
        (tmp_path / "in" / "first.parquet").unlink()
    new = prepare_dataset(spark, make(old.content_id, clean={"rules": rules}))
    for dataset, count in ((old, ROWS), (new, ROWS + MORE)):
        beyond = int((rows_of_sales(0, count)["price"] > 10).sum())
        assert dataset.manifest.accounting.repaired == {
            "price is above 10: clip": beyond,
            "price is below 0: null": 0,
        }


def test_a_row_that_is_published_stays_so_whatever_new_rules_say(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    old = prepare_dataset(spark, make())
    added = rows_of_sales(ROWS, MORE)
    again = rows_of_sales(10, 3).assign(price=99.0)
    pd.concat([added, again]).to_parquet(tmp_path / "in" / "second.parquet", coerce_timestamps="us")
    clean = {"rules": [{"column": "price", "max": 5}], "max_rejected_fraction": 0.5}
    new = prepare_dataset(spark, make(old.content_id, clean=clean))
    unfit = int((added["price"] > 5).sum())
    assert unfit > 0
    accounting = new.manifest.accounting
    assert (accounting.rejected, accounting.duplicates) == (unfit, len(again))
    assert accounting.published == ROWS + MORE - unfit
    assert accounting.rows_in == ROWS + MORE + len(again)


def test_rows_that_share_an_id_balance_too(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    clean = {"deduplicate": False}
    twice = pd.concat([rows_of_sales(0, ROWS)] * 2)
    twice.to_parquet(tmp_path / "in" / "first.parquet", coerce_timestamps="us")
    old = prepare_dataset(spark, make(clean=clean))
    assert old.manifest.accounting.published == 2 * ROWS
    more = pd.concat([rows_of_sales(ROWS, 10), rows_of_sales(3, 1)])
    more.to_parquet(tmp_path / "in" / "second.parquet", coerce_timestamps="us")
    for _ in ("every row again", "new rows alone"):
        new = prepare_dataset(spark, make(old.content_id, clean=clean))
        rows = new.manifest.accounting
        assert (rows.rows_in, rows.published, rows.duplicates) == (2 * ROWS + 11, 2 * ROWS + 10, 1)
        (tmp_path / "in" / "first.parquet").unlink(missing_ok=True)


def test_a_version_has_the_same_id_where_its_lists_of_files_lie_beside_the_manifest(
    spark: SparkSession, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = {"inside": long_lists.LONGEST, "beside": 0}
    ids: dict[str, list[str]] = {place: [] for place in longest}
    for base in (False, True):
        for place, entries in longest.items():
            monkeypatch.setattr(long_lists, "LONGEST", entries)
            config = make(ids[place][0] if base else None, dataset__url=str(tmp_path / place))
            ids[place].append(prepare_dataset(spark, config).content_id)
        add_rows(tmp_path)
    assert ids["inside"] == ids["beside"]
    versions = [tmp_path / place / "versions" / ids[place][1] / "manifest.json" for place in longest]
    inside, beside = (json.loads(version.read_text()) for version in versions)
    assert {split: set(parts) for split, parts in beside["splits"].items()} == {
        split: {"list", "entries", "sha256"} for split in SPLITS
    }
    assert isinstance(inside["splits"]["train"], list)
    opened = [Dataset.open(str(tmp_path / place)).manifest for place in longest]
    for manifest in opened:
        assert manifest.splits == opened[0].splits
        again = content_id(manifest.schema, manifest.semantic, manifest.statistics, manifest.splits)
        assert again == manifest.content_id


def test_every_reader_sees_all_rows_once(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    make_batch_reader = pytest.importorskip("petastorm").make_batch_reader
    old = prepare_dataset(spark, make())
    add_rows(tmp_path)
    new = Dataset.open(prepare_dataset(spark, make(old.content_id)).url)
    expected = read_split(new, "train")
    loader = new.loader("train", global_batch_size=64)
    assert sum(batch.rows for batch in loader) == len(expected) == new.manifest.rows("train")
    paths = [storage.join(new.url, part.path) for part in new.manifest.splits["train"]]
    assert sorted(row["sale"] for row in spark.read.parquet(*paths).collect()) == sorted(expected["sale"])
    folder = Path(new.url, "versions", new.content_id, "train").as_uri()
    with make_batch_reader(folder, num_epochs=1, reader_pool_type="dummy", shuffle_row_groups=False) as reader:
        stock = [number for batch in reader for number in batch.sale]
    assert sorted(stock) == [number for number in sorted(expected["sale"]) if number >= ROWS]


def test_no_new_row_is_no_new_version(spark: SparkSession, make: Make) -> None:
    old = prepare_dataset(spark, make())
    other = prepare_dataset(spark, make(split__salt="other"))
    again = prepare_dataset(spark, make(old.content_id))
    assert again.content_id == old.content_id == Dataset.open(old.url).content_id
    assert other.content_id != old.content_id
    assert len(commit_numbers(old.url)) == 3


def test_garbage_collection_keeps_versions_whose_files_a_kept_version_refers_to(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    old = prepare_dataset(spark, make())
    other = prepare_dataset(spark, make(split__salt="other"))
    add_rows(tmp_path)
    new = prepare_dataset(spark, make(old.content_id))
    assert collect_garbage(new.url, keep=1).versions == (other.content_id,)
    assert sorted(read_all(Dataset.open(new.url))["sale"]) == list(range(ROWS + MORE))
    for path, digest in new.manifest.extra_files.items():
        assert storage.digest_file(storage.join(new.url, path)) == digest


def test_other_features_and_splits_than_the_old_ones_are_refused(spark: SparkSession, make: Make) -> None:
    old = prepare_dataset(spark, make())
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(
            spark, make(old.content_id, split__salt="other", features__shop={"type": "hashed", "buckets": 5})
        )
    assert [offence.split(" ")[0] for offence in caught.value.offences] == ["features", "split"]
