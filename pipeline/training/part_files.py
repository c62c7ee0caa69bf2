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
from pipeline.training.parquet_pages import Chunk, LocalFile, NotPlain, plain_chunks, read_chunk
from pipeline.training.reads import Array, Field, GroupRead, Timings

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
    """

    def __init__(self, url: str, fields: Sequence[Field], extras: Sequence[str], timings: Timings) -> None:
        self._url = url
        self.fields = tuple(fields)
        self.extras = tuple(extras)
        self._timings = timings

    def location(self, part: PartFile) -> str:
        """The url of a part file."""
        return storage.join(self._url, part.path)

    def check(self, part: PartFile) -> None:
        """Compare a file's size and crc32 with the manifest, once per process.

        Raises:
            StorageError: the file is missing, or is not the one that was published.
        """
        key = self._key(part)
        with _lock:
            if key in _checked:
                return
        started = time.perf_counter()
        url = self.location(part)
        digest = storage.digest_file(url, deep=False)
        if (digest.bytes, digest.crc32) != (part.bytes, part.crc32):
            raise StorageError(
                f"{url} is corrupt: {digest.bytes} bytes with crc32 {digest.crc32:08x}; expected {part.bytes} "
                f"with {part.crc32:08x}; restore the file or publish the dataset again"
            )
        with _lock:
            _checked.add(key)
        self._timings.add("checking", started)

    def read(self, read: GroupRead, into: Mapping[str, Array]) -> dict[str, pa.Array]:
        """Fill (rows, width) arrays with a row group's fields; returns the extra columns.

        Raises:
            StorageError: the file is missing, corrupt, or does not hold what the manifest says.
        """
        self.check(read.part)
        url = self.location(read.part)
        copied = self._copy_pages(read, into)
        try:
            if copied and not self.extras:
                return {}
            started = time.perf_counter()
            fields = () if copied else self.fields
            with storage.open_read(url) as stream:
                extras = decode(stream, read.row_group, read.rows, fields, self.extras, into)
            self._timings.add("decoding", started)
            return extras
        except Foreign as error:
            raise StorageError(
                f"{url} is not the part file that the manifest describes: {error}; "
                "restore the file or publish the dataset again"
            ) from error
        finally:
            self._timings.add_bytes(sum(array.nbytes for array in into.values()))

    def _copy_pages(self, read: GroupRead, into: Mapping[str, Array]) -> bool:
        """Whether the fields could be copied as they lie in the file."""
        url = self.location(read.part)
        if not storage.is_local(url):
            return False
        chunks = self._plain_chunks(read.part)[read.row_group]
        if chunks is None:
            return False
        started = time.perf_counter()
        try:
            with storage.storage_errors(url), LocalFile(storage.local_path(url)) as file:
                for field in self.fields:
                    read_chunk(chunks[field.name], into[field.name], file.read_at, file.read_into)
        except NotPlain:
            return False
        finally:
            self._timings.add("reading", started)
        return True

    def _plain_chunks(self, part: PartFile) -> list[dict[str, Chunk] | None]:
        key = self._key(part), self.fields
        with _lock:
            known = _plain.get(key)
        if known is None:
            with storage.open_read(self.location(part)) as stream:
                known = plain_chunks(pq.read_metadata(stream), self.fields)
            with _lock:
                _plain[key] = known
        return known

    def _key(self, part: PartFile) -> _Key:
        return self.location(part), part.bytes, part.crc32
