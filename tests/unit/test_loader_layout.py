"""Layouts of part files: the documented one is copied, all others that hold the same numbers are decoded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import PartFile
from pipeline.errors import StorageError
from pipeline.layout import parquet_options, rows_per_row_group
from pipeline.storage import digest_file
from pipeline.testing import tiny_dataset
from pipeline.training.disk_cache import DiskCache
from pipeline.training.part_files import PartFiles
from pipeline.training.reads import Field, GroupRead, Timings

ROWS, WIDTH = 100, 6
MATRIX = np.arange(ROWS * WIDTH, dtype="<f4").reshape(ROWS, WIDTH)
LABEL = np.arange(ROWS, dtype="float32")


def fixed(matrix=MATRIX):
    size = matrix.shape[1] * matrix.itemsize
    return pa.Array.from_buffers(pa.binary(size), len(matrix), [None, pa.py_buffer(matrix.tobytes())])


def read(folder, packed, label=LABEL, nullable=False, **options):
    path = Path(folder, "part.parquet")
    schema = pa.schema(
        [pa.field("x", packed.type, nullable=nullable), pa.field("label", pa.array(label).type, nullable=nullable)]
    )
    pq.write_table(pa.table([packed, pa.array(label)], schema=schema), path, row_group_size=60, **options)
    digest = digest_file(str(path))
    part = PartFile("part.parquet", digest.bytes, digest.crc32, digest.sha256, (60, 40), "")
    timings = Timings()
    fields = [Field("x", "float32", (WIDTH,)), Field("label", "float32")]
    files = PartFiles(str(folder), fields, (), timings, DiskCache(None, None, timings))
    out = {"x": np.zeros((ROWS, WIDTH), "f4"), "label": np.zeros(ROWS, "f4")}
    for group, (first, rows) in enumerate(((0, 60), (60, 40))):
        target = {name: array[first : first + rows] for name, array in out.items()}
        files.read(GroupRead(part, group, rows, 0, first, first), target)
    return out, timings


def assert_same(out):
    assert np.array_equal(out["x"], MATRIX)
    assert np.array_equal(out["label"], LABEL)


def test_the_documented_layout_is_copied_without_decoding(tmp_path):
    out, timings = read(tmp_path, fixed(), **parquet_options(["x", "label"], ["x", "label"]))
    assert_same(out)
    assert timings.decoding == 0
    assert timings.bytes == MATRIX.nbytes + LABEL.nbytes


def test_columns_side_by_side_are_read_in_one_call_per_row_group(tmp_path, monkeypatch):
    calls, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: calls.append(arguments) or preadv(*arguments))
    out, _ = read(tmp_path, fixed(), **parquet_options(["x", "label"], ["x", "label"]))
    assert_same(out)
    assert len(calls) == 2


def test_many_small_pages_are_copied_too(tmp_path):
    options = parquet_options(["x", "label"], ["x", "label"])
    out, timings = read(tmp_path, fixed(), **{**options, "data_page_size": 64}, write_batch_size=3)
    assert_same(out)
    assert timings.decoding == 0


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"compression": "zstd"},
        {"use_dictionary": True, "compression": "none"},
        {"nullable": True, "compression": "none", "use_dictionary": False},
        {"data_page_version": "2.0", "compression": "none", "use_dictionary": False},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_other_encodings_of_the_same_numbers_are_decoded(tmp_path, options):
    out, timings = read(tmp_path, fixed(), **options)
    assert_same(out)
    assert timings.decoding > 0


def test_blobs_of_variable_length_are_decoded_if_all_have_the_right_one(tmp_path):
    out, _ = read(tmp_path, pa.array([row.tobytes() for row in MATRIX]))
    assert_same(out)
    with pytest.raises(StorageError, match="another length"):
        read(tmp_path, pa.array([row.tobytes()[: 20 if i == 7 else 24] for i, row in enumerate(MATRIX)]))


def test_nulls_other_types_and_other_widths_are_named(tmp_path):
    with pytest.raises(StorageError, match="x has 1 nulls"):
        read(tmp_path, pa.array([None, *(row.tobytes() for row in MATRIX[1:])]), nullable=True)
    with pytest.raises(StorageError, match="label has type double"):
        read(tmp_path, fixed(), label=LABEL.astype("float64"))
    with pytest.raises(StorageError, match="20 bytes"):
        read(tmp_path, fixed(np.ascontiguousarray(MATRIX[:, :5])))


def test_small_data_has_many_row_groups_and_large_data_small_ones_in_bytes():
    assert rows_per_row_group(100, 100) == 512
    assert rows_per_row_group(64 * 2000, 100) == 2000
    assert rows_per_row_group(10**9, 148) == (2 << 20) // 148
    assert rows_per_row_group(10**9, 8) == 65_536
    assert rows_per_row_group(10**9, 100 << 20) == 1


def test_tiny_datasets_have_the_documented_layout(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=100)
    loader = dataset.loader("train", reader="pyarrow")
    list(loader)
    assert loader.timings.decoding == 0
