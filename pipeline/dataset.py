"""ANYWHERE. What a published dataset is: schema, manifest, versions, and the one way that readers find them.

<url>/_commits/<n>.json           put-if-absent pointers: the only way a version becomes visible
<url>/versions/<content id>/      part files, statistics.json, manifest.json: never changed afterwards
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline import long_lists, storage
from pipeline.errors import StorageError

if TYPE_CHECKING:
    from pipeline.training.loader import Loader

MANIFEST_FORMAT = ("dataset-manifest", 1)
COMMIT_FORMAT = ("dataset-commit", 1)

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Role = Literal["id", "label", "weight", "numeric", "categorical", "vector", "kept"]


@dataclass(frozen=True)
class Column:
    """One typed column of the part files.

    Attributes:
        dtype: numpy name of the values (``float32``, ``int32``, ``uint8``...), ``string`` or ``timestamp``.
        cardinality: for a categorical column the number of ids, so that ids are 0 to cardinality - 1.
        shape: for a vector column the shape of one row's value.
    """

    name: str
    dtype: str
    role: Role
    cardinality: int | None = None
    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Numbers per row."""
        width = 1
        for length in self.shape:
            width *= length
        return width


@dataclass(frozen=True)
class PackedColumn:
    """A binary column that holds several feature columns of one dtype side by side, little-endian, no nulls.

    One fixed-width blob per row is what the loader reads: a matrix without touching single columns.
    """

    name: str
    dtype: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSchema:
    """Names, dtypes and roles of the columns, in file order, and how features are packed."""

    columns: tuple[Column, ...]
    packed: tuple[PackedColumn, ...]
    label_type: Literal["binary", "multiclass", "regression"] | None
    classes: tuple[str, ...] = ()

    def with_role(self, *roles: Role) -> tuple[Column, ...]:
        """The columns that play one of the roles, in file order."""
        return tuple(column for column in self.columns if column.role in roles)

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def raw_column(self, name: str) -> Column:
        """The id or kept column that holds a raw column; it is called ``raw_<name>`` where a feature has the name."""
        plain = {column.name: column for column in self.with_role("id", "kept")}
        return plain.get(f"raw_{name}") or plain[name]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns of the model's ``numeric`` input, in order."""
        return tuple(column.name for column in self.with_role("numeric"))

    @property
    def cardinalities(self) -> dict[str, int]:
        """Names and id counts of the columns of the model's ``categorical`` input, in order."""
        return {column.name: column.cardinality or 0 for column in self.with_role("categorical")}

    @property
    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the model's vector inputs."""
        return {column.name: column.shape for column in self.with_role("vector")}

    @property
    def label(self) -> Column:
        """The label column, where there is one."""
        return self.with_role("label")[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns: one, several of one type, or none."""
        return tuple(column.name for column in self.with_role("label"))


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


def schema_from_json(value: Mapping[str, Any]) -> DatasetSchema:
    """The schema that ``dataclasses.asdict`` described."""
    return DatasetSchema(
        columns=tuple(Column(**{**column, "shape": tuple(column["shape"])}) for column in value["columns"]),
        packed=tuple(PackedColumn(**{**packed, "members": tuple(packed["members"])}) for packed in value["packed"]),
        label_type=value["label_type"],
        classes=tuple(value["classes"]),
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


def version_url(url: str, content_id: str) -> str:
    """The folder of a version."""
    return storage.join(url, "versions", content_id)


def commit_numbers(url: str) -> list[int]:
    """The numbers of the published versions, oldest first."""
    names = storage.list_names(storage.join(url, "_commits"))
    return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())


def commit_version(url: str, content_id: str, manifest_sha256: str) -> int:
    """Make a complete version the newest; returns its commit number. The only atomic step of publishing.

    A version that is already the newest is not committed twice.
    """
    while True:
        numbers = commit_numbers(url)
        if numbers and read_commit(url, numbers[-1])["content_id"] == content_id:
            return numbers[-1]
        number = numbers[-1] + 1 if numbers else 1
        body = {"content_id": content_id, "manifest_sha256": manifest_sha256}
        data = storage.format_json(*COMMIT_FORMAT, {**body, "digest": storage.sha256_of(body)})
        if storage.put_if_absent(storage.join(url, "_commits", f"{number}.json"), data):
            return number


def read_commit(url: str, number: int) -> dict[str, Any]:
    """One pointer, its own digest checked."""
    path = storage.join(url, "_commits", f"{number}.json")
    body = storage.read_json(path, *COMMIT_FORMAT)
    digest = body.pop("digest", None)
    if digest != storage.sha256_of(body):
        raise StorageError(f"{path} is corrupt; expected digest {digest}; restore the file or publish again")
    return body


def read_manifest(url: str, content_id: str, sha256: str | None = None) -> Manifest:
    """The manifest of a version, checked against the sha256 that its commit holds."""
    path = storage.join(version_url(url, content_id), "manifest.json")
    data = storage.read_bytes(path)
    actual = hashlib.sha256(data).hexdigest()
    if sha256 is not None and actual != sha256:
        raise StorageError(f"{path} is corrupt: sha256 {actual}; expected {sha256}; restore the file or publish again")
    value = storage.parse_json(path, data, *MANIFEST_FORMAT)
    return Manifest.from_json(long_lists.taken_back(version_url(url, content_id), value))


@dataclass(frozen=True)
class Dataset:
    """A published version of a dataset."""

    url: str
    manifest: Manifest

    @classmethod
    def open(cls, url: str, content_id: str | None = None) -> Dataset:
        """Open the newest version, or a given one.

        Raises:
            StorageError: nothing is published there, or the manifest is corrupt.
        """
        for number in reversed(commit_numbers(url)):
            commit = read_commit(url, number)
            if content_id in (None, commit["content_id"]):
                return cls(url, read_manifest(url, commit["content_id"], commit["manifest_sha256"]))
        wanted = "a published dataset" if content_id is None else f"version {content_id}"
        raise StorageError(f"{url} holds no {wanted}; expected _commits/<n>.json; run `pipeline prepare` first")

    @property
    def content_id(self) -> str:
        """Names what the rows are; see `content_id`."""
        return self.manifest.content_id

    @property
    def schema(self) -> DatasetSchema:
        """Names, dtypes and roles of the columns."""
        return self.manifest.schema

    def loader(self, split: str = "train", **options: Any) -> Loader:
        """A torch iterable over a split, without Java, Spark or Horovod; options as of its class."""
        from pipeline.training.loader import Loader

        return Loader(self, split, **options)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{self.manifest.rows(name):,}</td><td>{len(parts)}</td></tr>"
            for name, parts in self.manifest.splits.items()
        )
        counts = html.escape(json.dumps(self.manifest.accounting.as_rows()))
        return (
            f"<b>Dataset</b> {html.escape(self.url)} <code>{self.content_id[:12]}</code>"
            f"<table><tr><th>split</th><th>rows</th><th>files</th></tr>{rows}</table><p>{counts}</p>"
        )
