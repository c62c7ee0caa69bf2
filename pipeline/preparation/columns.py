"""EXECUTOR. Columns of Arrow tables as canonical arrays, the form in which feature operations take them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipeline.features import Kind, canonical
from pipeline.features.kinds import MICROSECONDS, Array


def raw_arrays(table: pa.Table, kinds: Mapping[str, Kind]) -> dict[str, Array]:
    """Canonical arrays of the named columns."""
    return {name: canonical_column(table.column(name), kind) for name, kind in kinds.items()}


def canonical_column(column: pa.ChunkedArray, kind: Kind) -> Array:
    """One column; texts are made once per distinct value."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if kind == "string":
        return _texts(array)
    if pa.types.is_timestamp(array.type):
        return canonical(array.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), kind).astype(MICROSECONDS)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return canonical(array.to_numpy(zero_copy_only=False), kind)


def _texts(array: pa.Array) -> Array:
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    distinct = canonical(encoded.dictionary.to_pylist(), "string")
    table = np.append(distinct, np.array([None], dtype=object))
    codes = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return np.asarray(table[codes])
