"""DRIVER. To which split a row goes: a salted hash of its id or group, so that a row never changes sides."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.preparation.read import hashable

_STEPS = 1_000_000


def split_of(config: PipelineConfig, ids: list[str]) -> Column:
    """The name of a row's split: test, then validation, then train along the hash, in millionths."""
    split = config.split
    names = [split.key] if split.by == "group" and split.key else ids
    hashed = F.xxhash64(F.lit(split.salt), *(column for name in names for column in hashable(name)))
    place = F.pmod(hashed, F.lit(_STEPS))
    test = round(split.test * _STEPS)
    validation = test + round(split.validation * _STEPS)
    return F.when(place < test, "test").when(place < validation, "validation").otherwise("train")


def expected_fractions(config: PipelineConfig) -> dict[str, float]:
    """About how much of all rows each split gets; only file sizes depend on it."""
    split = config.split
    return {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
