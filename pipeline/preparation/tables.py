"""DRIVER. One table as a frame, whatever its format: the same for preparation, for proposals and for scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructField, StructType

from pipeline.config.data import InputConfig
from pipeline.config.secret_values import from_environment
from pipeline.errors import ConfigError, DataError, InputMissingError
from pipeline.preparation.column_types import check_known
from pipeline.preparation.inputs import InputFile, is_pattern, spark_path, spark_url
from pipeline.preparation.open_quotes import FILE, LINE
from pipeline.preparation.orc import read_orc
from pipeline.preparation.parquet import read_parquet
from pipeline.preparation.quoting import quoted
from pipeline.preparation.session import spark_errors
from pipeline.preparation.text_files import DEFAULTS, columns_in, is_on, option, read_texts


def read_table(session: SparkSession, what: str, input_: InputConfig, files: Sequence[InputFile] = ()) -> DataFrame:
    """The rows of a table; those of text formats have a column `pipeline.preparation.text_files.FAULT`.

    Args:
        session: to read with; see `pipeline.preparation.session.preparation_settings`.
        what: the table, as the user wrote it.
        input_: where and how.
        files: of a table in files, what is to be read.

    Raises:
        ConfigError: an option or the schema cannot be used.
        DataError: files have columns of types that Spark does not read, or that differ.
        InputMissingError: files are not of their format, or tell no columns.
        ServiceError: this Spark does not have the format.
    """
    with spark_errors(what):
        options = _values(what, input_.options)
        if input_.table is not None:
            return _of_catalog(session, what, input_, options)
        if not input_.is_files:
            return _of_other_format(session, input_, options)
        paths, reader = _paths(files), _reader(session, input_, files, options)
        schema = ddl(session, f"{what}.schema", input_.columns) if input_.columns else None
        if input_.format in ("csv", "json"):
            schema = schema or columns_in(what, input_.format, reader, paths, options, infers=True)
            return read_texts(reader, paths, schema)
        read = read_parquet if input_.format == "parquet" else read_orc
        full, may_lack = [file.path for file in files if file.bytes], is_on(options, "mergeSchema")
        return read(session, reader, what, paths, full, schema, may_lack)


def columns_of(session: SparkSession, what: str, input_: InputConfig, files: Sequence[InputFile]) -> StructType:
    """The columns that CSV or JSON files have by themselves; those of CSV are texts.

    Raises:
        InputMissingError: the files tell no columns.
    """
    with spark_errors(what):
        options = _values(what, input_.options)
        reader = _reader(session, input_, files, options)
        return columns_in(what, input_.format, reader, _paths(files), options, infers=False)


def read_as_texts(
    session: SparkSession, input_: InputConfig, files: Sequence[InputFile], names: Sequence[str]
) -> DataFrame:
    """The columns of CSV files as they are written; of a row that cannot be parsed some are null."""
    schema = StructType([StructField(name, StringType()) for name in names])
    return _reader(session, input_, files, _values("the table", input_.options)).schema(schema).load(_paths(files))


def read_lines(session: SparkSession, what: str, input_: InputConfig, files: Sequence[InputFile]) -> DataFrame | None:
    """The lines of CSV files in which each line is a row, as `LINE`, with `FILE` and the columns of partitions."""
    options = _values(what, input_.options)
    if not input_.is_files or input_.format != "csv" or is_on(options, "multiLine"):
        return None
    given = option(options, "lineSep")
    reader = _reader(session, input_, files, {"lineSep": given} if given else {}, "text")
    lines = reader.load(_paths(files))
    return lines.withColumnRenamed("value", LINE).withColumn(FILE, F.col("_metadata.file_path"))


def _paths(files: Sequence[InputFile]) -> list[str]:
    return [spark_path(file.path) for file in files]


def _values(what: str, options: Mapping[str, str]) -> dict[str, str]:
    return {key: from_environment(value, f"{what}.options.{key}") for key, value in options.items()}


def _reader(
    session: SparkSession,
    input_: InputConfig,
    files: Sequence[InputFile],
    options: Mapping[str, str],
    format_: str | None = None,
) -> DataFrameReader:
    """A reader that makes columns of the partitions in the files' paths."""
    format_ = format_ or input_.format
    reader = session.read.format(format_).options(**{**DEFAULTS.get(format_, {}), **options})
    base, *others = input_.path or ("",)
    has_partitions = any("=" in file.path for file in files)
    is_file = [spark_url(file.path) for file in files] == [spark_url(base)]
    if not has_partitions or others or is_file or is_pattern(base):
        return reader
    return reader.option("basePath", spark_url(base))


def _of_catalog(session: SparkSession, what: str, input_: InputConfig, options: Mapping[str, str]) -> DataFrame:
    name = str(input_.table)
    if input_.columns:
        raise ConfigError(f"{what}.schema is set beside table {name}; expected one of them; cast in the query")
    catalog, is_there = session.catalog, False
    try:
        is_there = catalog.tableExists(name)
        is_view = is_there and catalog.getTable(name).tableType in ("VIEW", "TEMPORARY")
        if options and is_view:
            named = ", ".join(options)
            raise ConfigError(
                f"{what}.options has {named} for view {name}, which takes none; expected a table; leave it out"
            )
        frame = session.read.options(**options).table(name)
    except AnalysisException as error:
        said = str(error).strip().splitlines()[0]
        if is_there:
            raise DataError(f"{what}.table is {name}: {said}; expected a table that Spark can read") from error
        raise InputMissingError(
            f"{what}.table is {name}: {said}; expected a table or view of Spark's catalog; check its name"
        ) from error
    check_known(frame, what)
    return frame


def _of_other_format(session: SparkSession, input_: InputConfig, options: Mapping[str, str]) -> DataFrame:
    """Of a format that lists no files here; Spark knows it, or a package of its session."""
    reader = session.read.format(input_.format).options(**options)
    reader = reader.schema(input_.columns) if input_.columns else reader
    if not input_.path:
        return reader.load()
    paths = [spark_path(path) for path in input_.path]
    return reader.load(paths[0] if len(paths) == 1 else paths)


def ddl(session: SparkSession, what: str, text: str) -> StructType:
    """The columns that a text in Spark's DDL names.

    Raises:
        ConfigError: it is none.
    """
    try:
        return session.createDataFrame([], text).schema
    except (ParseException, ValueError, TypeError) as error:
        message = str(error).strip().splitlines()[0]
        raise ConfigError(f"{what} is not understood: {message}; expected `name type, ...` in Spark's DDL") from None


def ddl_of(columns: StructType) -> str:
    """The columns of a table in Spark's DDL, every name quoted."""
    return ", ".join(f"{quoted(field.name)} {_type_text(field.dataType)}" for field in columns)


def _type_text(type_: DataType) -> str:
    if isinstance(type_, StructType):
        return f"struct<{', '.join(f'{quoted(field.name)}: {_type_text(field.dataType)}' for field in type_)}>"
    if isinstance(type_, ArrayType):
        return f"array<{_type_text(type_.elementType)}>"
    if isinstance(type_, MapType):
        return f"map<{_type_text(type_.keyType)}, {_type_text(type_.valueType)}>"
    return type_.simpleString()
