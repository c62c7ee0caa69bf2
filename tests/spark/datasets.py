"""What tests of preparation are configured by, and what they read back from a published dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import SPLITS, Dataset


def config_of(folder: Path, **sections: Any) -> PipelineConfig:
    """A configuration that publishes below a folder, a fifth of the rows each for validation and test.

    Args:
        folder: of the dataset, ``out``, and the run.
        **sections: each instead of what there is; ``section__name`` is one value in it. Later ones lie over earlier
            ones, so that a fixture is a `functools.partial` of this function, and a test gives what it is about.
    """
    values: dict[str, Any] = {
        "split": {"validation": 0.2, "test": 0.2},
        "dataset": {"url": str(folder / "out")},
        "training": {"run_url": str(folder / "run")},
    }
    for key, value in sections.items():
        section, _, name = key.partition("__")
        values[section] = {**values.get(section, {}), name: value} if name else value
    return parse_config(values)


def read_split(dataset: Dataset, split: str) -> pd.DataFrame:
    """All rows of a split in order."""
    parts = [storage.join(dataset.url, part.path) for part in dataset.manifest.splits[split]]
    return pd.concat([pq.ParquetFile(path).read().to_pandas() for path in parts], ignore_index=True)


def read_all(dataset: Dataset) -> pd.DataFrame:
    """All rows, with their split as a column."""
    return pd.concat([read_split(dataset, split).assign(split=split) for split in SPLITS], ignore_index=True)
