"""How ranks read is set in the configuration, reaches the loader, and changes nothing of what is computed."""

from __future__ import annotations

import pytest

from pipeline.config.training import LoaderConfig, ModelConfig, TrainingConfig
from pipeline.task import SilentReporter, TrainingTask
from pipeline.testing import tiny_dataset
from pipeline.training import worker
from pipeline.training.collective import SoloCollective
from pipeline.training.loader import Loader, default_window_bytes

MIB = 1 << 20


def task_of(dataset, folder, **loader):
    training = TrainingConfig(run_url=str(folder), epochs=1, global_batch_size=64, loader=LoaderConfig(**loader))
    return TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training)


def test_settings_reach_the_loader_and_the_result_is_the_same(tmp_path, monkeypatch):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=300)
    given = []

    class Noted(Loader):
        def __init__(self, *arguments, **options):
            given.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(worker, "Loader", Noted)
    settings = {"reader_threads": 2, "cache_bytes": MIB, "cache_folder": str(tmp_path / "files")}
    tasks = [task_of(dataset, tmp_path / "plain"), task_of(dataset, tmp_path / "set", **settings)]
    results = [worker.train(task, SoloCollective(), SilentReporter(), lambda: False) for task in tasks]
    assert [options["cache_bytes"] for options in given] == [0, 0, MIB, MIB], "train and validation, twice"
    assert given[-1].items() >= settings.items()
    assert results[0].best_metrics == results[1].best_metrics
    assert tasks[0].identity() == tasks[1].identity()


@pytest.mark.parametrize(
    ("row_bytes", "window"), [(8, 4 * MIB), (788, 8192 * 788), (2052, 8192 * 2052), (1 << 20, 32 * MIB)]
)
def test_wide_rows_get_larger_windows_up_to_a_bound(row_bytes, window):
    assert default_window_bytes(row_bytes) == window
