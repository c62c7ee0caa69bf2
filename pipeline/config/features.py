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
    unicode: Literal["NFC", "NFKC", "NFD", "NFKD"] | None = "NFC"
    case: Literal["lower", "upper"] | None = None
    mapping: dict[str, str] = {}


class NumericFeature(Section):
    """A number: missing filled, clipped, transformed, scaled; float32."""

    type: Literal["numeric"]
    column: str | None = None
    missing: Literal["mean", "median", "mode", "reject"] | float = "median"
    indicator: bool = False
    """Add a feature `<name>_missing`, 1 where the value was missing."""
    clip: Quantiles | Literal["iqr"] | None = None
    """Lower and upper quantile of the train rows to clip to, or 1.5 interquartile ranges beyond the quartiles."""
    log1p: bool = False
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"


class BucketFeature(Section):
    """The interval that a number lies in, as a category."""

    type: Literal["bucket"]
    column: str | None = None
    boundaries: list[float] | None = Field(default=None, min_length=1)
    quantiles: int | None = Field(default=None, ge=2, le=1000)
    """Intervals with about equally many train rows each."""

    @model_validator(mode="after")
    def _one_of(self) -> BucketFeature:
        if (self.boundaries is None) == (self.quantiles is None):
            raise ValueError("expected either boundaries or quantiles")
        if self.boundaries is not None and sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError("boundaries are not ascending; expected each greater than the one before")
        return self


class ConstantCategory(Section):
    """A category that stands for a missing one."""

    constant: str


class CategoricalFeature(Section):
    """A category: an id from a vocabulary of the train rows: 0 padding, 1 null, 2 unseen or rare, then by frequency."""

    type: Literal["categorical"]
    column: str | None = None
    min_count: int = Field(default=1, ge=1)
    max_size: int = Field(default=100_000, ge=1, le=5_000_000)
    missing: Literal["null", "mode", "reject"] | ConstantCategory = "null"
    indicator: bool = False
    unseen_buckets: int = Field(default=1, ge=1)
    """Ids for unseen and rare values, which are told apart by a hash."""
    normalize: NormalizeConfig | None = None
    sensitive: bool = False
    """The vocabulary is kept as digests; also where the column is one of `source.sensitive`."""


class HashedFeature(Section):
    """A category without vocabulary: its id is a hash."""

    type: Literal["hashed"]
    column: str | None = None
    buckets: int = Field(ge=1, le=10_000_000)
    normalize: NormalizeConfig | None = None


class CategoriesFeature(Section):
    """An array of categories, padded or cut to a fixed length."""

    type: Literal["categories"]
    column: str | None = None
    length: int = Field(ge=1, le=10_000)
    min_count: int = Field(default=1, ge=1)
    max_size: int = Field(default=100_000, ge=1, le=5_000_000)
    normalize: NormalizeConfig | None = None


class TargetFeature(Section):
    """The mean label of a category, smoothed; for train rows computed without the rows of their own fold."""

    type: Literal["target"]
    column: str | None = None
    folds: int = Field(default=5, ge=2, le=100)
    smoothing: float = Field(default=20.0, ge=0)
    min_count: int = Field(default=1, ge=1)
    max_size: int = Field(default=100_000, ge=1, le=1_000_000)
    normalize: NormalizeConfig | None = None


Part = Literal["year", "month", "day", "weekday", "hour", "minute", "day_of_year", "minute_of_day"]


class TimestampFeature(Section):
    """Parts of a timestamp (UTC) as categories, or as sine and cosine where `cyclic` is set."""

    type: Literal["timestamp"]
    column: str | None = None
    parts: list[Part] = Field(min_length=1)
    cyclic: bool = False


class ElapsedFeature(Section):
    """The time from a moment, or another timestamp column, to a timestamp; as a number."""

    type: Literal["elapsed"]
    column: str | None = None
    since: Moment | None = None
    since_column: str | None = None
    unit: Literal["seconds", "minutes", "hours", "days"] = "days"
    missing: Literal["mean", "median", "mode"] | float = "median"
    indicator: bool = False
    clip: Quantiles | Literal["iqr"] | None = None
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"

    @model_validator(mode="after")
    def _one_of(self) -> ElapsedFeature:
        if (self.since is None) == (self.since_column is None):
            raise ValueError("expected either since (a moment) or since_column")
        return self


class BooleanFeature(Section):
    """True or false as a category: 1 null, 2 unseen, then false, true."""

    type: Literal["boolean"]
    column: str | None = None


class VectorFeature(Section):
    """A vector or an image of a fixed shape, from an array or binary column; missing is all zero."""

    type: Literal["vector"]
    column: str | None = None
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=4)
    dtype: Literal["float32", "uint8"] = "float32"


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
