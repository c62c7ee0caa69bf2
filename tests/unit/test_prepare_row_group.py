"""What fits measure in a row group: numbers that repeat once for all their rows, with the statistics of all of them."""

from __future__ import annotations

import datetime
import gc
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.data import RuleConfig
from pipeline.features import Kind
from pipeline.features.counted import Counted
from pipeline.features.distinct import Distinct
from pipeline.features.exact import Moments
from pipeline.features.label_sums import Labelled, LabelSums
from pipeline.features.names import Names
from pipeline.features.numeric import Finite
from pipeline.features.quantiles import Bins
from pipeline.features.repair import repairs_of
from pipeline.features.sketches import Cells, Mode, Present, Sketch, Values, Want
from pipeline.features.texts import Texts
from pipeline.features.vocabulary import Unseen
from pipeline.preparation.columns import HASH, typed_name
from pipeline.preparation.row_group import RowGroup, staged_columns

ROWS = 40_000
RANDOM = np.random.default_rng(2)
PRICES = np.round(RANDOM.gamma(2, 10, ROWS), 2)
PRICES[:9] = [np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, -1e308, 1e308, np.nan]
COLUMNS: dict[str, Any] = {
    "prices": pa.array(PRICES, mask=RANDOM.random(ROWS) < 0.1),
    "counts": pa.array(RANDOM.poisson(3, ROWS).astype(np.int16)),
    "yes": pa.array(RANDOM.random(ROWS) < 0.5),
    "noise": pa.array(RANDOM.normal(size=ROWS)),
    "day": pa.array(
        [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=int(d)) for d in RANDOM.integers(0, 366, ROWS)],
        pa.timestamp("us"),
    ),
    "grade": pa.array(RANDOM.integers(1, 7, ROWS), mask=RANDOM.random(ROWS) < 0.1),
    HASH: pa.array(np.arange(ROWS)),
}
KINDS: dict[str, Kind] = {
    "prices": "number",
    "counts": "number",
    "yes": "boolean",
    "noise": "number",
    "day": "timestamp",
    "grade": "string",
}
REPAIRS = repairs_of([RuleConfig(column="prices", max=60, action="clip")])


class _Raw:
    """A raw column as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, raw: Mapping[str, Any]) -> Any:
        return raw[self._name]


def microseconds(raw: Mapping[str, Any]) -> Any:
    """Timestamps as numbers."""
    return raw["day"].astype(np.int64).astype(np.float64)


def labelled(raw: Mapping[str, Any]) -> Labelled:
    """Of several columns."""
    codes = raw["counts"].astype(np.int64)
    names = np.array([str(code) for code in range(codes.max() + 1)], dtype=object)
    return Labelled(Texts(codes, names), raw["_pipeline_fold"] % 3, raw["yes"])


WANTS = {
    "moments": Want(("prices",), Finite("prices"), Moments()),
    "bins": Want(("prices",), Finite("prices"), Bins()),
    "distinct": Want(("prices",), Finite("prices"), Distinct()),
    "mode of integers": Want(("counts",), Finite("counts"), Mode()),
    "present with infinities": Want(("prices",), _Raw("prices"), Present()),
    "truth values": Want(("yes",), _Raw("yes"), Moments()),
    "moments in time": Want(("day",), microseconds, Moments()),
    "numbers as categories": Want(("counts",), Names("counts"), Values(100)),
    "categories of integers, some missing": Want(("grade",), Names("grade"), Values(100)),
    "unseen categories, some missing": Want(("grade",), Unseen(Names("grade"), frozenset({"1", "2"})), Present()),
    "numbers that differ": Want(("noise",), Finite("noise"), Moments()),
    "several columns": Want(("counts", "yes", "_pipeline_fold"), labelled, LabelSums()),
}


def cells_of(sketch: Sketch, values: Any) -> dict[str, Any]:
    cells: Cells = sketch.cells(values)
    return {name: column.tolist() for name, column in vars(cells).items()}


@pytest.mark.parametrize("want", WANTS.values(), ids=list(WANTS))
def test_cells_are_those_of_all_rows(want: Want, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(COLUMNS)
    found = cells_of(want.sketch, RowGroup(table, KINDS, REPAIRS).values(want))
    monkeypatch.setattr("pipeline.preparation.row_group._SAMPLE", ROWS)  # too few rows to count any
    assert found == cells_of(want.sketch, RowGroup(table, KINDS, REPAIRS).values(want))


def test_numbers_that_repeat_are_measured_once_each_and_others_row_by_row() -> None:
    group = RowGroup(pa.table(COLUMNS), KINDS, REPAIRS)
    prices, noise = (group.values(Want((name,), Finite(name), Moments())) for name in ("prices", "noise"))
    assert isinstance(prices, Counted)
    assert prices.counts is not None
    assert len(prices.values) < 8000
    assert prices.present + prices.missing == ROWS
    assert isinstance(noise, Counted)
    assert noise.counts is None
    assert len(noise.values) == ROWS


def test_rules_change_numbers_before_they_are_measured() -> None:
    found = RowGroup(pa.table(COLUMNS), KINDS, REPAIRS).values(Want(("prices",), Finite("prices"), Moments()))
    assert found.values.max() == 60
    assert found.counts[found.values == 60].sum() > 1


def test_a_row_group_is_gone_with_its_last_name() -> None:
    group = RowGroup(pa.table(COLUMNS), KINDS, REPAIRS)
    for want in WANTS.values():
        group.values(want)
    gone = weakref.ref(group)
    gc.disable()
    try:
        del group
        assert gone() is None
    finally:
        gc.enable()


def test_equal_wants_are_made_once() -> None:
    group = RowGroup(pa.table(COLUMNS), KINDS, REPAIRS)
    values = [group.values(Want(("prices",), Finite("prices"), sketch)) for sketch in (Moments(), Bins())]
    assert values[0] is values[1]


def test_numbers_of_texts_are_those_that_were_read_of_them() -> None:
    texts = pa.array([f"{number}." for number in range(3)] * 10_000)
    numbers = pa.array([0.0, 1.0, 2.0] * 10_000)
    table = pa.table({"x": texts, typed_name("x"): numbers})
    found = RowGroup(table, {"x": "number"}, ()).values(Want(("x",), Finite("x"), Moments()))
    assert sorted(zip(found.values.tolist(), found.counts.tolist(), strict=True)) == [
        (0.0, 10_000),
        (1.0, 10_000),
        (2.0, 10_000),
    ]


def test_folds_are_read_from_the_hashes() -> None:
    assert staged_columns(["prices", "_pipeline_fold", "_pipeline_label"], KINDS) == ["prices", HASH, "_pipeline_label"]
