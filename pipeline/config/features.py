"""ANYWHERE. What can be made of a raw column: one section per type of feature."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.section import Moment, Section


def _ascending(quantiles: list[float]) -> list[float]:
    if quantiles[0] >= quantiles[1]:
        raise ValueError(f"{quantiles} are not ascending; expected the lower quantile first")
    return quantiles


Quantiles = Annotated[
    list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
]


class NormalizeConfig(Section):
    """How texts are brought together before they are categories: unicode form, trim, case, then mapping."""

    trim: bool = True
    """Drop white space at both ends."""
    unicode: Literal["NFC", "NFKC", "NFD", "NFKD"] | None = "NFC"
    """The form that characters are brought to."""
    case: Literal["lower", "upper"] | None = None
    """Make all letters lower or upper."""
    mapping: dict[str, str] = {}
    """Texts, after all else, and what stands for them."""


def missing_name(name: str) -> str:
    """The encoded column that says where a feature's value was missing."""
    return f"{name}_missing"


def part_names(name: str, part: str, cyclic: bool) -> tuple[str, ...]:
    """The encoded columns of a part of a timestamp; a year never comes back."""
    return (f"{name}_{part}_sin", f"{name}_{part}_cos") if cyclic and part != "year" else (f"{name}_{part}",)


class ConstantCategory(Section):
    """A category that stands for a missing one."""

    constant: str
    """Its text."""


class RawColumn(Section):
    """What all features share."""

    column: str | None = None
    """The raw column; by default of the feature's name."""
    indicator: bool = False
    """Add a feature `<name>_missing`, 1 where the value was missing."""

    def encoded_names(self, name: str) -> tuple[str, ...]:
        """The encoded columns that the feature of this name makes."""
        return (*self._own_names(name), *([missing_name(name)] if self.indicator else []))

    def _own_names(self, name: str) -> tuple[str, ...]:
        return (name,)


class NumericFeature(RawColumn):
    """A number: missing filled, clipped, transformed, scaled; float32."""

    type: Literal["numeric"]
    missing: Literal["mean", "median", "mode", "reject"] | float = "median"
    """What stands in: of the train rows, or a number; or the row is rejected."""
    clip: Quantiles | Literal["iqr"] | None = None
    """Lower and upper quantile of the train rows to clip to, or 1.5 interquartile ranges beyond the quartiles."""
    log1p: bool = False
    """Take the logarithm of 1 + |x|, with the sign of x."""
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"
    """Of the train rows: mean and deviation, least and greatest, or median and quartiles."""


class BucketFeature(RawColumn):
    """The interval that a number lies in, as a category."""

    type: Literal["bucket"]
    boundaries: list[float] | None = Field(default=None, min_length=1)
    """Where one interval ends and the next begins, ascending."""
    quantiles: int | None = Field(default=None, ge=2, le=1000)
    """Intervals with about equally many train rows each."""
    missing: Literal["null", "mean", "median", "mode", "reject"] | float = "null"
    """Null has an id of its own, lies in the interval of what stands in, or the row is rejected."""

    @model_validator(mode="after")
    def _one_of(self) -> BucketFeature:
        if (self.boundaries is None) == (self.quantiles is None):
            raise ValueError("expected either boundaries or quantiles")
        if self.boundaries is not None and sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError("boundaries are not ascending; expected each greater than the one before")
        return self


class CategoricalFeature(RawColumn):
    """A category: an id from a vocabulary of the train rows: 0 padding, 1 null, 2 unseen or rare, then by frequency."""

    type: Literal["categorical"]
    min_count: int = Field(default=1, ge=1)
    """Values seen less often in the train rows count as rare."""
    max_size: int = Field(default=100_000, ge=1, le=5_000_000)
    """The most values with an id of their own, by frequency."""
    missing: Literal["null", "mode", "reject"] | ConstantCategory = "null"
    """Null has an id of its own, counts as the most frequent value or a constant, or the row is rejected."""
    unseen_buckets: int = Field(default=1, ge=1)
    """Ids for unseen and rare values, which are told apart by a hash."""
    normalize: NormalizeConfig | None = None
    """Applied before values are counted."""
    sensitive: bool = False
    """The vocabulary is kept as digests; also where the column is one of `source.sensitive`."""


class HashedFeature(RawColumn):
    """A category without vocabulary: its id is a hash."""

    type: Literal["hashed"]
    buckets: int = Field(ge=1, le=10_000_000)
    """How many ids there are."""
    missing: Literal["null", "mode", "reject"] | ConstantCategory = "null"
    """Null has an id of its own, counts as the most frequent value or a constant, or the row is rejected."""
    normalize: NormalizeConfig | None = None
    """Applied before values are hashed."""


class CategoriesFeature(RawColumn):
    """An array of categories, padded or cut to a fixed length."""

    type: Literal["categories"]
    length: int = Field(ge=1, le=10_000)
    """Longer arrays are cut, shorter ones padded with 0."""
    missing: Literal["empty", "reject"] = "empty"
    """An array that is null has no category, or its row is rejected; a null within one is a category."""
    min_count: int = Field(default=1, ge=1)
    """Values seen less often in the train rows count as rare."""
    max_size: int = Field(default=100_000, ge=1, le=5_000_000)
    """The most values with an id of their own, by frequency."""
    normalize: NormalizeConfig | None = None
    """Applied before values are counted."""


class TargetFeature(RawColumn):
    """The mean label of a category, smoothed; for train rows computed without the rows of their own fold."""

    type: Literal["target"]
    folds: int = Field(default=5, ge=2, le=100)
    """Parts of the train rows, each encoded by the others."""
    smoothing: float = Field(default=20.0, ge=0)
    """Rows' worth of the overall mean that each category's mean starts with."""
    missing: Literal["null", "mode", "reject"] | ConstantCategory = "null"
    """Null is a category, counts as the most frequent one or a constant, or the row is rejected."""
    min_count: int = Field(default=1, ge=1)
    """Categories seen less often have the overall mean."""
    max_size: int = Field(default=100_000, ge=1, le=1_000_000)
    """The most categories with a mean of their own, by frequency."""
    normalize: NormalizeConfig | None = None
    """Applied before values are counted."""


Part = Literal["year", "month", "day", "weekday", "hour", "minute", "day_of_year", "minute_of_day"]


class TimestampFeature(RawColumn):
    """Parts of a timestamp (UTC) as categories, or as sine and cosine where `cyclic` is set."""

    type: Literal["timestamp"]
    parts: list[Part] = Field(min_length=1)
    """Each becomes a feature `<name>_<part>`."""
    cyclic: bool = False
    """Two numbers in place of an id, so that the last hour is beside the first."""
    missing: Literal["null", "reject"] | Moment = "null"
    """Null has an id of its own (sine and cosine are 0), counts as a given moment, or the row is rejected."""

    def _own_names(self, name: str) -> tuple[str, ...]:
        return tuple(column for part in self.parts for column in part_names(name, part, self.cyclic))


class ElapsedFeature(RawColumn):
    """The time from a moment, or another timestamp column, to a timestamp; as a number."""

    type: Literal["elapsed"]
    since: Moment | None = None
    """A moment..."""
    since_column: str | None = None
    """...or a column with one in each row."""
    unit: Literal["seconds", "minutes", "hours", "days"] = "days"
    """Of the number."""
    missing: Literal["mean", "median", "mode", "reject"] | float = "median"
    """What stands in: of the train rows, or a number; or the row is rejected."""
    clip: Quantiles | Literal["iqr"] | None = None
    """As of a number."""
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"
    """As of a number."""

    @model_validator(mode="after")
    def _one_of(self) -> ElapsedFeature:
        if (self.since is None) == (self.since_column is None):
            raise ValueError("expected either since (a moment) or since_column")
        return self


class BooleanFeature(RawColumn):
    """True or false as a category: 1 null, 2 unseen, then false, true."""

    type: Literal["boolean"]
    missing: Literal["null", "mode", "reject"] | bool = "null"
    """Null has an id of its own, counts as the more frequent or a given value, or the row is rejected."""


class VectorFeature(RawColumn):
    """A vector or an image of a fixed shape, from an array or binary column; missing is all zero."""

    type: Literal["vector"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=4)
    """Its sizes, the first one outermost."""
    dtype: Literal["float32", "uint8"] = "float32"
    """float32 for vectors, uint8 for images."""
    missing: Literal["zero", "reject"] = "zero"
    """A vector that is null is all zero, or its row is rejected; a missing number within one is 0."""


FeatureConfig = Annotated[
    NumericFeature
    | CategoricalFeature
    | BucketFeature
    | HashedFeature
    | CategoriesFeature
    | TargetFeature
    | TimestampFeature
    | ElapsedFeature
    | BooleanFeature
    | VectorFeature,
    Field(discriminator="type"),
]
