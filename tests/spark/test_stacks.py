"""The same rows have the same content id on every stack: Spark 3.5 or 4, pyarrow 14 or current, numpy 1 or 2."""

from __future__ import annotations

import datetime
from pathlib import Path

from pyspark.sql import SparkSession

from pipeline.config import parse_config
from pipeline.preparation.prepare import prepare_dataset

RECORDED = "8296b2e5f4f09641db37eaad26ff28eb146ffbbb0aa558e5db27ec4a4afdc5b1"
"""With pyspark 3.5.9, pyarrow 14.0.2, numpy 1.26.4 and pandas 2.2.3."""

ROWS = 500
FEATURES = {
    "km": {"type": "numeric", "missing": "median", "clip": [0.01, 0.99], "scale": "standard"},
    "fare": {"type": "bucket", "quantiles": 8},
    "city": {"type": "categorical", "min_count": 2},
    "street": {"type": "hashed", "buckets": 64},
    "start": {"type": "timestamp", "parts": ["month", "weekday", "hour"]},
    "wet": {"type": "boolean"},
}


def _line(number: int) -> str:
    """From whole numbers alone, which are the same everywhere; with missing values and characters of many scripts."""
    dice = number * 7919 % 1000
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(minutes=617 * number)
    km = "" if number % 11 == 0 else f"{dice // 7}.{dice % 10}"
    city = ("Rome", "Oslo", "Łódź", " a  b ", "")[dice % 5]
    return f"{number},{km},{dice / 8},{city},straße {dice % 40},{start:%Y-%m-%dT%H:%M:%SZ},{dice % 3 == 0},{dice > 500}"


def test_the_content_id_does_not_depend_on_the_stack(spark: SparkSession, tmp_path: Path) -> None:
    header = "ride,km,fare,city,street,start,wet,late"
    (tmp_path / "rides.csv").write_text("\n".join([header, *map(_line, range(ROWS))]) + "\n")
    types = "ride long, km double, fare double, city string, street string, start timestamp, wet boolean, late boolean"
    rides = {"path": str(tmp_path / "rides.csv"), "schema": types, "options": {"header": "true"}}
    config = parse_config(
        {
            "source": {"inputs": {"rides": rides}, "id": ["ride"]},
            "features": FEATURES,
            "label": {"column": "late", "type": "binary"},
            "dataset": {"url": str(tmp_path / "rides"), "keep": ["city"], "rows_per_row_group": 50},
            "training": {"run_url": str(tmp_path / "run")},
        }
    )
    assert prepare_dataset(spark, config).content_id == RECORDED
