"""What a pass over the staged rows measures once for all who want it, and how its cells travel."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.features.names import Names
from pipeline.features.sketches import Cells, Present, Values, Want
from pipeline.features.texts import objects
from pipeline.preparation import fit
from pipeline.preparation.fit import _batches, _by_place, _limits, _unlimited


def want(column: str, limit: int | None = None, least: int = 1) -> Want:
    return Want((column,), Names(column), Values(limit, least))


def test_those_who_share_a_measurement_get_the_widest_limit_and_equal_limits_stand_side_by_side() -> None:
    wants = [want("a", 5, 3), want("b", 5, 3), want("c", 9), want("a", 7, 2), want("b"), want("d", 9), want("e", 7, 2)]
    wants.append(Want(("a",), Names("a"), Present()))
    found = _limits(wants, [_unlimited(one) for one in wants])
    named = [(measured.columns[0], limit and (limit.cells, limit.least)) for measured, limit in found.items()]
    assert sorted(named, key=str) == [
        ("a", (7, 2)),
        ("a", None),
        ("b", None),
        ("c", (9, 1)),
        ("d", (9, 1)),
        ("e", (7, 2)),
    ]
    runs = [limit for limit, _ in itertools.groupby(found.values())]
    assert len(runs) == len(set(runs)) == 3


def cells(*counts: int) -> Cells:
    numbers = np.array(counts, dtype=np.int64)
    return Cells(numbers, numbers + 1, numbers + 2, numbers + 3, objects([f"text {count}" for count in counts]))


def test_cells_of_many_measurements_travel_in_few_batches_and_come_back_in_their_places(monkeypatch) -> None:
    monkeypatch.setattr(fit, "_BATCH_CELLS", 4)
    sent = [cells(1, 2), None, cells(3), cells(), cells(4, 5, 6), cells(7)]
    batches = [*_batches(sent)]
    assert [len(batch) for batch in batches] == [6, 1]
    shuffled = pa.Table.from_batches(batches).to_pandas().sample(frac=1, random_state=1)
    received = _by_place(shuffled, len(sent))
    for one, other in zip(sent, received, strict=True):
        expected = pd.DataFrame(vars(one or cells()))
        found = pd.DataFrame(vars(other)).sort_values("count", ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert [*_batches([None, None])] == []
