"""What tests of preparation read back from a published dataset."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import SPLITS, Dataset


def read_split(dataset: Dataset, split: str) -> pd.DataFrame:
    """All rows of a split in order."""
    parts = [storage.join(dataset.url, part.path) for part in dataset.manifest.splits[split]]
    return pd.concat([pq.ParquetFile(path).read().to_pandas() for path in parts], ignore_index=True)


def read_all(dataset: Dataset) -> pd.DataFrame:
    """All rows, with their split as a column."""
    return pd.concat([read_split(dataset, split).assign(split=split) for split in SPLITS], ignore_index=True)
