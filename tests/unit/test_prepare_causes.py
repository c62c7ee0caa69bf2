"""Spark's messages, as versions 3.5 and 4 word them, become errors of one line."""

from __future__ import annotations

import pytest

from pipeline.errors import (
    ConfigError,
    DataError,
    InputMissingError,
    InterruptedRunError,
    PipelineError,
    ServiceError,
    StorageError,
)
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
            "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)\n"
            "Caused by: java.io.EOFException",
            InterruptedRunError,
            "Spark says `Python worker exited unexpectedly (crashed)`",
        ),
        (
            "SparkException: Python worker failed to connect back.\nCaused by: java.io.FileNotFoundException: socket",
            InterruptedRunError,
            "Spark says `Python worker failed to connect back`",
        ),
        (
            "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:/a.csv.gz.\n"
            "Caused by: java.io.IOException: invalid distance too far back",
            DataError,
            "a compressed file is broken (invalid distance too far back)",
        ),
        ("java.io.IOException: No space left on device", StorageError, "the disk is full"),
        (
            "IllegalArgumentException: CSV header does not conform to the schema.\n Header: a, b\n Schema: b, a\n"
            "Expected: b but found: a\nCSV file: file:///in/a%20b.csv\nDriver stacktrace:\nCaused by: java.lang."
            "IllegalArgumentException: CSV header does not conform to the schema.\n Header: a, b\n Schema: b, a\n",
            DataError,
            "does not match the schema: that of /in/a b.csv is a, b; expected columns b, a in this order, as",
        ),
        (
            "IllegalArgumentException: Number of column in CSV header is not equal to number of fields in the schema:"
            "\n Header length: 3, schema size: 2\nCSV file: file:///in/a.csv",
            DataError,
            "that of /in/a.csv differs; expected as many columns as the schema has",
        ),
        ("java.sql.SQLException: No suitable driver", ServiceError, "no driver is there for its url"),
        ("java.lang.ClassNotFoundException: org.postgresql.Driver", ServiceError, "class org.postgresql.Driver is not"),
        ("requirement failed: Option 'url' is required.", ConfigError, "`Option 'url' is required`"),
        ("java.sql.SQLException: Database '/db' not found.", InputMissingError, "says `Database '/db' not found.`"),
        (
            'org.postgresql.util.PSQLException: ERROR: relation "sales" does not exist',
            InputMissingError,
            'says `ERROR: relation "sales" does not exist`',
        ),
        (
            "java.sql.SQLSyntaxErrorException: Table 'shop.sales' doesn't exist",
            InputMissingError,
            "says `Table 'shop.sales' doesn't exist`",
        ),
        ('java.sql.SQLSyntaxErrorException: Encountered "fro" at line 1', ConfigError, "SQL that it understands"),
        (
            "com.microsoft.sqlserver.jdbc.SQLServerException: Login failed for user 'me'.",
            ServiceError,
            "says `Login failed for user 'me'.`",
        ),
        (
            "org.apache.spark.SparkDateTimeException: [CANNOT_PARSE_TIMESTAMP] Text 'x' could not be parsed. If",
            DataError,
            "says `Text 'x' could not be parsed`;",
        ),
        (
            "[DIVIDE_BY_ZERO] Division by zero. Use `try_divide`\n== SQL (line 1, position 8) ==\nselect id/0 from t\n"
            "       ^^^^\n",
            DataError,
            "says `Division by zero` of `id/0`; expected",
        ),
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


def test_what_a_message_quotes_is_hidden_where_values_are_not_to_be_shown() -> None:
    for message, said in (
        (
            "spark.SparkNumberFormatException: [CAST_INVALID_INPUT] The value 'SECRET' of the type \"STRING\" "
            "cannot be cast. Correct\n== SQL(line 1, position 8) ==\nselect cast(ssn as int) from t\n       "
            "^^^^^^^^^^^^^^^^\n",
            "`CAST_INVALID_INPUT` of `cast(ssn as int)`",
        ),
        ('PSQLException: ERROR: invalid input syntax for integer: "SECRET"', "integer: '...'`"),
        ("pipeline.errors.DataError: a value is not a number: 'SECRET'; expected numbers", "a number: '...'; expected"),
        (
            "CSV header does not conform.\n Header: 1, SECRET\n Schema: id, ssn\nCSV file: file:///a.csv",
            "that of /a.csv differs; expected columns id, ssn",
        ),
    ):
        assert "SECRET" in str(typed("source.query", message))
        hidden = str(typed("source.query", message, hides_values=True))
        assert said in hidden
        assert "SECRET" not in hidden
