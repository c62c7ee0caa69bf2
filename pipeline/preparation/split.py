"""DRIVER. To which split a row goes: by salted hash, moment or column, so that a row never changes sides."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS
from pipeline.preparation.casts import text_as
from pipeline.preparation.hashing import hashable
from pipeline.preparation.quoting import column

_STEPS = 1_000_000


def split_of(frame: DataFrame, config: PipelineConfig, ids: list[str]) -> Column:
    """The name of a row's split; for hashes test, then validation, then train along the hash, in millionths.

    Args:
        frame: the rows, as the query gives them: what features read a column as does not move its rows.
        config: its `split` section, and for stratified splits its labels: the hash within each class, or within
            each combination of several labels.
        ids: the columns that identify a row.
    """
    split = config.split
    if split.by == "column":
        return column(str(split.key)).cast("string")
    if split.by == "time":
        # A bare date is midnight UTC; the future never is in train.
        moment = _moment(frame, str(split.key))
        validation_from, test_from = (
            F.lit(text).cast("timestamp") for text in (split.validation_from, split.test_from)
        )
        return F.when(moment >= test_from, "test").when(moment >= validation_from, "validation").otherwise("train")
    names = [str(split.key)] if split.by == "group" else ids
    stratum = hashable(frame, config.labels) if split.by == "stratified" else []
    hashed = F.xxhash64(F.lit(split.salt), *stratum, *hashable(frame, names))
    place = F.pmod(hashed, F.lit(_STEPS))
    test = round(split.test * _STEPS)
    validation = test + round(split.validation * _STEPS)
    return F.when(place < test, "test").when(place < validation, "validation").otherwise("train")


def _moment(frame: DataFrame, key: str) -> Column:
    is_text = isinstance(frame.schema[key].dataType, T.StringType)
    return text_as(key, "timestamp") if is_text else column(key).cast("timestamp")


def split_checks(frame: DataFrame, config: PipelineConfig) -> list[tuple[Column, str]]:
    """Why a row cannot be given to a split."""
    split = config.split
    if split.by == "time":
        return [(_moment(frame, str(split.key)).isNull(), f"split key {split.key} is no timestamp")]
    if split.by == "group":  # rows of an unknown group may belong to those of the other splits
        return [(column(str(split.key)).isNull(), f"split key {split.key} is null")]
    if split.by == "column":
        known = F.coalesce(column(str(split.key)).cast("string").isin(list(SPLITS)), F.lit(False))
        return [(~known, f"split key {split.key} is not {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")]
    return []


def expected_fractions(config: PipelineConfig) -> dict[str, float]:
    """About how much of all rows each split gets; only file sizes depend on it."""
    split = config.split
    return {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
