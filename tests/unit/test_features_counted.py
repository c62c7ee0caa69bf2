"""Numbers with counts are measured as if each stood there as often as it counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.counted import Counted, counted
from pipeline.features.distinct import Distinct
from pipeline.features.exact import Moments
from pipeline.features.histogram import Parts
from pipeline.features.quantiles import Bins
from pipeline.features.sketches import Mode, Present, Sketch, ordered_bits

ONE = int(ordered_bits(np.array([1.0]))[0])
SKETCHES = {
    "moments": Moments(),
    "distinct": Distinct(),
    "present": Present(),
    "mode": Mode(),
    "bins": Bins(),
    "finer bins": Bins(1, (ONE >> 48, (ONE >> 48) + 1), 0),
    "the finest bins": Bins(3, (ONE >> 48,), 0),
    "parts": Parts(((-3.0, 0.5, 4), (1.0, 9.0, 3))),
}
numbers = st.one_of(st.sampled_from([0.0, 1.0, 1.25, 5e-324, -2.5]), st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("sketch", SKETCHES.values(), ids=list(SKETCHES))
@given(rows=st.lists(st.tuples(numbers, st.integers(1, 9)), max_size=20), missing=st.integers(0, 3))
def test_cells_are_those_of_the_rows_one_by_one(sketch: Sketch, rows: list[tuple[float, int]], missing: int) -> None:
    values, counts = np.array([value for value, _ in rows]), np.array([count for _, count in rows], dtype=np.int64)
    found = sketch.cells(Counted(values, missing, counts))
    expected = sketch.cells(np.append(np.repeat(values, counts), np.full(missing, math.nan)))
    for name, cells in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), cells, err_msg=name)
        assert getattr(found, name).dtype == cells.dtype


def test_rows_are_counted_exactly_where_they_are_more_than_a_float32_holds() -> None:
    many = np.array([2**40 + 1, 3], dtype=np.int64)
    assert Counted(np.array([1.5, 2.5]), 0, many).rows_by(np.array([1, 1]), 3).tolist() == [0, 2**40 + 4, 0]


def test_plain_numbers_stand_for_a_row_each() -> None:
    found = counted(np.array([1.0, math.nan, 1.0]))
    assert (found.values.tolist(), found.missing, found.counts, found.present) == ([1.0, 1.0], 1, None, 2)
    assert counted(found) is found
