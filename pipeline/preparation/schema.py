"""DRIVER. The schema of the part files, from configuration, fitted features and types of the raw columns."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.features import CategoricalFeature, FeatureConfig
from pipeline.dataset import Column, DatasetSchema, Role
from pipeline.errors import ConfigError, DataError
from pipeline.features import FittedFeatures
from pipeline.preparation.layout import pack

_DTYPES: Mapping[type[T.DataType], str] = {
    T.StringType: "string",
    T.TimestampType: "timestamp",
    T.TimestampNTZType: "timestamp",
    T.DateType: "timestamp",
    T.BooleanType: "bool",
    T.ByteType: "int8",
    T.ShortType: "int16",
    T.IntegerType: "int32",
    T.LongType: "int64",
    T.FloatType: "float32",
    T.DoubleType: "float64",
    T.DecimalType: "string",
}


def plain_sources(config: PipelineConfig, encoded: Mapping[str, object]) -> dict[str, str]:
    """Physical name of each id and kept column to its raw name: the same, or ``raw_<name>`` where a feature has it."""
    taken = {*encoded, *config.labels, config.weight}
    names = dict.fromkeys([*config.source.id, *(name for name in config.dataset.keep if name not in config.labels)])
    return {f"raw_{name}" if name in taken else name: name for name in names}


def effective_features(config: PipelineConfig) -> dict[str, FeatureConfig]:
    """The features, categories of sensitive columns marked as such."""
    return {
        name: feature.model_copy(update={"sensitive": True})
        if isinstance(feature, CategoricalFeature) and (feature.column or name) in config.source.sensitive
        else feature
        for name, feature in config.features.items()
    }


def check_names(config: PipelineConfig, features: FittedFeatures) -> None:
    """Refuse columns of the part files that share a name: of two features, or of a feature and a label or weight.

    A feature may make columns under other names than its own (``<name>_missing``, ``<name>_hour``).

    Raises:
        ConfigError: all of them.
    """
    names = [column.name for column in features.columns]
    offences = [
        f"encoded column {name} comes from {names.count(name)} features; expected one; rename a feature"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    offences += [
        f"label {label} is an encoded column of a feature too; expected another name; rename the feature"
        for label in config.labels
        if label in names
    ]
    if config.weight in names:
        offences.append(
            f"label.weight {config.weight} is an encoded column of a feature too; expected another name; rename the "
            "feature"
        )
    if offences:
        raise ConfigError(*offences)


def dataset_schema(
    config: PipelineConfig, features: FittedFeatures, raw: T.StructType, classes: tuple[str, ...]
) -> DatasetSchema:
    """Ids, labels, features and kept columns, and how features are packed.

    Raises:
        DataError: an id or kept column has a type that part files cannot hold.
    """
    encoded = {column.name: column for column in features.columns}
    sources = plain_sources(config, encoded)
    offences = [
        f"column {name} has type {raw[name].dataType.simpleString()}; "
        "expected a plain one for an id or a kept column; cast it in the query"
        for name in sources.values()
        if type(raw[name].dataType) not in _DTYPES
    ]
    if offences:
        raise DataError(*offences)
    plain: dict[Role, list[Column]] = {"id": [], "kept": []}
    for physical, name in sources.items():
        role: Role = "id" if name in config.source.id else "kept"
        plain[role].append(Column(physical, _DTYPES[type(raw[name].dataType)], role))
    dtype = "int64" if config.label_type == "multiclass" else "float32"
    labels = [Column(name, dtype, "label") for name in config.labels]
    if config.weight is not None:
        labels.append(Column(config.weight, "float32", "weight"))
    return DatasetSchema(
        columns=(*plain["id"], *labels, *features.columns, *plain["kept"]),
        packed=pack(features.columns),
        label_type=config.label_type,
        classes=classes if config.label_type == "multiclass" else (),
    )
