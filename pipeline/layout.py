"""ANYWHERE. How rows lie in part files: what writers follow so that readers are fast. Chosen by `benchmarks/loader.py`.

* Packed columns are Parquet FIXED_LEN_BYTE_ARRAY (``pyarrow.binary(row_bytes)``), the label and weight plain numbers;
  all of them required (``nullable=False``), uncompressed, without dictionary, one data page per row group. Such a
  column lies in the file as its matrix lies in memory, so reading is copying: two to nine times the bytes
  per second of a scan by pyarrow 14, on three shapes of rows. Uncompressed, because decoding zstd or snappy costs more
  than reading the bytes from a local disk or page cache (0.3 to 0.7 GB/s against more than 5), and
  random-looking features hardly shrink; a column that is compressed all the same is read through pyarrow's decoder.
* Row groups of about 2 MiB of packed bytes: two windows of two of them fit the share that a core has of a server's
  cache, where gathering shuffled rows is up to four times as fast as in main memory; with smaller ones the time goes
  into opening them.
* Files of 256 MiB, for HDFS and object stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

GROUP_BYTES = 2 << 20
FILE_BYTES = 256 << 20

_MOST_GROUP_ROWS = 1 << 16
_FEWEST_GROUP_ROWS = 512
_WANTED_GROUPS = 64
_PAGE_BYTES = 1 << 30
"""Beyond any row group, so that a column of a row group is one page."""


def rows_per_row_group(rows: int, row_bytes: int) -> int:
    """Rows of every row group but the last of a file.

    Small data gives at least 64 row groups, or else row groups of 512 rows, so that there is something to permute.

    Args:
        rows: of the largest split.
        row_bytes: bytes of a row's packed columns and label.
    """
    by_bytes = GROUP_BYTES // max(1, row_bytes)
    by_count = max(_FEWEST_GROUP_ROWS, rows // _WANTED_GROUPS)
    return max(1, min(by_bytes, by_count, _MOST_GROUP_ROWS))


def parquet_options(columns: Iterable[str], packed: Iterable[str], texts: Iterable[str] = ()) -> dict[str, Any]:
    """Keywords of ``pyarrow.parquet.ParquetWriter`` for a part file.

    Args:
        columns: all column names.
        packed: names of the columns that the loader reads: packed columns, label, weight.
        texts: names of the columns that are worth a dictionary.
    """
    plain = set(packed)
    others = [name for name in columns if name not in plain]
    return {
        "compression": {**dict.fromkeys(others, "snappy"), **dict.fromkeys(plain, "none")},
        "use_dictionary": [name for name in texts if name not in plain] or False,
        "write_statistics": others or False,
        "data_page_size": _PAGE_BYTES,
    }
