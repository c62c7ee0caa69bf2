"""What a finished training has left says the same after a command that is refused, or that finds nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import flow, stage_work, stages, tracking
from pipeline.config import PipelineConfig, parse_config, with_sections
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.status import read_status
from tests.no_spark import NeverAsked
from tests.small_model import small_dataset
from tests.unit.test_in_process import Untracked


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    """Of a dataset that is published, in whose run folder nothing is yet."""
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    monkeypatch.setattr(tracking, "Tracker", Untracked)
    dataset = small_dataset(str(tmp_path / "data"), 400)
    monkeypatch.setattr(stage_work, "prepare_stage", lambda *_: (dataset, True))
    (tmp_path / "table.csv").write_text("amount,late\n1,0\n")
    return parse_config(
        {
            "source": {"inputs": {"table": {"path": str(tmp_path / "table.csv")}}, "id": "amount"},
            "features": {"amount": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": dataset.url},
            "model": {"name": "linear"},
            "training": {"run_url": str(tmp_path / "run"), "epochs": 2, "global_batch_size": 100},
            "cluster": {"launcher": "in_process"},
        }
    )


def left(config: PipelineConfig) -> dict[str, bytes]:
    """What anybody reads of a run."""
    folder = Path(config.training.run_url)
    return {name: (folder / name).read_bytes() for name in ("status.json", "result.json", "training.json")}


@pytest.mark.parametrize("last", ["train", "run"])
def test_another_training_is_refused_before_a_stage_begins_and_leaves_all_as_it_is(
    config: PipelineConfig, last: str
) -> None:
    stages.run_stage(config, "train")
    before = left(config)
    with pytest.raises(ConfigError, match=r"holds another training: training\.seed was 0 and is 4"):
        stages.run_stage(with_sections(config, {"training": {"seed": 4}}), last)
    assert left(config) == before


def test_a_program_that_is_refused_leaves_all_as_it_is(config: PipelineConfig) -> None:
    stages.run_stage(config, "train")
    before = left(config)
    with pytest.raises(ConfigError, match=r"training\.seed was 0 and is 4"):
        flow.train(config, seed=4)
    assert left(config) == before


def test_a_run_that_turns_out_to_have_other_rows_leaves_all_as_it_is(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.run_stage(config, "train")
    before = left(config)
    other = small_dataset(str(tmp_path / "other"), 300)

    def prepare_anew(config: PipelineConfig, session: Any, status: Any, quiet: bool) -> tuple[Dataset, bool]:
        status.update(at_once=True, doing="encoding")
        return other, False

    monkeypatch.setattr(stage_work, "prepare_stage", prepare_anew)
    with pytest.raises(ConfigError, match="holds another training: dataset was"):
        stages.run_stage(config, "run")
    assert left(config) == before


def test_a_run_that_fails_before_it_is_known_whose_the_folder_is_leaves_all_as_it_is(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise DataError("no rows")

    stages.run_stage(config, "train")
    before = left(config)
    monkeypatch.setattr(stage_work, "prepare_stage", fail)
    with pytest.raises(DataError):
        stages.run_stage(config, "run")
    assert left(config) == before


def test_trained_already_the_status_still_tells_ranks_steps_and_metrics(config: PipelineConfig) -> None:
    stages.run_stage(config, "train")
    before = dict(read_status(config.training.run_url).values)
    assert stages.run_stage(config, "train")["reused"] == ["train"]
    after = dict(read_status(config.training.run_url).values)
    for name in ("stage", "state", "world_size", "epoch", "step", "steps", "metrics", "ranks"):
        assert after[name] == before[name]
    flow.train(config)
    assert read_status(config.training.run_url).values == after
