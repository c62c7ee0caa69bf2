"""What a training will take, told beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.training import ClusterConfig, LoaderConfig, ModelConfig, OptimizerConfig, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.launch.estimate import ResourceReport, promised_facts, resource_report
from pipeline.launch.memory import parameter_bytes, rank_memory, row_bytes
from pipeline.launch.resources import ClusterFacts
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset

MIB = 1 << 20


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_dataset(str(tmp_path_factory.mktemp("dataset")), 1000, numeric=4, categorical=2)


def _training(**options: Any) -> TrainingConfig:
    return TrainingConfig(run_url="run", **options)


def test_memory_follows_model_optimizer_averaging_and_batch() -> None:
    adam = rank_memory(100 * MIB, 100, _training())
    assert adam["weights and gradients"] == 200
    assert adam["optimizer"] == 200
    assert adam["checkpoint being written"] == 300
    shared = rank_memory(100 * MIB, 100, _training(), shared_memory=True)
    assert sum(shared.values()) - sum(adam.values()) == shared["memory shared with other ranks"] == 200
    plain = rank_memory(100 * MIB, 100, _training(optimizer=OptimizerConfig(name="SGD"), ema_decay=0.9))
    assert "optimizer" not in plain
    assert plain["average"] == 100
    assert rank_memory(0, 1 << 20, _training(micro_batch_size=64))["micro-batch"] == 64 * 8


def test_memory_counts_splits_that_stay_in_it_and_doubles_weights_in_float64() -> None:
    cached = _training(loader=LoaderConfig(cache_bytes=100 * MIB))
    both = rank_memory(0, 1024, cached, rows=(60 << 10, 20 << 10))
    assert both["splits kept in memory"] == 80
    assert "windows of rows" not in both
    small_one = rank_memory(0, 1024, cached, rows=(600 << 10, 20 << 10))
    assert small_one["splits kept in memory"] == 20
    assert small_one["windows of rows"] == rank_memory(0, 1024, _training(), rows=(60 << 10,))["windows of rows"]
    single, double = (rank_memory(100 * MIB, 100, _training(precision=p)) for p in ("float32", "float64"))
    for part in ("weights and gradients", "optimizer", "checkpoint being written", "micro-batch"):
        assert double[part] == pytest.approx(2 * single[part], abs=1), part


def test_the_report_counts_the_splits_of_the_dataset_that_the_cache_keeps(dataset: Any) -> None:
    training = _training(loader=LoaderConfig(cache_bytes=1 << 30))
    report = resource_report(dataset, ModelConfig(name="linear"), training, ClusterConfig())
    assert report.memory["splits kept in memory"] == 1


def test_a_loop_without_a_model_has_weights_that_nobody_knows(dataset: Any) -> None:
    assert parameter_bytes(ModelConfig(), dataset.schema, UserCode(loop=print)) == 0
    assert parameter_bytes(ModelConfig(name="linear"), dataset.schema, UserCode()) > 0


@pytest.mark.parametrize(
    ("options", "is_shared"),
    [
        ({"master": "local[2]"}, True),
        ({"master": "local[2]", "shared_memory": False}, False),
        ({"master": "local[2]", "num_proc": 1}, False),
        ({"master": "local[16]"}, False),
        ({"master": "local[2]", "horovod_timeline": True}, False),
        ({"master": "local[2]", "launcher": "in_process"}, False),
        ({"master": "yarn", "num_proc": 2}, False),
    ],
    ids=str,
)
def test_memory_is_shared_where_a_few_ranks_are_sure_to_have_one_host(
    dataset: Any, options: dict[str, Any], is_shared: bool
) -> None:
    report = resource_report(dataset, ModelConfig(name="linear"), _training(), ClusterConfig(**options))
    assert ("memory shared with other ranks" in report.memory) == is_shared


def test_a_row_is_as_wide_as_its_packed_columns_and_its_label(dataset: Any) -> None:
    assert row_bytes(dataset.schema) == 4 * 4 + 2 * 4 + 4


def test_a_local_master_tells_its_slots_and_a_cluster_does_not() -> None:
    assert promised_facts(ClusterConfig(master="local[3]")) == ClusterFacts("local[3]", 3)
    assert promised_facts(ClusterConfig(master="local")) == ClusterFacts("local", 1)
    assert promised_facts(ClusterConfig(master="yarn")) is None


def test_ranks_of_several_cores_are_reported_with_them_and_spark_submit_leaves_other_tasks_small(dataset: Any) -> None:
    def report(**options: Any) -> ResourceReport:
        return resource_report(dataset, ModelConfig(name="linear"), _training(), ClusterConfig(**options))

    assert report(master="local[4]", cores_per_rank=2).lines()[0] == "ranks: 2 ranks, 2 threads each"
    of_four = report(master="yarn", num_proc=3, cores_per_rank=4)
    assert of_four.lines()[0] == "ranks: 3 ranks, 4 threads each"
    assert "--executor-cores 4" in of_four.submit
    assert "spark.executor.instances=3" in of_four.submit
    assert "spark.task.cpus=1" in of_four.submit
    whole = {"master": "yarn", "cores_per_rank": "executor"}
    assert report(**whole, spark={"spark.executor.cores": "8"}).lines()[0] == (
        "ranks: one rank per executor of the cluster, 8 threads each"
    )
    unknown = report(**whole, num_proc=3)
    assert unknown.lines()[0] == "ranks: 3 ranks, with all cores of an executor each"
    assert "--executor-cores CORES" in unknown.submit


def test_the_report_names_ranks_memory_and_a_spark_submit_line_without_dynamic_allocation(dataset: Any) -> None:
    cluster = ClusterConfig(master="local[2]")
    report = resource_report(dataset, ModelConfig(name="tabular"), _training(), cluster)
    text = "\n".join(report.lines())
    assert "ranks: 2 ranks, 1 threads each" in text
    assert "memory of a rank: about" in text
    for option in ("--master MASTER", "memoryOverhead=", "dynamicAllocation.enabled=false", "spark.task.cpus=1"):
        assert option in report.submit


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({"master": "yarn", "num_proc": 3}, ["spark.executor.instances=3", "memoryOverhead="], ["total"]),
        ({"master": "k8s://https://host", "num_proc": 3}, ["spark.executor.instances=3"], ["--total-executor-cores"]),
        (
            {"master": "spark://host:7077", "num_proc": 3, "cores_per_rank": 4},
            ["--executor-cores 4", "--total-executor-cores 12"],
            ["instances", "memoryOverhead"],
        ),
        (
            {"master": "spark://host:7077", "num_proc": 3, "cores_per_rank": "executor"},
            ["--executor-cores CORES", "--total-executor-cores 3*CORES"],
            ["instances"],
        ),
        ({"master": "spark://host:7077"}, ["--executor-cores 1"], ["--total-executor-cores", "instances"]),
        ({"master": "yarn"}, ["spark.executor.instances=N"], ["--total-executor-cores"]),
        ({"master": "local[2]"}, ["spark.executor.instances=2", "--total-executor-cores 2"], []),
    ],
    ids=str,
)
def test_the_number_of_executors_is_said_as_the_kind_of_master_takes_it(
    dataset: Any, options: dict[str, Any], said: list[str], unsaid: list[str]
) -> None:
    line = resource_report(dataset, ModelConfig(name="linear"), _training(), ClusterConfig(**options)).submit
    assert "--num-executors" not in line
    assert [words in line for words in said] == [True] * len(said), line
    assert [words in line for words in unsaid] == [False] * len(unsaid), line


def test_more_ranks_than_local_slots_are_refused_already_here(dataset: Any) -> None:
    with pytest.raises(ConfigError, match="num_proc is 3"):
        resource_report(dataset, ModelConfig(name="linear"), _training(), ClusterConfig(num_proc=3))


def test_oversubscription_and_empty_ranks_are_warned_of(dataset: Any) -> None:
    cluster = ClusterConfig(master="local[512]")
    report = resource_report(dataset, ModelConfig(name="linear"), _training(global_batch_size=8), cluster)
    text = "\n".join(report.warnings)
    assert "promises 512 cores, but this machine has" in text
    assert "gives some of the 512 ranks no row" in text
    assert "MiB are free" in text


def test_a_running_clusters_slots_are_what_warnings_go_by(dataset: Any) -> None:
    facts = ClusterFacts("spark://host:7077", slots=6, local=False)
    cluster = ClusterConfig(master="yarn")
    report = resource_report(dataset, ModelConfig(name="linear"), _training(global_batch_size=4), cluster, facts=facts)
    empty, advice = report.warnings
    assert empty == "global_batch_size 4 gives some of the 6 ranks no row in a step"
    assert "one machine is enough" in advice


def test_small_data_on_a_cluster_gets_the_honest_advice(dataset: Any) -> None:
    cluster = ClusterConfig(master="spark://host:7077", num_proc=8, spark={"spark.task.cpus": "4"})
    report = resource_report(dataset, ModelConfig(name="linear"), _training(), cluster)
    assert report.resources is not None
    assert report.resources.threads == 4
    assert any("one machine is enough" in warning for warning in report.warnings)
    assert "--master spark://host:7077 --executor-cores 4 --total-executor-cores 32" in report.submit
    unknown = resource_report(dataset, ModelConfig(name="linear"), _training(), ClusterConfig(master="yarn"))
    assert "one rank per slot" in unknown.lines()[0]
