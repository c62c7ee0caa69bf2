from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from pipeline import flow, storage
from pipeline.dataset import Dataset
from pipeline.testing import tiny_dataset


def test_a_tiny_dataset_is_published_and_opens_like_any_other(tmp_path):
    made = tiny_dataset(str(tmp_path / "data"), rows=300, vectors={"image": ("uint8", (2, 3))})
    opened = Dataset.open(str(tmp_path / "data"))
    assert opened.manifest == made.manifest
    assert opened.manifest.rows("train") == 300
    assert [part.row_groups for part in opened.manifest.splits["train"]] == [(64, 64, 64, 64), (44,)]


def test_its_packed_columns_hold_the_bytes_of_its_wide_columns(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=100, vectors={"v": ("float32", (3,))})
    part = dataset.manifest.splits["train"][0]
    table = pq.read_table(storage.join(dataset.url, part.path))
    packed = np.frombuffer(b"".join(table["_packed_float32"].to_pylist()), "<f4").reshape(100, 7)
    assert np.array_equal(packed[:, 0], table["n0"].to_numpy())
    assert np.array_equal(packed[:, 4:], np.stack(table["v"].to_pylist()))


def test_the_same_arguments_give_the_same_content_id(tmp_path):
    ids = {tiny_dataset(str(tmp_path / name), rows=50, seed=3).content_id for name in ("a", "b")}
    assert len(ids) == 1
    assert tiny_dataset(str(tmp_path / "c"), rows=50, seed=4).content_id not in ids


def test_a_training_begins_with_it_as_with_a_prepared_one(tmp_path):
    vectors = {"image": ("uint8", (2, 3))}
    kinds = [
        {"label_type": "binary", "labels": ("late", "lost"), "vectors": vectors},
        {"label_type": "multiclass", "weight": "seats"},
        {"label_type": "regression"},
    ]
    for number, kind in enumerate(kinds):
        data = tiny_dataset(str(tmp_path / f"data-{number}"), rows=40, **kind)
        cluster, run_url = {"launcher": "in_process"}, str(tmp_path / f"run-{number}")
        run = flow.train(data, epochs=1, global_batch_size=20, run_url=run_url, cluster=cluster, progress=False)
        assert run.result.steps == 2
