"""EXECUTOR. The process that Spark forks its Python workers from, in sessions of our own on one machine.

`pyspark.daemon` with three differences, none of which a task can notice but by its speed:

* What the tasks of preparation import is imported once, before workers are forked, instead of by each of them.
* Spark puts pyspark as archives (two zip files and a jar) before the installed packages. Before each task a worker
  empties Python's import caches (`importlib.invalidate_caches` in pyspark/worker.py), which reads an archive's whole
  table of contents again: a tenth to a fifth of a second a task. Where the very pyspark is installed, it is taken.
* Memory that numpy frees stays with the process. glibc gives arrays of 128 KiB and more pages of their own, and the
  kernel clears each page of each array anew: a fifth of the time of fitting.

Spark runs it as `python -m pipeline.launch.python_daemon` (setting `spark.python.daemon.module`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import sys

_IMPORTED = (
    "pyspark.worker",
    "pyspark.sql.pandas.serializers",
    "pipeline.preparation.stage",
    "pipeline.preparation.fit",
    "pipeline.preparation.write",
)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_ARRAY_BYTES = 32 << 20
"""Larger arrays get pages of their own all the same; the most that glibc takes on 64 bits."""
_KEPT_BYTES = 128 << 20


def prefer_installed_pyspark() -> None:
    """Leave Spark's archives out of the import path where pyspark can be imported without them."""
    before = list(sys.path)
    home = os.path.join(os.environ.get("SPARK_HOME", os.devnull), "")
    sys.path[:] = [path for path in before if not (path.startswith(home) and os.path.isfile(path))]
    if importlib.util.find_spec("pyspark") is None or importlib.util.find_spec("py4j") is None:
        sys.path[:] = before
    for path in set(before) - set(sys.path):
        sys.path_importer_cache.pop(path, None)


def import_early() -> None:
    """Import what tasks will; what they cannot import fails there, where somebody reads it.

    Spark reads from stdout which port the daemon listens on, so nothing else may be written there.
    """
    with contextlib.redirect_stdout(sys.stderr):
        for name in _IMPORTED:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # workers collect garbage after each task; what all share is none


def keep_freed_memory() -> None:
    """Let this process and those forked from it use freed memory again; with another C library nothing changes."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, _ARRAY_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


if __name__ == "__main__":
    keep_freed_memory()
    prefer_installed_pyspark()
    import_early()
    from pyspark.daemon import manager

    manager()  # type: ignore[no-untyped-call]
