"""DRIVER. The schema of the part files, from configuration, fitted features and types of the raw columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.columns import plain_columns
from pipeline.config.features import CategoricalFeature, FeatureConfig
from pipeline.dataset import Column, DatasetSchema, Role
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


def effective_features(config: PipelineConfig) -> dict[str, FeatureConfig]:
    """The features, categories of sensitive columns marked as such."""
    return {
        name: feature.model_copy(update={"sensitive": True})
        if isinstance(feature, CategoricalFeature) and (feature.column or name) in config.source.sensitive
        else feature
        for name, feature in config.features.items()
    }


def unfit_plain_columns(config: PipelineConfig, raw: T.StructType) -> Iterator[str]:
    """Ids and kept columns of types that part files do not hold, one sentence each."""
    for _, name in plain_columns(config):
        if type(raw[name].dataType) not in _DTYPES:
            yield (
                f"column {name} has type {raw[name].dataType.simpleString()}; "
                "expected a plain one for an id or a kept column; cast it in the query"
            )


def dataset_schema(
    config: PipelineConfig, features: FittedFeatures, raw: T.StructType, classes: tuple[str, ...]
) -> DatasetSchema:
    """Ids, labels, features and kept columns, and how features are packed."""
    plain: dict[Role, list[Column]] = {"id": [], "kept": []}
    for physical, name in plain_columns(config):
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
