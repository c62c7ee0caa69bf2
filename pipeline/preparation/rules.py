"""DRIVER. Rules as SQL conditions with reasons; those that repair a value are in `pipeline.features.repair`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import RuleConfig
from pipeline.dataset import Accounting
from pipeline.errors import DataError
from pipeline.features.repair import Repair

Checks = Iterable[tuple[Column, str]]


def repairs_of(config: PipelineConfig) -> tuple[Repair, ...]:
    """The rules that change values instead of rejecting rows."""
    return tuple(Repair.of(rule) for rule in config.clean.rules if rule.action != "reject")


def rule_checks(config: PipelineConfig, frame: DataFrame, values: Mapping[str, Column]) -> Checks:
    """The violations of all rejecting rules; null and NaN violate ``not_null`` only."""
    for rule in config.clean.rules:
        if rule.action == "reject":
            yield from _checks(rule, values[rule.column], frame.schema[rule.column].dataType)


def reasons_of(rule: RuleConfig) -> dict[str, str]:
    """For each condition of a rule the reason that it gives."""
    column = rule.column
    texts = {
        "not_null": f"{column} is null",
        "min": f"{column} is below {rule.min:g}" if rule.min is not None else "",
        "max": f"{column} is above {rule.max:g}" if rule.max is not None else "",
        "allowed": f"{column} is not an allowed value",
        "pattern": f"{column} does not match {rule.pattern}",
        "min_length": f"{column} is shorter than {rule.min_length}",
        "max_length": f"{column} is longer than {rule.max_length}",
        "unique": f"{column} is not unique",
        "condition": f"{column} fails {rule.condition}",
    }
    return {name: text for name, text in texts.items() if _is_set(getattr(rule, name))}


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _checks(rule: RuleConfig, value: Column, type_: T.DataType) -> Checks:
    is_fraction = isinstance(type_, (T.FloatType, T.DoubleType, T.StringType))
    present = value.isNotNull() & ~F.isnan(value.cast("double")) if is_fraction else value.isNotNull()
    present = F.coalesce(present, value.isNotNull())
    conditions = {
        "not_null": lambda: ~present,
        "min": lambda: present & (value < F.lit(rule.min)),
        "max": lambda: present & (value > F.lit(rule.max)),
        "allowed": lambda: present & ~value.isin(rule.allowed),
        "pattern": lambda: present & ~value.cast("string").rlike(f"^(?:{rule.pattern})$"),
        "min_length": lambda: present & (F.length(value.cast("string")) < F.lit(rule.min_length)),
        "max_length": lambda: present & (F.length(value.cast("string")) > F.lit(rule.max_length)),
        "unique": lambda: present & (F.count(F.lit(1)).over(Window.partitionBy(value)) > 1),
        "condition": lambda: ~F.coalesce(F.expr(str(rule.condition)), F.lit(True)),
    }
    for name, reason in reasons_of(rule).items():
        yield conditions[name](), reason


def check_rule_limits(accounting: Accounting, config: PipelineConfig) -> None:
    """Refuse data of which one rule rejected too much.

    Raises:
        DataError: every such rule with fraction and limit.
    """
    offences = []
    for rule in config.clean.rules:
        for reason in reasons_of(rule).values():
            fraction = accounting.reasons.get(reason, 0) / max(1, accounting.rows_in)
            if rule.max_fraction is not None and fraction > rule.max_fraction:
                offences.append(
                    f"{reason}: {fraction:.2%} of the rows are rejected; expected at most the rule's max_fraction "
                    f"{rule.max_fraction:g}; mend the data or the rule"
                )
    if offences:
        raise DataError(*offences)
