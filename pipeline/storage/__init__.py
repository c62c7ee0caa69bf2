"""ANYWHERE. The only place that touches URLs: local paths and every filesystem that fsspec knows.

A URL may be a plain path, ``file://...`` or ``scheme://...``; spaces, brackets and unicode are ordinary
characters in it, never patterns. Writes are atomic: a reader sees the old content, the new one, or nothing.
"""

from __future__ import annotations

from pipeline.storage.digests import (
    Digest,
    DigestingWriter,
    digest_file,
    open_new,
    open_write,
)
from pipeline.storage.exclusive import creates_exclusively, warn_unless_exclusive
from pipeline.storage.files import (
    exists,
    list_names,
    move_folder,
    open_read,
    put_if_absent,
    read_bytes,
    remove,
    remove_if_empty,
    size,
    sync_folder,
    write_bytes,
)
from pipeline.storage.json_files import (
    canonical_json,
    finite_json,
    format_json,
    numbers,
    parse_json,
    read_json,
    sha256_of,
    write_json,
)
from pipeline.storage.urls import (
    filesystem,
    is_local,
    is_whole,
    join,
    local_path,
    resolve,
    storage_errors,
)

__all__ = [
    "Digest",
    "DigestingWriter",
    "canonical_json",
    "creates_exclusively",
    "digest_file",
    "exists",
    "filesystem",
    "finite_json",
    "format_json",
    "is_local",
    "is_whole",
    "join",
    "list_names",
    "local_path",
    "move_folder",
    "numbers",
    "open_new",
    "open_read",
    "open_write",
    "parse_json",
    "put_if_absent",
    "read_bytes",
    "read_json",
    "remove",
    "remove_if_empty",
    "resolve",
    "sha256_of",
    "size",
    "storage_errors",
    "sync_folder",
    "warn_unless_exclusive",
    "write_bytes",
    "write_json",
]
