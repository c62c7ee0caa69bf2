"""Petastorm's own pool loses all rows in a few of a hundred opens; ours loses none, however threads are scheduled."""

from __future__ import annotations

import sys
import threading

import pytest

from pipeline.testing import tiny_dataset
from pipeline.training.loader import Loader


@pytest.fixture
def load():
    """Threads that fight for the interpreter, switched every few microseconds."""
    stop, interval = threading.Event(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def spin():
        while not stop.is_set():
            sum(range(100))

    threads = [threading.Thread(target=spin) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()


def open_often(tmp_path, times):
    pytest.importorskip("petastorm")
    dataset = tiny_dataset(str(tmp_path / "data"), rows={"train": 80}, rows_per_row_group=10, rows_per_file=80)
    loader = Loader(dataset, global_batch_size=80, reader="petastorm")
    return [sum(batch.rows for batch in loader) for _ in range(times)]


def test_no_row_is_lost_in_many_opens(tmp_path, load):
    assert open_often(tmp_path, 40) == [80] * 40


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_row_is_lost_in_2000_opens(tmp_path, load):
    assert open_often(tmp_path, 2000) == [80] * 2000
