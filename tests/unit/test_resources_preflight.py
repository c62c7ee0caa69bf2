"""What is said of executors that cannot carry ranks: everything, once, with the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.errors import ServiceError
from pipeline.launch import probe
from pipeline.launch.preflight import preflight_here
from pipeline.launch.probe import Finding, versions, visible_gpus
from pipeline.launch.verdict import judge, table, tight_memory
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset

EXPECTED = {"python": "3.11.7", "torch": "2.13.0"}


def _finding(
    host: str,
    troubles: tuple[str, ...] = (),
    given: tuple[str, ...] = (),
    gpus: tuple[tuple[str, str], ...] = (),
    free: int = 8000,
    **changed: str,
) -> Finding:
    return Finding(host, {**EXPECTED, **changed}, troubles, given, gpus, free)


def test_equal_executors_are_fine() -> None:
    assert judge([_finding("a"), _finding("b")], EXPECTED) == []


def test_differing_versions_are_named_once_with_all_their_hosts() -> None:
    findings = [_finding("a"), _finding("b", torch="2.3.1"), _finding("c", torch="2.3.1"), _finding("c", torch="2.3.1")]
    assert judge(findings, EXPECTED) == [
        "executor on b, c: torch is 2.3.1; expected 2.13.0 as on the driver; install the same there"
    ]


def test_all_offences_come_at_once() -> None:
    offences = judge([_finding("a", troubles=("cannot reach the driver",), python="3.9.1")], EXPECTED)
    assert len(offences) == 2


def test_two_ranks_on_one_given_gpu_are_refused_and_the_same_address_on_two_hosts_is_fine() -> None:
    assert judge([_finding("a", given=("0",)), _finding("b", given=("0",))], EXPECTED) == []
    [offence] = judge([_finding("a", given=("0",)), _finding("a", given=("0",))], EXPECTED)
    assert offence.startswith("executor on a: GPU 0 is given to 2 ranks; expected one each")


BOTH = (("0", "GPU-x"), ("1", "GPU-y"))


def test_a_gpu_is_one_by_its_uuid_whatever_host_and_number_it_goes_by() -> None:
    containers = [_finding("a", gpus=(("0", "GPU-x"),)), _finding("b", gpus=(("3", "GPU-x"),))]
    [offence] = judge(containers, EXPECTED)
    assert offence.startswith("executor on a, b: GPU GPU-x is given to 2 ranks")
    assert judge(containers, EXPECTED, device="cpu") == []
    assert judge([_finding("a", gpus=BOTH), _finding("a", gpus=BOTH)], EXPECTED) == [], "each takes its own of the two"
    three = judge([_finding("a", gpus=BOTH)] * 3, EXPECTED)
    assert [offence.split(" is ")[0] for offence in three] == ["executor on a: GPU GPU-x"]


def _smi(folder: Path, said: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{said}\n")
    tool.chmod(0o755)


def test_a_rank_sees_the_gpus_that_are_given_else_those_that_the_environment_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(probe, "_torch_has_cuda", lambda: True)
    _smi(tmp_path, "echo '0, GPU-x'; echo '1, GPU-y'")
    assert visible_gpus(()) == BOTH
    assert visible_gpus(("1",)) == BOTH[1:]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-x")
    assert visible_gpus(()) == (("1", "GPU-y"), ("GPU-x", "GPU-x"))
    _smi(tmp_path, "exit 9")
    assert visible_gpus(("1",)) == (("1", ""),)
    monkeypatch.setattr(probe, "_torch_has_cuda", lambda: False)
    assert visible_gpus(("1",)) == ()


def test_a_host_without_memory_for_its_ranks_is_named_with_both_numbers() -> None:
    findings = [_finding("a", free=1900), _finding("a", free=1850), _finding("b", free=1000)]
    [warning] = tight_memory(findings, 950, 1, "spark://host:7077", {})
    assert warning.startswith("host a has 1,850 MiB free, but its 2 ranks need about 1,900 MiB: lower cluster.num_proc")


@pytest.mark.parametrize(
    ("master", "settings", "overhead"),
    [
        ("yarn", {"spark.executor.memoryOverhead": "1g"}, 1024),
        ("yarn", {"spark.executor.memory": "20g"}, 2048),
        ("yarn", {}, 384),
        ("k8s://host", {"spark.executor.memory": "2g"}, 819),
        ("k8s://host", {"spark.executor.memoryOverhead": "900"}, 900),
        ("spark://host:7077", {"spark.executor.memoryOverhead": "1m"}, None),
    ],
)
def test_ranks_that_are_bigger_than_the_overhead_that_is_enforced_are_warned_of(
    master: str, settings: dict[str, str], overhead: int | None
) -> None:
    settings = {**settings, "spark.executor.cores": "4"}
    findings = [_finding("a"), _finding("b")]
    fits, exceeds = (tight_memory(findings, (overhead or 0) // 2 + more, 2, master, settings) for more in (0, 1))
    assert fits == []
    if overhead is not None:
        assert exceeds[0].startswith(
            f"spark.executor.memoryOverhead is {overhead:,} MiB, but the 2 ranks of an executor"
        )


def test_the_table_has_an_aligned_line_per_slot_and_the_drivers_versions() -> None:
    findings = [_finding("a", gpus=BOTH), _finding("host-b", troubles=("x",), given=("7",), free=90, torch="2.3.1")]
    assert table(findings, EXPECTED) == [
        "slot  host    free MiB  GPU               versions, troubles",
        "0     a       8,000     0 (GPU-x)         as on the driver",
        "1     host-b  90        7 (uuid unknown)  torch 2.3.1; x",
        "driver: python 3.11.7, torch 2.13.0",
    ]


def test_versions_of_this_machine_include_the_code_itself() -> None:
    found = versions()
    assert len(found["pipeline code"]) == 12
    assert found["numpy"] != "missing"


def test_where_all_is_one_process_the_dataset_and_the_run_folder_are_still_looked_at(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), 100)
    training = TrainingConfig(run_url=str(tmp_path / "run"))
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training)
    preflight_here(task)
    assert not list((tmp_path / "run").iterdir()), "the marker is gone"
    Path(dataset.url, dataset.manifest.splits["train"][0].path).unlink()
    with pytest.raises(ServiceError, match=r"cannot read .*part-00000\.parquet"):
        preflight_here(task)
