"""Loss, metrics, optimizer and callback that the configuration names work as those given from code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark import cloudpickle

from pipeline import flow, stages
from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.task import TrainingResult, TrainingTask, UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.collective import SoloCollective
from pipeline.training.worker import train
from tests.one_rank import Notes

MODULE = """
import torch

HEARD = []

def loss(predictions, label, weight):
    return (torch.relu(1 - predictions * (2 * label - 1)) * weight).sum()

def metrics(predictions, label, weight):
    return {"margin": (predictions * (2 * label - 1)) @ weight}

def optimizer(parameters, lr=0.1, momentum=0.0):
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum)

def callback(progress, metrics):
    HEARD.append(metrics["validation_margin"])

NOTHING = 3
"""
NAMED = {name: f"own_code:{name}" for name in ("loss", "metrics", "callback")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 200, "validation": 60, "test": 10})


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes the module; it is not imported afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(old: str = "", new: str = "") -> None:
        (tmp_path / "own_code.py").write_text(MODULE.replace(old, new))
        sys.modules.pop("own_code", None)

    write()
    yield write
    sys.modules.pop("own_code", None)


def config_of(dataset: Dataset, **training: Any) -> PipelineConfig:
    return parse_config(
        {
            "features": {"n0": {"type": "numeric"}},
            "label": {"column": "label", "type": "binary"},
            "dataset": {"url": dataset.url},
            "model": {"name": "linear"},
            "training": {"run_url": "run", "epochs": 2, "global_batch_size": 50, **training},
        }
    )


def task_of(dataset: Dataset, run: Path, code: UserCode | None = None, **training: Any) -> TrainingTask:
    config = config_of(dataset, **{"run_url": str(run), **training})
    return TrainingTask(dataset.url, dataset.content_id, config.model, config.training, code or UserCode())


def trained(task: TrainingTask) -> TrainingResult:
    return train(task, SoloCollective(), Notes(), lambda: False)


def test_what_is_named_trains_as_what_is_given(dataset: Dataset, tmp_path: Path, own_code: Any) -> None:
    chosen = {"best_by": "margin", "best_is": "max"}
    factory = {"factory": "own_code:optimizer", "options": {"momentum": 0.5}}
    named = task_of(dataset, tmp_path / "named", optimizer=factory, **NAMED, **chosen)
    check_training(config_of(dataset, optimizer=factory, **NAMED, **chosen), dataset, UserCode())
    result = trained(named)
    own = sys.modules["own_code"]
    assert own.HEARD[-1] in (result.best_metrics["margin"], min(own.HEARD))
    assert len(own.HEARD) == 2
    code = UserCode(
        loss=own.loss,
        metrics=own.metrics,
        optimizer=lambda parameters: own.optimizer(parameters, momentum=0.5),
        callback=own.callback,
    )
    assert trained(task_of(dataset, tmp_path / "given", code, **chosen)).best_metrics == result.best_metrics


def test_only_names_travel_and_changed_source_is_another_training(
    dataset: Dataset, tmp_path: Path, own_code: Any
) -> None:
    first = task_of(dataset, tmp_path, **NAMED)
    assert b"relu" not in cloudpickle.dumps(first)
    assert "own_code" not in sys.modules
    own_code("1 - predictions", "2 - predictions")
    differences = task_of(dataset, tmp_path, **NAMED).differences(first.identity())
    assert [each.key for each in differences] == ["code.loss", "code.metrics", "code.callback"]


def test_a_process_that_has_imported_the_module_before_uses_it_as_it_is_now(
    dataset: Dataset, tmp_path: Path, own_code: Any
) -> None:
    task = task_of(dataset, tmp_path, **NAMED)
    assert task.code().loss(torch.zeros(1), torch.ones(1), torch.ones(1)) == 1  # type: ignore[misc]
    heard = sys.modules["own_code"].HEARD
    assert task.code().callback.__globals__["HEARD"] is heard, "what has not changed is left alone"  # type: ignore[union-attr]
    (tmp_path / "own_code.py").write_text(MODULE.replace("1 - predictions", "2 - predictions"))
    assert task.code().loss(torch.zeros(1), torch.ones(1), torch.ones(1)) == 2  # type: ignore[misc]
    (tmp_path / "own_code.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"training.loss is own_code:loss; expected an importable .*division by zero"):
        task.code()


def test_what_is_given_from_code_wins(dataset: Dataset, tmp_path: Path) -> None:
    def loss(predictions: Any, label: Any, weight: Any) -> Any:
        return ((predictions - label) ** 2) @ weight

    task = task_of(dataset, tmp_path, UserCode(loss=loss), loss="no_such_module:loss")
    assert task.code().loss is loss
    assert "no_such_module" not in task.fingerprints["loss"]
    trained(task)


def test_everything_that_cannot_be_imported_is_named_on_the_driver(dataset: Dataset, own_code: Any) -> None:
    wrong = {"loss": "no_such_module:loss", "metrics": "own_code:no_such", "callback": "own_code:NOTHING"}
    with pytest.raises(ConfigError) as refused:
        check_training(config_of(dataset, **wrong, optimizer={"factory": "own_code:sgd"}), dataset, UserCode())
    assert [offence.split(";")[0] for offence in refused.value.offences] == [
        "training.loss is no_such_module:loss",
        "training.metrics is own_code:no_such",
        "training.callback is own_code:NOTHING, a int",
        "training.optimizer.factory is own_code:sgd",
    ]


def test_what_is_named_is_tried_on_the_driver(dataset: Dataset, own_code: Any) -> None:
    own_code("* weight).sum()", "* weight).mean()")
    check_training(config_of(dataset, metrics=NAMED["metrics"]), dataset, UserCode())
    misspelt = {"factory": "own_code:optimizer", "options": {"momentun": 1}}
    with pytest.raises(ConfigError, match=r"the optimizer from code fails: TypeError: .*momentun"):
        check_training(config_of(dataset, optimizer=misspelt), dataset, UserCode())
    with pytest.raises(ConfigError, match=r"the optimizer from code is a list; expected optimizer\(parameters\)"):
        check_training(config_of(dataset), dataset, UserCode(optimizer=list))
    own_code("* weight).sum()", ").sum()")
    with pytest.raises(ConfigError, match="the loss is not a weighted sum"):
        check_training(config_of(dataset, loss=NAMED["loss"]), dataset, UserCode())


def test_a_factory_brings_its_own_rates_and_an_optimizer_from_code_cannot_be_scaled(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"factory is set beside name SGD, scaling linear; expected options only"):
        config_of(dataset, optimizer={"factory": "own_code:optimizer", "name": "SGD", "scaling": "linear"})
    code = UserCode(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    scaled = {"scaling": "linear", "base_batch_size": 10}
    with pytest.raises(ConfigError, match=r"scaling is linear, but the optimizer from code brings its own"):
        check_training(config_of(dataset, optimizer=scaled), dataset, code)
    with caplog.at_level(logging.INFO, "pipeline.training.build"):
        trained(task_of(dataset, tmp_path / "own", code))
        assert "scaled" not in caplog.text
        trained(task_of(dataset, tmp_path / "scaled", optimizer={**scaled, "learning_rate": 0.01}))
    assert "learning rate 0.05, scaled from 0.01 for the batch size" in caplog.text


def test_a_stage_without_label_may_train_by_a_loss_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"features": {"n0": {"type": "numeric"}}, "dataset": {"url": str(tmp_path)}, "source": {"id": ["id"]}}
    config = parse_config({**values, "training": {"run_url": "run", "loss": "own_code:loss"}})
    monkeypatch.setattr(flow.Dataset, "open", lambda url: pytest.fail("reached"))
    with pytest.raises(pytest.fail.Exception, match="reached"):
        stages.dry_run(config, "train", print)
    with pytest.raises(
        ConfigError, match=r"label is missing, and `run` has no loss .* `pipeline train` takes training\."
    ):
        stages.dry_run(config, "run", print)
