"""ANYWHERE. JSON: the one byte form that is hashed, and files that say of what format they are.

JSON has no NaN and no infinity: they are written as null, and whoever expects a number reads null as NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from pipeline.errors import StorageError
from pipeline.storage.files import read_bytes, write_bytes


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, shortest round-trip floats, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(value: Any) -> str:
    """The sha256 of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def finite_json(value: Any) -> Any:
    """A JSON value with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Numbers by name as they were before `finite_json`: null is NaN."""
    return {name: math.nan if value is None else value for name, value in values.items()}


def format_json(kind: str, number: int, value: Mapping[str, Any]) -> bytes:
    """A readable JSON file's bytes, with ``format: <kind>/<number>`` as its first key."""
    content = {"format": f"{kind}/{number}", **finite_json(value)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")  # half a surrogate pair, of a file name that is no UTF-8


def write_json(url: str, kind: str, number: int, value: Mapping[str, Any]) -> None:
    """Write a JSON file of a known format, atomically."""
    write_bytes(url, format_json(kind, number, value))


def parse_json(url: str, data: bytes, kind: str, number: int) -> dict[str, Any]:
    """Parse what `format_json` made; the current and the previous number are understood.

    Raises:
        StorageError: not JSON, of another kind, or written by a newer version of this package.
    """
    try:
        value = json.loads(data)
        found_kind, found_number = value.pop("format").split("/")
        found = int(found_number)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StorageError(
            f"{url} is not a {kind} file; expected JSON with format {kind}/{number}; it may be corrupt"
        ) from error
    if found_kind != kind or found not in (number, number - 1):
        raise StorageError(
            f"{url} has format {found_kind}/{found}; expected {kind}/{number}; "
            "it is another kind of file or was written by another version of this package"
        )
    return dict(value)


def read_json(url: str, kind: str, number: int) -> dict[str, Any]:
    """Read a JSON file of a known format."""
    return parse_json(url, read_bytes(url), kind, number)
