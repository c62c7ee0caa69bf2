"""The tensors of two epochs are the same, bit for bit, on every stack: any reader, any pyarrow, any numpy.

The digest was recorded through Petastorm with pyarrow 14.0.2 and numpy 1.26.4. Rows come from whole numbers alone, so
that no library's rounding or random numbers are part of them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.dataset import Accounting, Manifest, PartFile
from pipeline.layout import parquet_options
from pipeline.testing import encoded_table, publish, tiny_schema
from pipeline.training.loader import Loader
from tests.stacks import READERS

ROWS, FILES, ROWS_PER_GROUP = 1000, 3, 60
RECORDED = "7791b858ebd64e96eb0c8c28ffafb856a4c9976a5a59ecf72874845e1a81b751"
LAYOUTS = {
    "as documented": {},
    "compressed": {"compression": "zstd"},
    "pages of version 2": {"data_page_version": "2.0"},
}


def values(schema):
    """Exact in every dtype."""
    row = np.arange(ROWS)
    arrays = {"id": row, "label": (row % 2).astype("float32")}
    for place, column in enumerate(schema.columns[2:]):
        if column.role == "vector":
            arrays[column.name] = ((row[:, None] * 7 + np.arange(column.width)) % 251).astype(column.dtype)
        elif column.role == "numeric":
            arrays[column.name] = (((row * 37 + place * 11) % 1001 - 500) / 8).astype("float32")
        else:
            arrays[column.name] = ((row * 5 + place) % 8).astype("int32")
    return arrays


@pytest.fixture(params=LAYOUTS)
def dataset(request, tmp_path):
    """Published under a fixed content id, which is a part of the order's seed."""
    folder = str(tmp_path / "data")
    schema = tiny_schema(3, 2, {"image": ("uint8", (2, 3)), "v": ("float32", (5,))}, "binary", ())
    table = encoded_table(schema, values(schema))
    read = ["label", *(packed.name for packed in schema.packed)]
    options = {**parquet_options(table.column_names, read), **LAYOUTS[request.param]}
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(ROWS), FILES)):
        path = f"versions/fixed/train/part-{number:05d}.parquet"
        with storage.open_write(storage.join(folder, path)) as stream:
            pq.write_table(table.slice(rows[0], len(rows)), stream, row_group_size=ROWS_PER_GROUP, **options)
        groups = tuple(min(ROWS_PER_GROUP, len(rows) - first) for first in range(0, len(rows), ROWS_PER_GROUP))
        digest = stream.digest
        parts.append(PartFile(path, digest.bytes, digest.crc32, digest.sha256, groups, str(number)))
    accounting = Accounting(ROWS, ROWS, 0, 0)
    return publish(folder, Manifest("fixed", schema, {"train": tuple(parts)}, {}, {}, accounting, {}, "", {}, {}, {}))


def digest_of(batches):
    digest = hashlib.sha256()
    for batch in batches:
        tensors = {**{name: tensor.numpy() for name, tensor in batch.inputs.items()}, "label": batch.label.numpy()}
        for name, array in sorted({**tensors, **batch.ids}.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("reader", READERS)
def test_the_tensors_are_those_that_were_recorded(dataset, reader):
    loader = Loader(dataset, global_batch_size=64, window_bytes=9000, seed=3, with_ids=True, reader=reader)
    assert digest_of([*loader, *loader]) == RECORDED
