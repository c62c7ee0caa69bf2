"""Part files are ordinary Parquet: stock tools read ids, labels and wide columns, and packed ones as blobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.testing import tiny_dataset

ROWS = 100


@pytest.fixture
def dataset(tmp_path):
    return tiny_dataset(str(tmp_path / "data"), rows={"train": ROWS}, vectors={"v": ("float32", (3,))})


@pytest.fixture
def folder(dataset):
    return Path(dataset.url, "versions", dataset.content_id, "train")


def packed_of(dataset, blobs):
    width = 4 + 3
    return np.frombuffer(b"".join(bytes(blob) for blob in blobs), "<f4").reshape(ROWS, width)


def test_spark_sql_reads_ids_labels_features_and_packed_columns(spark, dataset, folder):
    frame = spark.read.parquet(str(folder))
    assert frame.count() == ROWS
    assert frame.selectExpr("sum(id)").first()[0] == ROWS * (ROWS - 1) // 2
    rows = frame.orderBy("id").select("n0", "_packed_float32", "v").collect()
    packed = packed_of(dataset, [row["_packed_float32"] for row in rows])
    assert np.array_equal(packed[:, 0], np.array([row["n0"] for row in rows], "float32"))
    assert np.array_equal(packed[:, 4:], np.array([row["v"] for row in rows], "float32"))


def test_pandas_reads_the_folder(dataset, folder):
    frame = pd.read_parquet(folder)
    assert frame["id"].tolist() == list(range(ROWS))
    assert np.array_equal(packed_of(dataset, frame["_packed_float32"])[:, 1], frame["n1"].to_numpy())


def test_duckdb_reads_the_folder(folder):
    duckdb = pytest.importorskip("duckdb")
    query = f"select count(*), sum(id), min(octet_length(_packed_float32)) from '{folder}/*.parquet'"
    assert duckdb.sql(query).fetchall()[0] == (ROWS, ROWS * (ROWS - 1) // 2, 28)


def test_stock_petastorm_reads_named_values_without_metadata_of_its_own(folder):
    petastorm = pytest.importorskip("petastorm")
    options = {"num_epochs": 1, "reader_pool_type": "dummy", "schema_fields": ["id", "n0"]}
    with petastorm.make_batch_reader(folder.as_uri(), **options) as reader:
        values = [(id_, value) for batch in reader for id_, value in zip(batch.id, batch.n0, strict=True)]
    assert sorted(id_ for id_, _ in values) == list(range(ROWS))
    frame = pd.read_parquet(folder)
    assert dict(values) == dict(zip(frame["id"], frame["n0"], strict=True))
