"""DRIVER. The report's table of the columns, as preparation profiled them, and what differs from the version before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.report.markup import row, section, table, text

_TOP = 3


def columns(profile: Mapping[str, Any]) -> str:
    """A row per column: missing values, distinct ones, extremes and mean or the most frequent; then the drift."""
    rows = [
        row(
            [
                text(name),
                text(one["kind"]),
                f"{one['missing'] / max(1, one['rows']):.2%}",
                f"{one['distinct']:,}" if "distinct" in one else "–",
                text(_values(one)),
            ]
        )
        for name, one in profile.get("columns", {}).items()
    ]
    drift = "".join(f"<li>{text(finding)}</li>" for finding in profile.get("drift", ()))
    of = text(profile.get("of", "train rows"))
    return section(
        "Columns",
        table(["column", "read as", "missing", "distinct", "values"], rows, "words"),
        f"<h3>Unlike the version before</h3><ul class='note'>{drift}</ul>" if drift else "",
        note=f"Of {of}, before encoding; large numbers of distinct values are estimates.",
    )


def _values(one: Mapping[str, Any]) -> str:
    if one.get("top"):
        present = max(1, one["rows"] - one["missing"])
        return " · ".join(f"{value}: {count / present:.1%}" for value, count in one["top"][:_TOP])
    if "mean" in one:
        return " · ".join(f"{name} {_number(one['kind'], one[name])}" for name in ("min", "mean", "max"))
    return ""


def _number(kind: str, value: float) -> str:
    """Numbers with five digits; moments, which are kept as microseconds, in UTC."""
    return str(np.datetime64(round(value), "us").astype("datetime64[s]")) if kind == "timestamp" else f"{value:.5g}"
