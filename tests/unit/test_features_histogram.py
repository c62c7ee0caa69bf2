"""The distribution of a column: quantiles true to the column's spread, whatever its magnitude, in any order of rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.histogram import RESOLUTION, Histogram, histogram
from tests.fitting import run_fit

ROWS = 20_000
FRACTIONS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
RANDOM = np.random.default_rng(3)
COLUMNS = {
    "normal": RANDOM.normal(size=ROWS),
    "temperatures in Kelvin": RANDOM.normal(290, 1, ROWS),
    "years": RANDOM.integers(2010, 2014, ROWS).astype(float),
    "microseconds of a year": 1.7e15 + RANDOM.uniform(0, 3.15e13, ROWS),
    "microseconds of a minute": 1.7e15 + RANDOM.uniform(0, 6e7, ROWS),
    "many powers of ten": RANDOM.lognormal(0, 9, ROWS),
    "heavy tails": RANDOM.standard_cauchy(ROWS),
    "a constant and its noise beside outliers": np.append(1000 + RANDOM.normal(0, 1e-3, ROWS - 2), [960, 1020]),
    "huge of both signs": RANDOM.normal(size=ROWS) * 1e307,
    "the smallest there are": RANDOM.integers(0, 50, ROWS) * 5e-324,
    "mostly zero": np.where(RANDOM.random(ROWS) < 0.9, 0, RANDOM.normal(size=ROWS)),
}


def histogram_of(values: Any, chunks: int = 1) -> Any:
    return run_fit(histogram(("x",), lambda raw: raw["x"]), {"x": np.asarray(values, dtype=np.float64)}, chunks)


@pytest.mark.parametrize("what", list(COLUMNS))
def test_quantiles_are_right_to_within_half_a_hundredth_of_the_spread(what: str) -> None:
    values = COLUMNS[what]
    found = np.array(histogram_of(values).quantiles(FRACTIONS))
    exact = np.quantile(values, FRACTIONS, method="inverted_cdf")
    spread = exact[-1] / 2 - exact[0] / 2
    assert (np.abs(found / 2 - exact / 2) <= 0.005 * spread).all()


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9).map(float) | st.floats(99, 101)


@given(st.lists(numbers, min_size=1, max_size=300), st.sampled_from(FRACTIONS), st.integers(1, 4), st.randoms())
def test_quantiles_are_right_in_rank_and_the_order_of_rows_is_of_no_matter(
    values: list[float], fraction: float, chunks: int, random: Any
) -> None:
    found = histogram_of(values)
    (quantile,) = found.quantiles([fraction])
    error = 1 + len(values) / RESOLUTION
    assert sum(value < quantile for value in values) <= fraction * len(values) + error
    assert sum(value <= quantile for value in values) >= fraction * len(values) - error
    random.shuffle(values)
    assert histogram_of(values, chunks).to_json() == found.to_json()


def test_few_distinct_numbers_have_a_cell_each_and_many_do_not() -> None:
    assert histogram_of([2010, 2011, 2013] * 500).to_json() == [[year, year, 500] for year in (2010, 2011, 2013)]
    assert histogram_of(np.repeat([7.0, 8.0], 5)).distinct == 2
    assert histogram_of(COLUMNS["normal"]).distinct is None
    assert histogram_of([]) is None
    assert histogram_of([np.nan]) is None


@pytest.mark.parametrize("what", list(COLUMNS))
def test_what_is_stored_has_few_cells_and_tells_the_share_of_rows_up_to_an_edge(what: str) -> None:
    values = COLUMNS[what]
    fine = histogram_of(values)
    stored = Histogram.from_json(json.loads(json.dumps(fine.coarser().to_json())))
    assert len(stored.low) <= 150
    assert stored.total == ROWS
    edges = np.array(fine.quantiles(np.linspace(0.02, 0.98, 25)))
    exact = [(values <= edge).mean() for edge in edges]
    assert stored.share_up_to(edges) == pytest.approx(exact, abs=0.012)


def test_a_number_that_many_rows_have_is_an_edge_of_its_own() -> None:
    below, zero, *others = histogram_of(COLUMNS["mostly zero"]).tenths().tolist()
    assert (below, zero) == (-5e-324, 0.0)
    assert len(histogram_of(COLUMNS["normal"]).tenths()) == 9
    assert len(others) <= 2
