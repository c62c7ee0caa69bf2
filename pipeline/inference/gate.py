"""ANYWHERE. The quality gate: a model below its bounds is not registered."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.config.release import Bound
from pipeline.errors import GateError


def gate_offences(metrics: Mapping[str, float], gate: Mapping[str, Bound]) -> list[str]:
    """One sentence for each metric that misses its bound; a metric that is undefined misses every bound."""
    return [
        f"{name} on the test split is {value:.4f}; expected {_wanted(bound)}; the model is not registered: "
        "train a better one, or change the gate"
        for name, bound in gate.items()
        if not _meets(value := metrics.get(name, math.nan), bound)
    ]


def check_gate(metrics: Mapping[str, float], gate: Mapping[str, Bound]) -> None:
    """Compare the metrics of the test split with their bounds.

    Raises:
        GateError: names every metric that misses its bound.
    """
    if offences := gate_offences(metrics, gate):
        raise GateError(*offences)


def _meets(value: float, bound: Bound) -> bool:
    above = bound.min is None or value >= bound.min
    below = bound.max is None or value <= bound.max
    return above and below and not math.isnan(value)


def _wanted(bound: Bound) -> str:
    limits = [f"at least {bound.min:g}" if bound.min is not None else ""]
    limits.append(f"at most {bound.max:g}" if bound.max is not None else "")
    return " and ".join(limit for limit in limits if limit)
