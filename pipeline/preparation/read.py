"""DRIVER. From listed files to the rows of the query: parse faults set aside, primary rows counted."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, DataError
from pipeline.preparation.column_types import check_known, refuse_intervals
from pipeline.preparation.hashing import hashable, id_checks
from pipeline.preparation.inputs import Inputs, query_of
from pipeline.preparation.open_quotes import open_lines, refuse_open_lines
from pipeline.preparation.plans import check_condition, check_query
from pipeline.preparation.session import OwnSettings, spark_errors
from pipeline.preparation.snapshot import contents
from pipeline.preparation.tables import read_lines, read_table
from pipeline.preparation.text_files import FAULT, garbled, not_utf8


@dataclass(frozen=True)
class Census:
    """Rows of an input that were parsed, rows that were not, and two sums that tell one set of ids from another.

    ``contents`` is the sum of the rows' hashes, for inputs that are not made of files.
    """

    rows: int
    faults: int
    check: tuple[int, int] = (0, 0)
    contents: int | None = None


def read_inputs(session: SparkSession, config: PipelineConfig, inputs: Inputs) -> dict[str, DataFrame]:
    """One frame per input; text formats have a `FAULT` column, null where the row was parsed.

    Raises:
        DataError: Parquet files have columns of types that Spark does not read, or that differ.
        InputMissingError: a file is not of its format.
        ServiceError: this Spark does not have the format.
    """
    return {
        name: read_table(session, f"source.inputs.{name}", input_, inputs.get(name, ()))
        for name, input_ in config.source.inputs.items()
    }


def source_frames(
    own: OwnSettings, config: PipelineConfig, inputs: Inputs, frame: DataFrame | None
) -> tuple[dict[str, DataFrame], str]:
    """The frames of `read_inputs` and one from code, and which of them is primary: of it come the `wanted` rows.

    Raises:
        DataError: as of `read_inputs`; or the frame has several columns of one name, or of unusable types.
    """
    frames = read_inputs(own.session, config, inputs)
    if frame is not None:
        check_known(frame, "the DataFrame")
        check_once(frame.columns, "the DataFrame", "rename one before it is prepared")
        frames[config.source.primary or "frame"] = own.planned(frame)
    primary = config.source.primary or ("frame" if "frame" in frames else next(iter(frames)))
    return {**frames, primary: wanted(own, frames[primary], config)}, primary


def refuse_cut_texts(
    session: SparkSession, config: PipelineConfig, inputs: Inputs, primary: str, first: int | None = None
) -> None:
    """Look for texts of CSV files that would be cut at the end of a line, in one job.

    Args:
        session: to read with.
        config: the inputs; of the primary one the partitions that `source.where` leaves out are not looked at.
        inputs: their files.
        primary: the name of the primary input.
        first: how many lines of each input are enough; by default all.

    Raises:
        DataError: there are any.
    """
    found = {}
    for name, input_ in config.source.inputs.items():
        what = f"source.inputs.{name}"
        lines = read_lines(session, what, input_, inputs.get(name, ()))
        if lines is not None:
            where = config.source.where if name == primary else None
            found[what] = open_lines(lines if first is None else lines.limit(first), input_.options, where)
    refuse_open_lines({what: one for what, one in found.items() if one is not None}, not config.source.sensitive)


def check_once(columns: Sequence[str], giver: str, advice: str) -> None:
    """Refuse columns that share a name, which Spark could not tell from one another.

    Raises:
        DataError: all of them.
    """
    offences = [
        f"column {name} is given {columns.count(name)} times by {giver}; expected once; {advice}"
        for name in dict.fromkeys(columns)
        if columns.count(name) > 1
    ]
    if offences:
        raise DataError(*offences)


def take_census(
    frames: Mapping[str, DataFrame], config: PipelineConfig, primary: str, listed: Container[str] = ()
) -> dict[str, Census]:
    """Count rows and parse faults in one job: of the primary input, of texts, and of what has no ``listed`` files.

    The primary input comes as `wanted`.

    Raises:
        DataError: texts are not in the encoding that was given for them.
    """
    counted = {
        name: frame for name, frame in frames.items() if name == primary or name not in listed or FAULT in frame.columns
    }
    counts = [_counts(name, frame, config, name == primary, name in listed) for name, frame in counted.items()]
    with spark_errors("reading the inputs"):
        rows = reduce(DataFrame.unionByName, counts).collect() if counts else []
    offences = [
        not_utf8(f"source.inputs.{row['name']}", row["garbled_column"], row["garbled"])
        for row in rows
        if row["garbled"]
    ]
    if offences:
        raise DataError(*offences)
    return {
        row["name"]: Census(
            row["rows"],
            row["faults"],
            (_sum(row["first"]), _sum(row["second"])),
            None if row["name"] in listed else _sum(row["contents"]),
        )
        for row in rows
    }


def _sum(total: Decimal | None) -> int:
    return int(total or 0) % 2**64


def _counts(name: str, frame: DataFrame, config: PipelineConfig, is_primary: bool, is_listed: bool) -> DataFrame:
    fault = F.col(FAULT) if FAULT in frame.columns else F.lit(None).cast("string")
    good = fault.isNull()
    ids = config.source.id if is_primary and compares_ids(frame, config) else []
    checks = id_checks(frame, ids) if ids else (F.lit(0), F.lit(0))
    strange = F.lit(None).cast("string")
    if FAULT in frame.columns:
        strange = garbled(frame, config.source.inputs[name].options)
    first, second = (F.sum(F.when(good, check).cast("decimal(20,0)")) for check in checks)
    return frame.agg(
        F.lit(name).alias("name"),
        F.count_if(good).alias("rows"),
        F.count(fault).alias("faults"),
        F.count(strange).alias("garbled"),
        F.min(strange).alias("garbled_column"),
        first.alias("first"),
        second.alias("second"),
        (F.lit(None).cast("decimal(38,0)") if is_listed else contents(frame)).alias("contents"),
    )


def compares_ids(frame: DataFrame, config: PipelineConfig) -> bool:
    """Whether the ids of the query's rows are to be compared with this input's, and can be."""
    source = config.source
    has_ids = bool(source.id) and set(source.id) <= set(frame.columns)
    return has_ids and query_of(config) is not None and source.row_changes == "error"


def wanted(own: OwnSettings, frame: DataFrame, config: PipelineConfig) -> DataFrame:
    """The rows of the primary input that count: of `source.where`, and of the sample.

    A row that cannot be parsed counts as well, unless the condition is false of what was parsed of it; of the sample
    it is by its text, since its id may not be known. The condition stands alone, so that Spark can skip partitions
    and row groups by it.

    Raises:
        ConfigError: the condition reads tables or is by chance, or the sample is by columns that are not there.
        DataError: the condition is not valid.
    """
    where = config.source.where
    if where:
        with spark_errors("source.where"), own.sql():
            condition = F.expr(where)
            if FAULT in frame.columns:
                condition = condition | (F.col(FAULT).isNotNull() & condition.isNull())
            frame = frame.where(condition)
            check_condition(frame, "source.where")
    return frame if config.source.sample is None else frame.where(_sampled(frame, config))


def _sampled(frame: DataFrame, config: PipelineConfig) -> Column:
    sample = config.source.sample
    assert sample is not None
    there = [name for name in frame.columns if name != FAULT]
    if missing := [name for name in config.source.id if name not in there]:
        raise ConfigError(
            f"source.sample is by source.id, and the primary input lacks {', '.join(missing)}; expected ids of "
            f"{', '.join(there)}; name some of them, or choose the sample by source.where"
        )
    salt = F.lit(sample.salt)
    drawn = F.xxhash64(salt, *hashable(frame, config.source.id))
    if FAULT in frame.columns:
        drawn = F.when(F.col(FAULT).isNull(), drawn).otherwise(F.xxhash64(salt, F.col(FAULT)))
    return F.pmod(drawn, F.lit(10**6)) < round(sample.fraction * 10**6)


def parsed(frame: DataFrame, where: str | None = None) -> DataFrame:
    """The rows without faults, in the columns of the input.

    Args:
        frame: an input.
        where: the condition that `wanted` chose them by; said again, Spark can skip partitions by it.
    """
    frame = frame.where(F.col(FAULT).isNull()).drop(FAULT) if FAULT in frame.columns else frame
    return frame.where(where) if where else frame


def query_rows(own: OwnSettings, config: PipelineConfig, views: Mapping[str, DataFrame], primary: str) -> DataFrame:
    """The rows of `source.query`, or of the only input; call within `OwnSettings.views`.

    Raises:
        ConfigError: the query reads other tables, or gives other rows each time.
        DataError: Spark refuses the query, or it gives columns that cannot be prepared.
    """
    query = query_of(config)
    if query is None:
        queried = views[primary]
    else:
        with spark_errors("source.query"), own.sql():
            queried = own.session.sql(query)
        check_query(queried, "source.query_file" if config.source.query_file else "source.query", views)
    refuse_intervals(queried, "the query")
    return queried
