"""Which collective and which reader: what is installed decides, Horovod and Petastorm first, and no promise depends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import stack
from pipeline.config import parse_config
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.inference.predictor import export_model
from pipeline.models import build_model
from pipeline.stack import chosen_by, collective_of, reader_of
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the libraries that seem to be installed."""
    names = {"horovod", "petastorm"}
    monkeypatch.setattr(stack, "find_spec", lambda name: name if name in names else None)
    return names


def test_auto_is_horovod_and_petastorm_where_they_are(installed: set[str]) -> None:
    assert collective_of(ClusterConfig()) == "horovod"
    assert reader_of("auto") == "petastorm"
    installed.clear()
    assert collective_of(ClusterConfig()) == "torch"
    assert reader_of("auto") == "pyarrow"


def test_what_is_named_is_taken(installed: set[str]) -> None:
    assert collective_of(ClusterConfig(collective="torch")) == "torch"
    assert reader_of("pyarrow") == "pyarrow"
    assert collective_of(ClusterConfig(launcher="horovod")) == "horovod"
    assert collective_of(ClusterConfig(launcher="in_process", collective="torch")) == "none"


def test_what_is_named_and_missing_is_refused_with_a_cure(installed: set[str]) -> None:
    installed.clear()
    with pytest.raises(ConfigError, match=r"^cluster.collective is horovod, which is not installed; expected .*auto"):
        collective_of(ClusterConfig(collective="horovod"))
    with pytest.raises(ConfigError, match=r"^cluster.launcher is horovod, which is not installed; expected .*barrier"):
        collective_of(ClusterConfig(launcher="horovod"))
    with pytest.raises(ConfigError, match=r"^dataset.reader is petastorm, which is not installed; expected .*auto"):
        reader_of("petastorm")


def test_horovods_launcher_cannot_start_ranks_of_torch() -> None:
    sections = {"dataset": {"url": "data"}, "training": {"run_url": "run"}}
    with pytest.raises(ConfigError, match="collective is torch with launcher horovod") as caught:
        parse_config({**sections, "cluster": {"launcher": "horovod", "collective": "torch"}})
    assert caught.value.code == 78


def test_the_log_says_how_it_was_chosen() -> None:
    assert chosen_by("auto", "horovod") == "horovod (auto)"
    assert chosen_by("torch", "torch") == "torch"


def test_neither_is_part_of_what_a_training_is() -> None:
    model, training = ModelConfig(name="linear"), TrainingConfig(run_url="run")
    tasks = [TrainingTask("data", "id", model, training, reader=reader) for reader in ("petastorm", "pyarrow")]
    assert tasks[0].identity() == tasks[1].identity()


def test_a_model_folder_says_what_it_was_made_with_and_stays_the_same_model(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"))
    weights = build_model(ModelConfig(name="linear"), dataset.schema).state_dict()
    digests = set()
    for collective in ("horovod", "torch"):
        folder, made_with = tmp_path / collective, {"collective": collective, "reader": "pyarrow"}
        digests.add(export_model(dataset, ModelConfig(name="linear"), weights, str(folder), made_with=made_with))
        assert json.loads((folder / "manifest.json").read_text())["made_with"] == made_with
    assert len(digests) == 1
