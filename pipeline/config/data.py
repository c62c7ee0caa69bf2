"""ANYWHERE. The sections that say what the data is: source, clean, features, label, split, dataset."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Names, Section, Url


class InputConfig(Section):
    """One named input, which the query sees as a table of that name."""

    path: Url
    format: Literal["csv", "json", "parquet", "orc"] = "csv"
    columns: str | None = Field(default=None, alias="schema")
    """A Spark DDL schema, `name type, ...`; without it Spark infers the types."""
    options: dict[str, str] = {}
    """Options of the Spark reader, passed through."""


class SourceConfig(Section):
    """Named inputs and one Spark SQL query over them."""

    inputs: dict[str, InputConfig] = {}
    query: str | None = None
    primary: str | None = None
    """The input whose rows are accounted for; by default the only one."""
    id: Names = []
    """The columns that identify a row for ever: deduplication, splits and order depend on them only."""
    where: str | None = None
    """A SQL condition on the primary input, applied before the query; rows it leaves out are not counted as in."""

    row_changes: Literal["error", "allowed"] = "error"
    """Whether the query may lose or multiply rows of the primary input; counted are then the rows that it gives."""

    @model_validator(mode="after")
    def _primary_is_an_input(self) -> SourceConfig:
        if len(self.inputs) > 1 and self.primary is None:
            raise ValueError(
                f"primary is missing; expected one of {', '.join(self.inputs)}; name the input whose rows are counted"
            )
        if self.inputs and self.primary is not None and self.primary not in self.inputs:
            raise ValueError(f"primary is {self.primary!r}; expected one of {', '.join(self.inputs)}")
        if len(self.inputs) > 1 and self.query is None:
            raise ValueError("query is missing; expected a SQL query that joins the inputs")
        return self


class RuleConfig(Section):
    """A condition that a row must meet; a row that does not is rejected with the rule's name."""

    column: str
    min: float | None = None
    max: float | None = None
    not_null: bool = False
    allowed: list[str | int | float | bool] | None = None


class CleanConfig(Section):
    """Which rows are fit to learn from."""

    deduplicate: bool = True
    """Keep one row per id; which one does not depend on the order of the rows."""
    rules: list[RuleConfig] = []
    max_rejected_fraction: float = Field(default=0.05, ge=0, le=1)
    quarantine: Literal["all", "sample", "none"] = "all"
    """How many rejected rows are kept with their reasons; counts are exact in any case."""


class NumericFeature(Section):
    """A number: missing filled, clipped, transformed, scaled; float32."""

    type: Literal["numeric"]
    column: str | None = None
    missing: Literal["mean", "median", "reject"] | float = "median"
    indicator: bool = False
    """Add a feature `<name>_missing`, 1 where the value was missing."""
    clip: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Lower and upper quantile of the train rows to clip to."""
    log1p: bool = False
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"


class CategoricalFeature(Section):
    """A category: an id from a vocabulary of the train rows.

    Ids: 0 padding, 1 null, 2 unseen or rare, then the vocabulary by frequency.
    """

    type: Literal["categorical"]
    column: str | None = None
    min_count: int = Field(default=1, ge=1)
    max_size: int = Field(default=100_000, ge=1)


class TimestampFeature(Section):
    """Parts of a timestamp (UTC) as categories, or as sine and cosine where `cyclic` is set."""

    type: Literal["timestamp"]
    column: str | None = None
    parts: list[Literal["year", "month", "day", "weekday", "hour", "minute", "day_of_year", "minute_of_day"]] = Field(
        min_length=1
    )
    cyclic: bool = False


class BooleanFeature(Section):
    """True or false as a category: 1 null, 2 unseen, then false, true."""

    type: Literal["boolean"]
    column: str | None = None


FeatureConfig = Annotated[
    NumericFeature | CategoricalFeature | TimestampFeature | BooleanFeature, Field(discriminator="type")
]


class LabelConfig(Section):
    """The column to predict."""

    column: str
    type: Literal["binary"] = "binary"


class SplitConfig(Section):
    """How rows go to train, validation and test: by a salted hash, so that an old row never changes sides."""

    by: Literal["hash", "group"] = "hash"
    key: str | None = None
    """For `group`: all rows with the same value stay together."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)
    salt: str = "split"

    @model_validator(mode="after")
    def _complete(self) -> SplitConfig:
        if self.by == "group" and self.key is None:
            raise ValueError("key is missing; expected the column whose rows stay together")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test is {self.validation + self.test:g}; expected less than 1, to leave rows for train"
            )
        return self


class DatasetConfig(Section):
    """Where the dataset is published and how it lies there."""

    url: Url
    keep: Names = []
    """Raw columns kept beside the encoded ones, for slices in the report."""
    rows_per_row_group: int | None = Field(default=None, ge=1)
    """By default chosen from the row count and width."""
    wide: bool = True
    """Also write typed columns for people and stock tools; false saves the space."""
