"""A value is the same canonical value whether it comes from a Parquet file or from a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features import Kind, canonical
from pipeline.features.texts import Texts
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
