"""DRIVER. Names of columns in Spark SQL: as they stand, whatever dots, spaces and backticks they have."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def quoted(name: str) -> str:
    """A name as SQL takes it for one name."""
    return "`" + name.replace("`", "``") + "`"


def column(name: str) -> Column:
    """The column of exactly that name, which `functions.col` would take for a path."""
    return F.col(quoted(name))
