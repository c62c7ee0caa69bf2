"""What the loader holds in memory: two windows, however large the dataset is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.testing import tiny_dataset
from pipeline.training.loader import Loader

MIB = 1 << 20

PROGRAM = """
import resource, sys
from pipeline.dataset import Dataset
from pipeline.training.loader import Loader
dataset = Dataset.open(sys.argv[1])
loader = Loader(dataset, global_batch_size=256, window_bytes=int(sys.argv[2]))
batches = iter(loader)
next(batches)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert 256 + sum(batch.rows for batch in batches) == dataset.manifest.rows("train")
print(loader.memory_bytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """60 MiB of vectors."""
    folder = tmp_path_factory.mktemp("memory")
    vectors = {"v": ("uint8", (4096,))}
    return tiny_dataset(
        str(folder / "data"),
        rows={"train": 15_360},
        numeric=0,
        categorical=0,
        vectors=vectors,
        rows_per_row_group=256,
        rows_per_file=3840,
        wide=False,
    )


@pytest.mark.parametrize("window_bytes", [2 * MIB, 8 * MIB])
def test_an_epoch_needs_no_more_than_was_stated(dataset, window_bytes):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, dataset.url, str(window_bytes)], capture_output=True, text=True, check=True
    )
    stated, grown = map(int, finished.stdout.split())
    assert stated <= 2 * window_bytes
    assert grown < stated + 6 * MIB  # a few batches of 1 MiB, and footers


def test_what_is_stated_is_two_windows_or_all_rows(dataset):
    row_bytes = 4096 + 4
    assert Loader(dataset, window_bytes=MIB).memory_bytes == 2 * 256 * row_bytes
    assert Loader(dataset, cache_bytes=1 << 30).memory_bytes == 15_360 * row_bytes
