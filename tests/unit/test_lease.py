"""A lease: one writer at a time, and a dead one blocks nobody."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import lease as lease_module
from pipeline import storage
from pipeline.errors import InterruptedRunError, OutputError, StorageError
from pipeline.lease import Lease, held_by_another


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
from pipeline.lease import Lease, held_by_another
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


class _Clock:
    """Time that passes in sleep alone, where ``happens`` happens too."""

    def __init__(self, happens: Callable[[float], object] = lambda now: None) -> None:
        self.now = 0.0
        self._happens = happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._happens(self.now)


def _lease_of(folder: Path, **changed: Any) -> Path:
    """The file of a lease whose holder lived here, but for what is changed; None takes a key away."""
    holder = {**Lease(str(folder))._me, "owner": "other", **changed}
    there = {name: value for name, value in holder.items() if value is not None}
    path = folder / "lease.json"
    storage.write_json(str(path), "lease", 1, {**there, "counter": 1})
    return path


_ELSEWHERE = [
    pytest.param({"pid_namespace": "pid:[1]"}, id="another container"),
    pytest.param({"pid_namespace": None}, id="of an older version"),
    pytest.param({"boot": "another"}, id="another kernel"),
    pytest.param({"host": "another"}, id="another host"),
]


@pytest.mark.parametrize("where", _ELSEWHERE)
def test_a_holder_that_nobody_here_would_see_is_replaced_only_when_it_stands_still(
    where: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lease_of(tmp_path, started="long ago", **where)
    monkeypatch.setattr(lease_module, "time", clock := _Clock())
    with Lease(str(tmp_path), stale_seconds=60):
        assert clock.now >= 60


@pytest.mark.parametrize("where", _ELSEWHERE)
def test_a_holder_that_nobody_here_would_see_stays_while_it_counts(
    where: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _lease_of(tmp_path, started="long ago", **where)

    def renew_late(now: float) -> None:
        if now > 50:
            path.write_text(json.dumps({**json.loads(path.read_text()), "counter": 2}))

    monkeypatch.setattr(lease_module, "time", _Clock(renew_late))
    with pytest.raises(OutputError, match="held by process"):
        Lease(str(tmp_path), stale_seconds=60).__enter__()


def test_where_pids_cannot_be_told_apart_a_dead_holder_is_replaced_when_it_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_boot_id", "_pid_namespace"):
        monkeypatch.setattr(lease_module, name, lambda: "")
    monkeypatch.setattr(lease_module, "_started", lambda pid: "")
    _lease_of(tmp_path)
    monkeypatch.setattr(lease_module, "time", clock := _Clock())
    with Lease(str(tmp_path), stale_seconds=60):
        assert clock.now >= 60


def test_a_lease_is_of_another_unless_this_very_process_wrote_it(tmp_path: Path) -> None:
    assert not held_by_another(str(tmp_path))
    _lease_of(tmp_path)
    assert not held_by_another(str(tmp_path))
    _lease_of(tmp_path, started="long ago")
    assert not held_by_another(str(tmp_path)), "its process is gone"


@pytest.mark.parametrize("where", _ELSEWHERE)
@pytest.mark.parametrize("started", [{}, {"started": "long ago"}])
def test_a_lease_of_a_holder_that_nobody_here_would_see_is_of_another(
    where: dict[str, Any], started: dict[str, str], tmp_path: Path
) -> None:
    _lease_of(tmp_path, **started, **where)
    assert held_by_another(str(tmp_path))


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
