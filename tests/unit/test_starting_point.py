"""`training.init_from`: found and tried on the driver before Spark starts, and the same once training has begun."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import flow, storage
from pipeline.config import PipelineConfig, parse_config
from pipeline.config.release import TrackingConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, InputMissingError, InterruptedRunError
from pipeline.run_folder import RunFolder
from pipeline.starting_point import with_starting_point
from pipeline.task import SilentReporter, TrainingResult, TrainingTask
from pipeline.training.checkpoint import read_weights, step_url
from pipeline.training.collective import SoloCollective
from pipeline.training.worker import train
from tests.no_spark import NeverAsked
from tests.small_model import small_dataset, small_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(str(tmp_path_factory.mktemp("data")), 400)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> str:
    """The folder of a finished run, with its model."""
    run = str(tmp_path_factory.mktemp("earlier"))
    small_model(f"{run}/model", dataset, steps=5)
    return run


Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def build(init_from: str | None, **training: Any) -> PipelineConfig:
        run = {"run_url": str(tmp_path / "runs" / "new"), "epochs": 2, "global_batch_size": 100, "init_from": init_from}
        return parse_config(
            {
                "features": {"amount": {"type": "numeric"}},
                "label": {"column": "late"},
                "dataset": {"url": dataset.url},
                "model": {"name": "tabular", "options": {"hidden": [16], "dropout": 0.0}},
                "training": {**run, **training},
            }
        )

    return build


def started(config: PipelineConfig) -> str | None:
    return with_starting_point(config).training.init_from


def _train(config: PipelineConfig, dataset: Dataset, stop: Any = lambda: False) -> TrainingResult:
    task = TrainingTask(dataset.url, dataset.content_id, config.model, config.training)
    return train(task, SoloCollective(), SilentReporter(), stop)


def test_a_model_folder_and_the_run_that_holds_it_are_the_same_start(make: Make, model: str) -> None:
    assert started(make(f"{model}/model")) == started(make(model)) == f"{model}/model"


def test_of_an_unfinished_run_the_newest_checkpoint_is_the_start(
    make: Make, model: str, dataset: Dataset, tmp_path: Path
) -> None:
    run = str(tmp_path / "unfinished")
    _train(make(f"{model}/model", run_url=run), dataset)
    assert started(make(run)) == step_url(run, 8)
    assert started(make(step_url(run, 4))) == step_url(run, 4)


def test_a_start_that_is_not_there_is_refused_before_spark_starts(
    make: Make, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    with pytest.raises(InputMissingError, match=r"init_from is .*nowhere, where no model is; expected a model folder"):
        flow.train(make(str(tmp_path / "nowhere")))


def test_a_start_of_other_tensors_is_refused_before_spark_starts_and_all_are_named(
    make: Make, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    other = small_model(str(tmp_path / "linear"), dataset, "linear", steps=1)
    with pytest.raises(ConfigError, match="of which no tensor fits") as caught:
        flow.train(make(other))
    wanted = read_weights(_train(make(None), dataset).best_checkpoint)
    for name, tensor in wanted.items():
        assert f"{name} {tuple(tensor.shape)}" in str(caught.value)


@pytest.mark.parametrize("reference", ["models:/flights", "models:/", "models:/flights/1/2"])
def test_a_reference_to_the_registry_names_a_version_or_an_alias(make: Make, reference: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.init_from.* names no registered model; expected models:/<name>@"):
        make(reference)


def test_a_registered_model_is_the_start_whatever_its_alias_means_later(
    make: Make, model: str, dataset: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    from pipeline.tracking import register_model

    tracking, beside = TrackingConfig(registered_model="small"), str(tmp_path / "runs" / "earlier")
    shutil.copytree(model, beside)
    register_model(tracking, beside)
    config = make("models:/small@champion")
    first = with_starting_point(config)
    folder = str(first.training.init_from)
    assert folder.startswith(f"{config.training.run_url}/registered/")
    assert started(make("models:/small/1")) == folder
    RunFolder(config.training.run_url).begin(_task(first, dataset), config)
    second = str(tmp_path / "runs" / "second")
    small_model(f"{second}/model", dataset, steps=6)
    register_model(tracking, second)
    assert started(config) == folder, "the training has begun"
    assert started(make("models:/small@champion", run_url=str(tmp_path / "runs" / "other"))) != folder


def _task(config: PipelineConfig, dataset: Dataset) -> TrainingTask:
    return TrainingTask(dataset.url, dataset.content_id, config.model, config.training)


def test_a_resumed_training_needs_its_start_no_more(make: Make, model: str, dataset: Dataset, tmp_path: Path) -> None:
    whole = _train(make(f"{model}/model", run_url=str(tmp_path / "whole")), dataset)
    start = shutil.copytree(model, tmp_path / "start")
    config, asked = make(str(start)), iter(range(100))
    begun = with_starting_point(config)
    RunFolder(config.training.run_url).begin(_task(begun, dataset), config)
    with pytest.raises(InterruptedRunError):
        _train(begun, dataset, stop=lambda: next(asked) == 5)
    shutil.rmtree(start)
    resumed = _train(with_starting_point(config), dataset)
    ours, theirs = read_weights(resumed.best_checkpoint), read_weights(whole.best_checkpoint)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert storage.list_names(str(start)) == []
