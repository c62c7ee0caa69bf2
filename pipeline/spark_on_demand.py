"""DRIVER. A Spark session for those who may not need one: nothing starts before somebody asks."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.load import parse_section
from pipeline.config.training import ClusterConfig
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SMALL_BYTES = 64 << 20
"""Of all input files: measured, half of where optimizing Java code begins to pay (benchmarks/results/prepare.md)."""

logger = logging.getLogger(__name__)


class SparkOnDemand(contextlib.ExitStack):
    """A Spark session that is made when a stage first asks for it, so that a run with nothing to do needs no Java.

    Args:
        config: whose cluster it is on.
        spark: a session that is there already.
        for_inputs: whether it is for what the configuration names as inputs and what comes of them.
        workspace: where Spark's log and temporary files go; by default beside the run folder.
    """

    def __init__(
        self,
        config: PipelineConfig,
        spark: SparkSession | None = None,
        *,
        for_inputs: bool = False,
        workspace: str | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self._spark = spark
        self._for_inputs = for_inputs
        self._workspace = workspace or storage.join(config.training.run_url, "..")

    def __call__(self) -> SparkSession:
        """The session: the given one, an active one, or our own."""
        if self._spark is None:
            from pipeline.launch.session import spark_session

            brief = self._for_inputs and _has_small_inputs(self._config)
            session = spark_session(self._config.cluster, storage.resolve(self._workspace, "/"), brief=brief)
            self._spark = self.enter_context(session)
            logger.info("spark %s on %s", self._spark.version, self._spark.sparkContext.master)
        return self._spark


def _has_small_inputs(config: PipelineConfig) -> bool:
    from pipeline.preparation.inputs import all_files, list_inputs

    try:
        return all_files(config) and sum(f.bytes for fs in list_inputs(config).values() for f in fs) < _SMALL_BYTES
    except PipelineError:  # they may be gone where only their dataset is needed; whoever needs them will say so
        return False


def spark_session(**cluster: Any) -> SparkSession:
    """A Spark session for notebooks and programs: the active one, or our own until the program ends.

    Args:
        **cluster: keys of the ``cluster`` section, such as ``master="local[2]"``.
    """
    from pipeline.launch.session import spark_session as opened

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(opened(parse_section(ClusterConfig, cluster, "cluster"), os.getcwd()))
