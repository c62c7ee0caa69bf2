"""Feature operations: what they compute, how they are fitted, and that order never matters."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.data import (
    BooleanFeature,
    BucketFeature,
    CategoricalFeature,
    CategoriesFeature,
    ElapsedFeature,
    HashedFeature,
    NormalizeConfig,
    NumericFeature,
    RuleConfig,
    TargetFeature,
    TimestampFeature,
    VectorFeature,
)
from pipeline.errors import DataError
from pipeline.features import FittedFeatures, canonical, fit_features, raw_inputs
from pipeline.features.distinct import Distinct
from pipeline.features.exact import LARGEST, Moments, exact_sums
from pipeline.features.label_sums import UNIT, Labelled, LabelSums
from pipeline.features.quantiles import quantiles
from pipeline.features.repair import Repair, repaired, repairs_of
from pipeline.features.sketches import Cells, Values, result_of
from pipeline.features.target import FOLD, LABEL
from pipeline.features.texts import Texts, coded, objects
from tests.fitting import merge, run_fit

finite = st.floats(-1e100, 1e100, allow_nan=False)


some_cells = st.lists(
    st.tuples(st.sampled_from(["", "a", "ä", "b"]), st.integers(-2, 2), *[st.integers(-9, 9)] * 3), max_size=12
).map(
    lambda rows: Cells(
        text=np.array([row[0] for row in rows], dtype=object),
        **{
            name: np.array([row[at] for row in rows], np.int64)
            for at, name in enumerate(("key", "count", "low", "high"), 1)
        },
    )
)


@given(st.lists(some_cells, min_size=1, max_size=4))
def test_cells_of_row_groups_are_merged_as_the_engine_merges_those_of_tasks(parts: list[Cells]) -> None:
    parts = [merge([part]) for part in parts]
    expected, found = (pd.DataFrame(vars(cells)) for cells in (merge(parts), Cells.merged(parts)))
    order = ["text", "key"]
    expected, found = (table.sort_values(order, ignore_index=True) for table in (expected, found))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def fit_one(config: Any, values: Any) -> FittedFeatures:
    kind = raw_inputs({"x": config})["x"]
    return run_fit(fit_features({"x": config}), {"x": canonical(values, kind)})[0]


@given(st.lists(finite, min_size=1), st.randoms())
def test_moments_are_exact_and_do_not_depend_on_the_order(values: list[float], random: Any) -> None:
    sketch = Moments()
    first = sketch.result(sketch.cells(np.array(values)))
    random.shuffle(values)
    parts = [sketch.cells(np.array([value])) for value in values]
    assert sketch.result(merge(parts)) == first
    assert first.mean == math.fsum(values) / len(values) or math.isclose(
        first.mean, math.fsum(values) / len(values), rel_tol=1e-15, abs_tol=1e-300
    )
    assert (first.min, first.max, first.count) == (min(values) + 0.0, max(values) + 0.0, len(values))


def _sums(values: list[float]) -> tuple[Fraction, Fraction]:
    squared = (Fraction(min(abs(value), LARGEST)) ** 2 for value in values)
    return sum(map(Fraction, values), Fraction(0)), sum(squared, Fraction(0))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_sums_are_those_of_fractions_whatever_the_exponents(values: list[float]) -> None:
    assert exact_sums(np.array(values)) == _sums(values)
    sketch = Moments()
    found = sketch.result(merge([sketch.cells(np.array([value])) for value in values]))
    assert (found.total, found.square) == _sums(values)
    assert math.isfinite(found.std)


def test_many_values_are_summed_exactly_too() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=70_000) * 10.0 ** random.integers(-30, 30, 70_000)
    assert exact_sums(values) == _sums(values.tolist())
    counts = random.integers(1, 1000, 70_000)
    pairs = [(Fraction(value), count) for value, count in zip(values.tolist(), counts.tolist(), strict=True)]
    expected = sum(value * count for value, count in pairs), sum(value * value * count for value, count in pairs)
    assert exact_sums(values, counts) == expected


@given(st.lists(finite, min_size=1), st.integers(0, 5), finite)
def test_what_is_filled_in_is_added_to_the_moments_as_if_it_had_been_measured(
    values: list[float], count: int, fill: float
) -> None:
    sketch = Moments()
    derived = sketch.result(sketch.cells(np.array(values))).with_constant(fill, count)
    measured = sketch.result(sketch.cells(np.array([*values, *[fill] * count])))
    assert (derived.count, derived.mean, derived.min, derived.max) == (
        measured.count,
        measured.mean,
        measured.min + 0.0,
        measured.max + 0.0,
    )
    assert derived.std == pytest.approx(measured.std, rel=1e-15)


def test_the_standard_deviation_survives_a_huge_mean() -> None:
    values = 1e9 + np.arange(1000) / 8
    sketch = Moments()
    assert sketch.result(sketch.cells(values)).std == np.std(np.arange(1000) / 8)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.floats(0, 1),
    st.integers(1, 5),
    st.sampled_from([0, 2, 4096]),
)
def test_quantiles_are_those_of_numpy_however_many_passes_find_them(
    values: list[float], fraction: float, chunks: int, few: int
) -> None:
    array = np.array(values)
    with mock.patch("pipeline.features.quantiles._FEW", few):
        (found,) = run_fit(quantiles(("x",), lambda raw: raw["x"], [fraction]), {"x": array}, chunks)
    ordered = np.sort(array + 0.0)
    rank = max(1, math.ceil(Fraction(fraction) * len(values)))
    assert found == ordered[rank - 1]


@given(st.lists(st.text(max_size=3)), st.integers(1, 4))
def test_the_vocabulary_is_by_count_then_value(values: list[str], limit: int) -> None:
    sketch = Values(limit)
    array = canonical(values, "string")
    found = result_of(sketch, merge([sketch.cells(part) for part in np.array_split(array, 3)]))
    counts = {value: values.count(value) for value in values}
    assert found == sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].encode()))[:limit]


def test_numbers_are_filled_with_the_median_clipped_and_standardised() -> None:
    values = [*range(100), None, math.nan]
    fitted = fit_one(NumericFeature(type="numeric", clip=[0.05, 0.95], indicator=True), values)
    encoded = fitted.transform({"x": canonical([None, 1000, 49, -math.inf], "number")})
    assert encoded["x"].dtype == np.float32
    feature, _ = fitted.features
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


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (NumericFeature(type="numeric", indicator=True), [1.0]),
        (CategoricalFeature(type="categorical", indicator=True), ["a"]),
        (BucketFeature(type="bucket", boundaries=[1], indicator=True), [1.0]),
        (HashedFeature(type="hashed", buckets=3), ["a"]),
        (CategoriesFeature(type="categories", length=2), [["a"]]),
        (TimestampFeature(type="timestamp", parts=["year", "hour"], cyclic=True), ["2024-01-01"]),
        (TimestampFeature(type="timestamp", parts=["year", "hour"], indicator=True), ["2024-01-01"]),
        (ElapsedFeature(type="elapsed", since="2024-01-01", indicator=True), ["2024-01-01"]),
        (BooleanFeature(type="boolean"), [True]),
        (VectorFeature(type="vector", shape=[1]), [[1.0]]),
    ],
)
def test_the_configuration_alone_tells_the_encoded_columns(config: Any, values: list[Any]) -> None:
    fitted = fit_one(config, values)
    raw = {"x": canonical(values, fitted.inputs["x"])}
    names = list(config.encoded_names("x"))
    assert [column.name for column in fitted.columns] == list(fitted.transform(raw)) == names


def test_the_state_survives_json() -> None:
    features = {
        "n": NumericFeature(type="numeric", clip=[0.1, 0.9]),
        "c": CategoricalFeature(type="categorical", column="n"),
        "t": TimestampFeature(type="timestamp", parts=["year"]),
    }
    raw = {"n": np.array([0.1, 0.2, math.nan]), "t": canonical(["2013-01-01"] * 3, "timestamp")}
    fitted, _ = run_fit(fit_features(features), raw)
    again = FittedFeatures.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.inputs == {"n": "number", "t": "timestamp"}


@pytest.mark.parametrize(("value", "kind"), [("abc", "number"), ("maybe", "boolean"), ("yesterday", "timestamp")])
def test_a_value_of_another_kind_is_refused_not_turned_into_a_missing_one(value: str, kind: Any) -> None:
    with pytest.raises(DataError, match=kind):
        canonical([value], kind)


def encode(config: Any, train: Any, values: Any) -> dict[str, np.ndarray]:
    fitted = fit_one(config, train)
    again = FittedFeatures.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    return again.transform({"x": canonical(values, fitted.inputs["x"])})


def test_the_mode_is_the_most_frequent_number_and_the_smallest_of_several() -> None:
    config = NumericFeature(type="numeric", missing="mode", scale="none")
    assert encode(config, [5, 3, 3, 5, 9], [None])["x"].tolist() == [3]


def test_outliers_are_clipped_one_and_a_half_quartile_ranges_out() -> None:
    config = NumericFeature(type="numeric", clip="iqr", scale="none")
    assert encode(config, [1, 2, 3, 4], [100, -100])["x"].tolist() == [3 + 1.5 * 2, 1 - 1.5 * 2]


def test_buckets_by_boundaries_and_by_quantiles() -> None:
    config = BucketFeature(type="bucket", boundaries=[0, 10])
    assert encode(config, [1], [-1, 0, 9, 10, math.inf, None])["x"].tolist() == [3, 4, 4, 5, 5, 1]
    config = BucketFeature(type="bucket", quantiles=4)
    assert encode(config, list(range(100)), [0, 24, 25, 50, 99])["x"].tolist() == [3, 4, 4, 5, 6]


def test_hashed_categories_need_no_vocabulary() -> None:
    ids = encode(HashedFeature(type="hashed", buckets=10), [], ["a", "b", None, "a", ""])["x"]
    assert ids[0] == ids[3]
    assert ids[2] == 1
    assert all(2 <= ids[place] < 12 for place in (0, 1, 4))


def test_unseen_values_are_told_apart_by_buckets() -> None:
    config = CategoricalFeature(type="categorical", unseen_buckets=50)
    ids = encode(config, ["a"], ["a", "new", "newer", None])["x"].tolist()
    assert ids[0] == 52
    assert ids[3] == 1
    assert ids[1] != ids[2]
    assert all(2 <= one < 52 for one in ids[1:3])


def test_texts_are_normalised_before_they_are_categories() -> None:
    normalize = NormalizeConfig(unicode="NFKC", case="lower", mapping={"roma": "rome"})
    config = CategoricalFeature(type="categorical", normalize=normalize)
    train = ["Rome", "\u00a0ROMA\t", "ﬁn"]
    assert encode(config, train, ["rome ", "FIN", "ｆｉｎ"])["x"].tolist() == [3, 4, 4]


def test_the_vocabulary_of_a_sensitive_column_is_not_readable() -> None:
    config = CategoricalFeature(type="categorical", sensitive=True)
    fitted = fit_one(config, ["Alice", "Bob", "Bob"])
    assert "Bob" not in json.dumps(fitted.to_json())
    assert fitted.transform({"x": canonical(["Bob", "Alice", "Eve"], "string")})["x"].tolist() == [3, 4, 2]


DAYS = ["2023-05-01", "2024-05-01", None]
STANDS_FOR: list[tuple[Any, list[Any], Any]] = [
    (CategoricalFeature(type="categorical", missing="mode"), ["b", "b", "a", None], "b"),
    (CategoricalFeature(type="categorical", missing={"constant": "a"}), ["b", "b", "a"], "a"),
    (CategoricalFeature(type="categorical", missing={"constant": "A"}, normalize={"case": "lower"}), ["b", "a"], "a"),
    (CategoricalFeature(type="categorical", missing="mode", sensitive=True), ["b", "b", "a"], "b"),
    (HashedFeature(type="hashed", buckets=999, missing="mode"), ["b", "b", "a"], "b"),
    (HashedFeature(type="hashed", buckets=999, missing={"constant": "a"}), ["b"], "a"),
    (BooleanFeature(type="boolean", missing="mode"), [True, True, False, None, None, None], True),
    (BooleanFeature(type="boolean", missing=False), [True], False),
    (BucketFeature(type="bucket", boundaries=[3, 6], missing=5), [1], 5),
    (BucketFeature(type="bucket", boundaries=[3, 6], missing="mean"), [1, 9, 8, None], 6),
    (BucketFeature(type="bucket", boundaries=[3, 6], missing="median"), [1, 4, 8, math.inf], 4),
    (BucketFeature(type="bucket", quantiles=2, missing="mode"), [1, 1, 4, 8], 1),
    (TimestampFeature(type="timestamp", parts=["year", "month"], missing="2021-03-01"), DAYS, "2021-03-31"),
    (
        TimestampFeature(type="timestamp", parts=["hour"], cyclic=True, missing="2021-03-01 06:00"),
        DAYS,
        "2024-01-01 06:00",
    ),
    (ElapsedFeature(type="elapsed", since="2020-01-01", missing="mode"), [*DAYS, "2024-05-01"], "2024-05-01"),
    (NumericFeature(type="numeric", missing=-1), [1, 2], -1),
]
"""Features with their train values, and the value that a missing one stands for."""


@pytest.mark.parametrize(("config", "train", "value"), STANDS_FOR)
def test_a_missing_value_is_encoded_as_what_it_stands_for(config: Any, train: list[Any], value: Any) -> None:
    encoded = encode(config.model_copy(update={"indicator": True}), train, [None, value])
    assert encoded.pop("x_missing").tolist() == [1, 0]
    assert all(one == other for one, other in encoded.values())


@pytest.mark.parametrize(
    ("config", "train", "values", "null"),
    [
        (CategoricalFeature(type="categorical"), ["a"], ["a", "b"], 1),
        (HashedFeature(type="hashed", buckets=999), [], ["a", "b"], 1),
        (BooleanFeature(type="boolean"), [], [True, False], 1),
        (BucketFeature(type="bucket", boundaries=[0]), [], [-1, 1], 1),
        (CategoriesFeature(type="categories", length=2), [["a"]], [["a"], []], [0, 0]),
        (VectorFeature(type="vector", shape=[2]), [], [[1, 2], [0, 0]], [0, 0]),
    ],
)
def test_a_missing_value_that_stands_for_none_has_a_code_of_its_own_or_is_empty(
    config: Any, train: list[Any], values: list[Any], null: Any
) -> None:
    encoded = encode(config.model_copy(update={"indicator": True}), train, [None, *values])
    assert encoded["x"][0].tolist() == null
    assert encoded["x_missing"].tolist() == [1, 0, 0]


def test_a_null_that_stands_for_a_category_counts_with_it_in_target_encoding() -> None:
    raw = {"x": canonical(["a", "a", None, "b"], "string"), LABEL: np.array([1.0, 0, 1, 0]), FOLD: np.arange(4)}
    means = {}
    for missing in ("null", "mode", {"constant": "b"}):
        config = TargetFeature(type="target", folds=2, smoothing=0, missing=missing)
        fitted, _ = run_fit(fit_features({"x": config}), raw)
        means[str(missing)] = fitted.transform({"x": canonical(["a", "b", None], "string")})["x"].tolist()
    two_thirds = float(np.float32(2 / 3))
    assert means == {"null": [0.5, 0, 1], "mode": [two_thirds, 0, two_thirds], "{'constant': 'b'}": [0.5, 0.5, 0.5]}


def test_an_infinite_number_is_missing_unless_it_is_clipped_and_so_is_a_time_elapsed_since_none() -> None:
    for clip, expected in ((None, [1, 1, 0]), ([0, 1], [1, 0, 0])):
        config = NumericFeature(type="numeric", indicator=True, clip=clip)
        assert encode(config, [1, 2], [None, math.inf, 1])["x_missing"].tolist() == expected
    config = ElapsedFeature(type="elapsed", since_column="y", indicator=True)
    moments = {name: canonical(days, "timestamp") for name, days in {"x": DAYS, "y": DAYS[1:] + DAYS[:1]}.items()}
    fitted, _ = run_fit(fit_features({"x": config}), moments)
    assert fitted.transform(moments)["x_missing"].tolist() == [0, 1, 1]


def test_several_categories_are_padded_or_cut() -> None:
    config = CategoriesFeature(type="categories", length=3)
    train = [["a", "b"], ["a"], None]
    matrix = encode(config, train, [["b", "a"], [], None, ["a", "x", None, "b"]])["x"]
    assert matrix.tolist() == [[4, 3, 0], [0, 0, 0], [0, 0, 0], [3, 2, 1]]


def test_time_elapsed_since_a_moment_and_since_another_column() -> None:
    config = ElapsedFeature(type="elapsed", since="2024-01-01T00:00:00Z", unit="hours", scale="none", missing=-1)
    assert encode(config, ["2024-01-01"], ["2024-01-01T01:30:00Z", None])["x"].tolist() == [1.5, -1]
    config = ElapsedFeature(type="elapsed", column="end", since_column="start", unit="minutes", scale="none")
    raw = {name: canonical([f"2024-01-01T{hour}:00:00"], "timestamp") for name, hour in (("start", 10), ("end", 12))}
    fitted, _ = run_fit(fit_features({"x": config}), raw)
    assert fitted.transform(raw)["x"].tolist() == [120]


def test_numbers_of_vectors_beyond_float32_become_its_largest_and_missing_ones_zero() -> None:
    encoded = encode(VectorFeature(type="vector", shape=[4]), [], [[1e300, -np.inf, np.nan, 0.5]])["x"]
    largest = float(np.float32(3.4e38))
    assert encoded.tolist() == [[largest, -largest, 0.0, 0.5]]


def test_vectors_keep_their_shape_and_missing_ones_are_zero() -> None:
    config = VectorFeature(type="vector", shape=[2, 2], dtype="uint8")
    encoded = encode(config, [], [[1, 2, 3, 255], None, b"\x00\x01\x02\x03", np.ones((2, 2))])["x"]
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[[1, 2], [3, 255]], [[0, 0], [0, 0]], [[0, 1], [2, 3]], [[1, 1], [1, 1]]]
    with pytest.raises(DataError, match="expected 4"):
        encode(config, [], [[1, 2, 3]])


def test_target_encoding_of_train_rows_does_not_see_their_own_fold() -> None:
    config = TargetFeature(type="target", folds=2, smoothing=0)
    raw = {
        "x": canonical(["a", "a", "a", "b", "b", None], "string"),
        LABEL: np.array([1.0, 0, 1, 0, 0, 1]),
        FOLD: np.array([0, 1, 1, 0, 1, 0]),
    }
    fitted, _ = run_fit(fit_features({"x": config}), raw)
    assert fitted.transform(raw)["x"].tolist() == [0.5, 1, 1, 0, 0, np.float32(1 / 3)]
    without = FittedFeatures.from_json(json.loads(json.dumps(fitted.to_json())))
    encoded = without.transform({"x": canonical(["a", "b", None, "new"], "string")})["x"]
    assert encoded.tolist() == [np.float32(2 / 3), 0, 1, 0.5]


@pytest.mark.parametrize("size", [1e-7, 1.0, 5e5, 1e15, 1e300, 5e-324])
def test_target_encoding_is_exact_for_labels_of_any_size(size: float) -> None:
    labels = np.array([3.0, 3.0, 3.0, -1.0]) * size
    raw = {"x": canonical(["a", "a", "a", "b"], "string"), LABEL: labels, FOLD: np.zeros(4, dtype=np.int64)}
    fitted, _ = run_fit(fit_features({"x": TargetFeature(type="target", folds=2, smoothing=0)}), raw)
    state = fitted.to_json()["features"][0]
    assert (state["means"], state["mean"]) == ([3 * size, -size], float(sum(map(Fraction, labels)) / 4))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_sums_of_labels_are_exact_and_their_limbs_small(labels: list[float]) -> None:
    rows = Labelled(
        Texts(np.zeros(len(labels), dtype=np.int64), objects(["a"])), np.ones(len(labels)), np.array(labels)
    )
    cells = merge([LabelSums().cells(rows)] * 3)
    found = LabelSums().result(cells).get("a", {1: (0, 0)})[1]
    assert found == (3 * len(labels), sum(3 * int(Fraction(label) * UNIT) for label in labels))
    assert (abs(cells.count) <= 3 * 2**33).all()


@pytest.mark.parametrize("count", [0, 1, 10, 300, 20_000])
def test_distinct_values_are_counted_nearly_in_any_order_and_parts(count: int) -> None:
    numbers = np.random.default_rng(count).normal(size=count)
    parts = [np.append(numbers, math.nan), numbers[::-1], np.append(numbers[: count // 2], -0.0) + 0.0]
    found = Distinct().result(merge([Distinct().cells(part) for part in parts]))
    assert found == pytest.approx(count + 1, rel=0.12, abs=1)
    texts = coded(canonical([f"text {n}" for n in range(count)], "string"))
    assert Distinct().result(Distinct().cells(texts)) == pytest.approx(count, rel=0.12, abs=1)


def test_decimals_keep_all_their_digits_as_categories() -> None:
    long = "1234567890123456789012345678901234567"
    values = [Decimal(text) for text in (f"{long}8", f"{long}9", "1.50", "-0.00", "100", "1E+3")]
    assert canonical(values, "string").tolist() == [f"{long}8", f"{long}9", "1.5", "0", "100", "1000"]


def test_rules_that_change_a_value_belong_to_the_state() -> None:
    rules = (
        RuleConfig(column="n", min=0, max=9, action="clip"),
        RuleConfig(column="c", allowed=["a", "b"], action="default", default="a"),
        RuleConfig(column="m", max=5, action="null"),
    )
    features = {
        "n": NumericFeature(type="numeric", scale="none"),
        "m": NumericFeature(type="numeric", scale="none", missing=-1),
        "c": CategoricalFeature(type="categorical"),
    }
    raw = {
        "n": np.array([-5.0, 5, 50]),
        "m": np.array([1.0, 6, math.nan]),
        "c": canonical(["z", "b", None], "string"),
    }
    repairs = tuple(Repair.of(rule) for rule in rules)
    changed, counts = repaired(raw, repairs)
    fitted, _ = run_fit(fit_features(features, repairs), changed)
    again = FittedFeatures.from_json(json.loads(json.dumps(fitted.to_json())))
    encoded = again.transform(raw)
    assert encoded["n"].tolist() == [0, 5, 9]
    assert encoded["m"].tolist() == [1, -1, -1]
    assert encoded["c"].tolist() == [3, 4, 1]
    assert counts == {
        "n is below 0 or is above 9: clip": 2,
        "c is not an allowed value: default a": 1,
        "m is above 5: null": 1,
    }


def test_each_rule_counts_what_it_changed_of_what_those_before_left() -> None:
    rules: list[dict[str, Any]] = [
        {"column": "n", "min": -1, "max": 1, "action": "clip"},
        {"column": "n", "min": -0.5, "max": 1, "action": "null"},
        {"column": "n", "min": -2, "action": "default", "default": 0},
        {"column": "n", "max": 0.25, "action": "default", "default": 1000000.5},
        {"column": "n", "max": 0.25, "action": "default", "default": 1000000.5},
        {"column": "c", "allowed": ["a", 1], "action": "default", "default": "b"},
        {"column": "c", "allowed": ["a", 1], "action": "null"},
    ]
    repairs = repairs_of([RuleConfig(**rule) for rule in rules])
    raw = {
        "n": np.array([-5.0, -0.75, 0.1, 0.5, 7, math.nan]),
        "c": canonical(["a", "1", "z", "b", None, "b"], "string"),
    }
    changed, counts = repaired(raw, repairs)
    assert counts == {
        "n is below -1 or is above 1: clip": 2,
        "n is below -0.5 or is above 1: null": 2,
        "n is below -2: default 0": 0,
        "n is above 0.25: default 1000000.5 (rule 3)": 2,
        "n is above 0.25: default 1000000.5 (rule 4)": 0,
        "c is not an allowed value: default b": 1,
        "c is not an allowed value: null": 3,
    }
    assert changed["n"].tolist()[2:5] == [0.1, 1000000.5, 1000000.5]
    assert changed["c"].values.tolist() == ["a", "1", None, None, None, None]
