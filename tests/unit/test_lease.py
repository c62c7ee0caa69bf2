"""A lease: one writer at a time, and a dead one blocks nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import InterruptedRunError, OutputError
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
    with Lease(str(tmp_path), renew_seconds=0.05) as lease:
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
