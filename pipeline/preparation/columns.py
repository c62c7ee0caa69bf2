"""EXECUTOR. Columns of Arrow tables as canonical arrays, the form in which feature operations take them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.features import Kind, canonical
from pipeline.features.kinds import MICROSECONDS, Array, is_missing
from pipeline.features.lists import Lists
from pipeline.features.texts import Texts

OWN = "_pipeline_"
"""How names of columns begin that preparation adds itself."""
HASH, BUCKET, CHECKS = f"{OWN}hash", f"{OWN}bucket", (f"{OWN}check_1", f"{OWN}check_2")
"""What staging adds to a row: the hash that it is ordered by, its file, and two hashes of its id."""
KNOWN = f"{OWN}known"
"""Whether a row is published already; a column of frames that rows are added from."""
KNOWN_ROWS = f"{OWN}known_rows"
"""How many rows of its id are published already; beside `KNOWN`."""
_TYPED = f"{OWN}typed_"


def typed_name(name: str) -> str:
    """The staged column beside a raw one that holds its values as features read them."""
    return f"{_TYPED}{name}"


def is_typed(name: str) -> bool:
    """Whether a staged column is one of `typed_name`."""
    return name.startswith(_TYPED)


def check_text(name: str, array: pa.Array) -> None:
    """Refuse bytes that are no text; Spark does not look at them.

    Raises:
        DataError: names the column.
    """
    if not _is_text(array.type):
        return
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raise DataError(
            f"column {name} has a text that is not UTF-8; expected UTF-8; write the file again, or use "
            f"decode(cast({name} as binary), '<its character set>') in the query"
        ) from None


def raw_arrays(table: pa.Table, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Canonical arrays, `Texts` or `Lists`, of the named columns: of `typed_name` where it is there."""
    there = set(table.column_names)
    sources = {name: typed_name(name) if typed_name(name) in there else name for name in kinds}
    return {name: canonical_column(table.column(sources[name]), kind) for name, kind in kinds.items()}


def with_typed(columns: Sequence[str], there: Container[str]) -> list[str]:
    """The columns of a staged file to read for `raw_arrays`: those named and, of what is there, the typed ones."""
    return [*columns, *(typed for name in columns if (typed := typed_name(name)) in there)]


def canonical_column(column: pa.ChunkedArray, kind: Kind) -> Array | Texts | Lists:
    """One column; texts stay coded, so that each distinct one becomes a Python object once, and lists stay flat."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if kind == "string":
        return _texts(array)
    if kind == "vector" and _is_bytes(array.type):
        array = _as_list(array)
    if kind == "vector" and _is_list(array.type):
        numbers = array.flatten().to_numpy(zero_copy_only=False)
        return _lists(array, canonical([numbers], kind)[0])
    if kind == "strings" and _is_list(array.type) and _is_text(array.type.value_type):
        return _lists(array, _texts(array.flatten()))
    if pa.types.is_timestamp(array.type):
        return canonical(array.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), kind).astype(MICROSECONDS)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return canonical(array.to_numpy(zero_copy_only=False), kind)


def _texts(array: pa.Array) -> Texts:
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    names = _names(encoded.dictionary)
    missing = is_missing(names)
    if missing.any():  # NaN in a dictionary
        codes = np.where(np.append(missing, True)[codes], -1, codes)
    return Texts(codes, names)


def _names(dictionary: pa.Array) -> Array:
    """What `canonical` makes of a dictionary; of texts, each of which it leaves as it is, in Arrow's own loop."""
    if _is_text(dictionary.type):
        return np.asarray(dictionary.to_numpy(zero_copy_only=False), dtype=object)
    return canonical(dictionary.to_pylist(), "string")


def _lists(array: pa.Array, items: Array | Texts) -> Lists:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return Lists(items, lengths.astype(np.int64), pc.is_valid(array).to_numpy(zero_copy_only=False))


def _as_list(array: pa.Array) -> pa.Array:
    """Bytes as the lists of numbers that they are, in the same memory."""
    type_ = (pa.large_list if pa.types.is_large_binary(array.type) else pa.list_)(pa.uint8())
    if not len(array):  # of which Arrow may leave the buffers out
        return pa.array([], type_)
    validity, offsets, data = array.buffers()
    data = data or pa.py_buffer(b"")
    numbers = pa.Array.from_buffers(pa.uint8(), data.size, [None, data])
    return pa.Array.from_buffers(type_, len(array), [validity, offsets], offset=array.offset, children=[numbers])


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
