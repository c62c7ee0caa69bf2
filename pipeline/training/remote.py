"""RANK. Any fsspec filesystem for Petastorm, which knows only pyarrow's legacy filesystems.

With pyarrow 14 `pyarrow.parquet.ParquetDataset` takes the legacy path, the only one that Petastorm understands, only
for instances of `pyarrow.filesystem.FileSystem`; so fsspec is wrapped in one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline import storage

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from pyarrow.filesystem import DaskFileSystem


class FsspecBridge(DaskFileSystem):  # type: ignore[misc]
    """What the legacy dataset asks of a filesystem, answered by fsspec."""

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))

    def walk(self, path: str) -> Iterator[Any]:
        return iter(self.fs.walk(path))


def legacy_filesystem(urls: Sequence[str]) -> tuple[FsspecBridge, list[str]]:
    """The filesystem of some URLs of one storage, and the paths inside it."""
    pairs = [storage.filesystem(url) for url in urls]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return FsspecBridge(pairs[0][0]), [path for _, path in pairs]
