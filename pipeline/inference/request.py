"""ANYWHERE. What an HTTP client may send: JSON rows, checked against the columns that the model needs.

A refusal says everything that is wrong at once, names columns and row numbers, and never shows a traceback.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.features import Kind, canonical

_MOST_PROBLEMS = 20
_MOST_NAMES = 30


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: one sentence.
        problems: what is wrong with which row and column.
    """

    def __init__(self, status: int, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": message}
        if problems:
            self.body["problems"] = list(problems)[:_MOST_PROBLEMS]
            self.body["problem_count"] = len(problems)


def parse_rows(body: bytes, inputs: Mapping[str, Kind], max_rows: int) -> pd.DataFrame:
    """Turn a request's body into raw rows.

    Args:
        body: ``{"rows": [{column: value, ...}, ...]}`` in UTF-8.
        inputs: the raw columns that a row must have, no more and no less; null stands for a missing value.
        max_rows: most rows of one request.

    Raises:
        Refusal: 400 for what is not JSON of that form, 413 for too many rows, 422 for wrong columns or values.
    """
    rows = _rows_of(_parse_json(body), inputs)
    if len(rows) > max_rows:
        raise Refusal(413, f"the request has {len(rows)} rows; expected at most {max_rows}; send several requests")
    problems = [problem for number, row in enumerate(rows) for problem in _problems(number, row, inputs)]
    if problems:
        raise Refusal(422, f"rows have wrong columns or values; expected {_names(inputs)}", problems)
    columns = {name: pd.Series([row[name] for row in rows], dtype=object) for name in inputs}
    return pd.DataFrame(columns, index=range(len(rows)))


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8; expected JSON in UTF-8") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply; expected an object with a list of rows") from None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!a} is given twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON; expected a finite number, or null for a missing one")


def _rows_of(value: Any, inputs: Mapping[str, Kind]) -> list[dict[str, Any]]:
    columns = f"with the columns {_names(inputs)}"
    if not isinstance(value, dict) or set(value) != {"rows"} or not isinstance(value["rows"], list):
        form = '{"rows": [{"column": value, ...}, ...]}'
        raise Refusal(400, f"the body has another form; expected {form} {columns}")
    if not all(isinstance(row, dict) for row in value["rows"]):
        raise Refusal(400, f'a row is not an object; expected every row as {{"column": value, ...}} {columns}')
    return value["rows"]


def _names(inputs: Mapping[str, Kind]) -> str:
    """The columns of a row, told once and briefly however many there are."""
    more = f" and {len(inputs) - _MOST_NAMES} more" if len(inputs) > _MOST_NAMES else ""
    return ", ".join(list(inputs)[:_MOST_NAMES]) + more


def _problems(number: int, row: Mapping[str, Any], inputs: Mapping[str, Kind]) -> list[dict[str, Any]]:
    problems = [
        (name, f"is missing; expected {_EXPECTED[kind]} or null") for name, kind in inputs.items() if name not in row
    ]
    problems += [(name, "is not a column of the model") for name in row if name not in inputs]
    problems += [
        (name, f"is {_shown(row[name])}; expected {_EXPECTED[kind]} or null")
        for name, kind in inputs.items()
        if name in row and not _fits(row[name], kind)
    ]
    return [{"row": number, "column": name, "problem": problem} for name, problem in problems]


_EXPECTED: dict[Kind, str] = {
    "number": "a finite number",
    "string": "a string",
    "boolean": "true or false",
    "timestamp": "a timestamp like 2024-05-31T12:00:00Z",
    "vector": "a list of finite numbers",
    "strings": "a list of strings",
}


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 50 else f"{text[:47]}..."


def _fits(value: Any, kind: Kind) -> bool:
    if value is None:
        return True
    if kind in ("vector", "strings"):
        inner: Kind = "number" if kind == "vector" else "string"
        return isinstance(value, list) and all(item is not None and _fits(item, inner) for item in value)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if kind == "string":
        return isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value))
    if kind == "boolean":
        return isinstance(value, bool)
    return isinstance(value, str) and _is_timestamp(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_timestamp(value: str) -> bool:
    try:
        canonical([value], "timestamp")
    except DataError:
        return False
    return True
