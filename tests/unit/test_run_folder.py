"""A run folder belongs to one training: the same one is found again, another one is refused by what differs."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.run_folder import RunFolder
from pipeline.task import TrainingResult, TrainingTask, UserCode

RESULT = TrainingResult(steps=4, epochs=2, best_epoch=1, best_metrics={"loss": 0.5}, best_checkpoint="c", rows=40)


def task_in(folder: Path, model: Any = None, **training: Any) -> TrainingTask:
    settings = TrainingConfig(run_url=str(folder), **training)
    return TrainingTask("data", "abc", ModelConfig(name="tabular"), settings, UserCode(model=model))


def begun(folder: Path, task: TrainingTask) -> RunFolder:
    config = parse_config(
        {"features": {"a": {"type": "numeric"}}, "label": {"column": "y"}, "dataset": {"url": "data"}}, str(folder)
    )
    run_folder = RunFolder(str(folder))
    run_folder.begin(task, config)
    return run_folder


def test_a_finished_training_is_found_again_and_an_unfinished_one_is_not(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    folder = begun(tmp_path, task)
    assert folder.finished(task) is None
    folder.refuse_other_training(task)
    folder.finish(task, RESULT, "run-1")
    assert folder.finished(task) == (RESULT, "run-1")


def test_a_metric_that_is_not_defined_is_one_again_when_the_training_is_found_again(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    folder = begun(tmp_path, task)
    folder.finish(task, replace(RESULT, best_metrics={"roc_auc": math.nan, "loss": 0.5}), None)
    assert "NaN" not in (tmp_path / "training.json").read_text()
    finished = folder.finished(task)
    assert finished is not None
    assert math.isnan(finished[0].best_metrics["roc_auc"])
    assert finished[0].best_metrics["loss"] == 0.5


def test_another_training_is_refused_and_everything_that_differs_is_named(tmp_path: Path) -> None:
    folder = begun(tmp_path, task_in(tmp_path, seed=1))
    other = replace(task_in(tmp_path, seed=2, epochs=3), content_id="def")
    with pytest.raises(ConfigError) as refused:
        folder.refuse_other_training(other)
    for difference in ("training.seed was 1 and is 2", "training.epochs", "dataset was 'abc' and is 'def'"):
        assert difference in str(refused.value)


def test_every_key_that_differs_is_named_wherever_it_is_nested(tmp_path: Path) -> None:
    saved = {**task_in(tmp_path, optimizer={"name": "SGD"}).identity(), "dataset": "old"}
    differences = task_in(tmp_path, optimizer={"name": "Adam"}).differences(saved)
    assert [(each.key, each.saved, each.wanted) for each in differences] == [
        ("training.optimizer.name", "SGD", "Adam"),
        ("dataset", "old", "abc"),
    ]


def test_where_a_run_lies_and_how_often_it_is_saved_makes_no_other_training(tmp_path: Path) -> None:
    folder = begun(tmp_path, task_in(tmp_path))
    folder.refuse_other_training(task_in(tmp_path / "moved", checkpoint={"every_steps": 3}))


def model_of(width: int) -> Any:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(f"class Net:\n    def forward(self, x):\n        return x * {width} in {{'a', 'b', 'c'}}\n", namespace)
    return namespace["Net"]


def test_a_changed_class_of_the_same_name_is_another_training(tmp_path: Path) -> None:
    folder = begun(tmp_path, task_in(tmp_path, model_of(1)))
    folder.refuse_other_training(task_in(tmp_path, model_of(1)))
    with pytest.raises(ConfigError, match=r"code\.model was"):
        folder.refuse_other_training(task_in(tmp_path, model_of(2)))


def test_the_same_class_has_the_same_identity_in_every_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom tests.unit.test_run_folder import *\n"
        "print(task_in(Path('x'), model_of(1)).identity()['code'])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
