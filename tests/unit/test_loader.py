from __future__ import annotations

import contextlib
import os
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import storage
from pipeline.errors import StorageError, UsageError
from pipeline.testing import tiny_dataset
from pipeline.training import checks
from pipeline.training.loader import Loader
from pipeline.training.part_files import PartFiles
from tests.stacks import READERS

BATCH = 16


@pytest.fixture(params=READERS)
def reader(request):
    return request.param


@pytest.fixture(autouse=True)
def fresh_process():
    """Files count as never opened before."""
    checks.forget()


def make(folder, rows, **options):
    return tiny_dataset(str(folder), rows={"train": rows}, rows_per_row_group=7, rows_per_file=20, **options)


def loader_of(dataset, **options):
    return Loader(dataset, **{"global_batch_size": BATCH, "window_bytes": 700, "with_ids": True, **options})


def ids_of(batches):
    return [id_ for batch in batches for id_ in batch.ids["id"].tolist()]


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 33, 100])
def test_ranks_together_read_every_row_once_in_equal_steps(tmp_path, rows, reader):
    dataset = make(tmp_path / "data", rows)
    for world_size in range(1, 8):
        loaders = [loader_of(dataset, rank=r, world_size=world_size, reader=reader) for r in range(world_size)]
        per_rank = [list(loader) for loader in loaders]
        assert {len(batches) for batches in per_rank} == {-(-rows // BATCH)}
        assert sorted(ids_of(batch for batches in per_rank for batch in batches)) == list(range(rows))


def test_a_stop_at_every_step_resumes_with_the_batches_that_were_left(tmp_path, reader):
    dataset = make(tmp_path / "data", 100)
    for rank in range(2):
        options = {"rank": rank, "world_size": 2, "reader": reader, "seed": 1}
        whole = [batch.ids["id"].tolist() for batch in loader_of(dataset, **options)]
        for stop in range(len(whole)):
            first = loader_of(dataset, **options)
            seen = [batch.ids["id"].tolist() for _, batch in zip(range(stop), first, strict=False)]
            rest = loader_of(dataset, deals=first.deals, **options)
            assert len(rest) == len(whole) - stop
            assert seen + [batch.ids["id"].tolist() for batch in rest] == whole


def test_after_4_then_3_then_5_ranks_each_row_was_read_once(tmp_path, reader):
    dataset, deals, seen = make(tmp_path / "data", 163), [], []
    for world_size, steps in ((4, 3), (3, 4), (5, 99)):
        options = {"world_size": world_size, "deals": deals, "reader": reader}
        loaders = [loader_of(dataset, rank=rank, **options) for rank in range(world_size)]
        for loader in loaders:
            seen += ids_of(batch for _, batch in zip(range(steps), loader, strict=False))
        deals = [*deals, [world_size, steps]]
    assert sorted(seen) == list(range(163))


def test_both_readers_give_the_numbers_that_lie_in_the_files_bit_for_bit(tmp_path):
    pytest.importorskip("petastorm")
    vectors = {"image": ("uint8", (2, 3)), "v": ("float32", (3,))}
    dataset = make(tmp_path / "data", 90, vectors=vectors)
    parts = dataset.manifest.splits["train"]
    table = pa.concat_tables(pq.read_table(storage.join(dataset.url, part.path)) for part in parts)
    expected = {
        "numeric": np.column_stack([table[f"n{i}"].to_numpy() for i in range(4)]),
        "categorical": np.column_stack([table[f"c{i}"].to_numpy() for i in range(2)]).astype("int64"),
        "image": np.stack(table["image"].to_pylist()).astype("uint8").reshape(-1, 2, 3),
        "v": np.stack(table["v"].to_pylist()).astype("float32"),
    }
    for name in ("petastorm", "pyarrow"):
        batches = list(loader_of(dataset, reader=name))
        rows = np.array(ids_of(batches))
        for key, values in expected.items():
            got = torch.cat([batch.inputs[key] for batch in batches])
            assert got.dtype == torch.from_numpy(values).dtype
            assert torch.equal(got, torch.from_numpy(values[rows])), (name, key)
        assert torch.equal(torch.cat([b.label for b in batches]), torch.from_numpy(table["label"].to_numpy()[rows]))


def test_two_epochs_differ_in_order_two_runs_agree_and_seed_0_works(tmp_path, reader):
    dataset = make(tmp_path / "data", 100)
    first = loader_of(dataset, reader=reader, seed=0)
    epochs = [ids_of(first), ids_of(first)]
    assert epochs[0] != epochs[1]
    again = loader_of(dataset, reader=reader, seed=0)
    assert epochs == [ids_of(again), ids_of(again)]
    assert ids_of(loader_of(dataset, reader=reader, seed=0, epoch=1)) == epochs[1]
    assert ids_of(loader_of(dataset, reader=reader, seed=1)) != epochs[0]


def test_from_memory_the_batches_are_the_same_and_later_epochs_read_nothing(tmp_path, reader):
    dataset = make(tmp_path / "data", 100, vectors={"v": ("float32", (3,))})
    disk, memory = loader_of(dataset, reader=reader), loader_of(dataset, reader=reader, cache_bytes=1 << 20)
    for epoch in range(3):
        read_before = memory.timings.bytes
        for expected, got in zip(disk, memory, strict=True):
            assert expected.ids["id"].tolist() == got.ids["id"].tolist()
            assert torch.equal(expected.inputs["numeric"], got.inputs["numeric"])
            assert torch.equal(expected.inputs["v"], got.inputs["v"])
        assert (memory.timings.bytes == read_before) == (epoch > 0)


def test_a_split_that_does_not_fit_the_cache_is_read_every_epoch(tmp_path, reader):
    loader = loader_of(make(tmp_path / "data", 100), reader=reader, cache_bytes=100)
    list(loader)
    read = loader.timings.bytes
    list(loader)
    assert loader.timings.bytes == 2 * read


def test_without_shuffling_rows_come_in_the_order_of_the_files(tmp_path, reader):
    dataset = make(tmp_path / "data", 100)
    ranks = [loader_of(dataset, shuffle=False, rank=r, world_size=3, reader=reader) for r in range(3)]
    assert [id_ for loader in ranks for id_ in ids_of(loader)] == list(range(100))


def test_the_last_batch_is_kept_dropped_or_padded_with_weight_0(tmp_path, reader):
    dataset = make(tmp_path / "data", 100)
    keep, drop, pad = (list(loader_of(dataset, last_batch=choice, reader=reader)) for choice in ("keep", "drop", "pad"))
    assert [batch.rows for batch in keep] == [16] * 6 + [4]
    assert [batch.rows for batch in drop] == [16] * 6
    assert [batch.rows for batch in pad] == [16] * 7
    assert [float(batch.weight.sum()) for batch in pad] == [16.0] * 6 + [4.0]
    assert torch.equal(pad[-1].inputs["numeric"][:4], keep[-1].inputs["numeric"])
    assert not pad[-1].inputs["categorical"][4:].any()


def test_a_flipped_bit_a_missing_and_a_foreign_file_are_named(tmp_path, reader):
    dataset = make(tmp_path / "data", 60)
    path = Path(dataset.url, dataset.manifest.splits["train"][1].path)
    good = path.read_bytes()

    def expect(message):
        with pytest.raises(StorageError, match=message) as raised:
            list(loader_of(dataset, reader=reader))
        assert str(path) in str(raised.value)
        assert raised.value.code == 74

    for position in (5, len(good) // 2, len(good) - 3):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        expect("corrupt")
    pq.write_table(pa.table({"other": [1, 2]}), path)
    expect("corrupt")
    path.unlink()
    expect("missing")
    path.write_bytes(good)
    assert len(ids_of(loader_of(dataset, reader=reader))) == 60


def test_a_file_that_changes_after_its_check_is_named(tmp_path, reader):
    dataset = make(tmp_path / "data", 60)
    list(loader_of(dataset, reader=reader))
    path = os.path.join(dataset.url, dataset.manifest.splits["train"][1].path)
    pq.write_table(pq.read_table(path).slice(0, 9), path, row_group_size=7)
    with pytest.raises(StorageError) as raised:
        list(loader_of(dataset, reader=reader))
    assert path in str(raised.value)


def test_nothing_is_unpickled_and_no_folder_is_listed(tmp_path):
    pytest.importorskip("petastorm")
    dataset = make(tmp_path / "data", 60)
    folder = os.path.dirname(os.path.join(dataset.url, dataset.manifest.splits["train"][0].path))
    evil = pa.schema([("id", pa.int64())], metadata={"dataset-toolkit.unischema.v1": pickle.dumps(_Evil())})
    pq.write_metadata(evil, os.path.join(folder, "_common_metadata"))
    assert len(ids_of(loader_of(dataset, reader="petastorm"))) == 60
    assert not _Evil.ran


class _Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (_Evil, "ran", True))


def test_users_see_no_warnings_and_prints_of_petastorm(tmp_path, capfd):
    pytest.importorskip("petastorm")
    dataset = make(tmp_path / "data", 60)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"pipeline\.")
        list(loader_of(dataset, reader="petastorm"))
    assert capfd.readouterr() == ("", "")


def test_leaving_in_the_middle_ends_all_threads(tmp_path, reader):
    dataset = make(tmp_path / "data", 200)
    before = set(threading.enumerate())
    for _ in range(20):
        with contextlib.closing(iter(loader_of(dataset, reader=reader, reader_threads=3))) as batches:
            next(batches)
    assert set(threading.enumerate()) <= before


def test_a_file_is_opened_once_an_epoch_and_closed_at_its_end(tmp_path, reader, monkeypatch):
    dataset = make(tmp_path / "data", 150)
    loader = loader_of(dataset, reader=reader, with_ids=False)
    list(loader)
    opened, open_ = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **named: opened.append(str(path)) or open_(path, *rest, **named)
    )
    list(loader)
    assert sorted(opened) == sorted({path for path in opened if path.endswith(".parquet")})
    assert len(opened) == len(dataset.manifest.splits["train"])
    assert not [link for link in open_links() if link.startswith(str(tmp_path))]


def test_files_are_closed_when_no_thread_reads_any_more(tmp_path, reader, monkeypatch):
    before, threads, close = set(threading.enumerate()), [], PartFiles.close
    monkeypatch.setattr(PartFiles, "close", lambda self: (threads.append({*threading.enumerate()}), close(self)))
    with contextlib.closing(iter(loader_of(make(tmp_path / "data", 150), reader=reader))) as batches:
        next(batches)
    assert [during - before for during in threads] == [set()]


def open_links():
    return [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.exists()]


def test_two_iterations_at_once_do_not_disturb_each_other(tmp_path, reader):
    dataset = make(tmp_path / "data", 100)
    loader = loader_of(dataset, reader=reader)
    pairs = [(a.ids["id"].tolist(), b.ids["id"].tolist()) for a, b in zip(loader, loader, strict=True)]
    assert all(a == b for a, b in pairs)


def test_several_reader_threads_give_the_same_batches(tmp_path, reader):
    dataset = make(tmp_path / "data", 150)
    expected = ids_of(loader_of(dataset, reader=reader))
    assert ids_of(loader_of(dataset, reader=reader, reader_threads=4)) == expected


def test_an_unknown_split_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match="train"):
        Loader(make(tmp_path / "data", 10), "dev")


@pytest.mark.parametrize("label_type", ["binary", "multiclass", "regression"])
def test_labels_have_the_dtype_of_their_kind(tmp_path, label_type, reader):
    dataset = make(tmp_path / "data", 30, label_type=label_type)
    batch = next(iter(loader_of(dataset, reader=reader)))
    assert batch.label.dtype == (torch.int64 if label_type == "multiclass" else torch.float32)
    assert batch.label.shape == (16,)
