"""ANYWHERE. Rules that change a value instead of rejecting its row; the same at preparation and at serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.data import RuleConfig
from pipeline.features.kinds import Array, Raw, canonical, is_missing
from pipeline.features.texts import Texts, coded


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

    def broken(self, values: Array | Texts) -> Array:
        """Where the rule is broken; missing values break none."""
        if isinstance(values, Texts) or values.dtype == object:
            return coded(values).each(self._breaks, False, bool)
        present = ~is_missing(values)
        broken = np.zeros(len(values), dtype=bool)
        if self.min is not None:
            broken |= present & (values < self.min)
        if self.max is not None:
            broken |= present & (values > self.max)
        if self.allowed is not None:
            broken |= present & ~np.isin(values, np.array([float(value) for value in self.allowed]))
        return broken

    def _breaks(self, text: str) -> bool:
        too_short = self.min_length is not None and len(text) < self.min_length
        too_long = self.max_length is not None and len(text) > self.max_length
        return too_short or too_long or (self.allowed is not None and text not in map(str, self.allowed))

    def apply(self, values: Array | Texts) -> Array | Texts:
        """The values after the rule."""
        broken = self.broken(values)
        if isinstance(values, Texts) or values.dtype == object:
            texts = coded(values)
            names = np.append(texts.names, canonical([self.default], "string"))
            standing_in = len(texts.names) if self.action == "default" else -1
            return Texts(np.where(broken, standing_in, texts.codes), names)
        if self.action == "clip":
            return np.asarray(np.clip(values, self.min, self.max))
        result = values.copy()
        result[broken] = self.default if self.action == "default" else np.nan
        return result


def repaired(raw: Raw, repairs: Sequence[Repair]) -> Raw:
    """Raw columns after all repairs, in order."""
    if not repairs:
        return raw
    changed = dict(raw)
    for repair in repairs:
        if repair.column in changed:
            changed[repair.column] = repair.apply(changed[repair.column])
    return changed
