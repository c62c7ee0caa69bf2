"""DRIVER. The fixed list of input files: what is listed here at the start is read, nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, InputMissingError, InterruptedRunError, StorageError

REVISION = 2
"""Raised when the same configuration and inputs give other rows than before."""
_ROWS_OF_JDBC = ("dbtable", "query", "preparequery", "sessioninitstatement", "customschema", "prefertimestampntz")
"""Options that decide what the rows are; all others say where the database is and how it is asked."""


@dataclass(frozen=True, order=True)
class InputFile:
    """One file as it was when it was listed."""

    path: str
    bytes: int
    modified: str


Inputs = Mapping[str, tuple[InputFile, ...]]


def list_inputs(config: PipelineConfig) -> Inputs:
    """The files behind every named input, sorted.

    Raises:
        ConfigError: the dataset or the run is to be written among the files of an input.
        InputMissingError: paths that are missing, unreadable, hidden to Spark or hold no file; all of them.
    """
    listed: dict[str, tuple[InputFile, ...]] = {}
    offences = []
    for name, input_ in config.source.inputs.items():
        if not input_.is_files:
            continue
        found: set[InputFile] = set()
        for path in input_.path or ():
            try:
                files = set(files_at(path))
                problem = _problem(path, input_.format, files)
                found |= files
            except (StorageError, InputMissingError) as error:
                problem = str(error)
            if problem:
                offences.append(f"source.inputs.{name}.path is {path}: {problem}")
        listed[name] = tuple(sorted(found))
    if offences:
        raise InputMissingError(*offences)
    _refuse_outputs_among(config, listed)
    return listed


def _refuse_outputs_among(config: PipelineConfig, inputs: Inputs) -> None:
    """Refuse to write where the next run would read.

    Raises:
        ConfigError: all such places.
    """
    offences = []
    for key, url in (("dataset.url", config.dataset.url), ("training.run_url", config.training.run_url)):
        for name, files in inputs.items():
            folders = [path for path in config.source.inputs[name].path or () if _is_below(url, path)]
            if folders or any(_is_below(file.path, url) for file in files):
                path = ", ".join(folders) or "there"
                offences.append(
                    f"{key} is {url}, and source.inputs.{name}.path {path}; expected a folder that no input reads; "
                    "choose another"
                )
    if offences:
        raise ConfigError(*offences)


def _is_below(url: str, folder: str) -> bool:
    inner, outer = (storage.local_path(one) if storage.is_local(one) else one for one in (url, folder))
    return inner.startswith(outer.rstrip("/") + "/")


def files_at(url: str) -> Iterable[InputFile]:
    """A file, the files below a folder, or those of a glob pattern, without what Spark takes for hidden.

    Raises:
        InputMissingError: Spark takes for hidden what the URL names, by itself or beside wildcards.
        StorageError: the storage cannot be listed.
    """
    filesystem, path = storage.filesystem(url)
    is_wild = is_pattern(url)
    with storage.storage_errors(url):
        roots = sorted(filesystem.glob(path)) if is_wild else [path]
        found = {full: info for root in roots for full, info in filesystem.find(root, detail=True).items()}
    hidden = {root for root in roots if root in found and _is_hidden(_last(root))}
    meant = hidden if not is_wild else {root for root in hidden if _last(root).startswith("_") and _names(path)}
    if meant:
        raise InputMissingError(
            f"Spark reads no file whose name begins with _ or ., such as {', '.join(sorted(meant))}; expected another "
            "name; rename it"
        )
    for full, info in found.items():
        root = next(root for root in roots if full == root or full.startswith(root.rstrip("/") + "/"))
        inner = full[len(root) :].lstrip("/").split("/")
        if root not in hidden and (full == root or not any(map(_is_hidden, inner))):
            yield InputFile(_with_scheme(url, full), int(info["size"]), _modified(info))


def is_pattern(url: str) -> bool:
    """Whether a URL stands for what fits it: it has wildcards, and is not the very name of a file or folder.

    Raises:
        StorageError: the storage cannot be asked.
    """
    return re.search(r"[*?\[]", url) is not None and not storage.exists(url)


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _names(pattern: str) -> bool:
    """Whether the last part of a pattern is more than wildcards, and so means what it fits."""
    return re.sub(r"[*?]|\[.*?\]", "", _last(pattern)) != ""


def _is_hidden(name: str) -> bool:
    """To Spark; ``_day=1`` is a partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def spark_url(url: str) -> str:
    """A URL as Spark is to have it: one without scheme would be of the cluster's default file system."""
    return f"file:{storage.local_path(url)}" if storage.is_local(url) else url


def spark_path(url: str) -> str:
    """The same for Spark's readers, which take every path that they load as a glob pattern."""
    return re.sub(r"([\\{}\[\]*?^])", r"\\\1", spark_url(url))


def described(path: str) -> InputFile:
    """One file as it is now.

    Raises:
        StorageError: it is missing or unreadable.
    """
    filesystem, inner = storage.filesystem(path)
    with storage.storage_errors(path):
        info = filesystem.info(inner)
    return InputFile(path, int(info["size"]), _modified(info))


def _with_scheme(url: str, path: str) -> str:
    return path if storage.is_local(url) else f"{url.split('://')[0]}://{path}"


def _modified(info: Mapping[str, Any]) -> str:
    for key in ("mtime", "LastModified", "last_modified", "modified", "updated", "created", "ETag"):
        if info.get(key) is not None:
            return str(info[key])
    return ""


def is_delta(path: str) -> bool:
    """Whether a folder is a Delta table, whose files are those that its log names, and not all that are there."""
    return storage.exists(storage.join(path, "_delta_log"))


def _problem(path: str, format_: str, files: Iterable[InputFile]) -> str | None:
    if format_ == "parquet" and is_delta(path):
        return "is a Delta table, of whose files some no longer count; expected format: delta; say so"
    if not files:
        is_braced = re.search(r"\{.*,.*\}", path)
        advice = "braces stand for themselves; write a list of paths" if is_braced else "check the path"
        return f"nothing is there; expected readable files; {advice}"
    locked = [file.path for file in files if storage.is_local(file.path) and not os.access(file.path, os.R_OK)]
    return f"no permission to read {', '.join(locked[:3])}; expected readable files" if locked else None


def fingerprints(inputs: Inputs) -> dict[str, Any]:
    """What is recorded of the inputs: per name the sha256 of its file list, and the list itself."""
    return {
        name: {
            "sha256": storage.sha256_of([[file.path, file.bytes, file.modified] for file in files]),
            "bytes": sum(file.bytes for file in files),
            "files": [[file.path, file.bytes, file.modified] for file in files],
        }
        for name, files in inputs.items()
    }


def check_unchanged(then: Inputs, now: Inputs) -> None:
    """Refuse to publish what was read while it changed; further files are no change.

    Raises:
        InterruptedRunError: files changed or vanished; the same command starts again from the new ones.
    """
    there = {file for files in now.values() for file in files}
    changed = [(name, file.path) for name, files in then.items() for file in files if file not in there]
    if changed:
        raise InterruptedRunError(
            *(
                f"input {name}: {path} changed during the run; expected it to stay; run the command again"
                for name, path in changed
            )
        )


def semantic(config: PipelineConfig) -> dict[str, Any]:
    """The part of the configuration that decides what the rows are: no places, no limits."""
    values = config.model_dump(mode="json", by_alias=True, include={"source", "clean", "features", "label", "split"})
    for input_ in values["source"]["inputs"].values():
        del input_["path"]
        if input_["format"] == "jdbc":
            input_["options"] = {key: one for key, one in input_["options"].items() if key.lower() in _ROWS_OF_JDBC}
    values["source"].pop("query_file")
    values["source"]["query"] = query_of(config)
    if config.weight is None and config.label is not None:  # so that the content ids of datasets without weights stay
        del values["label"]["weight"]
    for key in ("quarantine", "max_rejected_fraction"):
        del values["clean"][key]
    layout = config.dataset.model_dump(mode="json", include={"keep", "rows_per_row_group", "wide", "statistics_from"})
    return {**values, "layout": layout, "revision": REVISION}


def query_of(config: PipelineConfig) -> str | None:
    """The SQL query, given as such or in a file.

    Raises:
        InputMissingError: the file is missing or unreadable.
    """
    url = config.source.query_file
    if url is None:
        return config.source.query
    try:
        return storage.read_bytes(url).decode()
    except (StorageError, UnicodeDecodeError) as error:
        raise InputMissingError(f"source.query_file {url} is not readable; expected a file of SQL text") from error


def all_files(config: PipelineConfig) -> bool:
    """Whether every input is a fixed list of files, so that a request can be recognised."""
    return bool(config.source.inputs) and all(input_.is_files for input_ in config.source.inputs.values())


def request_of(config: PipelineConfig, inputs: Inputs) -> str:
    """Names a piece of work: the same rows wanted of the same files."""
    prints = {name: value["sha256"] for name, value in fingerprints(inputs).items()}
    return storage.sha256_of({"semantic": semantic(config), "inputs": prints})
