"""Spark settings that ranks cannot live with are refused before anything long begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline.preparation.prepare as prepare_module
from pipeline import flow, stages
from pipeline.config import parse_config
from pipeline.config.training import ClusterConfig
from pipeline.errors import ConfigError
from pipeline.launch.settings import forbidden, refuse_settings
from tests.no_spark import NeverAsked

MASTER = "spark://host:7077"
BAD = {
    "spark.speculation": ("true", "expected false; a second copy of a rank would break training"),
    "spark.dynamicAllocation.enabled": ("true", "expected false; Spark refuses barrier stages with it"),
    "spark.executor.pyspark.memory": ("2g", "expected it unset; it limits the address space"),
    "spark.executorEnv.HOROVOD_AUTOTUNE": ("1", "expected it unset; Horovod 0.28.1 that has tuned itself crashes"),
}


def _config(folder: Path, **cluster: Any) -> Any:
    return parse_config(
        {
            "source": {"inputs": {"table": {"path": str(folder / "t.csv"), "format": "csv"}}, "id": ["id"]},
            "features": {"x": {"type": "numeric"}},
            "label": {"column": "y"},
            "dataset": {"url": str(folder / "dataset")},
            "training": {"run_url": str(folder / "run")},
            "cluster": cluster,
        }
    )


@pytest.mark.parametrize("key", BAD)
def test_each_forbidden_setting_is_refused_with_the_reason_and_its_opposite_is_fine(key: str) -> None:
    value, said = BAD[key]
    (offence,) = forbidden({"spark.app.name": "mine", key: value})
    assert offence.startswith(f"{key} is {value}; {said}")
    assert forbidden({key: "false"}) == forbidden({key: "0"}) == forbidden({}) == []


def test_forbidden_settings_and_too_many_ranks_come_all_at_once() -> None:
    settings = {key: value for key, (value, _) in BAD.items()} | {"spark.cores.max": "3"}
    with pytest.raises(ConfigError) as caught:
        refuse_settings(MASTER, settings, ClusterConfig(num_proc=4))
    assert len(caught.value.offences) == len(BAD) + 1
    assert caught.value.offences[-1] == (
        "cluster.num_proc is 4; expected at most 3, which go into 3 cores (spark.cores.max); lower it or ask for more"
    )
    refuse_settings(MASTER, settings, ClusterConfig(launcher="in_process"))


@pytest.mark.parametrize(
    ("master", "settings", "options", "most"),
    [
        (MASTER, {"spark.cores.max": "7", "spark.executor.cores": "3"}, {}, 6),
        (MASTER, {"spark.cores.max": "7", "spark.task.cpus": "2"}, {}, 3),
        (MASTER, {"spark.cores.max": "7", "spark.executor.cores": "3"}, {"cores_per_rank": "executor"}, 2),
        (MASTER, {"spark.cores.max": "9", "spark.executor.cores": "3"}, {"cores_per_rank": 2}, 3),
        ("yarn", {"spark.executor.instances": "3"}, {}, 3),
        ("yarn", {"spark.executor.instances": "3", "spark.executor.cores": "4"}, {"cores_per_rank": 2}, 6),
        ("k8s://host", {"spark.executor.instances": "3"}, {"cores_per_rank": "executor"}, 3),
    ],
)
def test_more_ranks_than_the_asked_executors_have_room_for_are_refused(
    master: str, settings: dict[str, str], options: dict[str, Any], most: int
) -> None:
    refuse_settings(master, settings, ClusterConfig(num_proc=most, **options))
    with pytest.raises(ConfigError, match=f"num_proc is {most + 1}; expected at most {most}, which go into "):
        refuse_settings(master, settings, ClusterConfig(num_proc=most + 1, **options))


@pytest.mark.parametrize(
    ("master", "settings"),
    [(MASTER, {}), (MASTER, {"spark.executor.instances": "1"}), ("yarn", {}), ("yarn", {"spark.cores.max": "1"})],
)
def test_what_the_settings_do_not_tell_is_left_to_the_cluster(master: str, settings: dict[str, str]) -> None:
    refuse_settings(master, settings, ClusterConfig(num_proc=100))


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"spark\.cores\.max is many; expected a whole number of at least 1"):
        refuse_settings(MASTER, {"spark.cores.max": "many"}, ClusterConfig(num_proc=2))


@pytest.mark.parametrize("stage", ["train", "run"])
@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"spark": {"spark.dynamicAllocation.enabled": "true"}}, "spark.dynamicAllocation.enabled is true"),
        ({"master": "local[2]", "num_proc": 3}, r"num_proc is 3; expected at most 2 .*local\[2\]"),
        ({"master": "local[4]", "num_proc": 3, "spark": {"spark.task.cpus": "2"}}, "num_proc is 3; expected at most 2"),
    ],
)
def test_the_dry_run_refuses_what_the_configuration_tells_before_it_looks_at_data(
    tmp_path: Path, stage: str, cluster: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    with pytest.raises(ConfigError, match=said):
        stages.dry_run(_config(tmp_path, **cluster), stage, print)


class _Session(flow.SparkOnDemand):
    """A session of a cluster on which executors come and go."""

    def __call__(self) -> Any:
        conf = SimpleNamespace(getAll=lambda: [("spark.dynamicAllocation.enabled", "true")])
        return SimpleNamespace(sparkContext=SimpleNamespace(master=MASTER, getConf=lambda: conf))


def test_a_run_that_could_not_train_ends_before_it_prepares_and_prepare_alone_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: Any, **__: Any) -> Any:
        raise LookupError("preparing")

    monkeypatch.setattr(flow, "SparkOnDemand", _Session)
    monkeypatch.setattr(prepare_module, "prepare_dataset", prepare)
    monkeypatch.setattr(prepare_module, "published", lambda config: None)
    with pytest.raises(ConfigError, match=r"spark\.dynamicAllocation\.enabled is true; expected false"):
        stages.run_stage(_config(tmp_path), "run")
    with pytest.raises(LookupError, match="preparing"):
        stages.run_stage(_config(tmp_path), "prepare")
