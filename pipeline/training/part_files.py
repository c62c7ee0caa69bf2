"""RANK. Part files on any storage: checked once per process, then read row group by row group into given memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.errors import StorageError
from pipeline.training.arrow_decode import Foreign, decode
from pipeline.training.disk_cache import DiskCache
from pipeline.training.parquet_pages import Chunk, LocalFile, NotPlain, plain_chunks, read_chunk
from pipeline.training.reads import Array, Field, GroupRead, Timings
from pipeline.training.remote import RemoteRanges, with_retries

_Key = tuple[str, int, int]
_checked: set[_Key] = set()
_plain: dict[tuple[_Key, tuple[Field, ...]], list[dict[str, Chunk] | None]] = {}
_lock = threading.Lock()


class PartFiles:
    """The part files of a dataset.

    Args:
        url: of the dataset.
        fields: what is read of each row group.
        extras: names of further columns of any type.
        timings: where the time goes that reading takes.
        cache: where remote files are kept.
    """

    def __init__(
        self,
        url: str,
        fields: Sequence[Field],
        extras: Sequence[str],
        timings: Timings,
        cache: DiskCache | None = None,
    ) -> None:
        self._url = url
        self.fields = tuple(fields)
        self.extras = tuple(extras)
        self._timings = timings
        self._cache = cache

    def location(self, part: PartFile) -> str:
        """The url of a part file."""
        return storage.join(self._url, part.path)

    def check(self, part: PartFile) -> str:
        """Compare a file's size and crc32 with the manifest, once per process; returns where to read it.

        Raises:
            StorageError: the file is missing, or is not the one that was published.
        """
        url, source = self.location(part), self._source(part)
        with _lock:
            if (source, part.bytes, part.crc32) in _checked:
                return source
        started = time.perf_counter()
        digest = with_retries(source, lambda: storage.digest_file(source, deep=False))
        if (digest.bytes, digest.crc32) != (part.bytes, part.crc32) and source != url and self._cache is not None:
            self._cache.drop(part)
            digest = storage.digest_file(self._source(part), deep=False)
        if (digest.bytes, digest.crc32) != (part.bytes, part.crc32):
            raise StorageError(
                f"{url} is corrupt: {digest.bytes} bytes with crc32 {digest.crc32:08x}; expected {part.bytes} "
                f"with {part.crc32:08x}; restore the file or publish the dataset again"
            )
        with _lock:
            _checked.add((source, part.bytes, part.crc32))
        self._timings.add("checking", started)
        return source

    def _source(self, part: PartFile) -> str:
        url = self.location(part)
        if self._cache is None or storage.is_local(url):
            return url
        return str(self._cache.fetch(url, part))

    def read(self, read: GroupRead, into: Mapping[str, Array]) -> dict[str, pa.Array]:
        """Fill arrays with a row group's fields, one row per row; returns the extra columns.

        Raises:
            StorageError: the file is missing, corrupt, or does not hold what the manifest says.
        """
        source = self.check(read.part)
        try:
            copied = with_retries(source, lambda: self._copy_pages(source, read, into))
            fields = () if copied else self.fields
            if not fields and not self.extras:
                return {}
            return with_retries(source, lambda: self._decode(source, read, fields, into))
        except Foreign as error:
            raise StorageError(
                f"{self.location(read.part)} is not the part file that the manifest describes: {error}; "
                "restore the file or publish the dataset again"
            ) from error
        finally:
            self._timings.add_bytes(sum(array.nbytes for array in into.values()))

    def _decode(
        self, source: str, read: GroupRead, fields: Sequence[Field], into: Mapping[str, Array]
    ) -> dict[str, pa.Array]:
        started = time.perf_counter()
        with storage.open_read(source) as stream:
            extras = decode(stream, read.row_group, read.rows, fields, self.extras, into)
        self._timings.add("decoding", started)
        return extras

    def _copy_pages(self, source: str, read: GroupRead, into: Mapping[str, Array]) -> bool:
        """Whether the fields could be copied as they lie in the file."""
        groups = self._plain_chunks(source, read.part)
        chunks = groups[read.row_group] if read.row_group < len(groups) else None
        if chunks is None:
            return False
        started = time.perf_counter()
        try:
            with _open(source, chunks) as file:
                for field in self.fields:
                    read_chunk(chunks[field.name], into[field.name], file.read_at, file.read_into)
        except NotPlain:
            return False
        finally:
            self._timings.add("reading", started)
        return True

    def _plain_chunks(self, source: str, part: PartFile) -> list[dict[str, Chunk] | None]:
        key = (source, part.bytes, part.crc32), self.fields
        with _lock:
            known = _plain.get(key)
        if known is None:
            try:
                with storage.open_read(source) as stream:
                    known = plain_chunks(pq.read_metadata(stream), self.fields)
            except pa.ArrowException as error:
                raise Foreign(str(error)) from error
            with _lock:
                _plain[key] = known
        return known


def _open(source: str, chunks: Mapping[str, Chunk]) -> LocalFile | RemoteRanges:
    if storage.is_local(source):
        return LocalFile(storage.local_path(source))
    return RemoteRanges(source, chunks.values())
