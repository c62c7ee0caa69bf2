"""Feature operations: what they compute, how they are fitted, and that order never matters."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.data import BooleanFeature, CategoricalFeature, NumericFeature, TimestampFeature
from pipeline.errors import DataError
from pipeline.features import FittedFeatures, canonical, fit_features, raw_inputs
from pipeline.features.sketches import Cells, Moments, Sketch, Values, quantiles

finite = st.floats(-1e100, 1e100, allow_nan=False)


def merge(sketch: Sketch, parts: list[Cells]) -> Cells:
    """What the engine does with the cells of many tasks."""
    table = pd.concat([pd.DataFrame(vars(part)) for part in parts])
    merged = table.groupby(["text", "key"], as_index=False).agg({"count": "sum", "low": "min", "high": "max"})
    if sketch.limit is not None:
        merged = merged[merged["count"] >= sketch.min_count].sort_values(["count", "text"], ascending=[False, True])
        merged = merged.head(sketch.limit)
    return Cells(**{name: merged[name].to_numpy() for name in ("count", "key", "low", "high", "text")})


def run_fit(fits: Any, raw: dict[str, np.ndarray], chunks: int = 1) -> Any:
    """Answer the rounds of a fit from arrays cut into chunks."""
    answers = None
    while True:
        try:
            wants = fits.send(answers)
        except StopIteration as end:
            return end.value
        batch = wants if isinstance(wants, list) else [wants]
        found = [
            want.sketch.result(
                merge(
                    want.sketch,
                    [want.sketch.cells(want.prepared(part)) for part in np.array_split(raw[want.column], chunks)],
                )
            )
            for want in batch
        ]
        answers = found if isinstance(wants, list) else found[0]


def fit_one(config: Any, values: Any, chunks: int = 1) -> FittedFeatures:
    kind = raw_inputs({"x": config})["x"]
    return run_fit(fit_features({"x": config}), {"x": canonical(values, kind)}, chunks)


@given(st.lists(finite, min_size=1), st.randoms())
def test_moments_are_exact_and_do_not_depend_on_the_order(values: list[float], random: Any) -> None:
    sketch = Moments()
    first = sketch.result(sketch.cells(np.array(values)))
    random.shuffle(values)
    parts = [sketch.cells(np.array([value])) for value in values]
    assert sketch.result(merge(sketch, parts)) == first
    assert first.mean == math.fsum(values) / len(values) or math.isclose(
        first.mean, math.fsum(values) / len(values), rel_tol=1e-15, abs_tol=1e-300
    )
    assert (first.min, first.max, first.count) == (min(values) + 0.0, max(values) + 0.0, len(values))


def test_the_standard_deviation_survives_a_huge_mean() -> None:
    values = 1e9 + np.arange(1000) / 8
    sketch = Moments()
    assert sketch.result(sketch.cells(values)).std == np.std(np.arange(1000) / 8)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(0, 1), st.integers(1, 5))
def test_quantiles_are_those_of_numpy(values: list[float], fraction: float, chunks: int) -> None:
    array = np.array(values)
    (found,) = run_fit(quantiles("x", np.asarray, [fraction]), {"x": array}, chunks)
    ordered = np.sort(array + 0.0)
    rank = max(1, math.ceil(fractions_product(fraction, len(values))))
    assert found == ordered[rank - 1]


def fractions_product(fraction: float, count: int) -> Any:
    from fractions import Fraction

    return Fraction(fraction) * count


@given(st.lists(st.text(max_size=3)), st.integers(1, 4))
def test_the_vocabulary_is_by_count_then_value(values: list[str], limit: int) -> None:
    sketch = Values(limit)
    array = canonical(values, "string")
    found = sketch.result(merge(sketch, [sketch.cells(part) for part in np.array_split(array, 3)]))
    counts = {value: values.count(value) for value in values}
    assert found == sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].encode()))[:limit]


def test_numbers_are_filled_with_the_median_clipped_and_standardised() -> None:
    values = [*range(100), None, math.nan]
    fitted = fit_one(NumericFeature(type="numeric", clip=[0.05, 0.95], indicator=True), values)
    encoded = fitted.transform({"x": canonical([None, 1000, 49, -math.inf], "number")})
    assert encoded["x"].dtype == np.float32
    (feature,) = fitted.features
    low = 5.0  # 0.05 as a float is a little more than a twentieth
    assert (feature.fill, feature.low, feature.high) == (49.0, low, 94.0)
    assert encoded["x"][0] == encoded["x"][2]
    assert encoded["x"][1] == np.float32((94 - feature.offset) / feature.scale)
    assert encoded["x"][3] == np.float32((low - feature.offset) / feature.scale)
    assert encoded["x_missing"].tolist() == [1, 0, 0, 0]


def test_a_constant_column_is_not_divided_by_zero() -> None:
    for scale in ("standard", "min_max", "robust"):
        encoded = fit_one(NumericFeature(type="numeric", scale=scale), [7, 7]).transform({"x": np.array([7.0, 8.0])})
        assert encoded["x"].tolist() == [0, 1]


def test_a_column_without_any_value_is_named() -> None:
    with pytest.raises(DataError, match="column x is missing in every train row"):
        fit_one(NumericFeature(type="numeric"), [None, math.nan])


def test_category_ids_are_null_unseen_then_by_frequency() -> None:
    fitted = fit_one(CategoricalFeature(type="categorical", min_count=2), ["b", "a", "b", "a", "b", "rare", None])
    encoded = fitted.transform({"x": canonical(["b", "a", "rare", "new", None, ""], "string")})
    assert encoded["x"].tolist() == [3, 4, 2, 2, 1, 2]
    assert fitted.columns[0].cardinality == 5


def test_whole_numbers_are_the_same_category_with_and_without_a_null_beside_them() -> None:
    assert canonical(pd.Series([1, 2]), "string").tolist() == ["1", "2"]
    assert canonical(pd.Series([1, None]), "string").tolist() == ["1", None]
    assert canonical(pd.Series([1, None], dtype="Int64"), "string").tolist() == ["1", None]


def test_parts_of_a_timestamp() -> None:
    config = TimestampFeature(type="timestamp", parts=["year", "month", "weekday", "hour", "day_of_year"])
    fitted = fit_one(config, ["2012-12-31T23:59:59Z", "2013-01-01T00:00:00"])
    encoded = fitted.transform(
        {"x": canonical(["2013-02-03T04:05:06Z", None, "0001-01-01", "9999-12-31"], "timestamp")}
    )
    assert encoded["x_year"].tolist() == [4, 1, 2, 2]
    assert encoded["x_month"].tolist() == [4, 1, 3, 14]
    assert encoded["x_weekday"].tolist() == [3 + 6, 1, 3, 3 + 4]
    assert encoded["x_hour"].tolist() == [7, 1, 3, 3]
    assert encoded["x_day_of_year"].tolist() == [36, 1, 3, 367]


def test_cyclic_parts_are_sine_and_cosine_and_zero_where_missing() -> None:
    fitted = fit_one(TimestampFeature(type="timestamp", parts=["hour"], cyclic=True), ["2013-01-01"])
    encoded = fitted.transform({"x": canonical(["2013-01-01T06:00:00", None], "timestamp")})
    assert encoded["x_hour_sin"].tolist() == [1, 0]
    assert np.allclose(encoded["x_hour_cos"], [0, 0], atol=1e-7)


def test_truth_values() -> None:
    fitted = fit_one(BooleanFeature(type="boolean"), [True])
    raw = canonical([True, False, None, "yes", "no", 1], "boolean")
    assert fitted.transform({"x": raw})["x"].tolist() == [4, 3, 1, 4, 3, 4]


def test_the_state_survives_json() -> None:
    features = {
        "n": NumericFeature(type="numeric", clip=[0.1, 0.9]),
        "c": CategoricalFeature(type="categorical", column="n"),
        "t": TimestampFeature(type="timestamp", parts=["year"]),
    }
    raw = {"n": np.array([0.1, 0.2, math.nan]), "t": canonical(["2013-01-01"] * 3, "timestamp")}
    fitted = run_fit(fit_features(features), raw)
    again = FittedFeatures.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.inputs == {"n": "number", "t": "timestamp"}


@pytest.mark.parametrize(("value", "kind"), [("abc", "number"), ("maybe", "boolean"), ("yesterday", "timestamp")])
def test_a_value_of_another_kind_is_refused_not_turned_into_a_missing_one(value: str, kind: Any) -> None:
    with pytest.raises(DataError, match=kind):
        canonical([value], kind)
