"""DRIVER. From staged part files to a visible version: files in place, manifest last, then one atomic commit."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from pipeline import long_lists, storage
from pipeline.config import PipelineConfig
from pipeline.dataset import (
    MANIFEST_FORMAT,
    SPLITS,
    Accounting,
    Dataset,
    DatasetSchema,
    Manifest,
    PartFile,
    SplitName,
    commit_numbers,
    commit_version,
    content_id,
    read_commit,
    version_url,
)
from pipeline.errors import InputMissingError, InterruptedRunError, StorageError
from pipeline.lease import Lease
from pipeline.preparation.inputs import all_files, semantic
from pipeline.preparation.profile import PROFILE_FORMAT

logger = logging.getLogger(__name__)

STATISTICS_FORMAT = ("statistics", 1)
_REQUEST_FORMAT = ("dataset-request", 1)
_MOVES_AT_ONCE = 8
"""Files that are moved at a time: most of it is waiting for the disk or the store."""
_PACKAGES = ("pyspark", "pyarrow", "numpy", "pandas", "petastorm")


@dataclass(frozen=True)
class Version:
    """All that a new version is made of.

    Attributes:
        written: per split, in file order, what `PartWriter` says of each file.
        profile: what `pipeline.preparation.profile` found.
        base: the manifest of a version whose files come first and stay where they are.
        quarantine: the attempt, if it rejected rows.
    """

    schema: DatasetSchema
    statistics: Mapping[str, Any]
    written: Mapping[str, Sequence[Mapping[str, Any]]]
    accounting: Accounting
    class_counts: Mapping[str, Mapping[str, int]]
    request: str
    inputs: Mapping[str, Any]
    profile: Mapping[str, Any]
    base: Manifest | None = None
    quarantine: str | None = None


def repaired(written: Mapping[str, Sequence[Mapping[str, Any]]], before: Mapping[str, int]) -> dict[str, int]:
    """How many values each repairing rule changed in what was written, and ``before`` in files that stay."""
    counts = Counter(before)
    for one in itertools.chain(*written.values()):
        counts.update(one["repairs"])
    return dict(sorted(counts.items()))


def publish(config: PipelineConfig, lease: Lease, new: Version) -> Dataset:
    """Publish what was written; a version that exists already is only pointed to."""
    url = config.dataset.url
    parts: dict[str, tuple[PartFile, ...]] = {split: _parts(split, new.written[split]) for split in SPLITS}
    rows: dict[str, tuple[PartFile, ...]] = {split: (*_of_base(new, split), *parts[split]) for split in SPLITS}
    identity = content_id(new.schema, semantic(config), new.statistics, rows)
    found = _existing(url, identity) or _place(config, lease, identity, new, parts)
    return _commit(config, lease, found, new.request)


def point_to(config: PipelineConfig, lease: Lease, dataset: Dataset, request: str) -> Dataset:
    """Make a version that exists the newest again."""
    found = _existing(dataset.url, dataset.content_id)
    assert found is not None
    return _commit(config, lease, found, request)


def _commit(config: PipelineConfig, lease: Lease, found: tuple[Manifest, str], request: str) -> Dataset:
    manifest, sha256 = found
    lease.check()
    commit_version(config.dataset.url, manifest.content_id, sha256, lease.check)
    if all_files(config):
        remember(config, request, manifest.content_id)
    return Dataset(config.dataset.url, manifest)


def _of_base(new: Version, split: SplitName) -> tuple[PartFile, ...]:
    return new.base.splits[split] if new.base else ()


def _place(
    config: PipelineConfig, lease: Lease, identity: str, new: Version, parts: Mapping[str, tuple[PartFile, ...]]
) -> tuple[Manifest, str]:
    """Put files and manifest in place; gives the manifest and its sha256.

    Raises:
        InterruptedRunError: another run has taken over, and may have the same version there already.
    """
    placed: dict[str, tuple[PartFile, ...]] = {split: _with_folder(identity, parts[split]) for split in SPLITS}
    folder = version_url(config.dataset.url, identity)
    lease.check()
    if storage.exists(folder):  # `sweep` has removed what dead runs left, so that a living one wrote this
        raise _is_there(folder)
    manifest = Manifest(
        content_id=identity,
        schema=new.schema,
        splits={split: (*_of_base(new, split), *placed[split]) for split in SPLITS},
        class_counts=new.class_counts,
        statistics=new.statistics,
        accounting=new.accounting,
        semantic=semantic(config),
        request=new.request,
        inputs=new.inputs,
        extra_files=_place_files(config, lease, identity, new, placed),
        versions={name: version(name) for name in _PACKAGES if find_spec(name)},
        quarantine=new.quarantine,
    )
    data = storage.format_json(*MANIFEST_FORMAT, long_lists.put_aside(folder, manifest.to_json()))
    lease.check()
    if not storage.put_if_absent(storage.join(folder, "manifest.json"), data):
        raise _is_there(folder)  # never written over: a commit may hold its sha256
    return manifest, hashlib.sha256(data).hexdigest()


def _is_there(url: str) -> InterruptedRunError:
    return InterruptedRunError(f"{url} is there meanwhile; expected to be the only writer; run the command again")


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
    lease: Lease,
    identity: str,
    new: Version,
    placed: Mapping[str, tuple[PartFile, ...]],
) -> dict[str, storage.Digest]:
    """Move the part files to their names and write what stands beside them; gives the digests of the latter."""
    url, folder = config.dataset.url, f"versions/{identity}"
    extra = {path: digest for path, digest in (new.base.extra_files if new.base else {}).items() if "/raw/" in path}
    moves: list[tuple[str, str]] = []
    for split in SPLITS:
        for number, (one, part) in enumerate(zip(new.written[split], placed[split], strict=True)):
            moves.append((one["url"], storage.join(url, part.path)))
            if one["raw"]:
                path = f"{folder}/raw/{split}/part-{number:05d}.parquet"
                moves.append((one["raw"]["url"], storage.join(url, path)))
                extra[path] = storage.Digest(one["raw"]["bytes"], one["raw"]["crc32"], one["raw"]["sha256"])
    _move_all(moves, lease)
    for split in (split for split in SPLITS if placed[split]):
        row_groups = {part.path.rsplit("/", 1)[1]: len(part.row_groups) for part in placed[split]}
        extra |= _petastorm_metadata(config, f"{folder}/{split}", new.schema, row_groups)
    jsons = {"statistics": (STATISTICS_FORMAT, new.statistics), "profile": (PROFILE_FORMAT, new.profile)}
    for name, (format_, value) in jsons.items():
        path = f"{folder}/{name}.json"
        with storage.open_write(storage.join(url, path)) as stream:
            stream.write(storage.format_json(*format_, dict(value)))
            extra[path] = stream.digest
    return extra


def _move_all(moves: Sequence[tuple[str, str]], lease: Lease) -> None:
    """Move files, some at a time; after the first failure no further one is begun.

    Raises:
        InterruptedRunError: another run has taken over, or has written such a file, which stays as it is.
    """

    def move(source: str, target: str) -> None:
        lease.check()
        if storage.exists(target):
            raise _is_there(target)
        storage.move_folder(source, target)

    with ThreadPoolExecutor(_MOVES_AT_ONCE) as pool:
        begun = [pool.submit(move, source, target) for source, target in moves]
        try:
            for one in begun:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _petastorm_metadata(
    config: PipelineConfig, folder: str, schema: DatasetSchema, row_groups: Mapping[str, int]
) -> dict[str, storage.Digest]:
    """Petastorm's own metadata where Petastorm is installed; without it, its stock readers need names of columns."""
    if find_spec("petastorm") is None:
        return {}
    from pipeline.preparation.petastorm_metadata import FILE_NAME, write_metadata

    digest = write_metadata(storage.join(config.dataset.url, folder), schema, row_groups, config.dataset.wide)
    return {f"{folder}/{FILE_NAME}": digest}


def remember(config: PipelineConfig, request: str, identity: str) -> None:
    """Note which version answers a request, so that the same command has nothing to do."""
    storage.write_json(_request_url(config, request), *_REQUEST_FORMAT, {"content_id": identity})


def answered(config: PipelineConfig, request: str) -> Dataset | None:
    """The version that answers a request, if it is the newest one."""
    try:
        identity = storage.read_json(_request_url(config, request), *_REQUEST_FORMAT)["content_id"]
        newest = Dataset.open(config.dataset.url)
    except (InputMissingError, StorageError):
        return None
    return newest if newest.content_id == identity else None


def answers(url: str) -> dict[str, str]:
    """The version that each request was answered with, by the path of the note in the dataset."""
    folder = storage.join(url, "_requests")
    notes = {f"_requests/{name}": storage.join(folder, name) for name in storage.list_names(folder)}
    return {path: str(storage.read_json(note, *_REQUEST_FORMAT)["content_id"]) for path, note in notes.items()}


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
