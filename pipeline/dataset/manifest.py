"""ANYWHERE. All that is known of one version: its part files, where every input row went, and what names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline import storage
from pipeline.dataset.schema import DatasetSchema, schema_from_json

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a split.

    Attributes:
        path: relative to the dataset's url, so that a version can refer to an older version's files.
        row_groups: rows of each row group.
        digest: sha256 over the rows' values, independent of Parquet's encoding.
    """

    path: str
    bytes: int
    crc32: int
    sha256: str
    row_groups: tuple[int, ...]
    digest: str

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Accounting:
    """Where every input row went: rows_in = published + duplicates + rejected, with the rejections by reason.

    ``repaired`` counts, for each rule that changes values instead of rejecting rows, the values that it changed.
    """

    rows_in: int
    published: int
    duplicates: int
    rejected: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every input row is accounted for."""
        return self.rows_in == self.published + self.duplicates + self.rejected

    def as_rows(self) -> dict[str, int]:
        """The ``rows`` of a RESULT line."""
        return {
            "in": self.rows_in,
            "published": self.published,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
        }


@dataclass(frozen=True)
class Manifest:
    """All that is known of one version of a dataset.

    Attributes:
        splits: for each split its part files, in order.
        class_counts: for each split the rows of each class.
        statistics: the fitted features as JSON, see `pipeline.features`.
        semantic: the part of the configuration that decides what the rows are.
        request: sha256 of semantic configuration and inputs; a run with the same request has nothing to do.
        inputs: fingerprint of each input file or table.
        extra_files: other files of the version (``statistics.json``, raw test rows): path to digest.
        quarantine: the attempt that made it, if that rejected rows, which lie in ``quarantine/<attempt>``.
    """

    content_id: str
    schema: DatasetSchema
    splits: Mapping[str, tuple[PartFile, ...]]
    class_counts: Mapping[str, Mapping[str, int]]
    statistics: Mapping[str, Any]
    accounting: Accounting
    semantic: Mapping[str, Any]
    request: str
    inputs: Mapping[str, Any]
    extra_files: Mapping[str, storage.Digest]
    versions: Mapping[str, str]
    quarantine: str | None = None

    def rows(self, split: str) -> int:
        """Rows of a split."""
        return sum(part.rows for part in self.splits[split])

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` described."""
        return cls(
            **{
                **value,
                "schema": schema_from_json(value["schema"]),
                "splits": {
                    name: tuple(PartFile(**{**part, "row_groups": tuple(part["row_groups"])}) for part in parts)
                    for name, parts in value["splits"].items()
                },
                "accounting": Accounting(**value["accounting"]),
                "extra_files": {path: storage.Digest(**digest) for path, digest in value["extra_files"].items()},
            }
        )


def content_id(
    schema: DatasetSchema,
    semantic: Mapping[str, Any],
    statistics: Mapping[str, Any],
    splits: Mapping[str, Iterable[PartFile]],
) -> str:
    """The sha256 of what the dataset says, never of how it was computed: no paths, times, hosts or versions."""
    rows = {name: [[part.rows, part.digest] for part in parts] for name, parts in splits.items()}
    return storage.sha256_of(
        {"schema": dataclasses.asdict(schema), "semantic": semantic, "statistics": statistics, "rows": rows}
    )
