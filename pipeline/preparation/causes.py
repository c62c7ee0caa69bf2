"""DRIVER. What Spark's long messages mean: errors of ours in one line, which name file and column and what to do."""

from __future__ import annotations

import re
import urllib.parse

from pipeline import errors
from pipeline.errors import (
    ConfigError,
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
_JAR = "add it to cluster.spark as spark.jars.packages, or to spark-submit"
_OF_DATABASE = r"(?:\bSQL\w*|PSQL|SQLServer)Exception: "
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
    (  # before what it is caused by: the end of its stream, which is that of no file
        r"(?P<said>Python worker (?:exited unexpectedly|failed to connect)[^\n.:]*)",
        InterruptedRunError,
        "{what}: Spark says `{said}`; expected it to live, and often memory is short; give executors more of it or "
        "fewer cores, then run the same command again",
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
    (
        r"SQLException: No suitable driver",
        ServiceError,
        "{what}: no driver is there for its url; expected the jar of the database's JDBC driver; " + _JAR,
    ),
    (
        r"ClassNotFoundException: (?P<type>[\w.$]+)",
        ServiceError,
        "{what}: class {type} is not there; expected its jar on Spark's class path; " + _JAR,
    ),
    (
        r"The driver could not open a JDBC connection",
        ConfigError,
        "{what}: its driver does not know its url; expected the url of a database of that kind; mend options.url or "
        "options.driver",
    ),
    (
        r"(?P<said>Option '\w+'[^\n]* is required)",
        ConfigError,
        "{what}: Spark says `{said}`; expected it among the input's options; add it",
    ),
    (
        _OF_DATABASE + r"(?P<said>[^\n]*(?:not found|does(?: not|n't) exist|Invalid object name|ORA-00942)[^\n]*)",
        InputMissingError,
        "{what}: the database says `{said}`; expected a table that is there; check the input's options",
    ),
    (
        r"SQLSyntaxErrorException: (?P<said>[^\n]+)",
        ConfigError,
        "{what}: the database says `{said}`; expected SQL that it understands; mend the input's options",
    ),
    (
        _OF_DATABASE + r"(?P<said>[^\n]+)",
        ServiceError,
        "{what}: the database says `{said}`; expected an answer; look at the input's options, and at the database",
    ),
)
# What the user's SQL cannot compute for a row; where Spark knows the part of the SQL, with a line of marks below it.
_NOT_COMPUTED = re.compile(
    r"(?:Spark(?:NumberFormat|Arithmetic|DateTime|ArrayIndexOutOfBounds)Exception: |(?=\[(?:CAST_INVALID|CAST_OVERFLOW|"
    r"DIVIDE_BY_ZERO|(?:BINARY_)?ARITHMETIC_OVERFLOW|INVALID_ARRAY_INDEX|NUMERIC_VALUE_OUT_OF_RANGE|CANNOT_PARSE)))"
    r"(?:\[(?P<error>[A-Z_.]+)\] )?(?P<said>[^\n]+?)(?:\. |\.?\n|\.?$)"
)
_FRAGMENT = re.compile(r"== SQL ?\(line \d+, position \d+\) ==\n(?P<code>[^\n]*)\n(?P<marks> *\^+)")


def typed(what: str, text: str, hides_values: bool = False) -> PipelineError | None:
    """The error that Spark's message stands for, if it is a known one; what a task of ours raised keeps its type.

    Args:
        what: what was being done, as the user wrote it.
        text: the message, with Java's stack or without.
        hides_values: whether values of rows may not stand in the error.
    """
    own = _OWN_ERROR.search(text)
    if own and hasattr(errors, own[1]):
        return getattr(errors, own[1])(_hidden(own[2]) if hides_values else own[2])  # type: ignore[no-any-return]
    if "CSV header" in text:
        return _other_header(what, text, hides_values)
    for pattern, error, message in _CAUSES:
        if found := re.search(pattern, text):
            words = found.groupdict()
            said = _hidden(words.get("said") or "") if hides_values else words.get("said")
            file = plain_path(words.get("file") or "a file")
            return error(message.format(what=what, **{**words, "file": file, "said": said}))
    return _not_computed(what, text, hides_values)


def _hidden(text: str) -> str:
    """A message without what it quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text)


def _other_header(what: str, text: str, hides_values: bool) -> DataError:
    said = dict(re.findall(r"^\s*(Header|Schema|CSV file|Header length): ([^\n]*)", text, re.MULTILINE))
    header = f"is {said['Header']}" if "Header" in said and not hides_values else "differs"
    wanted = f"columns {said['Schema']} in this order" if "Schema" in said else "as many columns as the schema has"
    file = plain_path(said.get("CSV file", "a file"))
    return DataError(
        f"{what}: the CSV header does not match the schema: that of {file} {header}; expected {wanted}, as the schema "
        "or the first file says; write the files alike, or make them several inputs"
    )


def _not_computed(what: str, text: str, hides_values: bool) -> DataError | None:
    if not (found := _NOT_COMPUTED.search(text)):
        return None
    part = _FRAGMENT.search(text)
    place = f" of `{part['code'][part['marks'].index('^') : len(part['marks'])]}`" if part else ""
    said = (found["error"] or "an error") if hides_values else found["said"]
    return DataError(
        f"{what}: Spark says `{said}`{place}; expected SQL that can be computed for every row; where null is meant, "
        "use try_cast, try_divide and the like"
    )


def plain_path(url: str) -> str:
    """A local file as a user writes it."""
    return urllib.parse.unquote(re.sub(r"^file:/+", "/", url)) if url.startswith("file:") else url
