"""Rows of one hash: in one order and without duplicates, however the rows are cut into batches and shuffled."""

from __future__ import annotations

import math
import random
from typing import Any

import pyarrow as pa
import pytest

from pipeline.preparation.ties import Ties

# Hash, id, and a value of every awkward kind; rows of one hash are of one id but for the collision at 7.
ROWS: list[tuple[Any, ...]] = [
    (-5, "a", 1.0, "x", None),
    (1, "b", 2.0, "x", [1.0]),
    (1, "b", 2.0, "x", [1.0]),
    (1, "b", -0.0, None, [1.0]),
    (1, "b", 0.0, None, None),
    (1, "b", math.nan, "y", [2.0, 3.0]),
    (7, "c", 3.0, "x", None),
    (7, "d", 3.0, "x", None),
    (7, "c", None, "x", None),
    (9, "e", 4.0, "z", []),
]
NAMES = ("hash", "id", "number", "text", "list")
TYPES = (pa.int64(), pa.string(), pa.float64(), pa.string(), pa.list_(pa.float64()))


def settled(ties: Ties, seed: int, size: int) -> tuple[list[tuple[Any, ...]], int]:
    """All rows that stay, and how many do not."""
    rows = ROWS[:]
    random.Random(seed).shuffle(rows)
    rows.sort(key=lambda row: row[0])
    batches = []
    for start in range(0, len(rows), size):
        columns = zip(*rows[start : start + size], strict=True)
        arrays = [pa.array(values, type_) for values, type_ in zip(columns, TYPES, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, names=list(NAMES)))
    found = list(ties.settled(batches))
    table = pa.concat_tables([one for one, _ in found])
    return [tuple(map(repr, row.values())) for row in table.to_pylist()], sum(dropped for _, dropped in found)


@pytest.mark.parametrize(
    ("same", "dropped"), [((), 0), (("id",), 5), (("id", "number", "text", "list"), 1)], ids=["none", "id", "row"]
)
def test_order_and_duplicates_depend_on_the_rows_alone(same: tuple[str, ...], dropped: int) -> None:
    ties = Ties("hash", ("id",), ("id", "number", "text", "list"), same)
    first = settled(ties, 0, 100)
    assert first[1] == dropped
    assert len(first[0]) == len(ROWS) - dropped
    for seed in range(6):
        for size in (1, 3, 100):
            assert settled(ties, seed, size) == first


@pytest.mark.parametrize(("ascending", "stays"), [(True, "-0.0"), (False, "2.0")])
def test_the_preferred_row_of_an_id_stays_and_missing_values_come_last(ascending: bool, stays: str) -> None:
    ties = Ties("hash", ("id",), ("id", "number", "text", "list"), ("id",), "number", ascending)
    for seed in range(6):
        rows, _ = settled(ties, seed, 2)
        assert [row[2] for row in rows if row[1] == "'b'"] == [stays]
        assert [row[2] for row in rows if row[1] == "'c'"] == ["3.0"]


def test_a_run_of_one_hash_over_many_batches_is_kept_small() -> None:
    ties = Ties("hash", ("id",), ("id", "n"), ("id",))
    batches = [pa.RecordBatch.from_pydict({"hash": [3] * 10, "id": ["a"] * 10, "n": list(range(10))})] * 5
    found = list(ties.settled(batches))
    assert [len(table) for table, _ in found if len(table)] == [1]
    assert sum(dropped for _, dropped in found) == 49


def test_large_whole_numbers_that_decide_are_compared_as_such_beside_nulls() -> None:
    ties = Ties("hash", ("id",), ("id", "at"), ("id",), "at", ascending=False)
    late = 1_700_000_000_000_000_005
    columns = {"hash": [1, 1, 2], "id": ["a", "a", "b"], "at": [late - 5, late, None]}
    found = pa.concat_tables([table for table, _ in ties.settled([pa.RecordBatch.from_pydict(columns)])])
    assert found.column("at").to_pylist() == [late, None]


def test_one_id_over_many_batches_is_not_compared_again_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = Ties._compare
    monkeypatch.setattr(Ties, "_compare", lambda self, table: compared.append(len(table)) or compare(self, table))
    count = 128
    batches = [pa.RecordBatch.from_pydict({"hash": [3], "id": ["a"], "n": [-n]}) for n in range(count)]
    found = pa.concat_tables([table for table, _ in Ties("hash", ("id",), ("id", "n")).settled(batches)])
    assert found.column("n").to_pylist() == list(range(1 - count, 1))
    assert sum(compared) <= 4 * count
