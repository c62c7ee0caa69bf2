"""A version that is read is not collected: a training and an evaluation hold theirs, the dead hold nothing."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import pipeline.export
import pipeline.inference.evaluate
import pipeline.launch
from pipeline import commands, flow, storage
from pipeline.config import PipelineConfig, parse_config, with_sections
from pipeline.dataset import Dataset
from pipeline.dataset.holds import held_versions, hold, run_marks
from pipeline.errors import DataError
from pipeline.stage_values import Run
from pipeline.task import TrainingResult
from tests.small_model import small_dataset, small_model


class ReadToHere(Exception):
    """The reader has come to where it reads."""


class NoSpark:
    """A session that nobody needs here."""

    def __enter__(self) -> Any:
        return lambda: None

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(str(tmp_path_factory.mktemp("data")), 100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> str:
    return small_model(str(tmp_path_factory.mktemp("run") / "model"), dataset, steps=1)


@pytest.fixture
def config(tmp_path: Path, dataset: Dataset) -> PipelineConfig:
    sections = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}}
    return parse_config({**sections, "dataset": {"url": dataset.url}, "training": {"run_url": str(tmp_path / "run")}})


def reading(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, module: Any, reader: str) -> None:
    """Have a reader look who holds the dataset, instead of reading it."""

    def look(*_: Any, **__: Any) -> Any:
        assert held_versions(dataset.url) == {dataset.content_id}
        raise ReadToHere

    monkeypatch.setattr(module, reader, look)


def test_a_training_holds_the_version_that_it_reads_and_no_longer(
    dataset: Dataset, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading(dataset, monkeypatch, pipeline.launch, "launch_training")
    monkeypatch.setattr(flow, "SparkOnDemand", lambda *_: NoSpark())
    with pytest.raises(ReadToHere):
        flow.train(config)
    assert held_versions(dataset.url) == set()
    assert not storage.list_names(storage.join(dataset.url, "_holds"))
    (mark,) = run_marks(dataset.url).values()
    assert (mark.run, mark.content_id) == (config.training.run_url, dataset.content_id), "for as long as its folder"


def test_an_evaluation_holds_the_version_that_it_reads(
    dataset: Dataset, config: PipelineConfig, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = TrainingResult(steps=1, epochs=1, best_epoch=0, best_metrics={}, best_checkpoint="c", rows=1)
    config = with_sections(config, {"training": {"run_url": str(Path(model).parent)}})
    run = Run(config, dataset, result, mlflow_run_id=None)
    reading(dataset, monkeypatch, pipeline.inference.evaluate, "evaluate")
    with pytest.raises(ReadToHere):
        flow.evaluate(run)


def test_an_export_holds_the_version_that_it_reads(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reading(dataset, monkeypatch, pipeline.export, "export_dataset")
    with pytest.raises(ReadToHere):
        commands.export(Namespace(dataset=dataset.url, output="/out", splits=None))
    assert held_versions(dataset.url) == set()


def test_a_killed_reader_holds_nothing(dataset: Dataset) -> None:
    code = f"""import os, signal
from pipeline.dataset import Dataset
from pipeline.dataset.holds import hold
held = hold(Dataset.open({dataset.url!r}))
held.__enter__()
os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(storage.list_names(storage.join(dataset.url, "_holds"))) == 1
    assert held_versions(dataset.url) == set()
    assert not storage.list_names(storage.join(dataset.url, "_holds"))


def test_who_may_not_write_reads_without_a_hold_and_the_readers_own_errors_stay(dataset: Dataset) -> None:
    folder = Path(dataset.url) / "_holds"
    storage.remove(str(folder))
    folder.write_text("in the way")
    with hold(dataset):
        pass
    folder.unlink()
    with pytest.raises(DataError, match="of the reader"), hold(dataset):
        raise DataError("of the reader")
