"""ANYWHERE. How rows lie in files; decided from the data alone, so that no cluster gives another dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline import layout as physical
from pipeline.config.columns import PACKED
from pipeline.config.data import FeatureConfig
from pipeline.config.features import VectorFeature
from pipeline.dataset import SPLITS, Column, PackedColumn

_SMALL_FILE_ROWS = 32_768
_STAGED_GROUP_ROWS, _STAGED_GROUPS = 1 << 17, 8
_WANTED_FILES = 8
"""A train split smaller than so many full files is cut into as many smaller ones, for tasks to run side by side."""


@dataclass(frozen=True)
class Layout:
    """Files per split, files for rejected rows, rows per row group; buckets of rows that are published already."""

    files: Mapping[str, int]
    quarantine_files: int
    rows_per_row_group: int
    known_buckets: int = 0

    def bucket_of(self, split: str) -> int:
        """The first bucket of a split; then come those of ``rejected`` and of ``known`` rows."""
        sizes = {**self.files, "rejected": self.quarantine_files, "known": self.known_buckets}
        names = list(sizes)
        return sum(sizes[name] for name in names[: names.index(split)])

    @property
    def rows_per_staged_group(self) -> int:
        """Some whole row groups: each pass over staged rows goes by them, and small ones cost more than their rows."""
        return self.rows_per_row_group * max(1, min(_STAGED_GROUPS, _STAGED_GROUP_ROWS // self.rows_per_row_group))

    @property
    def buckets(self) -> int:
        """All files together."""
        return sum(self.files.values()) + self.quarantine_files + self.known_buckets

    def split_of(self, bucket: int) -> str:
        """The split of a bucket, or ``rejected``, or ``known``."""
        for name in SPLITS:
            if bucket < self.files[name]:
                return name
            bucket -= self.files[name]
        return "rejected" if bucket < self.quarantine_files else "known"


def vector_bytes(features: Mapping[str, FeatureConfig]) -> int:
    """The bytes of a row's vectors and images, packed."""
    sizes = {"float32": 4, "uint8": 1}
    vectors = (feature for feature in features.values() if isinstance(feature, VectorFeature))
    return sum(sizes[feature.dtype] * math.prod(feature.shape) for feature in vectors)


def choose_layout(
    rows: int,
    row_bytes: int,
    fractions: Mapping[str, float],
    rows_per_row_group: int | None,
    vector_bytes: int = 0,
) -> Layout:
    """Files of at most 256 MiB, row groups as `pipeline.layout` wants them; small datasets still give some of both."""
    # The estimate counts each number twice, wide and packed, with 8 bytes: a packed row is a quarter of it.
    group = rows_per_row_group or physical.rows_per_row_group(rows, row_bytes // 4 + vector_bytes)
    full = max(1, physical.FILE_BYTES // max(1, row_bytes + 2 * vector_bytes))
    per_file = max(group, min(full, max(_SMALL_FILE_ROWS, math.ceil(rows / _WANTED_FILES))))
    files: dict[str, int] = {split: max(1, math.ceil(rows * fractions[split] / per_file)) for split in SPLITS}
    return Layout(files, max(1, math.ceil(sum(files.values()) / 8)), group)


def pack(features: Sequence[Column]) -> tuple[PackedColumn, ...]:
    """One packed column per dtype, members in schema order."""
    dtypes = sorted({column.dtype for column in features})
    return tuple(
        PackedColumn(f"{PACKED}{dtype}", dtype, tuple(column.name for column in features if column.dtype == dtype))
        for dtype in dtypes
    )


def placement(buckets: int) -> list[int]:
    """For each bucket a number that Spark's hash partitioning sends to a partition of its own."""
    found: dict[int, int] = {}
    number = 0
    while len(found) < buckets:
        found.setdefault(murmur3(number) % buckets, number)
        number += 1
    return [found[bucket] for bucket in range(buckets)]


def murmur3(number: int, seed: int = 42) -> int:
    """Spark's hash of a non-negative 32-bit integer (Murmur3 x86 32), as a signed number."""
    mask = 0xFFFFFFFF
    mixed = number * 0xCC9E2D51 & mask
    mixed = (mixed << 15 | mixed >> 17) & mask
    mixed = mixed * 0x1B873593 & mask
    state = seed ^ mixed
    state = (state << 13 | state >> 19) & mask
    state = (state * 5 + 0xE6546B64) & mask
    state ^= 4
    state = (state ^ state >> 16) * 0x85EBCA6B & mask
    state = (state ^ state >> 13) * 0xC2B2AE35 & mask
    state ^= state >> 16
    return state - (1 << 32) if state >= 1 << 31 else state
