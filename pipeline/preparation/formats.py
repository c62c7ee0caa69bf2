"""DRIVER. Which format a table's files have: by their endings, or by how they begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pipeline import storage
from pipeline.errors import DataError
from pipeline.preparation.inputs import InputFile, is_delta

Format = Literal["csv", "json", "parquet", "orc", "delta"]

_ENDINGS: dict[str, Format] = {
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "parquet": "parquet",
    "orc": "orc",
}
_COMPRESSED = re.compile(r"\.(gz|bz2|zst|lz4|snappy|deflate)$")


def format_of(source: str, files: Sequence[InputFile]) -> Format:
    """The format that the name of a table tells, or else those of its files, or else the first bytes of one.

    Args:
        source: file, folder or glob pattern; the folder of a Delta table is one, whatever its name.
        files: what is there.

    Raises:
        DataError: the files are of several formats.
        StorageError: a file cannot be read.
    """
    if is_delta(source):
        return "delta"
    if own := _by_ending(source):
        return own
    formats = {format_ for file in files if (format_ := _by_ending(file.path))}
    if len(formats) > 1:
        raise DataError(
            f"{source} holds {' and '.join(sorted(formats))} files; expected one format; name the files of one by a "
            "pattern in quotes, such as 'folder/*.csv'"
        )
    return next(iter(formats), None) or _by_content([file.path for file in files if file.bytes])


def _by_ending(path: str) -> Format | None:
    return _ENDINGS.get(_COMPRESSED.sub("", path.rstrip("/").lower()).rsplit(".", 1)[-1])


def _by_content(paths: Sequence[str]) -> Format:
    if not paths:
        return "parquet"
    with storage.open_read(paths[0]) as stream, storage.storage_errors(paths[0]):
        start = stream.read(64)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"ORC"):
        return "orc"
    return "json" if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
