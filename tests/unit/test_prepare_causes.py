"""Spark's messages, as versions 3.5 and 4 word them, become errors of one line."""

from __future__ import annotations

import pytest

from pipeline.errors import DataError, InputMissingError, InterruptedRunError, PipelineError, ServiceError, StorageError
from pipeline.preparation.causes import typed

STACK = "\n\tat org.apache.spark.sql.errors.QueryCompilationErrors$.error(QueryCompilationErrors.scala:1825)\n"


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        (
            "Illegal Parquet type: INT64 (TIME(NANOS,true)).",
            DataError,
            "`Illegal Parquet type: INT64 (TIME(NANOS,true))`",
        ),
        (
            "[PARQUET_TYPE_ILLEGAL] Illegal Parquet type: INT64 (TIMESTAMP(NANOS,false)). SQLSTATE: 42846",
            DataError,
            "`Illegal Parquet type: INT64 (TIMESTAMP(NANOS,false))`",
        ),
        (
            "[UNSUPPORTED_TIME_TYPE] The data type TIME is not supported. SQLSTATE: 0A000",
            DataError,
            "`The data type TIME is not supported`",
        ),
        (
            "[DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION] Decimal precision 50 exceeds max precision 38.",
            DataError,
            "`Decimal precision 50 exceeds max precision 38`",
        ),
        (
            "Parquet column cannot be converted in file file:///in/a%20b.v1.parquet. Column: [odd, element], "
            "Expected: bigint, Found: BINARY.",
            DataError,
            "column odd, element of /in/a b.v1.parquet has Parquet type BINARY; expected bigint,",
        ),
        (
            "[CANNOT_READ_FILE_FOOTER] Could not read footer for file: file:/in/a b.parquet. Please ensure that",
            InputMissingError,
            "sales: /in/a b.parquet cannot be read",
        ),
        (
            "Could not read footer for file: FileStatus{path=s3a://bucket/a.parquet; isDirectory=false; length=0}",
            InputMissingError,
            "sales: s3a://bucket/a.parquet cannot be read",
        ),
        (
            "[DATA_SOURCE_NOT_FOUND] Failed to find the data source: delta. Please find packages at",
            ServiceError,
            "format delta is not part",
        ),
        (
            "Could not read footer for file: x\nCaused by: java.io.FileNotFoundException",
            InterruptedRunError,
            "vanished",
        ),
        ("java.io.EOFException: Unexpected end of input stream", DataError, "a compressed file ends early"),
        (
            "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:/a.csv.gz.\n"
            "Caused by: java.io.IOException: invalid distance too far back",
            DataError,
            "a compressed file is broken (invalid distance too far back)",
        ),
        ("java.io.IOException: No space left on device", StorageError, "the disk is full"),
    ],
)
def test_a_message_names_what_is_wrong_and_what_to_do(message: str, error: type[PipelineError], said: str) -> None:
    found = typed("source.inputs.sales", f"Job aborted due to stage failure: {message}{STACK}")
    assert type(found) is error
    (offence,) = found.offences
    assert offence.startswith("source.inputs.sales: ")
    assert said in offence
    assert "; expected" in offence
    assert "\n" not in offence


def test_a_message_that_is_not_known_stays_what_it_is() -> None:
    assert typed("source.query", f"something else{STACK}") is None
