"""EXECUTOR. Columns of Arrow tables as canonical arrays, the form in which feature operations take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.features import Kind, canonical
from pipeline.features.kinds import MICROSECONDS, Array, is_missing
from pipeline.features.texts import Texts


def raw_arrays(table: pa.Table, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Canonical arrays, or `Texts`, of the named columns."""
    return {name: canonical_column(table.column(name), kind) for name, kind in kinds.items()}


def canonical_column(column: pa.ChunkedArray, kind: Kind) -> Array | Texts:
    """One column; texts stay coded, so that each distinct one becomes a Python object once."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if kind == "string":
        return _texts(array)
    if pa.types.is_timestamp(array.type):
        return canonical(array.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), kind).astype(MICROSECONDS)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return canonical(array.to_numpy(zero_copy_only=False), kind)


def _texts(array: pa.Array) -> Texts:
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    names = canonical(encoded.dictionary.to_pylist(), "string")
    missing = is_missing(names)
    if missing.any():  # NaN in a dictionary
        codes = np.where(np.append(missing, True)[codes], -1, codes)
    return Texts(codes, names)
