"""DRIVER. The one place that writes with Petastorm: its own metadata beside the part files of a split.

The metadata is a pickle, written for stock Petastorm readers and never read by this package.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from petastorm.codecs import ScalarCodec
from petastorm.etl.dataset_metadata import ROW_GROUPS_PER_FILE_KEY, UNISCHEMA_KEY
from petastorm.unischema import Unischema, UnischemaField
from pyspark.sql import types as T

from pipeline import storage
from pipeline.dataset import DatasetSchema

FILE_NAME = "_common_metadata"
_SPARK_TYPES: Mapping[str, Any] = {
    "string": T.StringType,
    "timestamp": T.TimestampType,
    "bool": T.BooleanType,
    "int8": T.ByteType,
    "uint8": T.ShortType,
    "int16": T.ShortType,
    "int32": T.IntegerType,
    "int64": T.LongType,
    "float32": T.FloatType,
    "float64": T.DoubleType,
}
_NUMPY_TYPES = {"string": np.str_, "timestamp": np.datetime64}


def write_metadata(folder: str, schema: DatasetSchema, row_groups: Mapping[str, int], wide: bool) -> storage.Digest:
    """Write ``_common_metadata`` of a split folder: the Unischema and the row groups of each file name.

    Packed columns are left out: Petastorm makes named tuples of a Unischema, whose fields cannot start with ``_``.
    """
    unischema = Unischema("Dataset", list(_fields(schema, wide)))
    metadata = {
        UNISCHEMA_KEY: pickle.dumps(unischema, protocol=2),
        ROW_GROUPS_PER_FILE_KEY: json.dumps(dict(row_groups)).encode(),
    }
    with storage.open_write(storage.join(folder, FILE_NAME)) as stream:
        pq.write_metadata(_arrow_schema(schema, wide).with_metadata(metadata), stream)
        return stream.digest


def _fields(schema: DatasetSchema, wide: bool) -> Iterable[UnischemaField]:
    for column in schema.columns:
        if column.role == "vector" or (column.role in ("numeric", "categorical") and not wide):
            continue
        numpy_type = _NUMPY_TYPES.get(column.dtype) or np.dtype(column.dtype).type
        codec = ScalarCodec(_SPARK_TYPES[column.dtype]())
        yield UnischemaField(column.name, numpy_type, (), codec, column.role in ("id", "kept"))


def _arrow_schema(schema: DatasetSchema, wide: bool) -> pa.Schema:
    types = {"string": pa.string(), "timestamp": pa.timestamp("us")}
    fields = []
    for column in schema.columns:
        type_ = types.get(column.dtype) or pa.from_numpy_dtype(np.dtype(column.dtype))
        if column.role == "vector":
            type_ = pa.list_(type_)
        if wide or column.role in ("id", "label", "weight", "kept"):
            fields.append(pa.field(column.name, type_))
    return pa.schema([*fields, *(pa.field(packed.name, pa.binary()) for packed in schema.packed)])
