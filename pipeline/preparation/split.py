"""DRIVER. To which split a row goes: by salted hash, moment or column, so that a row never changes sides."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS
from pipeline.preparation.read import hashable

_STEPS = 1_000_000


def split_of(config: PipelineConfig, ids: list[str]) -> Column:
    """The name of a row's split; for hashes test, then validation, then train along the hash, in millionths.

    Args:
        config: its `split` section, and for stratified splits its labels: the hash within each class, or within
            each combination of several labels.
        ids: the columns that identify a row.
    """
    split = config.split
    key = F.col(f"`{split.key}`")
    if split.by == "column":
        return key.cast("string")
    if split.by == "time":
        # A bare date is midnight UTC; the future never is in train.
        moment = key.cast("timestamp")
        validation_from, test_from = (
            F.lit(text).cast("timestamp") for text in (split.validation_from, split.test_from)
        )
        return F.when(moment >= test_from, "test").when(moment >= validation_from, "validation").otherwise("train")
    names = [str(split.key)] if split.by == "group" else ids
    stratum = [part for label in config.labels for part in hashable(label)] if split.by == "stratified" else []
    hashed = F.xxhash64(F.lit(split.salt), *stratum, *(column for name in names for column in hashable(name)))
    place = F.pmod(hashed, F.lit(_STEPS))
    test = round(split.test * _STEPS)
    validation = test + round(split.validation * _STEPS)
    return F.when(place < test, "test").when(place < validation, "validation").otherwise("train")


def split_checks(config: PipelineConfig) -> list[tuple[Column, str]]:
    """Why a row cannot be given to a split."""
    split = config.split
    key = F.col(f"`{split.key}`")
    if split.by == "time":
        return [(key.cast("timestamp").isNull(), f"split key {split.key} is no timestamp")]
    if split.by == "column":
        known = F.coalesce(key.cast("string").isin(list(SPLITS)), F.lit(False))
        return [(~known, f"split key {split.key} is not {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")]
    return []


def expected_fractions(config: PipelineConfig) -> dict[str, float]:
    """About how much of all rows each split gets; only file sizes depend on it."""
    split = config.split
    return {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
