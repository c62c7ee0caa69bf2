"""`cluster.launcher: in_process` trains without Spark or Java, and leaves the same traces as the other launchers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import flow, launch, tracking
from pipeline.config import PipelineConfig, parse_config
from pipeline.config.release import Bound
from pipeline.errors import GateError, InterruptedRunError, RankFailedError
from pipeline.inference import baselines
from pipeline.status import read_status
from pipeline.task import SilentReporter
from tests.no_spark import NeverAsked
from tests.small_model import small_dataset
from tests.stacks import needs_petastorm


class Untracked(SilentReporter, contextlib.nullcontext["Untracked"]):
    """Instead of a new MLflow database for every test."""

    run_id = None

    def __init__(self, *_: Any) -> None:
        super().__init__(self)

    def parameters(self, *_: Any) -> None: ...


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    """Of a training on a published dataset, on a machine without Spark."""
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    monkeypatch.setattr(baselines, "TREE_ITERATIONS", 3)
    monkeypatch.setattr(tracking, "Tracker", Untracked)
    dataset = small_dataset(str(tmp_path / "data"), 400)
    return parse_config(
        {
            "features": {"amount": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": dataset.url},
            "model": {"name": "linear"},
            "training": {"run_url": str(tmp_path / "run"), "epochs": 2, "global_batch_size": 100},
            "cluster": {"launcher": "in_process"},
        }
    )


class Talking(torch.nn.Module):
    """A model that prints and logs."""

    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(len(schema.numeric), 1)
        print("a model is made")
        logging.getLogger("pipeline.tests").warning("and logged")

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(inputs["numeric"]).squeeze(1)


def status_of(run_url: str) -> dict[str, Any]:
    return dict(read_status(run_url).values)


def test_it_trains_and_evaluates_without_spark_and_keeps_what_its_rank_says(config: PipelineConfig) -> None:
    run = flow.train(config, model=Talking)
    log = (Path(run.url) / "logs" / "rank-0.log").read_text()
    assert "a model is made\n" in log
    assert "WARNING pipeline.tests: and logged\n" in log
    status = status_of(run.url)
    assert (status["stage"], status["state"]) == ("train", "finished")
    [rank] = status["ranks"]
    assert (rank["pid"], rank["step"]) == (os.getpid(), run.result.steps)
    assert {"computing", "waiting", "communication", "saving"} <= set(rank)
    evaluated = flow.evaluate(run)
    after = status_of(run.url)
    assert (after["stage"], after["state"], after["ranks"]) == ("evaluate", "finished", status["ranks"])
    assert evaluated.evaluation.rows == 100


@needs_petastorm
def test_a_program_that_logs_info_hears_nothing_of_petastorm_unless_it_asks(
    config: PipelineConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def heard() -> set[str]:
        return {record.name.partition(".")[0] for record in caplog.records} & {"pipeline", "petastorm"}

    caplog.set_level(logging.INFO)
    flow.train(config)
    assert heard() == {"pipeline"}
    caplog.set_level(logging.INFO, "petastorm")
    flow.train(config, run_url=str(tmp_path / "another"))
    assert heard() == {"pipeline", "petastorm"}


def test_a_failed_gate_is_what_the_status_says(config: PipelineConfig) -> None:
    run = flow.train(config.model_copy(update={"gate": {"accuracy": Bound(min=1.0)}}))
    evaluated = flow.evaluate(run)
    with pytest.raises(GateError):
        flow.register(evaluated)
    status = status_of(run.url)
    assert (status["stage"], status["state"]) == ("gate", "failed")
    assert status["error"].startswith("accuracy")


def test_the_traceback_of_a_rank_that_fails_is_in_its_log(config: PipelineConfig) -> None:
    def fails(progress: Any, metrics: Any) -> None:
        raise LookupError("no such thing")

    with pytest.raises(RankFailedError, match="no such thing"):
        flow.train(config, callback=fails)
    assert "LookupError: no such thing" in (Path(config.training.run_url) / "logs" / "rank-0.log").read_text()
    assert status_of(config.training.run_url)["state"] == "failed"


def test_asked_for_epochs_and_prints_are_shown_and_unasked_only_what_the_model_prints(
    config: PipelineConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    flow.train(config, model=Talking, progress=True)
    shown = capsys.readouterr()
    assert "a model is made" in shown.out
    assert "train: step 8: train loss 0." in shown.err
    assert "epoch 1, step 1, loss 0." in shown.err
    flow.train(config, model=Talking, run_url=f"{config.training.run_url} 2")
    assert "train:" not in capsys.readouterr().err
    assert json.loads((Path(config.training.run_url) / "status.json").read_text())["state"] == "finished"


def test_a_training_whose_folder_another_run_has_taken_over_puts_no_model_there(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = launch.launch_training

    def train_too_long(*arguments: Any, **options: Any) -> Any:
        result = train(*arguments, **options)
        lease = Path(config.training.run_url, "lease.json")
        lease.write_text(json.dumps({**json.loads(lease.read_text()), "owner": "another run"}))
        return result

    monkeypatch.setattr(launch, "launch_training", train_too_long)
    with pytest.raises(InterruptedRunError, match="taken over by another run"):
        flow.train(config)
    assert not Path(config.training.run_url, "model").exists()
