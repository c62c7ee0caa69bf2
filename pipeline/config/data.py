"""ANYWHERE. The sections that say what the data is: source, clean, label, split, dataset; features stand beside it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.config.features import (
    BooleanFeature,
    BucketFeature,
    CategoricalFeature,
    CategoriesFeature,
    ElapsedFeature,
    FeatureConfig,
    HashedFeature,
    NormalizeConfig,
    NumericFeature,
    TargetFeature,
    TimestampFeature,
    VectorFeature,
)
from pipeline.config.label import LabelConfig
from pipeline.config.section import Moment, Names, Section, Url, Urls, check_order, moment_of

__all__ = [
    "BooleanFeature",
    "BucketFeature",
    "CategoricalFeature",
    "CategoriesFeature",
    "CleanConfig",
    "DatasetConfig",
    "DriftConfig",
    "ElapsedFeature",
    "FeatureConfig",
    "HashedFeature",
    "InputConfig",
    "LabelConfig",
    "NormalizeConfig",
    "NumericFeature",
    "RuleConfig",
    "SampleConfig",
    "SourceConfig",
    "SplitConfig",
    "TargetFeature",
    "TimestampFeature",
    "VectorFeature",
]


ReaderName = Literal["petastorm", "pyarrow"]
ReaderChoice = Literal["auto", "petastorm", "pyarrow"]


def _as_texts(options: Any) -> Any:
    """Spark's options are texts, and YAML reads ``false`` as what it is."""
    if not isinstance(options, dict):
        return options
    return {key: str(one).lower() if isinstance(one, bool | int | float) else one for key, one in options.items()}


Options = Annotated[
    dict[str, str], BeforeValidator(_as_texts, json_schema_input_type=dict[str, str | bool | int | float])
]
"""Options of a Spark reader."""


class InputConfig(Section):
    """One named input, which the query sees as a table of that name."""

    path: Urls | None = None
    """A file, a folder (all files below it) or a glob pattern, or a list of them; names that begin with _ or . are not
    read."""
    table: str | None = None
    """A table of Spark's catalog instead of a path."""
    format: str = "csv"
    """csv, json, parquet, orc, or any other that this Spark can read, with its options (jdbc, delta...).

    What Spark takes from other projects passes through; it is not tested here, where its jars are not installed."""
    columns: str | None = Field(default=None, alias="schema")
    """A Spark DDL schema, `name type, ...`; without it Spark infers the types."""
    options: Options = {}
    """Options of the Spark reader, passed through; true, false and numbers as Spark writes them."""

    @model_validator(mode="after")
    def _one_place(self) -> InputConfig:
        if self.path is not None and self.table is not None:
            raise ValueError("path and table are both set; expected one of them")
        if self.path is None and self.table is None and self.format in ("csv", "json", "parquet", "orc"):
            raise ValueError("path is missing; expected a file, a folder or a glob pattern, or the name of a table")
        return self

    @property
    def is_files(self) -> bool:
        """Whether it is read from a fixed list of files."""
        return self.path is not None and self.format in ("csv", "json", "parquet", "orc")


class SampleConfig(Section):
    """A part of the primary input's rows, chosen by hash of the id: the same rows every time."""

    fraction: float = Field(ge=1e-6, le=1)
    """How many of the rows, to a millionth."""
    salt: str = "sample"
    """Another one gives other rows."""


class SourceConfig(Section):
    """Named inputs and one Spark SQL query over them."""

    inputs: dict[str, InputConfig] = {}
    """Tables by the name that the query uses."""
    query: str | None = None
    """Spark SQL over the inputs; by default all columns of the only one."""
    query_file: Url | None = None
    """A file with the query instead."""
    primary: str | None = None
    """The input whose rows are accounted for; by default the only one."""
    id: Names = []
    """The columns that identify a row for ever: deduplication, splits and order depend on them only."""
    where: str | None = None
    """A SQL condition on the primary input, applied before the query; rows it leaves out are not counted as in."""
    sample: SampleConfig | None = None
    """Only a part of the primary input, to try things on."""
    row_changes: Literal["error", "allowed"] = "error"
    """Whether the query may lose or multiply rows of the primary input; counted are then the rows that it gives."""
    sensitive: Names = []
    """Columns, by the names that the query gives them, whose values are in no profile, report, dry run or quarantine.
    Lines that cannot be parsed, of whatever input, are then counted, but not shown. Fitted features hold sums over rows
    and digests of categories, which hide values from reading, not from guessing; settings that would keep a value of a
    row (median, quantiles, least and greatest), and slices, are refused. Ids, kept columns, labels and the test rows as
    they came are a part of the dataset: who may read it may read them."""

    @model_validator(mode="after")
    def _primary_is_an_input(self) -> SourceConfig:
        names = ", ".join(self.inputs)
        if len({name.casefold() for name in self.inputs}) < len(self.inputs):
            raise ValueError(f"inputs has {names}; expected names that differ by more than case, as SQL reads them")
        if len(self.inputs) > 1 and self.primary is None:
            raise ValueError(f"primary is missing; expected one of {names}; name the input whose rows are counted")
        if self.inputs and self.primary is not None and self.primary not in self.inputs:
            raise ValueError(f"primary is {self.primary!r}; expected one of {names}")
        if self.query is not None and self.query_file is not None:
            raise ValueError("query and query_file are both set; expected one of them")
        if len(self.inputs) > 1 and self.query is None and self.query_file is None:
            raise ValueError("query is missing; expected a SQL query that joins the inputs")
        if self.sample is not None and not self.id:
            raise ValueError("sample needs an id; expected source.id to name the columns that it hashes")
        return self


def _closed(pattern: str) -> str:
    """Refuse what no dialect of regular expressions can mean; the rest is Java's affair."""
    try:
        re.compile(pattern)
    except re.error as error:
        if error.msg.startswith(("missing )", "unbalanced parenthesis", "unterminated character set")):
            raise ValueError(f"{pattern} is no regular expression: {error.msg}; expected it closed") from error
    return pattern


class RuleConfig(Section):
    """A condition on a column, and what happens to a row or value that does not meet it."""

    column: str
    """Of the query's rows."""
    min: float | None = None
    """The least value that is fit."""
    max: float | None = None
    """The greatest value that is fit."""
    not_null: bool = False
    """Null is not fit; bounds, lists and patterns let it pass."""
    allowed: list[str | int | float | bool] | None = Field(default=None, min_length=1)
    """All values that are fit."""
    pattern: Annotated[str, AfterValidator(_closed)] | None = None
    """A regular expression of Java's that a text must match as a whole."""
    min_length: int | None = Field(default=None, ge=0)
    """See `max_length`."""
    max_length: int | None = Field(default=None, ge=0)
    """Bounds of a text's characters."""
    unique: bool = False
    """Rows that share the value with another row are rejected, all of them."""
    condition: str | None = None
    """A SQL condition over any columns of the query; rows for which it is false are rejected."""
    action: Literal["reject", "null", "clip", "default"] = "reject"
    """Other actions change the value: at serving too, since they belong to the feature's state."""
    default: float | str | None = None
    """What stands in, for the action of that name."""
    max_fraction: float | None = Field(default=None, ge=0, le=1)
    """The most rows that this rule may reject, whichever of its conditions they break."""

    @model_validator(mode="after")
    def _action_fits(self) -> RuleConfig:
        check_order(self.min, self.max)
        check_order(self.min_length, self.max_length, "min_length and max_length")
        checks = ("min", "max", "allowed", "pattern", "min_length", "max_length", "condition")
        if not (self.not_null or self.unique or any(getattr(self, name) is not None for name in checks)):
            raise ValueError(f"no condition is set; expected one of {', '.join((*checks, 'not_null', 'unique'))}")
        if self.action == "default" and self.default is None:
            raise ValueError("default is missing; expected the value that stands in")
        if self.action == "clip" and self.min is None and self.max is None:
            raise ValueError("action is clip; expected min or max to clip to")
        if self.action != "default" and self.default is not None:
            raise ValueError(f"default is set, but action is {self.action}; expected action: default")
        if self.action != "reject" and self.max_fraction is not None:
            raise ValueError(f"max_fraction is set, but action is {self.action}; expected it of rules that reject rows")
        if self.action != "reject" and (self.not_null or self.unique or self.condition or self.pattern):
            raise ValueError(f"action is {self.action}; expected min, max, allowed or lengths; use reject for others")
        return self


class CleanConfig(Section):
    """Which rows are fit to learn from."""

    deduplicate: bool | Literal["id", "row"] = True
    """Keep one row per id (true, `id`), or drop only rows that repeat another in every column (`row`)."""
    keep: str | None = Field(default=None, pattern=r"^(first|last) by \S.*$")
    """Which of the rows of an id stays: `first by <column>` or `last by <column>`; nulls come last."""
    rules: list[RuleConfig] = []
    """Each row has to meet all of them."""
    max_rejected_fraction: float = Field(default=0.05, ge=0, le=1)
    """The most rows that may be rejected, for whatever reason; more end the preparation (65)."""
    quarantine: Literal["all", "sample", "none"] = "all"
    """How many rejected rows are kept with their reasons; counts are exact in any case."""


class SplitConfig(Section):
    """How rows go to train, validation and test, so that an old row never changes sides."""

    by: Literal["hash", "group", "time", "stratified", "column"] = "hash"
    """By hash of the id (`stratified`: within each class), or of `key` (`group`); by its moments, or what it says."""
    key: str | None = None
    """For `group` the column whose rows stay together, for `time` the timestamp, for `column` the split's name.
    `stratified` needs none: rows are hashed within each class, with several labels within each combination."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """The part of the rows that is hashed to validation."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """The part of the rows that is hashed to test."""
    salt: str = "split"
    """Another one gives other splits."""
    validation_from: Moment | None = None
    """For `time`: rows from this moment on are for validation..."""
    test_from: Moment | None = None
    """...and from this one on for test."""

    @model_validator(mode="after")
    def _complete(self) -> SplitConfig:
        if self.by in ("group", "time", "column") and self.key is None:
            raise ValueError(f"key is missing; expected the column to split by {self.by}")
        if self.by == "time" and (self.validation_from is None or self.test_from is None):
            raise ValueError("validation_from or test_from is missing; expected both moments")
        moments = [moment_of(text) for text in (self.validation_from, self.test_from) if text is not None]
        if self.by == "time" and moments[0] >= moments[1]:
            raise ValueError(f"validation_from is {self.validation_from}; expected earlier than {self.test_from}")
        if self.validation + self.test >= 1:
            total = self.validation + self.test
            raise ValueError(f"validation + test is {total:g}; expected less than 1, to leave rows for train")
        return self


class DriftConfig(Section):
    """Limits of the comparison with the previous version of the dataset, per column."""

    action: Literal["warn", "fail", "off"] = "warn"
    """What is done beyond the limits: a warning, an error (65), or no comparison."""
    missing_change: float = Field(default=0.1, ge=0, le=1)
    """How much the fraction of missing values may change."""
    stability_index: float = Field(default=0.25, ge=0)
    """Population stability index over deciles of the previous version, or over its categories, less what samples of one
    distribution have on average."""
    unseen_rate: float = Field(default=0.05, ge=0, le=1)
    """Values whose category the previous version had not, beyond those that were too rare for its vocabulary. Columns
    without a vocabulary are compared with its most frequent values; sensitive ones then are not."""


class DatasetConfig(Section):
    """Where the dataset is published and how it lies there."""

    url: Url
    """A folder for all versions of the dataset."""
    keep: Names = []
    """Raw columns kept beside the encoded ones, for slices in the report."""
    rows_per_row_group: int | None = Field(default=None, ge=1)
    """By default chosen from the row count and width."""
    reader: ReaderChoice = "auto"
    """How part files are read for training; `auto` takes Petastorm where it is installed. The batches are the same."""
    wide: bool = True
    """Also write typed columns for people and stock tools; false saves the space."""
    statistics_from: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Content id of a version that new rows are added to: its files stay where they are, rows whose id it has stay in
    their split, fitted features and category ids are its own; the other rows become further files."""
    drift: DriftConfig = DriftConfig()
    """What a version may differ by from the one before."""
