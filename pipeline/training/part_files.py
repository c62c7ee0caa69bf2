"""RANK. Part files on any storage: on this machine and checked once per process, then read row group by row group."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.errors import StorageError
from pipeline.training.arrow_decode import Foreign, decode
from pipeline.training.checks import corrupt, is_published
from pipeline.training.disk_cache import DiskCache, never
from pipeline.training.parquet_pages import Chunk, LocalFile, NotPlain, plain_chunks, read_chunks
from pipeline.training.reads import Array, Field, GroupRead, Timings

_Key = tuple[str, int, int]
_plain: dict[tuple[_Key, tuple[Field, ...]], list[dict[str, Chunk] | None]] = {}
_lock = threading.Lock()
_OPEN_FILES = 64


class PartFiles:
    """The part files of a dataset.

    Args:
        url: of the dataset.
        fields: what is read of each row group.
        extras: names of further columns of any type.
        timings: where the time goes that reading takes.
        cache: where remote files are copied to.
    """

    def __init__(
        self, url: str, fields: Sequence[Field], extras: Sequence[str], timings: Timings, cache: DiskCache
    ) -> None:
        self._url = url
        self.fields = tuple(fields)
        self.extras = tuple(extras)
        self._timings = timings
        self._cache = cache
        # An open file would keep the room that the cache has freed.
        self._open = functools.lru_cache(0 if self.remote else _OPEN_FILES)(LocalFile)

    def close(self) -> None:
        """Close what is open; a file that is read again is opened again."""
        self._open.cache_clear()

    def location(self, part: PartFile) -> str:
        """The url of a part file."""
        return storage.join(self._url, part.path)

    @property
    def remote(self) -> bool:
        """Whether files have to be fetched."""
        return not storage.is_local(self._url)

    def room_for(self, parts: Sequence[PartFile]) -> int:
        """How many fetched files of this size are kept."""
        return self._cache.room_for(parts)

    def check(self, part: PartFile, stopped: Callable[[], bool] = never) -> str:
        """Compare a file with the manifest, once per process; returns where on this machine it lies.

        Raises:
            StorageError: the file is missing, or is not the one that was published.
            Stopped: `stopped` said so while it was fetched.
        """
        url = self.location(part)
        if self.remote:
            return self._cache.fetch(url, part, stopped)
        if not is_published(url, part, self._timings):
            raise corrupt(url, part)
        return url

    def read(self, read: GroupRead, into: Mapping[str, Array]) -> dict[str, pa.Array]:
        """Fill arrays with a row group's fields, one row per row; returns the extra columns.

        Raises:
            StorageError: the file is missing, corrupt, or does not hold what the manifest says.
        """
        try:
            return self._read(self.check(read.part), read, into)
        except FileNotFoundError:  # another process needed the room
            source = self.check(read.part)
            with storage.storage_errors(source):
                return self._read(source, read, into)
        finally:
            self._timings.add_bytes(sum(array.nbytes for array in into.values()))

    def _read(self, source: str, read: GroupRead, into: Mapping[str, Array]) -> dict[str, pa.Array]:
        try:
            fields = () if self._copy_pages(source, read, into) else self.fields
            if not fields and not self.extras:
                return {}
            return self._decode(source, read, fields, into)
        except Foreign as error:
            raise StorageError(
                f"{self.location(read.part)} is not the part file that the manifest describes: {error}; "
                "restore the file or publish the dataset again"
            ) from error

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
            names = [field.name for field in self.fields]
            file = self._open(storage.local_path(source))
            read_chunks([chunks[name] for name in names], [into[name] for name in names], file)
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
