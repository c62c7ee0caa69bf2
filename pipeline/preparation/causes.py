"""DRIVER. What Spark's long messages mean: errors of ours in one line, which name file and column and what to do."""

from __future__ import annotations

import re
import urllib.parse

from pipeline import errors
from pipeline.errors import (
    DataError,
    InputMissingError,
    InterruptedRunError,
    PipelineError,
    ServiceError,
    StorageError,
)

_OWN_ERROR = re.compile(r"pipeline\.errors\.(\w+): ([^\n]*)")
_OTHER_TYPE = (
    "{what}: column {column} of {file} has Parquet type {found}; expected {wanted}, as the other files or "
    "source.inputs say; write the file again with that type, or leave the column out of the input's schema"
)
_NO_FOOTER = (
    "{what}: {file} cannot be read in its format; expected a whole file with a footer; write it again, or mend the "
    "input's format"
)
_VANISHED = "{what}: an input file changed or vanished; expected it to stay; run again"
# What Spark says, in the words of its versions 3.5 and 4; the first that fits counts.
_CAUSES: tuple[tuple[str, type[PipelineError], str], ...] = (
    (
        r"No space left on device|ENOSPC|the disk is full",
        StorageError,
        "{what}: the disk is full; expected room for staged rows; free some space and run again",
    ),
    (
        r"Failed to find (?:the )?data source: (?P<format>\S+?)\.?(?:\s|$)",
        ServiceError,
        "{what}: format {format} is not part of this Spark; expected its package on the class path; add it to "
        "cluster.spark as spark.jars.packages, or to spark-submit",
    ),
    (
        r"(?P<type>(?:Illegal|Unrecognized) Parquet type: [^\n]+?|Parquet type not (?:yet )?supported: [^\n]+?"
        r"|Decimal precision \d+ exceeds max precision \d+|The data type TIME is not supported)"
        r"\.?\s*(?:SQLSTATE|\n|$)",
        DataError,
        "{what}: Spark says `{type}`; expected column types that it reads; write the files with other types, or leave "
        "the column out of the input's schema",
    ),
    (
        r"\[(?P<error>CAST_INVALID_INPUT|CAST_OVERFLOW|DIVIDE_BY_ZERO|ARITHMETIC_OVERFLOW|BINARY_ARITHMETIC_OVERFLOW"
        r"|INVALID_ARRAY_INDEX|NUMERIC_VALUE_OUT_OF_RANGE)[.\w]*\] (?P<said>[^\n]+?)\. ",
        DataError,
        "{what}: Spark says `{said}`; expected SQL that can be computed for every row; where null is meant, use "
        "try_cast, try_divide and the like",
    ),
    (
        r"column cannot be converted in file (?P<file>[^\n]+?)\. Column: \[(?P<column>[^\n]+?)\], "
        r"Expected: (?P<wanted>[^\n]+?), Found: (?P<found>\w+)",
        DataError,
        _OTHER_TYPE,
    ),
    (
        r"reading file (?P<file>[^\n]+?)\. Data type mismatches when reading Parquet column "
        r"\[?(?P<column>[^\n]+?)\]?\. Expected Spark type (?P<wanted>[^\n]+?), actual Parquet type (?P<found>\w+)",
        DataError,
        _OTHER_TYPE,
    ),
    (r"FileNotFoundException|It is possible the underlying files", InterruptedRunError, _VANISHED),
    (
        r"Could not read footer for file: (?:FileStatus\{path=)?(?P<file>[^\n]+?)(?:; isDirectory|\. Please|\n)",
        InputMissingError,
        _NO_FOOTER,
    ),
    (r"reading file (?P<file>[^\n]+?)\. Could not read (?:the )?footer", InputMissingError, _NO_FOOTER),
    (
        r"RuntimeException: (?P<file>[^\n]+?) is not a Parquet file|corrupted file: the footer",
        InputMissingError,
        _NO_FOOTER,
    ),
    (
        r"Unable to infer schema for (?P<format>\w+)",
        InputMissingError,
        "{what}: its files tell no columns of format {format}; expected at least one whole file; write it again, or "
        "mend the input's format",
    ),
    (
        r"EOFException|Unexpected end of",
        DataError,
        "{what}: a compressed file ends early; expected it whole; copy it again",
    ),
    (
        r"IOException: (?P<said>invalid (?:distance|code|block|stored|bit|literal|window)[^\n]*|incorrect data check"
        r"|incorrect header check|not a gzip file[^\n]*|unknown compression method)",
        DataError,
        "{what}: a compressed file is broken ({said}); expected it whole; copy it again",
    ),
    (r"FAILED_READ_FILE", InterruptedRunError, _VANISHED),
)


def typed(what: str, text: str) -> PipelineError | None:
    """The error that Spark's message stands for, if it is a known one; what a task of ours raised keeps its type.

    Args:
        what: what was being done, as the user wrote it.
        text: the message, with Java's stack or without.
    """
    own = _OWN_ERROR.search(text)
    if own and hasattr(errors, own[1]):
        return getattr(errors, own[1])(own[2])  # type: ignore[no-any-return]
    if "CSV header" in text:
        header = " ".join(line.strip() for line in text.splitlines() if re.match(r"\s*(Header|Schema|CSV file):", line))
        return DataError(
            f"{what}: the CSV header does not match the schema: {header}; expected the same names in order"
        )
    for pattern, error, message in _CAUSES:
        if found := re.search(pattern, text):
            words = found.groupdict()
            return error(message.format(what=what, **{**words, "file": plain_path(words.get("file") or "a file")}))
    return None


def plain_path(url: str) -> str:
    """A local file as a user writes it."""
    return urllib.parse.unquote(re.sub(r"^file:/+", "/", url)) if url.startswith("file:") else url
