"""ANYWHERE. Rules that change a value instead of rejecting its row; the same at preparation and at serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.data import RuleConfig
from pipeline.features.kinds import Array, is_missing


@dataclass(frozen=True)
class Repair:
    """What is done with the values of a raw column that break a rule: null, clip or default."""

    name: str
    column: str
    action: str
    min: float | None = None
    max: float | None = None
    allowed: tuple[str | float, ...] | None = None
    min_length: int | None = None
    max_length: int | None = None
    default: float | str | None = None

    @classmethod
    def of(cls, rule: RuleConfig) -> Repair:
        """From a rule whose action is not to reject."""
        allowed = None if rule.allowed is None else tuple(rule.allowed)
        return cls(
            f"{rule.column}: {rule.action}",
            rule.column,
            rule.action,
            rule.min,
            rule.max,
            allowed,
            rule.min_length,
            rule.max_length,
            rule.default,
        )

    def broken(self, values: Array) -> Array:
        """Where the rule is broken; missing values break none."""
        present = ~is_missing(values)
        broken = np.zeros(len(values), dtype=bool)
        if values.dtype == object:
            texts = values[present]
            lengths = np.array([len(text) for text in texts], dtype=np.int64)
            bad = np.zeros(len(texts), dtype=bool)
            if self.min_length is not None:
                bad |= lengths < self.min_length
            if self.max_length is not None:
                bad |= lengths > self.max_length
            if self.allowed is not None:
                allowed = {str(value) for value in self.allowed}
                bad |= np.array([text not in allowed for text in texts], dtype=bool)
            broken[present] = bad
            return broken
        if self.min is not None:
            broken |= present & (values < self.min)
        if self.max is not None:
            broken |= present & (values > self.max)
        if self.allowed is not None:
            broken |= present & ~np.isin(values, np.array([float(value) for value in self.allowed]))
        return broken

    def apply(self, values: Array) -> Array:
        """The values after the rule."""
        if self.action == "clip":
            return np.asarray(np.clip(values, self.min, self.max))
        standing_in = self.default if self.action == "default" else (None if values.dtype == object else np.nan)
        result = values.copy()
        result[self.broken(values)] = standing_in
        return result


def repaired(raw: Mapping[str, Array], repairs: Sequence[Repair]) -> Mapping[str, Array]:
    """Raw columns after all repairs, in order."""
    if not repairs:
        return raw
    changed = dict(raw)
    for repair in repairs:
        if repair.column in changed:
            changed[repair.column] = repair.apply(changed[repair.column])
    return changed
