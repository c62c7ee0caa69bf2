"""RANK. Uncompressed fixed-width Parquet columns, copied from the file straight into the memory where they are wanted.

A column of plain, required, uncompressed values of fixed width lies in its pages as a matrix lies in memory. One
`preadv` then replaces decoding and copying.
Every other column, and every file that is not ours, goes through pyarrow.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow.parquet as pq

from pipeline.training.reads import Array, Field

_HEADER_BYTES = 256
_GAP_BYTES = 4096
_DATA_PAGE, _PLAIN = 0, 0
_FIXED_WIDTH = {"FIXED_LEN_BYTE_ARRAY", "FLOAT", "DOUBLE", "INT32", "INT64"}


Buffer: TypeAlias = "bytearray | memoryview[int]"


class NotPlain(Exception):
    """The pages are not what the footer promised."""


@dataclass(frozen=True)
class Chunk:
    """Where one column of one row group lies in the file."""

    offset: int
    size: int


def plain_chunks(footer: pq.FileMetaData, fields: Sequence[Field]) -> list[dict[str, Chunk] | None]:
    """For each row group where its fields lie, or None if they need decoding."""
    names = {footer.schema.column(index).path: index for index in range(footer.num_columns)}
    if any(field.name not in names for field in fields):
        return [None] * footer.num_row_groups
    indices = [names[field.name] for field in fields]
    if any(footer.schema.column(index).max_definition_level for index in indices):
        return [None] * footer.num_row_groups
    return [_chunks_of(footer.row_group(group), fields, indices) for group in range(footer.num_row_groups)]


def _chunks_of(group: pq.RowGroupMetaData, fields: Sequence[Field], indices: Sequence[int]) -> dict[str, Chunk] | None:
    chunks = {}
    for field, index in zip(fields, indices, strict=True):
        column = group.column(index)
        if (
            column.compression != "UNCOMPRESSED"
            or column.physical_type not in _FIXED_WIDTH
            or column.has_dictionary_page
            or column.total_compressed_size < group.num_rows * field.row_bytes
        ):
            return None
        chunks[field.name] = Chunk(column.data_page_offset, column.total_compressed_size)
    return chunks


@dataclass(frozen=True)
class _Wanted:
    """A column chunk and where its values belong; the header is what lies before them if the chunk is one page."""

    chunk: Chunk
    memory: memoryview[int]
    header: bytearray

    @classmethod
    def of(cls, chunk: Chunk, target: Array) -> _Wanted:
        memory = target.data.cast("B")
        return cls(chunk, memory, bytearray(max(0, min(_HEADER_BYTES, chunk.size - len(memory)))))

    @property
    def end(self) -> int:
        """Where what is read of it ends in the file."""
        return self.chunk.offset + len(self.header) + len(self.memory)


def read_chunks(chunks: Sequence[Chunk], targets: Sequence[Array], file: LocalFile) -> None:
    """Fill contiguous arrays with column chunks: chunks of one page that lie near each other, as ours do, in one call.

    Each call gives the interpreter lock away, and waiting to have it back takes as long as reading.

    Raises:
        NotPlain: a chunk holds something else than plain values of exactly its array's size.
    """
    wanted = sorted(map(_Wanted.of, chunks, targets), key=lambda one: one.chunk.offset)
    for offset, buffers in _calls(wanted):
        file.read_into(offset, buffers)
    for one in wanted:
        if data_page(bytes(one.header) + bytes(_HEADER_BYTES)) != (len(one.header), len(one.memory)):
            _read_pages(one.chunk, one.memory, file)


def _calls(wanted: Sequence[_Wanted]) -> list[tuple[int, list[Buffer]]]:
    """Where to read into which buffers; what writers put between two chunks is read too, and forgotten."""
    calls: list[tuple[int, list[Buffer]]] = []
    end = -1
    for one in wanted:
        gap = one.chunk.offset - end
        if end < 0 or not 0 <= gap <= _GAP_BYTES:
            calls.append((one.chunk.offset, []))
            gap = 0
        calls[-1][1].extend([bytearray(gap), one.header, one.memory])
        end = one.end
    return calls


def _read_pages(chunk: Chunk, memory: memoryview[int], file: LocalFile) -> None:
    at, end, filled = chunk.offset, chunk.offset + chunk.size, 0
    while at < end:
        header_bytes, page_bytes = data_page(file.read_at(at, min(_HEADER_BYTES, end - at)))
        if filled + page_bytes > len(memory):
            raise NotPlain("more values than rows")
        file.read_into(at + header_bytes, [memory[filled : filled + page_bytes]])
        filled += page_bytes
        at += header_bytes + page_bytes
    if filled != len(memory):
        raise NotPlain(f"{filled} bytes of values where {len(memory)} were expected")


def data_page(header: bytes) -> tuple[int, int]:
    """The sizes of a page's header and body, of a plain data page of version 1.

    The header is Thrift's compact protocol: field 1 is the page type, 2 and 3 the sizes, 5 the data page's own
    header with 1 the number of values and 2 the encoding (parquet.thrift, PageHeader and DataPageHeader).
    """
    try:
        fields, size = _struct(header, 0)
    except IndexError:
        raise NotPlain("a page header is longer than expected") from None
    inner = fields.get(5)
    if fields.get(1) != _DATA_PAGE or not isinstance(inner, dict) or inner.get(2) != _PLAIN:
        raise NotPlain("a page is no plain data page")
    if fields[2] != fields[3] or not isinstance(fields[3], int):
        raise NotPlain("a page is compressed")
    return size, fields[3]


_Struct = dict[int, "int | _Struct | None"]


def _struct(data: bytes, at: int) -> tuple[_Struct, int]:
    """Integers and structs by field number, and where the struct ends; other fields are skipped."""
    fields: _Struct = {}
    number = 0
    while kind := data[at]:
        delta, kind = kind >> 4, kind & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        if kind in (1, 2):
            fields[number] = kind
        elif kind in (4, 5, 6):
            fields[number], at = _zigzag(data, at)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            raise NotPlain(f"a page header has a field of type {kind}")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


class LocalFile:
    """Reads at offsets of a file of this machine, from any thread; it is closed when nobody has it any more."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes at an offset."""
        return os.pread(self._descriptor, size, offset)

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill buffers, one after the other; the kernel copies straight into them."""
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        while left:
            count = os.preadv(self._descriptor, left, offset)
            if not count:
                raise NotPlain("the file ends too early")
            offset += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
