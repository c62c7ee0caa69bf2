"""ANYWHERE. Rules that change a value instead of rejecting its row; the same at preparation and at serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.config.data import RuleConfig
from pipeline.config.section import number_text
from pipeline.features.kinds import Array, Kind, Raw, canonical, is_missing
from pipeline.features.texts import Texts, coded


def conditions_of(rule: RuleConfig) -> dict[str, str]:
    """For each condition of a rule what is said of a value that breaks it."""
    texts = {
        "not_null": "is null",
        "min": f"is below {number_text(rule.min or 0)}",
        "max": f"is above {number_text(rule.max or 0)}",
        "allowed": "is not an allowed value",
        "pattern": f"does not match {rule.pattern}",
        "min_length": f"is shorter than {rule.min_length}",
        "max_length": f"is longer than {rule.max_length}",
        "unique": "is not unique",
        "condition": f"fails {rule.condition}",
    }
    return {check: text for check, text in texts.items() if _is_set(getattr(rule, check))}


def _is_set(value: object) -> bool:
    return value is not None and value is not False


@dataclass(frozen=True)
class Repair:
    """What is done with the values of a raw column that break a rule: null, clip or default.

    Attributes:
        name: says column, conditions and action; of the rules of a configuration no two have the same.
    """

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
        stand_in = number_text(rule.default) if isinstance(rule.default, float) else rule.default
        action = f"default {stand_in}" if rule.action == "default" else rule.action
        return cls(
            f"{rule.column} {' or '.join(conditions_of(rule).values())}: {action}",
            rule.column,
            rule.action,
            rule.min,
            rule.max,
            allowed,
            rule.min_length,
            rule.max_length,
            rule.default,
        )

    def apply(self, values: Array | Texts) -> tuple[Array | Texts, int]:
        """The values after the rule, and how many of them it changed; missing ones break no rule."""
        if isinstance(values, Texts) or values.dtype == object:
            return self._of_texts(coded(values))
        broken, stand_in = self._broken(values), self._stand_in("number")
        repaired = np.where(broken, np.clip(values, self.min, self.max) if self.action == "clip" else stand_in, values)
        return repaired, int((broken & (repaired != values)).sum())

    def _of_texts(self, texts: Texts) -> tuple[Texts, int]:
        stand_in = self._stand_in("string")
        changed = texts.each(lambda text: self._breaks(text) and text != stand_in, False, bool)
        codes = np.where(changed, -1 if stand_in is None else len(texts.names), texts.codes)
        return Texts(codes, np.append(texts.names, np.array([stand_in], dtype=object))), int(changed.sum())

    def _stand_in(self, kind: Kind) -> Any:
        return canonical([self.default if self.action == "default" else None], kind)[0]

    def _broken(self, values: Array) -> Array:
        present = ~is_missing(values)
        broken = np.zeros(len(values), dtype=bool)
        if self.min is not None:
            broken |= present & (values < self.min)
        if self.max is not None:
            broken |= present & (values > self.max)
        if self.allowed is not None:
            broken |= present & ~np.isin(values, canonical(self.allowed, "number"))
        return broken

    def _breaks(self, text: str) -> bool:
        too_short = self.min_length is not None and len(text) < self.min_length
        too_long = self.max_length is not None and len(text) > self.max_length
        return too_short or too_long or (self._names is not None and text not in self._names)

    @cached_property
    def _names(self) -> frozenset[str] | None:
        return None if self.allowed is None else frozenset(canonical(self.allowed, "string"))


def repaired(raw: Raw, repairs: Sequence[Repair]) -> tuple[Raw, dict[str, int]]:
    """Raw columns after all repairs, in order, and how many values each of those of the columns at hand changed."""
    columns, changed = dict(raw), {}
    for repair in repairs:
        if repair.column in columns:
            columns[repair.column], changed[repair.name] = repair.apply(columns[repair.column])
    return columns, changed


def repairs_of(rules: Sequence[RuleConfig]) -> tuple[Repair, ...]:
    """The rules that change values instead of rejecting rows; where two would have one name, it says their places."""
    repairs = {place: Repair.of(rule) for place, rule in enumerate(rules) if rule.action != "reject"}
    names = [repair.name for repair in repairs.values()]
    return tuple(
        replace(repair, name=f"{repair.name} (rule {place})") if names.count(repair.name) > 1 else repair
        for place, repair in repairs.items()
    )
