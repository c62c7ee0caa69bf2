"""Checkpoints: complete or absent, verified, kept in the right number, refused when damaged."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from pipeline.errors import StorageError
from pipeline.storage import Digest
from pipeline.training import checkpoint as checkpoint_module
from pipeline.training import checkpoint_writer as module
from pipeline.training.checkpoint import (
    latest_good,
    open_checkpoint,
    published_steps,
    read_weights,
    step_url,
    sweep,
)
from pipeline.training.checkpoint_writer import CheckpointWriter, Snapshot


def _snapshot(step: int, best_step: int | None = None, **files: torch.Tensor) -> Snapshot:
    return Snapshot(
        step=step,
        files={"model": {"weight": torch.full((3,), float(step))}, **{n: {"weight": t} for n, t in files.items()}},
        state={"progress": {"step": step}},
        own={"random.torch": torch.arange(4)},
        own_state={"random": [step]},
        best_step=best_step,
    )


def _save(run: Path, *snapshots: Snapshot, keep: int = 2) -> None:
    with CheckpointWriter(str(run), 0, 1, "attempt", keep) as writer:
        for snapshot in snapshots:
            writer.save(snapshot)
        writer.wait()


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(7))
    checkpoint = latest_good(str(tmp_path))
    assert checkpoint is not None
    assert checkpoint.tensors("model")["weight"].tolist() == [7, 7, 7]
    assert checkpoint.tensors("ema") == {}
    assert checkpoint.state()["progress"] == {"step": 7}
    own, state = checkpoint.own(0)
    assert own["random.torch"].tolist() == [0, 1, 2, 3]
    assert state == {"random": [7]}


def test_the_average_is_what_one_infers_with(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(7, ema=torch.zeros(3)))
    assert read_weights(step_url(str(tmp_path), 7))["weight"].tolist() == [0, 0, 0]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, *(_snapshot(step, best_step=2) for step in range(1, 7)), keep=3)
    assert published_steps(str(tmp_path)) == [2, 4, 5, 6]


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(3), _snapshot(3, ema=torch.ones(3)))
    assert read_weights(step_url(str(tmp_path), 3))["weight"].tolist() == [1, 1, 1]
    assert os.listdir(tmp_path / "checkpoints") == ["step-3"]


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "state.json", "rank-0.json", "rank-0.safetensors", "manifest.json"],
)
def test_a_flipped_bit_anywhere_leads_back_to_the_one_before(tmp_path: Path, name: str) -> None:
    _save(tmp_path, _snapshot(1), _snapshot(2))
    path = tmp_path / "checkpoints" / "step-2" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    told: list[str] = []
    checkpoint = latest_good(str(tmp_path), told.append)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert "step-2" in told[0]
    assert "going back" in told[0]
    assert published_steps(str(tmp_path)) == [1], "the damaged one does not count among those that are kept"


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_a_file_that_is_missing_or_short_is_noticed(tmp_path: Path, fault: str) -> None:
    _save(tmp_path, _snapshot(1), _snapshot(2))
    path = tmp_path / "checkpoints" / "step-2" / "model.safetensors"
    path.unlink() if fault == "missing" else path.write_bytes(path.read_bytes()[:-1])
    checkpoint = latest_good(str(tmp_path), lambda message: None)
    assert checkpoint is not None
    assert checkpoint.step == 1


def test_when_all_are_damaged_training_never_silently_starts_anew(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(1))
    (tmp_path / "checkpoints" / "step-1" / "manifest.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(StorageError, match=r"no intact checkpoint, only corrupt-step-1; .* remove that folder"):
            latest_good(str(tmp_path), lambda message: None)
    shutil.rmtree(tmp_path / "checkpoints")
    assert latest_good(str(tmp_path)) is None, "on purpose it does"


def test_weights_are_checked_when_they_are_read(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(1))
    path = tmp_path / "checkpoints" / "step-1" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StorageError, match=r"model\.safetensors is corrupt"):
        read_weights(step_url(str(tmp_path), 1))


def test_a_checkpoint_waits_for_the_parts_of_all_ranks(tmp_path: Path) -> None:
    first = CheckpointWriter(str(tmp_path), 0, 2, "attempt", 2)
    second = CheckpointWriter(str(tmp_path), 1, 2, "attempt", 2)
    first.save(_snapshot(5))
    threading.Event().wait(0.2)
    assert published_steps(str(tmp_path)) == []
    second.save(_snapshot(5))
    second.wait()
    first.wait()
    assert open_checkpoint(step_url(str(tmp_path), 5)).world_size == 2


def test_a_failed_training_does_not_wait_for_parts_that_never_come(tmp_path: Path) -> None:
    with CheckpointWriter(str(tmp_path), 0, 2, "attempt", 2) as writer:
        writer.save(_snapshot(5))
    assert published_steps(str(tmp_path)) == []


def test_a_full_disk_keeps_the_last_good_one_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, data: bytes) -> None:
        raise StorageError(f"{url} is not usable: No space left on device; the disk is full")

    writer = CheckpointWriter(str(tmp_path), 0, 1, "attempt", 2)
    writer.save(_snapshot(1))
    writer.wait()
    monkeypatch.setattr(module, "_write", full)
    writer.save(_snapshot(2))
    with pytest.raises(StorageError, match="disk is full"):
        writer.wait()
    assert os.listdir(tmp_path / "checkpoints") == ["step-1"]


def test_an_older_one_goes_only_when_the_new_one_has_been_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, _snapshot(1), _snapshot(2))
    written = module._write

    def damaged_on_its_way(url: str, data: bytes) -> Digest:
        digest = written(url, data)
        if url.endswith("model.safetensors"):
            Path(url).write_bytes(data[:-1] + b"\x01")
        return digest

    monkeypatch.setattr(module, "_write", damaged_on_its_way)
    writer = CheckpointWriter(str(tmp_path), 0, 1, "attempt", 2)
    writer.save(_snapshot(3))
    with pytest.raises(StorageError, match=r"model\.safetensors is corrupt"):
        writer.wait()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-1", "step-2"]


def test_training_goes_on_while_a_checkpoint_is_written_and_waits_only_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, slow_disk = module._write, threading.Event()

    def slowly(url: str, data: bytes) -> Digest:
        assert slow_disk.wait(30)
        return written(url, data)

    monkeypatch.setattr(module, "_write", slowly)
    with CheckpointWriter(str(tmp_path), 0, 1, "attempt", 2) as writer:
        writer.save(_snapshot(1))
        assert published_steps(str(tmp_path)) == []
        assert writer.stalled_seconds < 1
        threading.Timer(0.3, slow_disk.set).start()
        writer.save(_snapshot(2))
        assert published_steps(str(tmp_path)) == [1]
        assert writer.stalled_seconds >= 0.2
        writer.wait()
    assert published_steps(str(tmp_path)) == [1, 2]


def test_what_killed_attempts_left_is_swept(tmp_path: Path) -> None:
    _save(tmp_path, _snapshot(1), _snapshot(2))
    folder = tmp_path / "checkpoints"
    (folder / ".dead-step-3").mkdir()
    (folder / "step-2").rename(folder / ".replaced-step-2")  # killed between two renames
    sweep(str(tmp_path))
    assert sorted(os.listdir(folder)) == ["step-1", "step-2"]


def test_whoever_looks_through_a_checkpoint_on_resuming_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, _snapshot(7))
    monkeypatch.setattr(checkpoint_module, "SIGN_SECONDS", -1.0)
    signs: list[str] = []
    checkpoint = latest_good(str(tmp_path), signs.append)
    assert checkpoint is not None
    assert len(signs) == len(checkpoint.files)


def test_a_training_that_waits_for_a_slow_store_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIGN_SECONDS", 0.01)
    signs, write = threading.Semaphore(0), module._write

    def write_when_two_signs_were_given(url: str, data: bytes) -> Digest:
        assert all(signs.acquire(timeout=20) for _ in range(2))
        monkeypatch.setattr(module, "_write", write)
        return write(url, data)

    monkeypatch.setattr(module, "_write", write_when_two_signs_were_given)
    with CheckpointWriter(str(tmp_path), 0, 1, "attempt", 2, lambda _: signs.release()) as writer:
        writer.save(_snapshot(7))
        writer.wait()
    assert published_steps(str(tmp_path)) == [7]
