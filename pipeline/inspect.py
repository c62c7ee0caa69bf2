"""ANYWHERE. What a dataset, checkpoint, model or run folder holds, and whether its files are what was written.

Sizes and crc32 are compared always, sha256 if asked; all files that are wrong are named at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.dataset import Dataset, Manifest, Role, commit_numbers, read_commit
from pipeline.errors import InputMissingError, PipelineError, StorageError
from pipeline.run_folder import CHECKPOINTS, MODEL, RESULT, RESULT_FORMAT, is_run_folder

_MOMENT_SECONDS = 0.2


@dataclass(frozen=True)
class _Expected:
    """A file and what its manifest says of it; an empty sha256 and a crc32 of 0 are unknown."""

    url: str
    bytes: int
    crc32: int
    sha256: str


def describe(path: str, deep: bool = False) -> str:
    """A few lines about a folder, after its files have been checked.

    Args:
        path: url of a dataset, a version of one, a checkpoint, model or run folder.
        deep: also compare every sha256, and look at all versions of a dataset.

    Raises:
        InputMissingError: there is no such folder, or nothing of ours in it.
        StorageError: files are missing or corrupt; all of them are named.
    """
    if storage.is_local(path) and Path(storage.local_path(path)).is_file():
        raise InputMissingError(f"{path} is a file; expected a dataset, checkpoint, model or run folder")
    names = set(storage.list_names(path))
    if "_commits" in names:
        return "\n".join(_dataset(path, deep))
    if "manifest.json" in names and (at := _version_of(path)) is not None:
        return "\n".join(_version(*at, deep))
    if "manifest.json" in names:
        return "\n".join(_folder_with_manifest(path, deep))
    if is_run_folder(names):
        return "\n".join(_run(path, deep))
    raise InputMissingError(
        f"{path} holds {', '.join(sorted(names)[:5]) or 'nothing'}; expected a dataset, checkpoint, model or run folder"
    )


def _dataset(url: str, deep: bool) -> list[str]:
    newest = Dataset.open(url)
    ids = list(dict.fromkeys(read_commit(url, number)["content_id"] for number in reversed(commit_numbers(url))))
    manifests = [Dataset.open(url, id_).manifest for id_ in ids] if deep else [newest.manifest]
    checked = _check((file for manifest in manifests for file in _files_of(url, manifest)), deep)
    return [
        f"dataset {url}",
        f"  content id  {newest.content_id}" + (f" (newest of {len(ids)} versions)" if len(ids) > 1 else ""),
        *(f"  {line}" for line in _lines(newest.manifest)),
        f"  {checked}",
    ]


def _version_of(path: str) -> tuple[str, str] | None:
    """The dataset and the content id of a path that is a version's."""
    *dataset, versions, identity = storage.resolve(path, os.getcwd()).rstrip("/").split("/")
    url = "/".join(dataset)
    return (url, identity) if versions == "versions" and "_commits" in storage.list_names(url) else None


def _version(url: str, identity: str, deep: bool) -> list[str]:
    manifest = Dataset.open(url, identity).manifest
    lines = [f"version of dataset {url}", f"  content id  {identity}", *(f"  {line}" for line in _lines(manifest))]
    return [*lines, f"  {_check(_files_of(url, manifest), deep)}"]


def _lines(manifest: Manifest) -> Iterable[str]:
    schema, counts = manifest.schema, manifest.accounting
    for split, parts in manifest.splits.items():
        groups = sum(len(part.row_groups) for part in parts)
        size = sum(part.bytes for part in parts)
        yield (
            f"{split:<11} {manifest.rows(split):,} rows in {len(parts)} files, {groups} row groups, {_size(size)}"
            + _classes(manifest.class_counts.get(split, {}))
        )
    yield (
        f"rows        {counts.rows_in:,} in = {counts.published:,} published + {counts.duplicates:,} duplicates "
        f"+ {counts.rejected:,} rejected{_classes(counts.reasons)}"
    )
    yield f"label       {', '.join(schema.labels) or 'none'}{f' ({schema.label_type})' if schema.label_type else ''}"
    if counts.repaired:
        yield f"repaired    {', '.join(f'{rule}: {count:,} values' for rule, count in counts.repaired.items())}"
    if manifest.quarantine:
        yield f"quarantine  quarantine/{manifest.quarantine}"
    kinds = {"numeric": schema.numeric, "categorical": schema.cardinalities, "vectors": schema.vectors}
    yield f"features    {', '.join(f'{len(names)} {kind}' for kind, names in kinds.items())}"
    roles: tuple[Role, ...] = ("weight", "id", "kept")
    for role in roles:
        if columns := schema.with_role(role):
            yield f"{role:<11} {', '.join(column.name for column in columns)}"
    yield f"made with   {', '.join(f'{name} {version}' for name, version in manifest.versions.items()) or 'unknown'}"


def _classes(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name}: {count:,}' for name, count in counts.items())})" if counts else ""


def _files_of(url: str, manifest: Manifest) -> Iterable[_Expected]:
    for parts in manifest.splits.values():
        for part in parts:
            yield _Expected(storage.join(url, part.path), part.bytes, part.crc32, part.sha256)
    for path, digest in manifest.extra_files.items():
        yield _Expected(storage.join(url, path), digest.bytes, digest.crc32, digest.sha256)


def _folder_with_manifest(url: str, deep: bool) -> list[str]:
    name = storage.join(url, "manifest.json")
    try:
        manifest = json.loads(storage.read_bytes(name))
        kind = str(manifest["format"]).partition("/")[0].removesuffix("-manifest")
        files = [
            _Expected(storage.join(url, path), value["bytes"], value.get("crc32", 0), value.get("sha256", ""))
            for path, value in manifest["files"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{name} is corrupt; expected a manifest that lists files; restore the folder") from error
    plain = {key: value for key, value in manifest.items() if isinstance(value, (int, str)) and key != "digest"}
    details = ", ".join(f"{key} {value}" for key, value in plain.items() if key != "format")
    sizes = [f"  {name}: {_size(file.bytes)}" for name, file in zip(manifest["files"], files, strict=True)]
    return [f"{kind} {url}" + (f": {details}" if details else ""), *sizes, f"  {_check(files, deep)}"]


def _run(url: str, deep: bool) -> list[str]:
    lines = [f"run {url}"]
    offences: list[str] = []
    result = storage.join(url, RESULT)
    if storage.exists(result):
        lines += [f"  {line}" for line in _result_lines(storage.read_json(result, *RESULT_FORMAT))]
    checkpoints = storage.join(url, CHECKPOINTS)
    steps = [name for name in storage.list_names(checkpoints) if name.startswith("step-")]
    folders = [storage.join(checkpoints, name) for name in sorted(steps, key=lambda name: (len(name), name))]
    for folder in [*folders, storage.join(url, MODEL)]:
        if "manifest.json" in (names := storage.list_names(folder)):
            try:
                lines += [f"  {line}" for line in _folder_with_manifest(folder, deep)]
            except PipelineError as error:
                if not _is_being_removed(folder, names):
                    offences += error.offences
    if offences:
        raise StorageError(*offences)
    return lines


def _is_being_removed(folder: str, names: list[str]) -> bool:
    """Whether files have gone since the folder held these: training keeps only the newest checkpoints."""
    time.sleep(_MOMENT_SECONDS)
    return not set(names) <= set(storage.list_names(folder))


def _result_lines(result: Mapping[str, Any]) -> Iterable[str]:
    for key in ("status", "rows", "metrics", "model", "seconds"):
        if key in result:
            yield f"{key}: {json.dumps(result[key])}"


def _check(files: Iterable[_Expected], deep: bool) -> str:
    """Read all files and say how many were good.

    Raises:
        StorageError: those that were not.
    """
    count = total = 0
    offences: list[str] = []
    for file in files:
        try:
            digest = storage.digest_file(file.url, deep=deep or not file.crc32)
        except StorageError as error:
            offences += error.offences
            continue
        count, total = count + 1, total + digest.bytes
        found = digest.bytes, digest.crc32 if file.crc32 else 0, digest.sha256 if file.sha256 else ""
        expected = file.bytes, file.crc32, file.sha256 if digest.sha256 else ""
        if found != expected:
            offences.append(
                f"{file.url} is corrupt: {digest.bytes} bytes, crc32 {digest.crc32:08x}; "
                f"expected {file.bytes} bytes, crc32 {file.crc32:08x}; restore the file"
            )
    if offences:
        raise StorageError(*offences)
    return f"{count} files, {_size(total)}, {'sha256' if deep else 'crc32'} good"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
