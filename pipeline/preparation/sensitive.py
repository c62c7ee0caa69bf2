"""DRIVER. What `source.sensitive` asks for before anything is read: names that are there, and states without values."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator

from pyspark.sql import DataFrame

from pipeline.config import PipelineConfig
from pipeline.config.features import (
    BucketFeature,
    CategoricalFeature,
    CategoriesFeature,
    ElapsedFeature,
    FeatureConfig,
    NumericFeature,
    TargetFeature,
    TimestampFeature,
)
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)


def check_sensitive_features(config: PipelineConfig) -> None:
    """Refuse features whose state would hold values of sensitive columns.

    Raises:
        ConfigError: all of them.
    """
    offences = []
    for name, feature in config.features.items():
        read = (feature.column or name, getattr(feature, "since_column", None))
        for column in (column for column in read if column in config.source.sensitive):
            offences += [
                f"features.{name} would keep values of sensitive column {column}: {what}" for what in _kept(feature)
            ]
    if offences:
        raise ConfigError(*offences)


def _kept(feature: FeatureConfig) -> Iterator[str]:
    """The settings by which single values of rows become a part of a fitted feature; sums over rows may."""
    if isinstance(feature, (TargetFeature, CategoriesFeature)):
        yield f"its type is {feature.type}; expected categorical, of which digests are kept"
    elif isinstance(feature, BucketFeature) and feature.quantiles is not None:
        yield "it has quantiles; expected boundaries"
    elif isinstance(feature, TimestampFeature) and "year" in feature.parts:
        yield "its parts have year, of which the first and the last are kept; expected other parts"
    if feature.missing in ("median", "mode") and not isinstance(feature, CategoricalFeature):
        yield f"missing is {feature.missing}; expected mean, a constant, or none"
    if isinstance(feature, (NumericFeature, ElapsedFeature)):
        if feature.clip is not None:
            yield "clip is set; expected none; bound the value in the query, or by a rule with action: clip"
        if feature.scale in ("min_max", "robust"):
            yield f"scale is {feature.scale}; expected standard or none"


def check_sensitive_names(config: PipelineConfig, queried: DataFrame, inputs: Iterable[DataFrame]) -> None:
    """Refuse names that no column has, and tell of those that only an input has: the query may give them another.

    Raises:
        ConfigError: all names that are neither, with the nearest that there is.
    """
    given = {name for frame in inputs for name in frame.columns}
    known, offences = {name.casefold(): name for name in (*given, *queried.columns)}, []
    for name in config.source.sensitive:
        if name not in given and name not in queried.columns:
            near = difflib.get_close_matches(name.casefold(), known, n=1)
            hint = f"did you mean {known[near[0]]}?" if near else "use the name that the query gives it"
            offences.append(
                f"source.sensitive is column {name}, which is missing; expected one of {', '.join(queried.columns)}; "
                f"{hint}"
            )
        elif name not in queried.columns:
            logger.warning(
                "prepare: source.sensitive names %s, a column of an input and none of the query: where the query gives "
                "its values under another name, name that too",
                name,
            )
    if offences:
        raise ConfigError(*offences)
