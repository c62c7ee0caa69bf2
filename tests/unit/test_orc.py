"""ORC files are compared with the columns that Spark has of them by what both hold, whatever either calls it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import orc
from pyspark.sql import types as T

from pipeline.preparation.footers import Shape
from pipeline.preparation.orc import _of_other_types, leaves

MOMENT = pa.timestamp("ns")


def offences(folder: Path, type_: pa.DataType, wanted: T.DataType) -> list[str]:
    file = str(folder / "a.orc")
    orc.write_table(pa.table({"t": pa.array([None], type_)}), file)
    return _of_other_types("in", [Shape(leaves(file), (), file, 1)], T.StructType([T.StructField("t", wanted)]))


@pytest.mark.parametrize("moment", [T.TimestampType(), T.TimestampNTZType()])
def test_timestamps_at_any_depth_are_read_with_a_zone_and_without(tmp_path: Path, moment: T.DataType) -> None:
    field = T.StructType([T.StructField("timestamp_ntz", moment)])
    for type_, wanted in (
        (MOMENT, moment),
        (pa.list_(MOMENT), T.ArrayType(moment)),
        (pa.map_(pa.string(), MOMENT), T.MapType(T.StringType(), moment)),
        (pa.struct({"timestamp_ntz": MOMENT}), field),
        (pa.list_(pa.struct({"timestamp_ntz": MOMENT})), T.ArrayType(field)),
    ):
        assert offences(tmp_path, type_, wanted) == []


def test_other_types_and_names_within_a_column_are_refused(tmp_path: Path) -> None:
    (offence,) = offences(tmp_path, pa.list_(MOMENT), T.ArrayType(T.DateType()))
    assert "a.orc has ORC type array<timestamp>; expected array<date>" in offence
    named = T.StructType([T.StructField("timestamp_ntz", T.TimestampType())])
    assert offences(tmp_path, pa.struct({"timestamp": MOMENT}), named)
