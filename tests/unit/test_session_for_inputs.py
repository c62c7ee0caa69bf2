"""A Spark session of our own for little data leaves out what takes longer to make than it saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline.launch.session as session_module
from pipeline import flow
from pipeline.config import parse_config
from pipeline.config.training import ClusterConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each session was asked to be: brief or not."""
    found: list[bool] = []

    @contextlib.contextmanager
    def session(cluster: ClusterConfig, workspace: str, *, brief: bool = False) -> Iterator[Any]:
        found.append(brief)
        yield SimpleNamespace(version="3.5.9", sparkContext=SimpleNamespace(master=cluster.master))

    monkeypatch.setattr(session_module, "spark_session", session)
    return found


def _config(folder: Path, **inputs: dict[str, Any]) -> Any:
    return parse_config(
        {
            "source": {"inputs": inputs, "primary": next(iter(inputs)), "query": "SELECT 1", "id": ["id"]},
            "features": {"x": {"type": "numeric"}},
            "label": {"column": "y"},
            "dataset": {"url": str(folder / "dataset")},
            "training": {"run_url": str(folder / "run")},
        }
    )


def _file(path: Path, size: int) -> dict[str, Any]:
    with path.open("wb") as stream:
        stream.truncate(size)
    return {"path": str(path), "format": "csv"}


@pytest.mark.parametrize(("sizes", "is_brief"), [((1000, 1000), True), ((40 << 20, 40 << 20), False)])
def test_all_input_files_together_count(
    asked: list[bool], tmp_path: Path, sizes: tuple[int, int], is_brief: bool
) -> None:
    inputs = {f"table{number}": _file(tmp_path / f"{number}.csv", size) for number, size in enumerate(sizes)}
    with flow.SparkOnDemand(_config(tmp_path, **inputs), for_inputs=True) as session:
        session()
    assert asked == [is_brief]


def test_what_has_no_known_size_is_not_small(asked: list[bool], tmp_path: Path) -> None:
    little = _file(tmp_path / "0.csv", 1000)
    missing = {**little, "path": str(tmp_path / "missing.csv")}
    for other in ({"table": "sales.orders"}, missing):
        with flow.SparkOnDemand(_config(tmp_path, little=little, other=other), for_inputs=True) as session:
            session()
    assert asked == [False, False]


def test_a_session_for_other_work_is_not_brief(asked: list[bool], tmp_path: Path) -> None:
    with flow.SparkOnDemand(_config(tmp_path, table=_file(tmp_path / "0.csv", 1000))) as session:
        session()
    assert asked == [False]
