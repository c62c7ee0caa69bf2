"""A master that does not answer is a service that is down (69), told as soon as Spark has given up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ServiceError
from pipeline.launch import jvm


def test_a_session_that_no_master_has_given_an_id_is_69_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(java: Any, known: Any, shown: Any, output: Any) -> Any:
        output.write(b"All masters are unresponsive! Giving up.\n")
        output.flush()
        return SimpleNamespace(sparkContext=SimpleNamespace(applicationId="spark-application-1795500000000"))

    monkeypatch.setattr(jvm, "_start", start)
    with (
        pytest.raises(ServiceError, match="master spark://host:7077 did not start: no master has answered") as e,
        jvm.own_session({"spark.master": "spark://host:7077"}, {}, tmp_path / "log"),
    ):
        pass
    assert e.value.detail == "All masters are unresponsive! Giving up."
