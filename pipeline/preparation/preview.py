"""DRIVER. What a preparation would do, from a sample of the rows; nothing is written."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipeline.config import PipelineConfig
from pipeline.preparation.clean import REASONS, add_reasons, check_columns
from pipeline.preparation.inputs import fingerprints, list_inputs
from pipeline.preparation.read import parsed, query_rows, read_inputs, wanted
from pipeline.preparation.schema import check_features
from pipeline.preparation.session import named_views, preparation_settings, spark_errors
from pipeline.preparation.split import split_of

_SAMPLE_ROWS = 10_000


def preview(session: SparkSession, config: PipelineConfig, frame: DataFrame | None = None) -> dict[str, Any]:
    """Validate against the real columns, and count rejections, splits and missing values of the first rows.

    Returns:
        JSON-able: files and bytes per input, rows looked at, rows by split and by reason, missing values by column.

    Raises:
        InputMissingError: an input is missing.
        DataError: columns are missing or of the wrong type.
    """
    inputs = list_inputs(config)
    check_features(config)
    with preparation_settings(session) as own:
        frames = read_inputs(session, config, inputs)
        primary = config.source.primary or next(iter(frames), "frame")
        if frame is not None:
            frames[primary] = own.planned(frame)
        with spark_errors("source.where"), own.sql():
            frames[primary] = wanted(frames[primary], config)
        frames = {name: parsed(one) for name, one in frames.items()}
        with named_views(session, frames):
            queried = query_rows(own, config, frames, primary)
            check_columns(queried, config)
            ids = config.source.id or queried.columns
            split = split_of(queried, config, ids).alias("_split")
            with spark_errors("reading a sample"):
                rows = add_reasons(queried, config).select("*", split).limit(_SAMPLE_ROWS).collect()
    reasons = Counter(reason for row in rows for reason in row[REASONS] or ())
    splits = Counter(row["_split"] for row in rows if not row[REASONS])
    shown = [name for name in queried.columns if name not in config.source.sensitive]
    return {
        "inputs": {
            name: {"files": len(one["files"]), "bytes": one["bytes"]} for name, one in fingerprints(inputs).items()
        },
        "sample": {
            "rows": len(rows),
            "rejected": sum(1 for row in rows if row[REASONS]),
            "reasons": dict(sorted(reasons.items())),
            "splits": dict(sorted(splits.items())),
            "missing": {name: sum(1 for row in rows if row[name] is None) for name in shown},
        },
        "columns": {name: queried.schema[name].dataType.simpleString() for name in queried.columns},
    }
