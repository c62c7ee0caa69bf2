"""A dry run of a stage leaves no file, wherever Spark wanted to put its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline.launch.session as session_module
import pipeline.preparation.preview as preview_module
from pipeline import stages
from pipeline.config import parse_config
from pipeline.config.training import ClusterConfig
from pipeline.errors import InputMissingError
from tests.small_model import small_dataset


@contextlib.contextmanager
def session_with_log(cluster: ClusterConfig, workspace: str, *, brief: bool = False) -> Iterator[Any]:
    """Leaves what a session of our own leaves."""
    Path(workspace).mkdir(parents=True, exist_ok=True)
    Path(workspace, "spark.log").write_text("said")
    yield SimpleNamespace(version="3.5.9", sparkContext=SimpleNamespace(master=cluster.master))


@pytest.mark.parametrize("stage", ["prepare", "run", "train", "evaluate"])
def test_a_dry_run_leaves_no_file(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "spark_session", session_with_log)
    monkeypatch.setattr(preview_module, "preview", lambda *_: {"columns": {"x": "int"}})
    (tmp_path / "in.csv").write_text("x,y\n1,0\n")
    if stage in ("train", "evaluate"):
        small_dataset(str(tmp_path / "work" / "data"), 50)
    config = parse_config(
        {
            "source": {"inputs": {"table": {"path": "in.csv"}}},
            "features": {"x": {"type": "numeric"}},
            "label": {"column": "y"},
            "dataset": {"url": "work/data"},
            "training": {"run_url": "work/runs/one"},
            "tracking": {"registered_model": "one"},
        },
        str(tmp_path),
    )
    before = sorted(tmp_path.rglob("*"))
    shown: list[str] = []
    assert stages.dry_run(config, stage, shown.append)["status"] == "dry run"
    assert ("prepare: columns" in "\n".join(shown)) == (stage in ("prepare", "run"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_from_a_registered_model_makes_no_mlflow_store(tmp_path: Path) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    config = parse_config(
        {
            "features": {"x": {"type": "numeric"}},
            "label": {"column": "y"},
            "dataset": {"url": dataset.url},
            "training": {"run_url": "runs/one", "init_from": "models:/one@champion"},
        },
        str(tmp_path),
    )
    with pytest.raises(InputMissingError, match=r"one@champion is not registered: .*mlflow\.db is missing"):
        stages.dry_run(config, "train", print)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
