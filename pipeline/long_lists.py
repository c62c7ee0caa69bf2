"""ANYWHERE. Lists of files too long for a manifest's JSON, in Parquet files beside it.

A manifest of some hundred thousand entries takes seconds to parse, in every process that opens the dataset. The JSON
then holds ``{"list": <name>, "entries": <count>, "sha256": <digest>}`` in place of the list.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

from pipeline import storage
from pipeline.errors import StorageError

LONGEST = 10_000
"""Entries of the longest list that stays in the JSON."""
_FILES = ("path", "bytes", "modified")


def put_aside(folder: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its long lists written to ``folder`` and replaced by references."""
    splits = {
        split: _aside(folder, f"parts-{split}.parquet", parts) if len(parts) > LONGEST else parts
        for split, parts in manifest["splits"].items()
    }
    extra = manifest["extra_files"]
    if len(extra) > LONGEST:
        rows = [{"path": path, **digest} for path, digest in extra.items()]
        extra = _aside(folder, "extra-files.parquet", rows)
    inputs = {}
    for place, (name, input_) in enumerate(manifest["inputs"].items()):
        files = input_.get("files", ())
        if len(files) > LONGEST:
            rows = [dict(zip(_FILES, file, strict=True)) for file in files]
            input_ = {**input_, "files": _aside(folder, f"inputs-{place}.parquet", rows)}
        inputs[name] = input_
    return {**manifest, "splits": splits, "extra_files": extra, "inputs": inputs}


def taken_back(folder: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the lists that readers need in their places; those of input files stay references.

    Raises:
        StorageError: a list is missing or corrupt.
    """
    splits = {
        split: _back(folder, parts) if isinstance(parts, Mapping) else parts
        for split, parts in manifest["splits"].items()
    }
    extra = manifest["extra_files"]
    if "list" in extra:
        extra = {str(row.pop("path")): row for row in _back(folder, extra)}
    return {**manifest, "splits": splits, "extra_files": extra}


def _aside(folder: str, name: str, rows: Any) -> dict[str, Any]:
    import pandas as pd

    stream = io.BytesIO()
    pd.DataFrame(list(rows)).to_parquet(stream, index=False)
    data = stream.getvalue()
    storage.write_bytes(storage.join(folder, name), data)
    return {"list": name, "entries": len(rows), "sha256": hashlib.sha256(data).hexdigest()}


def _back(folder: str, reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    import pandas as pd

    url = storage.join(folder, reference["list"])
    data = storage.read_bytes(url)
    if hashlib.sha256(data).hexdigest() != reference["sha256"]:
        raise StorageError(f"{url} is corrupt; expected sha256 {reference['sha256']}; restore the file")
    rows = pd.read_parquet(io.BytesIO(data)).to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
