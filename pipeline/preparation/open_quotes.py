"""DRIVER. Lines of CSV files in which a quoted text begins and does not end: Spark cuts it off there without a word.

Such a line is the beginning of a row whose text goes on in the next line, or it is broken. What the lines around it
belong to cannot be told, so that a table with any is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import reduce

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.errors import DataError
from pipeline.preparation.causes import plain_path
from pipeline.preparation.columns import OWN
from pipeline.preparation.session import spark_errors
from pipeline.preparation.text_files import DEFAULTS, is_on, option

LINE, FILE = f"{OWN}line", f"{OWN}file"
"""The columns of a frame of lines, beside those of its partitions."""
_SIGN = "\1"
_SHOWN = 80
"""Characters of a line."""


def open_lines(lines: DataFrame, options: Mapping[str, str], where: str | None = None) -> DataFrame | None:
    """The lines that leave a quoted text open; None where the options say that there are no quoted texts.

    Args:
        lines: of CSV files in which each line is a row.
        options: of Spark's CSV reader.
        where: a condition on the rows; lines of partitions that it leaves out do not count.
    """
    options = {**DEFAULTS["csv"], **options}
    quote = option(options, "quote", '"')
    if quote in ("", "\0"):
        return None
    for condition in _conjuncts(lines, where) if where else ():
        with suppress(AnalysisException):  # it is on columns of the files
            lines = lines.where(condition)
    return lines.where(F.col(LINE).contains(quote) & _is_open(lines, quote, options))


def _is_open(lines: DataFrame, quote: str, options: Mapping[str, str]) -> Column:
    """Quotes within texts become a sign, whole texts an x; what still begins with a quote then is open."""
    csv = lines.sparkSession._jvm.org.apache.spark.sql.catalyst.csv.CSVExprUtils  # type: ignore[union-attr]
    separator = re.escape(csv.toDelimiterStr(option(options, "sep", option(options, "delimiter", ","))))
    escape, mark = option(options, "escape", "\\"), re.escape(quote)
    within = mark + mark if escape == quote else f"{re.escape(escape)}[{mark}{re.escape(escape)}]"
    space = r"\s*" if is_on(options, "ignoreLeadingWhiteSpace") else ""
    # Of doubled quotes at its beginning, the first opens a text, so that the signs stand before the one that is left.
    signs = f"{_SIGN}*" if escape == quote else ""
    begins = f"(^|{separator}){space}{signs}{mark}"
    bare = F.regexp_replace(LINE, within, _SIGN) if escape else F.col(LINE)
    opens = F.regexp_replace(bare, f"{begins}[^{mark}]*{mark}", "$1x").rlike(begins)
    comment = option(options, "comment")
    return opens & ~F.col(LINE).startswith(comment) if comment else opens


def _conjuncts(lines: DataFrame, where: str) -> Iterator[str]:
    """The conditions that a condition joins by AND."""
    expression = lines.sparkSession._jsparkSession.sessionState().sqlParser().parseExpression(where)
    for one in _parts(expression):
        with suppress(Py4JJavaError):  # one that has no SQL before it is analysed, such as a subquery
            yield str(one.sql())


def _parts(expression: JavaObject) -> Iterator[JavaObject]:
    if expression.getClass().getSimpleName() == "And":
        yield from _parts(expression.left())
        yield from _parts(expression.right())
    else:
        yield expression


def refuse_open_lines(found: Mapping[str, DataFrame], are_shown: bool) -> None:
    """Refuse tables with lines of `open_lines`.

    Args:
        found: by table, as the user wrote it.
        are_shown: whether a line may stand in the error.

    Raises:
        DataError: with file and line of the first, and how many there are.
    """
    first = F.min(F.struct(FILE, F.substring(LINE, 1, _SHOWN).alias(LINE)))
    counts = [
        frame.agg(F.lit(what).alias("what"), F.count(LINE).alias("lines"), first.alias("first"))
        for what, frame in found.items()
    ]
    with spark_errors("reading the inputs"):
        rows = reduce(DataFrame.unionByName, counts).collect() if counts else []
    offences = [
        f"{row['what']}: {row['lines']:,} of its lines leave a quoted text open, such as "
        f"{repr(row['first'][LINE]) + ' ' if are_shown else 'one '}of {plain_path(row['first'][FILE])}; expected the "
        "closing quote in the same line; of texts with line breaks say options: {multiLine: true}, of a file without "
        "quoted texts {quote: ''}; or mend the lines"
        for row in rows
        if row["lines"]
    ]
    if offences:
        raise DataError(*offences)
