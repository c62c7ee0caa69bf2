"""A lease: one writer at a time, and a dead one blocks nobody."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import lease as lease_module
from pipeline import storage
from pipeline.errors import InterruptedRunError, OutputError, StorageError
from pipeline.lease import Lease


def test_the_lease_is_there_while_held_and_gone_afterwards(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as lease:
        assert (tmp_path / "lease.json").exists()
        lease.check()
    assert not (tmp_path / "lease.json").exists()


def test_a_second_living_writer_is_refused_with_73(tmp_path: Path) -> None:
    with Lease(str(tmp_path)), pytest.raises(OutputError, match="held by process") as caught:
        Lease(str(tmp_path)).__enter__()
    assert caught.value.code == 73


def test_a_killed_writer_of_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    code = f"""import os, signal
from pipeline.lease import Lease
Lease({str(tmp_path)!r}).__enter__()
os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "lease.json").exists()
    started = time.monotonic()
    with Lease(str(tmp_path)) as lease:
        lease.check()
    assert time.monotonic() - started < 20


def _pretend_other_host(path: Path, counter: int) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "host": "elsewhere", "owner": "other", "counter": counter}))


def test_a_lease_of_another_host_that_stands_still_is_taken_over(tmp_path: Path) -> None:
    lease = Lease(str(tmp_path))
    (tmp_path / "lease.json").write_bytes(lease._content())
    _pretend_other_host(tmp_path / "lease.json", 5)
    with Lease(str(tmp_path), stale_seconds=0.3) as successor:
        successor.check()


def test_a_holder_that_lost_its_lease_is_fenced(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as lease:
        _pretend_other_host(tmp_path / "lease.json", 9)
        with pytest.raises(InterruptedRunError, match="taken over"):
            lease.check()
    assert (tmp_path / "lease.json").exists(), "the new holder's lease must stay"


def test_a_holder_renews_by_counting(tmp_path: Path) -> None:
    with Lease(str(tmp_path), renew_seconds=0.02):
        deadline = time.monotonic() + 20
        while (renewed := json.loads((tmp_path / "lease.json").read_text())["counter"]) <= 1:
            assert time.monotonic() < deadline, f"renewed {renewed} times"
            time.sleep(0.02)


def _dead_lease(folder: Path) -> bytes:
    """Of a process of this host that is gone."""
    lease = Lease(str(folder))
    lease._me = {**lease._me, "owner": "dead", "started": "long ago"}
    storage.put_if_absent(str(folder / "lease.json"), lease._content())
    return lease._content()


def test_of_two_that_find_the_same_dead_lease_only_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dead_lease(tmp_path)
    late, first = Lease(str(tmp_path)), Lease(str(tmp_path))
    take_away = late._take_away
    with contextlib.ExitStack() as stack:

        def take_away_late(seen: bytes) -> None:
            monkeypatch.setattr(late, "_take_away", take_away)
            stack.enter_context(first)
            take_away(seen)

        monkeypatch.setattr(late, "_take_away", take_away_late)
        with pytest.raises(OutputError, match="held by process"):
            late.__enter__()
        first.check()
        assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_a_lease_that_is_released_before_it_is_looked_at_is_not_taken_from_the_next_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, late, first = (Lease(str(tmp_path)) for _ in range(3))
    before.__enter__()
    there = late._there
    with contextlib.ExitStack() as stack:

        def look_between_two_holders() -> bytes | None:
            monkeypatch.setattr(late, "_there", there)
            before.__exit__(None, None, None)
            found = there()
            stack.enter_context(first)
            return found

        monkeypatch.setattr(late, "_there", look_between_two_holders)
        with pytest.raises(OutputError, match="held by process"):
            late.__enter__()
        first.check()


def test_a_moment_in_which_the_lease_cannot_be_read_is_not_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, broken = storage.read_bytes, threading.Event()
    failed = threading.Semaphore(0)

    def break_down(url: str) -> bytes:
        if broken.is_set():
            failed.release()
            raise StorageError(f"{url} is not usable: timeout; try again")
        return read(url)

    monkeypatch.setattr(lease_module, "_LOOK_AGAIN_SECONDS", ())
    monkeypatch.setattr(storage, "read_bytes", break_down)
    with Lease(str(tmp_path), renew_seconds=0.01) as lease:
        broken.set()
        for _ in range(3):
            assert failed.acquire(timeout=20), "it is no longer renewed"
        with pytest.raises(StorageError, match="timeout"):
            lease.check()
        broken.clear()
        lease.check()
    assert not (tmp_path / "lease.json").exists()


def test_a_lease_that_is_no_lease_is_taken_over_when_it_stands_still(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("{")
    with Lease(str(tmp_path), stale_seconds=0.1) as lease:
        lease.check()
