"""DRIVER. From staged part files to a visible version: files in place, manifest last, then one atomic commit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import (
    MANIFEST_FORMAT,
    SPLITS,
    Accounting,
    Dataset,
    DatasetSchema,
    Manifest,
    PartFile,
    commit_numbers,
    commit_version,
    content_id,
    read_commit,
    version_url,
)
from pipeline.errors import StorageError
from pipeline.lease import Lease
from pipeline.preparation.inputs import semantic
from pipeline.preparation.petastorm_metadata import FILE_NAME, write_metadata

logger = logging.getLogger(__name__)

STATISTICS_FORMAT = ("statistics", 1)
_REQUEST_FORMAT = ("dataset-request", 1)
_PACKAGES = ("pyspark", "pyarrow", "numpy", "pandas", "petastorm")


def publish(
    config: PipelineConfig,
    lease: Lease,
    schema: DatasetSchema,
    statistics: Mapping[str, Any],
    written: Mapping[str, Sequence[Mapping[str, Any]]],
    accounting: Accounting,
    class_counts: Mapping[str, Mapping[str, int]],
    request: str,
    inputs: Mapping[str, Any],
) -> Dataset:
    """Publish what `PartWriter` wrote, per split in file order; a version that exists is only pointed to."""
    url = config.dataset.url
    parts: dict[str, tuple[PartFile, ...]] = {split: _parts(split, written[split]) for split in SPLITS}
    identity = content_id(schema, semantic(config), statistics, parts)
    found = _existing(url, identity)
    if found is None:
        placed: dict[str, tuple[PartFile, ...]] = {split: _with_folder(identity, parts[split]) for split in SPLITS}
        storage.remove(version_url(url, identity))
        manifest = Manifest(
            content_id=identity,
            schema=schema,
            splits=placed,
            class_counts=class_counts,
            statistics=statistics,
            accounting=accounting,
            semantic=semantic(config),
            request=request,
            inputs=inputs,
            extra_files=_place_files(config, identity, schema, statistics, written, placed),
            versions={name: version(name) for name in _PACKAGES},
        )
        data = storage.format_json(*MANIFEST_FORMAT, manifest.to_json())
        storage.write_bytes(storage.join(version_url(url, identity), "manifest.json"), data)
        found = manifest, hashlib.sha256(data).hexdigest()
    lease.check()
    commit_version(url, identity, found[1])
    remember(config, request, identity)
    return Dataset(url, found[0])


def _parts(split: str, written: Sequence[Mapping[str, Any]]) -> tuple[PartFile, ...]:
    return tuple(
        PartFile(
            path=f"{split}/part-{number:05d}.parquet",
            bytes=one["bytes"],
            crc32=one["crc32"],
            sha256=one["sha256"],
            row_groups=tuple(one["row_groups"]),
            digest=one["digest"],
        )
        for number, one in enumerate(written)
    )


def _with_folder(identity: str, parts: tuple[PartFile, ...]) -> tuple[PartFile, ...]:
    return tuple(PartFile(**{**vars(part), "path": f"versions/{identity}/{part.path}"}) for part in parts)


def _existing(url: str, identity: str) -> tuple[Manifest, str] | None:
    """The manifest of a version that was committed before, and its sha256."""
    for number in reversed(commit_numbers(url)):
        commit = read_commit(url, number)
        if commit["content_id"] == identity:
            return Dataset.open(url, identity).manifest, commit["manifest_sha256"]
    return None


def _place_files(
    config: PipelineConfig,
    identity: str,
    schema: DatasetSchema,
    statistics: Mapping[str, Any],
    written: Mapping[str, Sequence[Mapping[str, Any]]],
    placed: Mapping[str, tuple[PartFile, ...]],
) -> dict[str, storage.Digest]:
    """Move the part files to their names and write what stands beside them; gives the digests of the latter."""
    url, folder = config.dataset.url, f"versions/{identity}"
    extra: dict[str, storage.Digest] = {}
    for split in SPLITS:
        for number, (one, part) in enumerate(zip(written[split], placed[split], strict=True)):
            storage.move_folder(one["url"], storage.join(url, part.path))
            if one["raw"]:
                path = f"{folder}/raw/{split}/part-{number:05d}.parquet"
                storage.move_folder(one["raw"]["url"], storage.join(url, path))
                extra[path] = storage.Digest(one["raw"]["bytes"], one["raw"]["crc32"], one["raw"]["sha256"])
        row_groups = {part.path.rsplit("/", 1)[1]: len(part.row_groups) for part in placed[split]}
        path = f"{folder}/{split}"
        extra[f"{path}/{FILE_NAME}"] = write_metadata(storage.join(url, path), schema, row_groups, config.dataset.wide)
    path = f"{folder}/statistics.json"
    with storage.open_write(storage.join(url, path)) as stream:
        stream.write(storage.format_json(*STATISTICS_FORMAT, dict(statistics)))
        extra[path] = stream.digest
    return extra


def remember(config: PipelineConfig, request: str, identity: str) -> None:
    """Note which version answers a request, so that the same command has nothing to do."""
    storage.write_json(_request_url(config, request), *_REQUEST_FORMAT, {"content_id": identity})


def answered(config: PipelineConfig, request: str) -> Dataset | None:
    """The version that answers a request, if it is the newest one."""
    try:
        identity = storage.read_json(_request_url(config, request), *_REQUEST_FORMAT)["content_id"]
        newest = Dataset.open(config.dataset.url)
    except StorageError:
        return None
    return newest if newest.content_id == identity else None


def _request_url(config: PipelineConfig, request: str) -> str:
    return storage.join(config.dataset.url, "_requests", f"{request}.json")


def sweep(url: str) -> None:
    """Remove what dead attempts left; call while holding the lease."""
    storage.remove(storage.join(url, "_staging"))
    committed = {read_commit(url, number)["content_id"] for number in commit_numbers(url)}
    for name in storage.list_names(storage.join(url, "versions")):
        if name not in committed:
            logger.info("removing version %s, which was never published", name[:12])
            storage.remove(version_url(url, name))
    for attempt in storage.list_names(storage.join(url, "quarantine")):
        if not storage.exists(storage.join(url, "quarantine", attempt, "counts.json")):
            storage.remove(storage.join(url, "quarantine", attempt))
