from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.errors import OutputError, StorageError
from pipeline.export import export_dataset
from pipeline.testing import tiny_dataset

VECTORS = {"image": ("uint8", (2, 3)), "v": ("float32", (3,))}


def test_the_wide_table_is_the_same_whether_it_was_published_or_unpacked(tmp_path):
    tables = []
    for wide in (True, False):
        dataset = tiny_dataset(str(tmp_path / f"data-{wide}"), rows=300, vectors=VECTORS, wide=wide)
        rows = export_dataset(dataset, str(tmp_path / f"out-{wide}"))
        assert rows == {"train": 300, "validation": 75, "test": 75}
        tables.append(pq.read_table(tmp_path / f"out-{wide}" / "train"))
    assert tables[0].equals(tables[1])
    assert tables[0].column_names == [column.name for column in dataset.schema.columns]


def test_pandas_reads_it(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=30, wide=False)
    export_dataset(dataset, str(tmp_path / "out"), ["test"])
    frame = pd.read_parquet(tmp_path / "out" / "test")
    assert list(frame.columns) == ["id", "label", "n0", "n1", "n2", "n3", "c0", "c1"]
    assert frame["id"].tolist() == list(range(7))
    assert not (tmp_path / "out" / "train").exists()


def test_an_output_that_exists_and_a_corrupt_file_are_refused(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=30)
    export_dataset(dataset, str(tmp_path / "out"))
    with pytest.raises(OutputError, match="not empty"):
        export_dataset(dataset, str(tmp_path / "out"))
    path = Path(dataset.url, dataset.manifest.splits["train"][0].path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match="corrupt"):
        export_dataset(dataset, str(tmp_path / "other"))
