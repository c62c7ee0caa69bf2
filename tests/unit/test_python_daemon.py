"""The process that Python workers are forked from: what it may leave out of the import path, and what it may not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.launch import python_daemon


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A zip file of Spark's at the head of the import path."""
    path = tmp_path / "spark" / "pyspark.zip"
    path.parent.mkdir()
    path.write_bytes(b"")
    monkeypatch.setenv("SPARK_HOME", str(path.parent))
    monkeypatch.setattr(sys, "path", [str(path), *sys.path])
    return str(path)


def test_sparks_archives_give_way_to_the_installed_pyspark(archive: str, tmp_path: Path) -> None:
    others = [str(tmp_path / "mine.zip"), str(tmp_path / "spark")]
    sys.path += others
    python_daemon.prefer_installed_pyspark()
    assert archive not in sys.path
    assert set(others) <= set(sys.path), "folders, and archives that are not Spark's, stay"


def test_they_stay_where_pyspark_is_not_installed(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    before = list(sys.path)
    python_daemon.prefer_installed_pyspark()
    assert sys.path == before


def test_what_is_imported_early_prints_nothing_to_stdout_and_may_fail(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("print('hello')\nraise ImportError('no such thing')\n")
    program = (
        "from pipeline.launch import python_daemon\n"
        "python_daemon._IMPORTED = ('noisy', 'json')\n"
        "python_daemon.import_early()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "hello\n")


_FAULTS = """
import resource, sys
import numpy as np
from pipeline.launch import python_daemon
if sys.argv[1] == "kept":
    python_daemon.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 17)
before = faults()
for _ in range(100):
    np.ones(1 << 17) + np.ones(1 << 17)
print(faults() - before)
"""


def test_memory_of_arrays_is_used_again_without_new_pages() -> None:
    given, kept = (
        int(subprocess.check_output([sys.executable, "-c", _FAULTS, how], timeout=60)) for how in ("given", "kept")
    )
    assert kept < 2000 < given
