"""What an attempt leaves is removed, its own and that of the dead alone; and its removal hides no error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import storage
from pipeline.dataset import Accounting, DatasetSchema
from pipeline.errors import InterruptedRunError, StorageError
from pipeline.lease import Lease
from pipeline.preparation import jobs, publish
from pipeline.preparation.prepare import _staging


def _write(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "part.parquet").write_text("rows")


def test_an_attempt_removes_what_it_staged_and_not_what_its_successor_has(tmp_path: Path) -> None:
    with _staging(str(tmp_path)) as attempt:
        _write(tmp_path / "_staging" / attempt)
        _write(tmp_path / "_staging" / "successor")
    assert [path.name for path in (tmp_path / "_staging").iterdir()] == ["successor"]


def test_the_last_attempt_leaves_nothing(tmp_path: Path) -> None:
    with _staging(str(tmp_path)) as attempt:
        _write(tmp_path / "_staging" / attempt)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_stays_ctrl_c_though_what_was_staged_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(url: str) -> None:
        raise StorageError(f"{url} is not usable: Directory not empty; try again")

    monkeypatch.setattr(jobs, "_TRY_AGAIN_SECONDS", (0.0,))
    monkeypatch.setattr(storage, "remove", fail)
    with pytest.raises(KeyboardInterrupt), _staging(str(tmp_path)):
        raise KeyboardInterrupt
    assert "Directory not empty" in caplog.text


def test_a_folder_that_a_last_task_still_wrote_to_is_removed_when_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, failures = storage.remove, iter([StorageError("not empty")])

    def fail_once(url: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        remove(url)

    monkeypatch.setattr(jobs, "_TRY_AGAIN_SECONDS", (0.0,))
    monkeypatch.setattr(storage, "remove", fail_once)
    _write(tmp_path / "folder")
    jobs.remove_left(str(tmp_path / "folder"))
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_stalled_writer_touches_no_version_that_its_successor_has_published(tmp_path: Path, there: bool) -> None:
    config: Any = SimpleNamespace(dataset=SimpleNamespace(url=str(tmp_path)))
    version = tmp_path / "versions" / "id"
    _write(version)
    with Lease(str(tmp_path)) as lease:
        lease._lost = not there
        with pytest.raises(InterruptedRunError, match="is there meanwhile" if there else "taken over"):
            publish._place(config, lease, "id", None, dict.fromkeys(publish.SPLITS, ()))  # type: ignore[arg-type]
    assert (version / "part.parquet").exists()


def test_a_stalled_writer_overwrites_no_file_and_no_manifest_of_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "staged")
    target = tmp_path / "versions" / "id" / "part.parquet"
    target.parent.mkdir(parents=True)
    target.write_text("of the successor")
    with Lease(str(tmp_path)) as lease:
        with pytest.raises(InterruptedRunError, match="is there meanwhile"):
            publish._move_all([(str(tmp_path / "staged" / "part.parquet"), str(target))], lease)
        assert target.read_text() == "of the successor"

        def publish_meanwhile(*_: Any) -> dict[str, Any]:
            target.with_name("manifest.json").write_text("of the successor")
            return {}

        config: Any = SimpleNamespace(dataset=SimpleNamespace(url=str(tmp_path)))
        new: Any = SimpleNamespace(class_counts={}, statistics={}, request="", inputs={}, base=None, quarantine=None)
        new.accounting, new.schema = Accounting(0, 0, 0, 0), DatasetSchema((), (), None)
        monkeypatch.setattr(publish, "semantic", lambda _: {})
        monkeypatch.setattr(publish, "_place_files", publish_meanwhile)
        monkeypatch.setattr(storage, "exists", lambda _: False)  # it looked before it stalled
        with pytest.raises(InterruptedRunError, match="is there meanwhile"):
            publish._place(config, lease, "id", new, dict.fromkeys(publish.SPLITS, ()))
        assert target.with_name("manifest.json").read_text() == "of the successor"


def test_after_a_file_that_cannot_be_moved_no_further_one_is_begun(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(publish, "_MOVES_AT_ONCE", 1)
    names = [f"{number}.parquet" for number in range(100)]
    for name in names[1:]:
        (tmp_path / name).write_text(name)
    with Lease(str(tmp_path)) as lease, pytest.raises(StorageError, match=r"0\.parquet"):
        publish._move_all([(str(tmp_path / name), str(tmp_path / "to" / name)) for name in names], lease)
    assert (tmp_path / "99.parquet").exists()
