"""A Spark session that nobody may ask for."""

from __future__ import annotations

from typing import Any

from pipeline import flow


class NeverAsked(flow.SparkOnDemand):
    """Takes the place of `flow.SparkOnDemand` where a test says that Spark does not start."""

    def __call__(self) -> Any:
        raise AssertionError("Spark was started")
