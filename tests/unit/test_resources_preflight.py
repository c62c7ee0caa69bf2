"""What is said of executors that cannot carry ranks: everything, once, with the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.errors import ServiceError
from pipeline.launch.preflight import judge, preflight_here, table
from pipeline.launch.probe import Finding, versions
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset

EXPECTED = {"python": "3.11.7", "torch": "2.13.0"}


def _finding(host: str, troubles: tuple[str, ...] = (), gpus: tuple[str, ...] = (), **changed: str) -> Finding:
    return Finding(host, {**EXPECTED, **changed}, troubles, gpus)


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


def test_two_ranks_on_one_gpu_are_refused_and_the_same_address_on_two_hosts_is_fine() -> None:
    assert judge([_finding("a", gpus=("0",)), _finding("b", gpus=("0",))], EXPECTED) == []
    [offence] = judge([_finding("a", gpus=("0",)), _finding("a", gpus=("0",))], EXPECTED)
    assert offence.startswith("executor on a: GPU 0 is given to 2 ranks")


def test_the_table_has_a_line_per_rank() -> None:
    assert table([_finding("a", gpus=("1",)), _finding("b", troubles=("x",))]) == [
        "0: a, GPU 1: python 3.11.7, torch 2.13.0",
        "1: b: x",
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
