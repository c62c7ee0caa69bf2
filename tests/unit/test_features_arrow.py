"""A value is the same canonical value whether it comes from a Parquet file or from a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.features import Kind, canonical
from pipeline.features.categorical import Categories
from pipeline.features.lists import Lists
from pipeline.features.names import Text
from pipeline.features.sketches import Present, Values
from pipeline.features.texts import Texts, objects
from pipeline.features.vector import Vector
from pipeline.preparation.columns import canonical_column

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
KINDS: dict[Kind, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    "number": (st.floats(), pa.float64()),
    "string": (TEXTS, pa.string()),
    "boolean": (st.booleans(), pa.bool_()),
    "timestamp": (st.datetimes(), pa.timestamp("us", "UTC")),
    "vector": (st.lists(st.floats(), min_size=2, max_size=2), pa.list_(pa.float64())),
    "strings": (st.lists(st.none() | TEXTS, max_size=3), pa.list_(pa.string())),
}


def plain(array: Any) -> list[Any]:
    return [one.tolist() if isinstance(one, np.ndarray) else one for one in array.tolist()]


def as_array(column: Any) -> Any:
    if isinstance(column, Lists):
        ends = np.cumsum(column.lengths)
        items = as_array(column.items)
        rows = [items[end - length : end] for end, length in zip(ends, column.lengths, strict=True)]
        rows = [list(row) if isinstance(column.items, Texts) else row for row in rows]
        return objects([row if there else None for row, there in zip(rows, column.present, strict=True)])
    return column.values if isinstance(column, Texts) else column


@pytest.mark.parametrize("kind", list(KINDS))
@given(data=st.data())
def test_arrow_and_python_values_are_one(kind: Kind, data: st.DataObject) -> None:
    strategy, type_ = KINDS[kind]
    values = data.draw(st.lists(st.none() | strategy, max_size=20))
    from_arrow = as_array(canonical_column(pa.chunked_array([pa.array(values, type_)]), kind))
    for from_python in (canonical(values, kind), canonical(pd.Series(values, dtype=object), kind)):
        assert from_arrow.dtype == from_python.dtype
        if from_arrow.dtype == object:
            assert str(plain(from_arrow)) == str(plain(from_python))
        else:
            assert from_arrow.tobytes() == from_python.tobytes()


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integers_are_the_same_categories(values: list[int | None]) -> None:
    from_arrow = as_array(canonical_column(pa.chunked_array([pa.array(values, pa.int64())]), "string"))
    assert from_arrow.tolist() == canonical(values, "string").tolist()


def test_the_sign_of_zero_and_of_a_missing_number_is_no_information() -> None:
    odd = np.array([-0.0, -np.nan, np.nan, 1.5])
    same = np.array([0.0, np.nan, np.nan, 1.5])
    for values in (odd, odd.tolist(), pd.Series(odd, dtype=object)):
        assert canonical(values, "number").tobytes() == same.tobytes()
    for vector in (odd, odd.tolist()):
        assert canonical([vector], "vector")[0].tobytes() == same.tobytes()


NUMBERS = st.none() | st.floats(width=32)
LISTS: dict[str, tuple[Kind, st.SearchStrategy[Any], pa.DataType]] = {
    "float32": ("vector", st.lists(NUMBERS, min_size=3, max_size=3), pa.list_(pa.float32())),
    "float64": ("vector", st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), pa.large_list(pa.float64())),
    "fixed": ("vector", st.lists(NUMBERS, min_size=3, max_size=3), pa.list_(pa.float32(), 3)),
    "int64": (
        "vector",
        st.lists(st.none() | st.integers(-(2**60), 2**60), min_size=3, max_size=3),
        pa.list_(pa.int64()),
    ),
    "bytes": ("vector", st.binary(min_size=3, max_size=3), pa.binary()),
    "many bytes": ("vector", st.binary(min_size=3, max_size=3), pa.large_binary()),
    "texts": ("strings", st.lists(st.none() | TEXTS, max_size=5), pa.list_(pa.string())),
    "many texts": ("strings", st.lists(st.none() | TEXTS, max_size=5), pa.large_list(pa.large_string())),
}


def cut_and_covered(values: list[Any], type_: pa.DataType, hidden: Any) -> pa.ChunkedArray:
    """The values in Arrow: two slices of longer arrays, with values that still lie below the nulls."""
    half = len(values) // 2
    chunks = []
    for part in (values[:half], values[half:]):
        below = [hidden if value is None else value for value in part]
        array = pa.array([hidden, *below, hidden], type_)
        mask = np.array([False, *(value is None for value in part), False])
        if pa.types.is_list(type_):
            offsets = pa.array(array.offsets.to_numpy())
            validity = pa.array(~mask).buffers()[1]
            array = pa.Array.from_buffers(type_, len(array), [validity, offsets.buffers()[1]], children=[array.values])
        else:
            array = pa.array([None if null else value.as_py() for value, null in zip(array, mask, strict=True)], type_)
        chunks.append(array.slice(1, len(part)))
    return pa.chunked_array(chunks, type_)


@pytest.mark.parametrize("case", list(LISTS))
@given(data=st.data())
def test_lists_are_encoded_the_same_however_they_lie_in_memory(case: str, data: st.DataObject) -> None:
    kind, strategy, type_ = LISTS[case]
    values = data.draw(st.lists(st.none() | strategy, max_size=10))
    column = cut_and_covered(values, type_, data.draw(strategy))
    half = len(column.chunk(0))
    for part, some in ((column, values), (column.chunk(0), values[:half]), (column.chunk(1), values[half:])):
        check_same(canonical_column(part, kind), canonical(pd.Series(some, dtype=object), kind), kind)


def check_same(column: Any, rows: Any, kind: Kind) -> None:
    assert isinstance(column, Lists)
    assert len(column) == len(rows)
    assert Present().result(Present().cells(column)) == Present().result(Present().cells(rows))
    feature: Vector | Categories = Vector("x", "x", (3,))
    if kind == "strings":
        names = sorted({name for row in rows for name in row or [] if name is not None})
        feature = Categories("x", "x", 3, tuple(names[::2]), Text(case="lower"))
        found = [Values().result(Values().cells(feature.names({"x": one}))) for one in (column, rows)]
        assert found[0] == found[1]
    encoded, expected = (feature.encode({"x": one})["x"] for one in (column, rows))
    assert encoded.dtype == expected.dtype
    assert encoded.shape == expected.shape
    assert encoded.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_vectors_of_a_wrong_length_and_values_that_are_no_bytes_are_refused(dtype: str) -> None:
    feature = Vector("x", "x", (2,), dtype)
    for values in ([[1, 2], None, [3], [], [1, 2, 3, 4]], [b"12", None, b"3", b"", b"1234"]):
        for column in (canonical_column(pa.chunked_array([pa.array(values)]), "vector"), canonical(values, "vector")):
            with pytest.raises(DataError, match=r"column x has vectors of \[0, 1, 4\] numbers; expected 2"):
                feature.encode({"x": column})
    for odd in ([1, 256], [-1, 0], [0.5, 1.0], [None, 1]):
        for column in (canonical_column(pa.chunked_array([pa.array([odd])]), "vector"), canonical([odd], "vector")):
            if dtype == "float32":
                assert feature.encode({"x": column})["x"].shape == (1, 2)
            else:
                with pytest.raises(DataError, match="no bytes"):
                    feature.encode({"x": column})


def test_bytes_are_looked_at_where_they_lie() -> None:
    images = pa.array([bytes(range(8)), bytes(range(8))]).slice(1)
    column = canonical_column(pa.chunked_array([images]), "vector")
    assert isinstance(column, Lists)
    assert isinstance(column.items, np.ndarray)
    assert not column.items.flags.owndata
    assert column.items.tolist() == list(range(8))


@pytest.mark.parametrize("type_", [pa.list_(pa.float32()), pa.binary(), pa.list_(pa.string())])
def test_a_column_without_rows_or_without_any_list_is_no_special_case(type_: pa.DataType) -> None:
    kind: Kind = "strings" if type_ == pa.list_(pa.string()) else "vector"
    feature = Categories("x", "x", 2) if kind == "strings" else Vector("x", "x", (2,))
    for values in ([], [None, None]):
        for column in (canonical_column(pa.chunked_array([pa.array(values, type_)]), kind), canonical(values, kind)):
            assert feature.encode({"x": column})["x"].tolist() == [[0, 0]] * len(values)
    nothing = canonical_column(pa.chunked_array([], type_), kind)
    assert feature.encode({"x": nothing})["x"].shape == (0, 2)
