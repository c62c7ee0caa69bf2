"""ANYWHERE. The columns of the part files: names, dtypes, roles, and how features are packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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

    def raw_column(self, name: str) -> Column | None:
        """The id or kept column of a raw column, if there is one; ``raw_<name>`` where a feature has the name."""
        kept = {column.name: column for column in self.with_role("id", "kept")}
        return kept.get(f"raw_{name}") or kept.get(name)

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


def schema_from_json(value: Mapping[str, Any]) -> DatasetSchema:
    """The schema that ``dataclasses.asdict`` described."""
    return DatasetSchema(
        columns=tuple(Column(**{**column, "shape": tuple(column["shape"])}) for column in value["columns"]),
        packed=tuple(PackedColumn(**{**packed, "members": tuple(packed["members"])}) for packed in value["packed"]),
        label_type=value["label_type"],
        classes=tuple(value["classes"]),
    )
