"""What each feature operation must have learned of its train rows, computed the plain way: no sketches, no passes."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.features import canonical

LARGEST = 1e150
MICROSECONDS = {"seconds": 1e6, "minutes": 6e7, "hours": 3.6e9, "days": 8.64e10}


def expected_state(
    name: str, config: Mapping[str, Any], raw: Mapping[str, Sequence[Any]], labels: Sequence[float]
) -> dict[str, Any]:
    """The learned part of a feature's state, as JSON.

    Args:
        name: of the feature.
        config: its section, with all defaults.
        raw: the columns of the train rows, in whatever order.
        labels: of the same rows.
    """
    column = raw[config["column"] or name]
    if config["type"] in ("numeric", "elapsed"):
        return _numeric(_elapsed(config, column, raw) if config["type"] == "elapsed" else _numbers(column), config)
    if config["type"] == "target":
        return _target(config, column, labels)
    return _STATES[config["type"]](config, column, name)


def _numbers(column: Sequence[Any]) -> list[float]:
    return canonical(column, "number").tolist()  # type: ignore[no-any-return]


def _elapsed(config: Mapping[str, Any], column: Sequence[Any], raw: Mapping[str, Sequence[Any]]) -> list[float]:
    start = raw[config["since_column"]] if config["since_column"] else [config["since"]] * len(column)
    moments = zip(canonical(column, "timestamp"), canonical(start, "timestamp"), strict=True)
    microseconds = [math.nan if np.isnat(end - begin) else int((end - begin).astype(int)) for end, begin in moments]
    return [one / MICROSECONDS[config["unit"]] for one in microseconds]


def quantile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least so many of all do not exceed."""
    return sorted(values)[max(1, math.ceil(Fraction(fraction) * len(values))) - 1]


def mean(values: Sequence[float]) -> float:
    """Rounded once."""
    return float(sum(map(Fraction, values)) / len(values))


def _deviation(values: Sequence[float]) -> float:
    """Of the population; magnitudes beyond the largest count as that."""

    def bounded(value: Fraction) -> Fraction:
        return min(max(value, Fraction(-LARGEST)), Fraction(LARGEST))

    square = sum(bounded(Fraction(value)) ** 2 for value in values) / len(values)
    centre = bounded(sum(map(Fraction, values)) / len(values))
    return math.sqrt(float(max(Fraction(0), square - centre**2)))


def _fill(values: Sequence[float], missing: Any) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    if missing == "median":
        return quantile(finite, 0.5)
    if missing == "mean":
        return mean(finite)
    if missing == "mode":
        counts = Counter(finite)
        return min(value for value, count in counts.items() if count == max(counts.values()))
    return None if isinstance(missing, str) else float(missing)


def _numeric(values: Sequence[float], config: Mapping[str, Any]) -> dict[str, Any]:
    finite = [value for value in values if math.isfinite(value)]
    low, high, fill = -LARGEST, LARGEST, _fill(values, config["missing"]) or 0.0
    if config["clip"] == "iqr":
        lower, upper = quantile(finite, 0.25), quantile(finite, 0.75)
        low, high = lower - 1.5 * (upper - lower), upper + 1.5 * (upper - lower)
    elif config["clip"]:
        low, high = (quantile(finite, fraction) for fraction in config["clip"])
    is_missing = math.isnan if config["clip"] else lambda value: not math.isfinite(value)
    prepared = [min(max(fill if is_missing(value) else value, low), high) + 0.0 for value in values]
    if config.get("log1p"):
        prepared = [math.copysign(math.log1p(abs(value)), value) for value in prepared]
    offset, scale = {
        "none": lambda: (0.0, 1.0),
        "standard": lambda: (mean(prepared), _deviation(prepared) or 1.0),
        "min_max": lambda: (min(prepared), max(prepared) - min(prepared) or 1.0),
        "robust": lambda: (quantile(prepared, 0.5), quantile(prepared, 0.75) - quantile(prepared, 0.25) or 1.0),
    }[config["scale"]]()
    bounds = {"low": low, "high": high} if config["clip"] else {"low": None, "high": None}
    return {"fill": fill, **bounds, "offset": offset, "scale": scale}


def names_of(column: Sequence[Any], config: Mapping[str, Any], secret: str | None = None) -> list[str | None]:
    """The categories of a column, None where there is none."""
    rules = config["normalize"] or {}

    def name(text: str) -> str:
        if rules:
            text = unicodedata.normalize(rules["unicode"], text) if rules["unicode"] else text
            text = text.strip() if rules["trim"] else text
            text = {"lower": text.casefold(), "upper": text.upper(), None: text}[rules["case"]]
            text = rules["mapping"].get(text, text)
        return text if secret is None else hashlib.sha256(f"{secret}{text}".encode()).hexdigest()[:32]

    return [None if text is None else name(text) for text in canonical(column, "string").tolist()]


def vocabulary(names: Sequence[str | None], config: Mapping[str, Any]) -> list[str]:
    """Those that occur often enough, the most frequent first, of equal ones the smallest in bytes."""
    counts = Counter(name for name in names if name is not None)
    ranked = sorted(counts, key=lambda name: (-counts[name], name.encode("utf-8", "surrogatepass")))
    return [name for name in ranked if counts[name] >= config["min_count"]][: config["max_size"]]


def _category_of_null(names: Sequence[str | None], missing: Any) -> str | None:
    if isinstance(missing, Mapping):
        return str(missing["constant"])
    return next(iter(vocabulary(names, {"min_count": 1, "max_size": 1})), None) if missing == "mode" else None


def _categorical(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    names = names_of(column, config, f"{name}:" if config["sensitive"] else None)
    return {"vocabulary": vocabulary(names, config), "fill": _category_of_null(names, config["missing"])}


def _hashed(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    return {"vocabulary": [], "fill": _category_of_null(names_of(column, config), config["missing"])}


def _categories(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    items = [item for row in column if row is not None for item in row]
    return {"vocabulary": vocabulary(names_of(items, config), config)}


def _target(config: Mapping[str, Any], column: Sequence[Any], labels: Sequence[float]) -> dict[str, Any]:
    names = names_of(column, config)
    fill = _category_of_null(names, config["missing"])
    names = [name if name is not None else "\0null" if fill is None else fill for name in names]
    known = vocabulary(names, config)
    overall, smoothing = mean(labels), config["smoothing"]
    means = []
    for one in known:
        own = [label for name, label in zip(names, labels, strict=True) if name == one]
        means.append((sum(own) + smoothing * overall) / (len(own) + smoothing))
    return {"vocabulary": known, "means": means, "mean": overall, "fill": fill}


def _bucket(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    values = [value for value in _numbers(column) if not math.isnan(value)]
    parts = config["quantiles"]
    cuts = {quantile(values, part / parts) for part in range(1, parts)} if parts else config["boundaries"]
    return {"boundaries": sorted(cuts), "fill": _fill(values, config["missing"])}


def _boolean(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    return {"fill": _fill(canonical(column, "boolean").tolist(), config["missing"])}


def _timestamp(config: Mapping[str, Any], column: Sequence[Any], name: str) -> dict[str, Any]:
    given = [] if config["missing"] in ("null", "reject") else [config["missing"]]
    years = [int(str(one)[:4]) for one in canonical([*column, *given], "timestamp") if not np.isnat(one)]
    return {"years": [min(years), max(years)] if "year" in config["parts"] else None, "fill": next(iter(given), None)}


_STATES: dict[str, Callable[[Mapping[str, Any], Sequence[Any], str], dict[str, Any]]] = {
    "categorical": _categorical,
    "hashed": _hashed,
    "categories": _categories,
    "bucket": _bucket,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "vector": lambda config, column, name: {},
}
