from __future__ import annotations

from pipeline.bench import bench_loader
from pipeline.testing import tiny_dataset


def test_the_loader_is_measured_beside_a_raw_scan_and_settings_are_suggested(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=500, vectors={"v": ("float32", (3,))})
    report = bench_loader(dataset, batch_size=64)
    values = report.to_json()
    assert values["rows"] == 500
    assert values["bytes"] == 500 * (4 * 4 + 3 * 4 + 2 * 4 + 4)
    assert set(values["measurements"]) == {"raw scan", "window 1 MiB", "window 4 MiB", "window 16 MiB", "memory"}
    assert values["measurements"]["raw scan"]["share_of_raw_scan"] == 1
    assert "fastest window" in report.render()
    assert "waiting" in values["measurements"]["window 4 MiB"]["seconds"]
