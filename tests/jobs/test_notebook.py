"""The notebook runs from its first cell to its last, and is committed without outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import SHORT_JOBS
from tests.jobs.conftest import FLIGHTS, REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FLIGHTS / "fetch.py")], check=True)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    environment = {
        "TMPDIR": str(tmp_path),
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait would fight for two cores with Spark's
        "JDK_JAVA_OPTIONS": " ".join(SHORT_JOBS.values()),
    }
    client.execute(env={**os.environ, **environment})
    shown = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") == "stdout"
    )
    for line in ("prepare: cleaning and splitting\n", "train: step 84: train loss 0.", "rank 0: ", "evaluate: "):
        assert line in shown, f"{line!r} is seen below its cell while it happens"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
